//! The firewall as text for nft.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use sluis_nouns::Cidr;

use super::{Allowed, Firewall, TABLE, Transport, Workload};

/// What every chain ends with: what is refused is counted, and the caller learns of it at once.
const REFUSE: &str = "counter reject with icmpx admin-prohibited";

/// Neighbour discovery (RFC 4861), without which IPv6 has no links.
const NEIGHBOURS: &str = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
                          nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept";

pub(super) fn router(firewall: &Firewall, is_strict: bool) -> String {
    let mut text = head(firewall);
    text.push_str(
        "  chain forward {\n    type filter hook forward priority filter; policy drop;\n",
    );
    text.push_str("    ct state established,related accept\n");
    let _ = writeln!(text, "    {NEIGHBOURS}");
    let senders = numbered(firewall, |_| true);
    text.push_str(&map(&senders, "saddr", "jump from"));
    let _ = writeln!(text, "    {REFUSE}\n  }}");
    for (number, workload) in firewall.workloads.iter().enumerate() {
        from(&mut text, firewall, number, workload, is_strict);
    }
    to(&mut text, firewall, |_| true);
    text.push_str("}\n");
    text
}

pub(super) fn host(firewall: &Firewall, number: usize) -> String {
    let mut text = head(firewall);
    let workload = &firewall.workloads[number];
    text.push_str("  chain output {\n    type filter hook output priority filter; policy drop;\n");
    text.push_str(
        "    oifname \"lo\" accept\n    ip daddr 127.0.0.0/8 accept\n    ip6 daddr ::1 accept\n",
    );
    text.push_str("    ct state established,related accept\n");
    let _ = writeln!(text, "    {NEIGHBOURS}\n    goto from_{number}\n  }}");
    from(&mut text, firewall, number, workload, false);
    // What others let in is their own hosts' business.
    text.push_str("  chain to {\n    accept\n  }\n");
    // Before capture rewrites the port: policies speak of the workload's own.
    text.push_str(
        "  chain input {\n    type filter hook prerouting priority mangle; policy drop;\n",
    );
    text.push_str("    iifname \"lo\" accept\n    ct state established,related accept\n");
    let _ = writeln!(text, "    {NEIGHBOURS}");
    match &workload.ingress {
        None => text.push_str("    accept\n  }\n"),
        Some(rules) => {
            receive(&mut text, rules);
            text.push_str("  }\n");
        }
    }
    text.push_str("}\n");
    text
}

fn head(firewall: &Firewall) -> String {
    let mut text = Firewall::removal();
    let _ = writeln!(text, "table inet {TABLE} {{");
    let inside = firewall.inside();
    for (name, kind, is_v4) in [("inside4", "ipv4_addr", true), ("inside6", "ipv6_addr", false)] {
        let ranges: Vec<String> = inside
            .iter()
            .filter(|range| range.addr().is_ipv4() == is_v4)
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(text, "  set {name} {{ type {kind}; flags interval; auto-merge");
        if !ranges.is_empty() {
            let _ = writeln!(text, "    elements = {{ {} }}", ranges.join(", "));
        }
        text.push_str("  }\n");
    }
    text
}

/// Addresses of some workloads, with the number of each.
fn numbered(firewall: &Firewall, which: impl Fn(&Workload) -> bool) -> Vec<(IpAddr, usize)> {
    let mut seen = BTreeSet::new();
    let all = firewall.workloads.iter().enumerate().filter(|(_, one)| which(one));
    all.flat_map(|(number, one)| one.addresses.iter().map(move |address| (*address, number)))
        .filter(|(address, _)| seen.insert(*address))
        .collect()
}

/// A jump by address.
fn map(all: &[(IpAddr, usize)], side: &str, to: &str) -> String {
    let mut text = String::new();
    for (family, is_v4) in [("ip", true), ("ip6", false)] {
        let entries: Vec<String> = all
            .iter()
            .filter(|(address, _)| address.is_ipv4() == is_v4)
            .map(|(address, number)| format!("{address} : {to}_{number}"))
            .collect();
        if !entries.is_empty() {
            let _ = writeln!(text, "    {family} {side} vmap {{ {} }}", entries.join(", "));
        }
    }
    text
}

/// What one workload may call.
fn from(text: &mut String, firewall: &Firewall, number: usize, one: &Workload, is_strict: bool) {
    let _ = writeln!(text, "  chain from_{number} {{ # {}", one.name);
    for control in &firewall.control {
        let family = if control.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(
            text,
            "    {family} daddr {} tcp dport {} accept",
            control.ip(),
            control.port()
        );
    }
    for server in &firewall.names {
        let family = if server.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(
            text,
            "    {family} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept"
        );
    }
    if is_strict && !one.is_gateway {
        let _ =
            writeln!(text, "    ip daddr != @inside4 {REFUSE}\n    ip6 daddr != @inside6 {REFUSE}");
    }
    match (&one.egress, one.is_gateway) {
        (None, true) => text.push_str("    goto to\n"),
        (None, false) => {
            let _ = writeln!(
                text,
                "    ip daddr @inside4 goto to\n    ip6 daddr @inside6 goto to\n    {REFUSE}"
            );
        }
        (Some(rules), _) => {
            for rule in rules {
                for line in lines(rule, "daddr") {
                    let _ = writeln!(text, "    {line} goto to # {}", rule.why);
                }
            }
            let _ = writeln!(text, "    {REFUSE}");
        }
    }
    text.push_str("  }\n");
}

