//! The rules of capture, in the order in which the kernel looks at them. Pure.
//!
//! The order and the exceptions are those of Istio's `istio-iptables`; what is ours is said at the rule.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluis_nouns::Cidr;

use super::{Groups, Mode, Ports, Ranges, Servers, Settings};

/// From where the sidecar calls the workload of an inbound connection that no port claims (Istio's
/// `InboundPassthroughCluster`).
const PASSTHROUGH_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const PASSTHROUGH_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// The mark of packets of the sidecar to the workload's own address (TPROXY only).
const OUTBOUND_MARK: u32 = 1338;

/// All addresses that never leave a machine (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
const LOOPBACK_V4: &str = "127.0.0.0/8";
const LOOPBACK_V6: &str = "::1/128";

/// The port of DNS.
const DNS: u16 = 53;

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    RawPrerouting,
    RawOutput,
    ManglePrerouting,
    MangleOutput,
    NatPrerouting,
    NatOutput,
    FilterOutput,
}

/// What a packet must be for a rule to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Tcp,
    Udp,
    From(String),
    Out(String),
    Source(Cidr),
    Destination(Cidr),
    NotDestination(Cidr),
    ToPort(u16),
    NotToPorts(Vec<u16>),
    FromPort(u16),
    User(u32),
    NotUser(u32),
    Group(u32),
    NotGroup(u32),
    Mark(u32),
    NotMark(u32),
    ConnectionMark(u32),
    Established,
    Invalid,
    /// Neighbour discovery (RFC 4861), without which IPv6 has no links.
    Neighbours,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Return,
    Drop,
    Reject,
    Redirect(u16),
    Tproxy { port: u16, mark: u32 },
    Mark(u32),
    MarkAndAccept(u32),
    SaveMark,
    RestoreMark,
    Zone(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
}

/// All rules of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The chains that have rules.
    pub(super) chains: Vec<(Hook, Vec<Rule>)>,
    /// Whether IPv6 is among them.
    pub(super) ipv6: bool,
    /// The mark and the routing table of TPROXY.
    pub(super) routing: Option<(u32, u32)>,
}

impl Rules {
    /// The rules that carry the settings out.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let mut chains = vec![
            (Hook::RawPrerouting, zones_in(settings)),
            (Hook::RawOutput, zones_out(settings)),
            (Hook::ManglePrerouting, mangle_in(settings)),
            (Hook::MangleOutput, mangle_out(settings)),
            (Hook::NatPrerouting, nat_in(settings)),
            (Hook::NatOutput, nat_out(settings)),
            (Hook::FilterOutput, closed(settings)),
        ];
        chains.retain(|(_, rules)| !rules.is_empty());
        if !settings.ipv6 {
            for (_, rules) in &mut chains {
                rules.retain(|rule| family(rule) != Some(Family::V6));
            }
        }
        let routing = match settings.mode {
            Mode::Tproxy { mark, table } => Some((mark, table)),
            Mode::Redirect => None,
        };
        Self { chains, ipv6: settings.ipv6, routing }
    }

    /// Whether a chain is empty everywhere: nothing is captured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }
}

/// Of which addresses a rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The one family that a rule is for; `None` for both.
pub(super) fn family(rule: &Rule) -> Option<Family> {
    rule.matches.iter().find_map(|one| match one {
        Match::Source(range) | Match::Destination(range) | Match::NotDestination(range) => {
            Some(if range.addr().is_ipv4() { Family::V4 } else { Family::V6 })
        }
        Match::Neighbours => Some(Family::V6),
        _ => None,
    })
}

fn rule(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Rule {
    Rule { matches: matches.into_iter().collect(), verdict }
}

fn lo_in() -> Match {
    Match::From("lo".to_owned())
}

fn lo_out() -> Match {
    Match::Out("lo".to_owned())
}

/// The addresses of loopback that the workload calls its own servers at.
fn loopbacks(settings: &Settings) -> [Cidr; 2] {
    [settings.loopback, Cidr::host(Ipv6Addr::LOCALHOST.into())]
}

fn passthrough() -> [Cidr; 2] {
    [Cidr::host(PASSTHROUGH_V4), Cidr::host(PASSTHROUGH_V6)]
}

/// The sidecar's own user and group, as matches.
fn owners(settings: &Settings) -> impl Iterator<Item = (Match, Match)> + '_ {
    let users = settings.proxy_uids.iter().map(|id| (Match::User(*id), Match::NotUser(*id)));
    let groups = settings.proxy_gids.iter().map(|id| (Match::Group(*id), Match::NotGroup(*id)));
    users.chain(groups)
}

