//! Reads PeerAuthentication.

use std::collections::BTreeMap;

use super::forms::{read_fields, read_names};
use super::shared::LabelSelector;
use crate::kinds::peer_authentication::{MtlsMode, PeerAuthentication};
use crate::value::Fields;

read_fields! {
    PeerAuthentication => peer_authentication,
    Mtls => mtls,
}

read_names! {
    MtlsMode {
        "UNSET" => MtlsMode::Unset,
        "DISABLE" => MtlsMode::Disable,
        "PERMISSIVE" => MtlsMode::Permissive,
        "STRICT" => MtlsMode::Strict,
    }
}

/// `{mode: …}`.
#[derive(Default)]
struct Mtls(MtlsMode);

fn mtls(fields: &mut Fields<'_, '_>) -> Option<Mtls> {
    Some(Mtls(fields.or_default("mode")))
}

fn peer_authentication(fields: &mut Fields<'_, '_>) -> Option<PeerAuthentication> {
    let selector = fields.opt("selector").map(|LabelSelector(labels)| labels);
    let selector = selector.filter(|labels| !labels.is_empty());
    let Mtls(mtls) = fields.or_default("mtls");
    let port_level: BTreeMap<String, Mtls> = fields.or_default("portLevelMtls");
    if let Some(value) = fields.get("portLevelMtls") {
        if port_level.is_empty() {
            value.fault::<()>("at least one port is expected here");
        }
        if selector.is_none() {
            value.fault::<()>("portLevelMtls needs a selector with labels");
        }
        for (port, value) in value.entries().unwrap_or_default() {
            if number(port).is_none() {
                value.fault::<()>(format!("{port:?} is not a port: it must be 1 to 65535"));
            }
        }
    }
    let port_level = port_level
        .into_iter()
        .filter_map(|(port, Mtls(mode))| Some((number(&port)?, mode)))
        .collect();
    Some(PeerAuthentication { selector, mtls, port_level })
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}
