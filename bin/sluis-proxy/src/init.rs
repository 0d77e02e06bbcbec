//! `sluis-proxy init`: the packet filter of a pod, with the arguments of Istio's init container.
//!
//! In:    arguments, as `istio-iptables` takes them.
//! Out:   rules in force; with `--dry-run`, on standard output.
//! Never: leaves out what an argument says: one that cannot be obeyed is refused.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, ValueEnum};
use sluis_capture::filter::{self, Backend, Place, Rules, Written};

/// Which of the kernel's two interfaces is used.
#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// nft where it is installed, else iptables.
    Auto,
    /// nft.
    Nft,
    /// iptables-restore and ip6tables-restore.
    Iptables,
}

/// `sluis-proxy init`.
#[derive(Args)]
pub(crate) struct Init {
    /// The port to which outbound connections are redirected.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 15001)]
    envoy_port: u16,

    /// The port to which inbound connections are redirected.
    #[arg(short = 'z', long, value_name = "PORT", default_value_t = 15006)]
    inbound_capture_port: u16,

    /// The sidecar's port for HBONE, which is never captured; 0 for none.
    #[arg(short = 'e', long, value_name = "PORT", default_value_t = 15008)]
    inbound_tunnel_port: u16,

    /// Users whose connections are not captured: the sidecar's.
    #[arg(short = 'u', long, value_name = "UIDS", default_value = "1337")]
    proxy_uid: String,

    /// Groups whose connections are not captured: the sidecar's.
    #[arg(short = 'g', long, value_name = "GIDS", default_value = "1337")]
    proxy_gid: String,

    /// How inbound connections are captured: REDIRECT or TPROXY.
    #[arg(short = 'm', long, value_name = "MODE", default_value = "REDIRECT")]
    istio_inbound_interception_mode: String,

    /// The mark of packets for the sidecar (TPROXY).
    #[arg(short = 't', long, value_name = "MARK", default_value_t = 1337)]
    istio_inbound_tproxy_mark: u32,

    /// The routing table of such packets (TPROXY).
    #[arg(short = 'r', long, value_name = "TABLE", default_value_t = 133)]
    istio_inbound_tproxy_route_table: u32,

    /// Inbound ports that are captured: a list, or * for all.
    #[arg(short = 'b', long, value_name = "PORTS", default_value = "*")]
    istio_inbound_ports: String,

    /// Inbound ports that are not captured; only where all others are.
    #[arg(short = 'd', long, value_name = "PORTS", default_value = "")]
    istio_local_exclude_ports: String,

    /// Outbound ranges that are captured: a list, or * for all.
    #[arg(short = 'i', long, value_name = "RANGES", default_value = "*")]
    istio_service_cidr: String,

    /// Outbound ranges that are not captured; only where all others are.
    #[arg(short = 'x', long, value_name = "RANGES", default_value = "")]
    istio_service_exclude_cidr: String,

    /// Outbound ports that are captured whatever the address.
    #[arg(short = 'q', long, value_name = "PORTS", default_value = "")]
    istio_outbound_ports: String,

    /// Outbound ports that are not captured.
    #[arg(short = 'o', long, value_name = "PORTS", default_value = "")]
    istio_local_outbound_ports_exclude: String,