/// Replies of name servers belong to the sidecar's queries (zone 1), so that they are not taken for
/// replies to the workload's, whose queries were redirected (zone 2): the same addresses and ports.
fn zones_in(settings: &Settings) -> Vec<Rule> {
    let query = |server: Option<IpAddr>| {
        let from = server.map(|ip| Match::Source(Cidr::host(ip)));
        rule([Match::Udp, Match::FromPort(DNS)].into_iter().chain(from), Verdict::Zone(1))
    };
    servers(settings).into_iter().map(query).collect()
}

fn zones_out(settings: &Settings) -> Vec<Rule> {
    let Some(_) = &settings.dns else { return Vec::new() };
    let mut rules = Vec::new();
    for (own, _) in owners(settings) {
        rules.push(rule([Match::Udp, Match::ToPort(DNS), own.clone()], Verdict::Zone(1)));
        rules.push(rule([Match::Udp, Match::FromPort(settings.dns_port), own], Verdict::Zone(2)));
    }
    for server in servers(settings) {
        let to = server.map(|ip| Match::Destination(Cidr::host(ip)));
        // In nftables a later statement cannot set the zone again, so the sidecar is left out here.
        let others = owners(settings).map(|(_, not)| not);
        let matches = [Match::Udp, Match::ToPort(DNS)].into_iter().chain(to).chain(others);
        rules.push(rule(matches, Verdict::Zone(2)));
    }
    rules
}

/// The servers whose queries are captured; one `None` for all.
fn servers(settings: &Settings) -> Vec<Option<IpAddr>> {
    match &settings.dns {
        None => Vec::new(),
        Some(Servers::All) => vec![None],
        Some(Servers::Only(servers)) => servers.iter().copied().map(Some).collect(),
    }
}

fn excluded_in(settings: &Settings) -> impl Iterator<Item = Rule> + '_ {
    settings
        .interfaces_excluded
        .iter()
        .map(|name| rule([Match::From(name.clone())], Verdict::Return))
}

/// Inbound ports that are captured: one `None` for all.
fn inbound_ports(settings: &Settings) -> Vec<Option<u16>> {
    match &settings.inbound {
        Ports::All => vec![None],
        Ports::Only(ports) => ports.iter().copied().map(Some).collect(),
    }
}

/// Ports that only matter where all others are captured, as in Istio.
fn inbound_exceptions(settings: &Settings) -> Vec<Rule> {
    let is_all = settings.inbound == Ports::All;
    let tunnel = (settings.tunnel_port > 0).then_some(settings.tunnel_port);
    let excluded = settings.inbound_excluded.iter().copied().filter(|_| is_all);
    tunnel
        .into_iter()
        .chain(excluded)
        .map(|port| rule([Match::Tcp, Match::ToPort(port)], Verdict::Return))
        .collect()
}

fn mangle_in(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    let Mode::Tproxy { mark, .. } = settings.mode else {
        if settings.drops_invalid {
            rules.push(rule([Match::Invalid], Verdict::Drop));
        }
        return rules;
    };
    rules.extend(excluded_in(settings));
    if settings.drops_invalid {
        rules.push(rule([Match::Invalid], Verdict::Drop));
    }
    // What the sidecar sends on with the client's own address: its connection keeps the mark, by which
    // the answers of the workload find back.
    rules.push(rule([Match::Tcp, Match::Mark(mark)], Verdict::SaveMark));
    rules.push(rule([Match::Tcp, Match::Mark(mark)], Verdict::Return));
    for from in passthrough() {
        rules.push(rule([Match::Tcp, Match::Source(from), lo_in()], Verdict::Return));
    }
    // The workload calls itself.
    rules.push(rule([Match::Tcp, lo_in(), Match::NotMark(OUTBOUND_MARK)], Verdict::Return));
    rules.extend(inbound_exceptions(settings));
    for port in inbound_ports(settings) {
        let port = port.map(Match::ToPort);
        let divert = [Match::Tcp].into_iter().chain(port.clone()).chain([Match::Established]);
        rules.push(rule(divert, Verdict::MarkAndAccept(mark)));
        for home in loopbacks(settings) {
            let matches =
                [Match::Tcp].into_iter().chain(port.clone()).chain([Match::NotDestination(home)]);
            rules.push(rule(matches, Verdict::Tproxy { port: settings.inbound_port, mark }));
        }
    }
    rules
}

