//! What people write of capture: Istio's flags and annotations, as text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use sluis_nouns::{CAPTURE_ANNOTATIONS, Cidr};

use super::{Groups, Mode, Ports, Ranges, Servers, Settings};

/// Annotations that begin so and are not known are refused: they would have meant something.
const TRAFFIC: &str = "traffic.sidecar.istio.io/";

/// The sidecar's own ports, which its injector never has captured: health and metrics.
const OWN_PORTS: &str = "15090,15021";

/// Its port for health and merged metrics, unless `status.sidecar.istio.io/port` says otherwise.
const STATUS_PORT: &str = "15020";

/// The longest name of an interface (`IFNAMSIZ`, less its final zero).
const INTERFACE_BYTES_MAX: usize = 15;

/// Settings as text; empty lists mean none, `*` means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `REDIRECT` or `TPROXY`.
    pub mode: String,
    /// Where outbound connections go. Default 15001.
    pub outbound_port: u16,
    /// Where inbound connections go. Default 15006.
    pub inbound_port: u16,
    /// HBONE's port. Default 15008; 0 for none.
    pub tunnel_port: u16,
    /// The mark of TPROXY. Default 1337.
    pub tproxy_mark: u32,
    /// The routing table of TPROXY. Default 133.
    pub tproxy_table: u32,
    /// Users of the sidecar. Default 1337.
    pub proxy_uids: String,
    /// Groups of the sidecar. Default 1337.
    pub proxy_gids: String,
    /// Inbound ports that are captured. Default `*`.
    pub inbound: String,
    /// Inbound ports that are not.
    pub inbound_excluded: String,
    /// Outbound ports that are captured whatever the address.
    pub outbound_ports: String,
    /// Outbound ports that are not.
    pub outbound_excluded: String,
    /// Outbound ranges that are captured. Default `*`.
    pub ranges: String,
    /// Outbound ranges that are not.
    pub ranges_excluded: String,
    /// Interfaces that are left alone.
    pub interfaces_excluded: String,
    /// Interfaces of virtual machines.
    pub virtual_interfaces: String,
    /// Groups whose connections are captured. Default `*`.
    pub groups: String,
    /// Groups whose connections are not.
    pub groups_excluded: String,
    /// Name queries to these servers are captured; `*` for all. Default none.
    pub dns_servers: String,
    /// Where name queries go. Default 15053.
    pub dns_port: u16,
    /// Drop packets that belong to no connection.
    pub drops_invalid: bool,
    /// Refuse what the sidecar cannot take.
    pub is_closed: bool,
    /// Loopback. Default 127.0.0.1/32.
    pub loopback: String,
    /// Rules for IPv6 too. Default true.
    pub ipv6: bool,
}

impl Default for Written {
    fn default() -> Self {
        let all = || "*".to_owned();
        let proxy = || "1337".to_owned();
        Self {
            mode: "REDIRECT".to_owned(),
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            tproxy_mark: 1337,
            tproxy_table: 133,
            proxy_uids: proxy(),
            proxy_gids: proxy(),
            inbound: all(),
            inbound_excluded: String::new(),
            outbound_ports: String::new(),
            outbound_excluded: String::new(),
            ranges: all(),
            ranges_excluded: String::new(),
            interfaces_excluded: String::new(),
            virtual_interfaces: String::new(),
            groups: all(),
            groups_excluded: String::new(),
            dns_servers: String::new(),
            dns_port: 15053,
            drops_invalid: false,
            is_closed: false,
            loopback: "127.0.0.1/32".to_owned(),
            ipv6: true,
        }
    }
}

/// Why a setting is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {value:?} {reason}")]
pub struct SettingError {
    /// The setting.
    pub setting: &'static str,
    /// What it is set to, or the part at fault.
    pub value: String,
    /// What is wrong.
    pub reason: String,
}