/// Who may be called by whom.
fn to(text: &mut String, firewall: &Firewall, which: impl Fn(&Workload) -> bool) {
    let isolated = |one: &Workload| one.ingress.is_some() && which(one);
    let _ = writeln!(
        text,
        "  chain to {{\n{}    accept\n  }}",
        map(&numbered(firewall, isolated), "daddr", "goto to")
    );
    for (number, one) in firewall.workloads.iter().enumerate().filter(|(_, one)| isolated(one)) {
        let _ = writeln!(text, "  chain to_{number} {{ # {}", one.name);
        receive(text, one.ingress.as_deref().unwrap_or_default());
        text.push_str("  }\n");
    }
}

fn receive(text: &mut String, rules: &[Allowed]) {
    for rule in rules {
        for line in lines(rule, "saddr") {
            let _ = writeln!(text, "    {line} accept # {}", rule.why);
        }
    }
    let _ = writeln!(text, "    {REFUSE}");
}

/// The conditions of one permission: one line for each family of addresses, exception and protocol.
fn lines(rule: &Allowed, side: &str) -> Vec<String> {
    let addresses = match &rule.ranges {
        // No condition, but a line must not begin with a space.
        None => vec![String::new()],
        Some(ranges) => ranges_of(ranges, side),
    };
    let ports = match &rule.ports {
        None => vec![String::new()],
        Some(ports) => ports_of(ports),
    };
    let mut all = Vec::new();
    for address in &addresses {
        for port in &ports {
            let words: Vec<&str> = [address.as_str(), port.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            all.push(words.join(" "));
        }
    }
    all
}

fn ranges_of(ranges: &[(Cidr, Vec<Cidr>)], side: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (family, is_v4) in [("ip", true), ("ip6", false)] {
        let of_family = |range: &&(Cidr, Vec<Cidr>)| range.0.addr().is_ipv4() == is_v4;
        let plain: BTreeSet<String> = ranges
            .iter()
            .filter(of_family)
            .filter(|(_, except)| except.is_empty())
            .map(|(range, _)| network(range))
            .collect();
        if !plain.is_empty() {
            let plain: Vec<String> = plain.into_iter().collect();
            all.push(format!("{family} {side} {{ {} }}", plain.join(", ")));
        }
        for (range, except) in
            ranges.iter().filter(of_family).filter(|(_, except)| !except.is_empty())
        {
            let except: Vec<String> = except.iter().map(network).collect();
            let range = network(range);
            all.push(format!(
                "{family} {side} {range} {family} {side} != {{ {} }}",
                except.join(", ")
            ));
        }
    }
    all
}

/// A range as nft prints it: all addresses of a family are `0.0.0.0/0`, which sets do not take.
fn network(range: &Cidr) -> String {
    match (range.prefix(), range.addr().is_ipv4()) {
        (0, true) => "0.0.0.0-255.255.255.255".to_owned(),
        (0, false) => "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".to_owned(),
        _ => range.to_string(),
    }
}

fn ports_of(ports: &[(Transport, u16, u16)]) -> Vec<String> {
    let mut all = Vec::new();
    for (transport, name) in
        [(Transport::Tcp, "tcp"), (Transport::Udp, "udp"), (Transport::Sctp, "sctp")]
    {
        let of: Vec<&(Transport, u16, u16)> =
            ports.iter().filter(|port| port.0 == transport).collect();
        if of.iter().any(|(_, first, last)| *first <= 1 && *last == u16::MAX) {
            all.push(format!("meta l4proto {name}"));
        } else if !of.is_empty() {
            let ranges: BTreeSet<(u16, u16)> = of.iter().map(|port| (port.1, port.2)).collect();
            let ranges: Vec<String> = merged(&ranges)
                .into_iter()
                .map(
                    |(first, last)| {
                        if first == last { first.to_string() } else { format!("{first}-{last}") }
                    },
                )
                .collect();
            all.push(format!("{name} dport {{ {} }}", ranges.join(", ")));
        }
    }
    all
}

/// Ranges without overlaps, which a set does not take.
fn merged(ranges: &BTreeSet<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match all.last_mut() {
            Some(before) if *first <= before.1 => before.1 = before.1.max(*last),
            _ => all.push((*first, *last)),
        }
    }
    all
}