fn mangle_out(settings: &Settings) -> Vec<Rule> {
    let Mode::Tproxy { mark, .. } = settings.mode else { return Vec::new() };
    let excluded = settings.interfaces_excluded.iter();
    let mut rules: Vec<Rule> =
        excluded.map(|name| rule([Match::Out(name.clone())], Verdict::Return)).collect();
    rules.push(rule([Match::Tcp, lo_out(), Match::Mark(mark)], Verdict::Return));
    for (own, _) in owners(settings) {
        for home in loopbacks(settings) {
            let matches = [Match::Tcp, Match::NotDestination(home), lo_out(), own.clone()];
            rules.push(rule(matches, Verdict::Mark(OUTBOUND_MARK)));
        }
    }
    rules.push(rule([Match::Tcp, Match::ConnectionMark(mark)], Verdict::RestoreMark));
    rules
}

fn nat_in(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for name in &settings.virtual_interfaces {
        let from = || Match::From(name.clone());
        let ranges: Vec<Option<Cidr>> = match &settings.ranges {
            Ranges::All => vec![None],
            Ranges::Only(ranges) => ranges.iter().copied().map(Some).collect(),
        };
        for range in ranges {
            let matches = [from(), Match::Tcp].into_iter().chain(range.map(Match::Destination));
            rules.push(rule(matches, Verdict::Redirect(settings.outbound_port)));
        }
        rules.push(rule([from()], Verdict::Return));
    }
    rules.extend(excluded_in(settings));
    if settings.mode == Mode::Redirect {
        rules.extend(inbound_exceptions(settings));
        for port in inbound_ports(settings) {
            let matches = [Match::Tcp].into_iter().chain(port.map(Match::ToPort));
            rules.push(rule(matches, Verdict::Redirect(settings.inbound_port)));
        }
    }
    rules
}

fn nat_out(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for name in &settings.interfaces_excluded {
        rules.push(rule([Match::Out(name.clone())], Verdict::Return));
    }
    for port in &settings.outbound_excluded {
        rules.push(rule([Match::Tcp, Match::ToPort(*port)], Verdict::Return));
        rules.push(rule([Match::Udp, Match::ToPort(*port)], Verdict::Return));
    }
    for from in passthrough() {
        rules.push(rule([lo_out(), Match::Source(from)], Verdict::Return));
    }
    if let Mode::Tproxy { mark, .. } = settings.mode {
        // Ours, not Istio's: what the sidecar sends on from the client's address is for the workload,
        // and would else be taken for a call of the workload to itself. Only root can set a mark.
        rules.push(rule([Match::Tcp, lo_out(), Match::Mark(mark)], Verdict::Return));
    }
    for (own, others) in owners(settings) {
        rules.extend(owned(settings, &own, others));
    }
    rules.extend(ungrouped(settings));
    for server in servers(settings) {
        let to = server.map(|ip| Match::Destination(Cidr::host(ip)));
        for protocol in [Match::Tcp, Match::Udp] {
            let matches = [protocol, Match::ToPort(DNS)].into_iter().chain(to.clone());
            rules.push(rule(matches, Verdict::Redirect(settings.dns_port)));
        }
    }
    // Container to container, by localhost.
    for home in loopbacks(settings) {
        rules.push(rule([Match::Destination(home)], Verdict::Return));
    }
    for range in &settings.ranges_excluded {
        rules.push(rule([Match::Destination(*range)], Verdict::Return));
    }
    let capture = Verdict::Redirect(settings.outbound_port);
    for port in &settings.outbound_ports {
        rules.push(rule([Match::Tcp, Match::ToPort(*port)], capture.clone()));
    }
    match &settings.ranges {
        Ranges::All => rules.push(rule([Match::Tcp], capture)),
        Ranges::Only(ranges) => {
            for range in ranges {
                rules.push(rule([Match::Tcp, Match::Destination(*range)], capture.clone()));
            }
        }
    }
    rules
}