impl Written {
    /// What the annotations of a pod or WorkloadEntry say; anything else as Istio's injector has it.
    ///
    /// # Errors
    ///
    /// An annotation about capture that is not known.
    pub fn from_annotations(all: &BTreeMap<String, String>) -> Result<Self, Vec<SettingError>> {
        let unknown: Vec<SettingError> = all
            .keys()
            .filter(|key| key.starts_with(TRAFFIC) && !CAPTURE_ANNOTATIONS.contains(&key.as_str()))
            .map(|key| SettingError {
                setting: "annotations",
                value: key.clone(),
                reason: "is not known".to_owned(),
            })
            .collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let mut written = Self::default();
        let status = all.get("status.sidecar.istio.io/port").map_or(STATUS_PORT, String::as_str);
        let own =
            if status == "0" { OWN_PORTS.to_owned() } else { format!("{OWN_PORTS},{status}") };
        let excluded = all.get("traffic.sidecar.istio.io/excludeInboundPorts");
        written.inbound_excluded = match excluded {
            Some(more) if !more.trim().is_empty() => format!("{own},{more}"),
            _ => own,
        };
        let traffic = |name: &str| all.get(&format!("{TRAFFIC}{name}")).cloned();
        let set = |field: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *field = value;
            }
        };
        set(&mut written.mode, all.get("sidecar.istio.io/interceptionMode").cloned());
        set(&mut written.inbound, traffic("includeInboundPorts"));
        set(&mut written.outbound_ports, traffic("includeOutboundPorts"));
        set(&mut written.outbound_excluded, traffic("excludeOutboundPorts"));
        set(&mut written.ranges, traffic("includeOutboundIPRanges"));
        set(&mut written.ranges_excluded, traffic("excludeOutboundIPRanges"));
        set(&mut written.interfaces_excluded, traffic("excludeInterfaces"));
        set(&mut written.virtual_interfaces, traffic("kubevirtInterfaces"));
        set(
            &mut written.virtual_interfaces,
            all.get("istio.io/reroute-virtual-interfaces").cloned(),
        );
        Ok(written)
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// All faults, each with the setting's name.
    pub fn settings(&self) -> Result<Settings, Vec<SettingError>> {
        let mut faults = Faults::default();
        let settings = Settings {
            outbound_port: faults.port("outbound port", self.outbound_port),
            inbound_port: faults.port("inbound port", self.inbound_port),
            tunnel_port: self.tunnel_port,
            mode: self.mode(&mut faults),
            proxy_uids: faults.list("proxy users", &self.proxy_uids),
            proxy_gids: faults.list("proxy groups", &self.proxy_gids),
            inbound: match self.inbound.trim() {
                "*" => Ports::All,
                text => Ports::Only(faults.list("included inbound ports", text)),
            },
            inbound_excluded: faults.list("excluded inbound ports", &self.inbound_excluded),
            outbound_ports: faults.list("included outbound ports", &self.outbound_ports),
            outbound_excluded: faults.list("excluded outbound ports", &self.outbound_excluded),
            ranges: match self.ranges.trim() {
                "*" => Ranges::All,
                text => Ranges::Only(faults.ranges("included outbound ranges", text)),
            },
            ranges_excluded: faults.ranges("excluded outbound ranges", &self.ranges_excluded),
            interfaces_excluded: faults
                .interfaces("excluded interfaces", &self.interfaces_excluded),
            virtual_interfaces: faults.interfaces("virtual interfaces", &self.virtual_interfaces),
            groups: self.groups(&mut faults),
            dns: match self.dns_servers.trim() {
                "" => None,
                "*" => Some(Servers::All),
                text => Some(Servers::Only(
                    faults.list::<IpAddr>("name servers", text).into_iter().collect(),
                )),
            },
            dns_port: faults.port("port for names", self.dns_port),
            drops_invalid: self.drops_invalid,
            is_closed: self.is_closed,
            loopback: faults.one("loopback", &self.loopback),
            ipv6: self.ipv6,
        };
        if settings.proxy_uids.is_empty() && settings.proxy_gids.is_empty() {
            faults.add("proxy users", "", "names nobody: the sidecar would be sent to itself");
        }
        if faults.0.is_empty() { Ok(settings) } else { Err(faults.0) }
    }

    fn mode(&self, faults: &mut Faults) -> Mode {
        match self.mode.trim() {
            "REDIRECT" | "" => Mode::Redirect,
            "TPROXY" if self.tproxy_mark > 0 && self.tproxy_table > 0 => {
                Mode::Tproxy { mark: self.tproxy_mark, table: self.tproxy_table }
            }
            "TPROXY" => {
                faults.add("interception mode", "TPROXY", "needs a mark and a routing table");
                Mode::Redirect
            }
            "NONE" => {
                faults.add("interception mode", "NONE", "captures nothing: there are no rules");
                Mode::Redirect
            }
            other => {
                faults.add("interception mode", other, "is neither REDIRECT nor TPROXY");
                Mode::Redirect
            }
        }
    }

    fn groups(&self, faults: &mut Faults) -> Groups {
        let excluded = faults.list("excluded owner groups", &self.groups_excluded);
        match self.groups.trim() {
            "*" => Groups::AllBut(excluded),
            text if excluded.is_empty() => Groups::Only(faults.list("included owner groups", text)),
            text => {
                faults.add("included owner groups", text, "cannot be beside excluded ones");
                Groups::AllBut(excluded)
            }
        }
    }
}

/// What is wrong, so far.
#[derive(Default)]
struct Faults(Vec<SettingError>);

impl Faults {
    fn add(&mut self, setting: &'static str, value: &str, reason: &str) {
        let (value, reason) = (value.to_owned(), reason.to_owned());
        self.0.push(SettingError { setting, value, reason });
    }

    fn port(&mut self, setting: &'static str, port: u16) -> u16 {
        if port == 0 {
            self.add(setting, "0", "is no port");
        }
        port
    }

    fn items<'a>(text: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    fn list<T: FromStr + Ord>(&mut self, setting: &'static str, text: &str) -> BTreeSet<T> {
        let mut found = BTreeSet::new();
        for item in Self::items(text) {
            match item.parse() {
                Ok(value) => drop(found.insert(value)),
                Err(_) => self.add(setting, item, "is not understood"),
            }
        }
        found
    }

    fn ranges(&mut self, setting: &'static str, text: &str) -> Vec<Cidr> {
        Self::items(text)
            .filter_map(|item| match item.parse() {
                Ok(range) => Some(range),
                Err(error) => {
                    let error: sluis_nouns::CidrError = error;
                    self.add(setting, item, &error.to_string());
                    None
                }
            })
            .collect()
    }

    fn one(&mut self, setting: &'static str, text: &str) -> Cidr {
        self.ranges(setting, text)
            .first()
            .copied()
            .unwrap_or_else(|| Cidr::host(std::net::Ipv4Addr::LOCALHOST.into()))
    }

    fn interfaces(&mut self, setting: &'static str, text: &str) -> Vec<String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte);
        let mut found = Vec::new();
        for item in Self::items(text) {
            if item.len() > INTERFACE_BYTES_MAX || !item.bytes().all(is_plain) {
                self.add(setting, item, "is no name of an interface");
            } else {
                found.push(item.to_owned());
            }
        }
        found
    }
}
