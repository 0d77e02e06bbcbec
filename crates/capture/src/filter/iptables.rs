//! The rules as input of `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! In each table we have one chain for each hook, and one jump to it. A chain that is declared again is
//! emptied, and each table is taken whole or not at all.

use std::fmt::Write as _;

use super::rules::{Family, Hook, Match, Rule, Rules, Verdict, family};

/// All chains that we may have: table, the kernel's chain, ours.
const CHAINS: [(Hook, &str, &str, &str); 7] = [
    (Hook::RawPrerouting, "raw", "PREROUTING", "SLUIS_PREROUTING"),
    (Hook::RawOutput, "raw", "OUTPUT", "SLUIS_OUTPUT"),
    (Hook::ManglePrerouting, "mangle", "PREROUTING", "SLUIS_PREROUTING"),
    (Hook::MangleOutput, "mangle", "OUTPUT", "SLUIS_OUTPUT"),
    (Hook::NatPrerouting, "nat", "PREROUTING", "SLUIS_PREROUTING"),
    (Hook::NatOutput, "nat", "OUTPUT", "SLUIS_OUTPUT"),
    (Hook::FilterOutput, "filter", "OUTPUT", "SLUIS_OUTPUT"),
];

const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// The input that replaces our rules of one family. `saved` is what `iptables-save` says now: jumps and
/// chains that are there already, and not wanted any more, are taken away.
pub(super) fn script(rules: Option<&Rules>, wanted: Family, saved: &str) -> String {
    let mut text = String::new();
    for table in TABLES {
        let body = of_table(rules, wanted, table, section(saved, table));
        if !body.is_empty() {
            let _ = writeln!(text, "*{table}\n{body}COMMIT");
        }
    }
    text
}

fn of_table(rules: Option<&Rules>, wanted: Family, table: &str, saved: &str) -> String {
    let (mut declared, mut jumps, mut lines, mut gone) =
        (String::new(), String::new(), String::new(), String::new());
    for (hook, _, kernels, own) in CHAINS.iter().filter(|(_, of, _, _)| *of == table) {
        let jump = format!("{kernels} -j {own}");
        let chain = rules.and_then(|rules| rules.chains.iter().find(|(of, _)| of == hook));
        let was_there = saved.lines().any(|line| line.starts_with(&format!(":{own} ")));
        if chain.is_none() && !was_there {
            continue;
        }
        let _ = writeln!(declared, ":{own} - [0:0]");
        for _ in saved.lines().filter(|line| line.trim_end() == format!("-A {jump}")) {
            let _ = writeln!(jumps, "-D {jump}");
        }
        match chain {
            Some((_, chain)) => {
                let _ = writeln!(jumps, "-A {jump}");
                for rule in chain {
                    for arguments in arguments(rule, wanted) {
                        let _ = writeln!(lines, "-A {own}{arguments}");
                    }
                }
            }
            None => {
                let _ = writeln!(gone, "-X {own}");
            }
        }
    }
    format!("{declared}{jumps}{lines}{gone}")
}

/// The part of `iptables-save`'s output that is about one table.
fn section<'a>(saved: &'a str, table: &str) -> &'a str {
    let head = format!("*{table}\n");
    match saved.split_once(&head) {
        Some((_, rest)) => rest.split_once("COMMIT").map_or(rest, |(section, _)| section),
        None => "",
    }
}

/// The arguments of a rule; none for a rule of the other family.
fn arguments(rule: &Rule, wanted: Family) -> Vec<String> {
    if family(rule).is_some_and(|family| family != wanted) {
        return Vec::new();
    }
    let mut text = String::new();
    let protocol = rule.matches.iter().find_map(|one| match one {
        Match::Tcp => Some("tcp"),
        Match::Udp => Some("udp"),
        Match::Neighbours => Some("icmpv6"),
        _ => None,
    });
    if let Some(protocol) = protocol {
        let _ = write!(text, " -p {protocol}");
    }
    if rule.matches.contains(&Match::Neighbours) {
        // The kernel's numbers of router and neighbour discovery and of multicast reports.
        return ["133", "134", "135", "136", "131", "143"]
            .map(|kind| format!("{text} --icmpv6-type {kind}{}", target(&rule.verdict, wanted)[0]))
            .to_vec();
    }
    for one in &rule.matches {
        text.push_str(&condition(one));
    }
    target(&rule.verdict, wanted).into_iter().map(|target| format!("{text}{target}")).collect()
}

fn condition(one: &Match) -> String {
    match one {
        Match::Tcp | Match::Udp | Match::Neighbours => String::new(),
        Match::From(name) => format!(" -i {name}"),
        Match::Out(name) => format!(" -o {name}"),
        Match::Source(range) => format!(" -s {range}"),
        Match::Destination(range) => format!(" -d {range}"),
        Match::NotDestination(range) => format!(" ! -d {range}"),
        Match::ToPort(port) => format!(" --dport {port}"),
        Match::NotToPorts(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!(" -m multiport ! --dports {}", ports.join(","))
        }
        Match::FromPort(port) => format!(" --sport {port}"),
        Match::User(id) => format!(" -m owner --uid-owner {id}"),
        Match::NotUser(id) => format!(" -m owner ! --uid-owner {id}"),
        Match::Group(id) => format!(" -m owner --gid-owner {id}"),
        Match::NotGroup(id) => format!(" -m owner ! --gid-owner {id}"),
        Match::Mark(mark) => format!(" -m mark --mark {mark}"),
        Match::NotMark(mark) => format!(" -m mark ! --mark {mark}"),
        Match::ConnectionMark(mark) => format!(" -m connmark --mark {mark}"),
        Match::Established => " -m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
        Match::Invalid => " -m conntrack --ctstate INVALID".to_owned(),
    }
}

/// Two rules where iptables has no verdict that does both.
fn target(verdict: &Verdict, wanted: Family) -> Vec<String> {
    let one = |text: String| vec![text];
    match verdict {
        Verdict::Return => one(" -j RETURN".to_owned()),
        Verdict::Drop => one(" -j DROP".to_owned()),
        Verdict::Reject => {
            let with = match wanted {
                Family::V4 => "icmp-admin-prohibited",
                Family::V6 => "icmp6-adm-prohibited",
            };
            one(format!(" -j REJECT --reject-with {with}"))
        }
        Verdict::Redirect(port) => one(format!(" -j REDIRECT --to-ports {port}")),
        Verdict::Tproxy { port, mark } => {
            one(format!(" -j TPROXY --on-port {port} --tproxy-mark {mark}/0xffffffff"))
        }
        Verdict::Mark(mark) => one(format!(" -j MARK --set-mark {mark}")),
        Verdict::MarkAndAccept(mark) => {
            vec![format!(" -j MARK --set-mark {mark}"), " -j ACCEPT".to_owned()]
        }
        Verdict::SaveMark => one(" -j CONNMARK --save-mark".to_owned()),
        Verdict::RestoreMark => one(" -j CONNMARK --restore-mark".to_owned()),
        Verdict::Zone(zone) => one(format!(" -j CT --zone {zone}")),
    }
}
