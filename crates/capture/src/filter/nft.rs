//! The rules as a script for `nft -f`, which the kernel takes whole or not at all.

use std::fmt::Write as _;

use sluis_nouns::Cidr;

use super::rules::{Family, Hook, Match, Rule, Rules, Verdict, family};

/// The table: everything in it is ours.
pub(super) const TABLE: &str = "sluis_capture";

/// The script that replaces our table. `add` before `delete` because deleting what is not there fails.
pub(super) fn script(rules: &Rules) -> String {
    let mut text = removal();
    let _ = writeln!(text, "table inet {TABLE} {{");
    for (hook, chain) in &rules.chains {
        let (name, base) = base(*hook);
        let _ = writeln!(text, "  chain {name} {{\n    {base}");
        for rule in chain {
            let _ = writeln!(text, "    {}", line(rule));
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

/// The script that removes our table, also where it is not.
pub(super) fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// A chain's name, and its place in the kernel. The priorities are those of iptables' tables.
fn base(hook: Hook) -> (&'static str, &'static str) {
    match hook {
        Hook::RawPrerouting => ("raw_prerouting", "type filter hook prerouting priority raw;"),
        Hook::RawOutput => ("raw_output", "type filter hook output priority raw;"),
        Hook::ManglePrerouting => {
            ("mangle_prerouting", "type filter hook prerouting priority mangle;")
        }
        Hook::MangleOutput => ("mangle_output", "type route hook output priority mangle;"),
        Hook::NatPrerouting => ("nat_prerouting", "type nat hook prerouting priority dstnat;"),
        Hook::NatOutput => ("nat_output", "type nat hook output priority -100;"),
        Hook::FilterOutput => ("filter_output", "type filter hook output priority filter;"),
    }
}

fn line(rule: &Rule) -> String {
    let is_tcp = rule.matches.contains(&Match::Tcp);
    let mut words: Vec<String> = Vec::new();
    for one in &rule.matches {
        words.extend(condition(one, is_tcp));
    }
    words.push(verdict(&rule.verdict, family(rule)));
    words.join(" ")
}

fn address(side: &str, range: &Cidr, not: &str) -> String {
    let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
    format!("{family} {side} {not}{range}")
}

fn condition(one: &Match, is_tcp: bool) -> Option<String> {
    let protocol = if is_tcp { "tcp" } else { "udp" };
    Some(match one {
        Match::Tcp => "meta l4proto tcp".to_owned(),
        Match::Udp => "meta l4proto udp".to_owned(),
        Match::From(name) => format!("iifname \"{name}\""),
        Match::Out(name) => format!("oifname \"{name}\""),
        Match::Source(range) => address("saddr", range, ""),
        Match::Destination(range) => address("daddr", range, ""),
        Match::NotDestination(range) => address("daddr", range, "!= "),
        Match::ToPort(port) => format!("{protocol} dport {port}"),
        Match::NotToPorts(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!("{protocol} dport != {{ {} }}", ports.join(", "))
        }
        Match::FromPort(port) => format!("{protocol} sport {port}"),
        Match::User(id) => format!("meta skuid {id}"),
        Match::NotUser(id) => format!("meta skuid != {id}"),
        Match::Group(id) => format!("meta skgid {id}"),
        Match::NotGroup(id) => format!("meta skgid != {id}"),
        Match::Mark(mark) => format!("meta mark {mark}"),
        Match::NotMark(mark) => format!("meta mark != {mark}"),
        Match::ConnectionMark(mark) => format!("ct mark {mark}"),
        Match::Established => "ct state established,related".to_owned(),
        Match::Invalid => "ct state invalid".to_owned(),
        Match::Neighbours => "icmpv6 type { nd-router-solicit, nd-router-advert, \
                              nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, \
                              mld2-listener-report }"
            .to_owned(),
    })
}

fn verdict(verdict: &Verdict, family: Option<Family>) -> String {
    match verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Reject => "counter reject with icmpx admin-prohibited".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Tproxy { port, mark } => {
            let family = match family {
                Some(Family::V6) => "ip6 ",
                Some(Family::V4) => "ip ",
                None => "",
            };
            format!("tproxy {family}to :{port} meta mark set {mark} accept")
        }
        Verdict::Mark(mark) => format!("meta mark set {mark}"),
        Verdict::MarkAndAccept(mark) => format!("meta mark set {mark} accept"),
        Verdict::SaveMark => "ct mark set meta mark".to_owned(),
        Verdict::RestoreMark => "meta mark set ct mark".to_owned(),
        Verdict::Zone(zone) => format!("ct zone set {zone}"),
    }
}