/// The sidecar's own packets, by one of its owners, and what stays on loopback.
fn owned(settings: &Settings, own: &Match, others: Match) -> Vec<Rule> {
    let mut rules = Vec::new();
    let takes_dns = settings.dns.is_some();
    let mut spared = Vec::new();
    if takes_dns {
        // Else: workload, sidecar, the sidecar's inbound side, name server.
        spared.push(DNS);
    }
    if settings.tunnel_port > 0 {
        spared.push(settings.tunnel_port);
    }
    // The workload calls its own service: sidecar (client), sidecar (server), workload.
    for home in loopbacks(settings) {
        let mut matches = vec![Match::Tcp, lo_out(), Match::NotDestination(home)];
        if !spared.is_empty() {
            matches.push(Match::NotToPorts(spared.clone()));
        }
        matches.push(own.clone());
        rules.push(rule(matches, Verdict::Redirect(settings.inbound_port)));
    }
    // The workload calls its own address; unless somebody asked for loopback to be captured.
    let is_loopback_wanted = matches!(&settings.ranges, Ranges::Only(ranges)
        if ranges.iter().any(|range| range.addr().is_loopback()));
    if !is_loopback_wanted {
        let not_dns = takes_dns.then(|| [Match::Tcp, Match::NotToPorts(vec![DNS])]);
        let not_dns = not_dns.into_iter().flatten();
        // An owner's rule must not spare what another owner's rules are for.
        let all_others = owners(settings).map(|(_, not)| not).filter(|not| *not != others);
        let matches = [lo_out()].into_iter().chain(not_dns).chain([others.clone()]);
        rules.push(rule(matches.chain(all_others), Verdict::Return));
    }
    rules.push(rule([own.clone()], Verdict::Return));
    rules
}

fn ungrouped(settings: &Settings) -> Vec<Rule> {
    match &settings.groups {
        Groups::AllBut(groups) => {
            groups.iter().map(|id| rule([Match::Group(*id)], Verdict::Return)).collect()
        }
        Groups::Only(groups) => {
            vec![rule(groups.iter().map(|id| Match::NotGroup(*id)), Verdict::Return)]
        }
    }
}

/// Ours, not Istio's: what is neither the sidecar's nor captured does not leave.
fn closed(settings: &Settings) -> Vec<Rule> {
    if !settings.is_closed {
        return Vec::new();
    }
    let mut rules = vec![rule([lo_out()], Verdict::Return)];
    // What was redirected: the kernel still names the interface to which it would have gone.
    for home in [LOOPBACK_V4, LOOPBACK_V6] {
        rules.extend(
            home.parse().ok().map(|home| rule([Match::Destination(home)], Verdict::Return)),
        );
    }
    rules.extend(owners(settings).map(|(own, _)| rule([own], Verdict::Return)));
    rules.push(rule([Match::Established], Verdict::Return));
    rules.push(rule([Match::Neighbours], Verdict::Return));
    for name in &settings.interfaces_excluded {
        rules.push(rule([Match::Out(name.clone())], Verdict::Return));
    }
    let ports: BTreeSet<u16> = settings.outbound_excluded.iter().copied().collect();
    for port in ports {
        rules.push(rule([Match::Tcp, Match::ToPort(port)], Verdict::Return));
        rules.push(rule([Match::Udp, Match::ToPort(port)], Verdict::Return));
    }
    for range in &settings.ranges_excluded {
        rules.push(rule([Match::Destination(*range)], Verdict::Return));
    }
    rules.push(rule([], Verdict::Reject));
    rules
}