    /// Interfaces of virtual machines, whose inbound packets are their outbound traffic.
    #[arg(
        short = 'k',
        long,
        value_name = "NAMES",
        default_value = "",
        alias = "kube-virt-interfaces"
    )]
    reroute_virtual_interfaces: String,

    /// Interfaces that are left alone.
    #[arg(short = 'c', long, value_name = "NAMES", default_value = "")]
    istio_exclude_interfaces: String,

    /// Groups whose connections are captured: a list, or * for all.
    #[arg(long, value_name = "GIDS", default_value = "*", env = "ISTIO_OUTBOUND_OWNER_GROUPS")]
    outbound_owner_groups: String,

    /// Groups whose connections are not captured.
    #[arg(
        long,
        value_name = "GIDS",
        default_value = "",
        env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
    )]
    outbound_owner_groups_exclude: String,

    /// Capture name queries to the servers of /etc/resolv.conf.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    redirect_dns: bool,

    /// Capture name queries to any server.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    capture_all_dns: bool,

    /// Drop packets that belong to no connection.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, env = "INVALID_DROP")]
    drop_invalid: bool,

    /// Rules for IPv6 too; this is the default.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    dual_stack: bool,

    /// The addresses of IPv4's loopback at which the workload calls itself.
    #[arg(long, value_name = "RANGE", default_value = "127.0.0.1/32")]
    host_ipv4_loopback_cidr: String,

    /// Refuse all that the sidecar cannot take: UDP, ICMP, other protocols. Ours, not Istio's.
    #[arg(long)]
    closed: bool,

    /// Print the rules, and load none.
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Take our rules out.
    #[arg(long, conflicts_with = "dry_run")]
    cleanup_only: bool,

    /// The network namespace, by path [default: the caller's own].
    #[arg(long, value_name = "PATH", visible_alias = "network-namespace")]
    netns: Option<PathBuf>,

    /// By which program.
    #[arg(long, value_enum, default_value = "auto")]
    backend: Choice,

    /// Use nft, as Istio's flag of this name.
    #[arg(long)]
    native_nftables: bool,
}

impl Init {
    /// Does what the arguments say.
    ///
    /// # Errors
    ///
    /// An argument that is not understood, or what the programs say.
    pub(crate) fn run(self) -> Result<()> {
        let place = self.netns.clone().map_or(Place::Here, Place::At);
        if self.cleanup_only {
            return Ok(filter::remove(&place)?);
        }
        let backend = match self.backend {
            _ if self.native_nftables => Backend::Nft,
            Choice::Auto => Backend::found()?,
            Choice::Nft => Backend::Nft,
            Choice::Iptables => Backend::Iptables,
        };
        let is_dry = self.dry_run;
        let rules = match self.written()?.settings() {
            Ok(settings) => Rules::of(&settings),
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                bail!("{}", faults.join("; "));
            }
        };
        if is_dry {
            let text = filter::script(backend, &rules);
            return Ok(std::io::stdout().write_all(text.as_bytes())?);
        }
        Ok(filter::apply(&place, backend, &rules)?)
    }

    fn written(self) -> Result<Written> {
        let dns_servers = match (self.capture_all_dns, self.redirect_dns) {
            (true, _) => "*".to_owned(),
            (false, true) => name_servers(&std::fs::read_to_string("/etc/resolv.conf")?)?,
            (false, false) => String::new(),
        };
        Ok(Written {
            mode: self.istio_inbound_interception_mode,
            outbound_port: self.envoy_port,
            inbound_port: self.inbound_capture_port,
            tunnel_port: self.inbound_tunnel_port,
            tproxy_mark: self.istio_inbound_tproxy_mark,
            tproxy_table: self.istio_inbound_tproxy_route_table,
            proxy_uids: self.proxy_uid,
            proxy_gids: self.proxy_gid,
            inbound: self.istio_inbound_ports,
            inbound_excluded: self.istio_local_exclude_ports,
            outbound_ports: self.istio_outbound_ports,
            outbound_excluded: self.istio_local_outbound_ports_exclude,
            ranges: self.istio_service_cidr,
            ranges_excluded: self.istio_service_exclude_cidr,
            interfaces_excluded: self.istio_exclude_interfaces,
            virtual_interfaces: self.reroute_virtual_interfaces,
            groups: self.outbound_owner_groups,
            groups_excluded: self.outbound_owner_groups_exclude,
            dns_servers,
            drops_invalid: self.drop_invalid,
            is_closed: self.closed,
            loopback: self.host_ipv4_loopback_cidr,
            ipv6: self.dual_stack,
            ..Written::default()
        })
    }
}

/// The servers that a resolver of this machine asks (resolv.conf(5)).
fn name_servers(text: &str) -> Result<String> {
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(|rest| rest.trim().split('%').next().unwrap_or_default())
        .filter(|server| !server.is_empty())
        .collect();
    if servers.is_empty() {
        bail!("/etc/resolv.conf names no server: say --capture-all-dns to capture all queries");
    }
    Ok(servers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_those_of_resolv_conf() {
        let text = "search a.b\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\n";
        assert_eq!(name_servers(text).unwrap(), "10.96.0.10,fe80::1");
        assert!(name_servers("options edns0\n").is_err());
    }
}
