//! The filter chains of a listener as nested tables, one per matching step.
//!
//! Each step is a hash look-up, or one look-up per prefix length that occurs.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::ConnectionFacts;
use crate::{Cidr, address::masked};

/// What a chain asks of a connection. Empty lists ask nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChainMatch {
    pub(crate) destination_port: Option<u16>,
    pub(crate) destinations: Vec<Cidr>,
    /// In lower case; `*.example.com` as `.example.com`.
    pub(crate) server_names: Vec<String>,
    /// Empty asks nothing.
    pub(crate) transport: String,
    pub(crate) applications: Vec<String>,
    pub(crate) direct_sources: Vec<Cidr>,
    pub(crate) source_type: SourceType,
    pub(crate) sources: Vec<Cidr>,
    pub(crate) source_ports: Vec<u16>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum SourceType {
    #[default]
    Any,
    /// The same address as the destination, or loopback.
    Local,
    External,
}

/// Two chains ask exactly the same of some connection; the second one's place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) usize);

/// The tables. `None` as a key asks nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChainTable {
    ports: HashMap<Option<u16>, IpTable<Names>>,
}

type Names = HashMap<Box<str>, Transports>;
type Transports = HashMap<Box<str>, Applications>;
type Applications = HashMap<Box<str>, IpTable<SourceTypes>>;
type SourceTypes = HashMap<SourceType, IpTable<SourcePorts>>;
type SourcePorts = HashMap<Option<u16>, usize>;

impl ChainTable {
    pub(crate) fn build(matches: &[ChainMatch]) -> Result<Self, Overlap> {
        let mut table = Self::default();
        for (place, rule) in matches.iter().enumerate() {
            let by_ip = table.ports.entry(rule.destination_port).or_default();
            for destination in ranges(&rule.destinations) {
                let names = by_ip.entry(destination);
                for name in strings(&rule.server_names) {
                    let transports = names.entry(name.into()).or_default();
                    let applications =
                        transports.entry(rule.transport.as_str().into()).or_default();
                    for application in strings(&rule.applications) {
                        let direct = applications.entry(application.into()).or_default();
                        insert_sources(direct, rule, place)?;
                    }
                }
            }
        }
        Ok(table)
    }

    /// The place of the chain that matches.
    pub(crate) fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let exact = facts.destination.and_then(|to| self.ports.get(&Some(to.port())));
        let by_ip = exact.or_else(|| self.ports.get(&None))?;
        let names = by_ip.find(facts.destination.map(|to| to.ip()))?;
        let transports = find_name(names, facts.server_name.unwrap_or_default())?;
        let applications =
            transports.get(facts.transport.as_str()).or_else(|| transports.get(""))?;
        let direct = facts
            .application_protocols
            .iter()
            .filter(|protocol| !protocol.is_empty())
            .find_map(|protocol| applications.get(*protocol))
            .or_else(|| applications.get(""))?;
        let types = direct.find(facts.direct_source.map(|from| from.ip()))?;
        let specific = if is_local(facts) { SourceType::Local } else { SourceType::External };
        let sources = types.get(&specific).or_else(|| types.get(&SourceType::Any))?;
        let ports = sources.find(facts.source.map(|from| from.ip()))?;
        let port = facts.source.map(|from| from.port());
        ports.get(&port).or_else(|| ports.get(&None)).copied()
    }
}

fn insert_sources(
    direct: &mut IpTable<SourceTypes>,
    rule: &ChainMatch,
    place: usize,
) -> Result<(), Overlap> {
    for from in ranges(&rule.direct_sources) {
        let by_ip = direct.entry(from).entry(rule.source_type).or_default();
        for source in ranges(&rule.sources) {
            let ports = by_ip.entry(source);
            let wanted = rule.source_ports.iter().map(|port| Some(*port));
            let any = rule.source_ports.is_empty().then_some(None);
            for port in wanted.chain(any) {
                match ports.insert(port, place) {
                    // A rule may name the same thing twice, but not what another rule has.
                    Some(before) if before != place => return Err(Overlap(place)),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Looks for the exact name, then for each of its suffixes, longest first, then for no name.
fn find_name<'t>(names: &'t Names, server_name: &str) -> Option<&'t Transports> {
    let lower = server_name.to_ascii_lowercase();
    // A name with a leading dot is no name; it would be found as the wildcard's key.
    if !lower.starts_with('.')
        && let Some(found) = names.get(lower.as_str())
    {
        return Some(found);
    }
    // As in Envoy: a dot at the very start or end begins no suffix.
    let dots = lower.char_indices().filter(|(at, c)| *c == '.' && *at > 0 && *at + 1 < lower.len());
    for (dot, _) in dots {
        if let Some(found) = names.get(&lower[dot..]) {
            return Some(found);
        }
    }
    names.get("")
}

/// Whether the client is on this machine, as far as addresses tell.
fn is_local(facts: &ConnectionFacts<'_>) -> bool {
    match (facts.source, facts.destination) {
        (Some(from), Some(to)) => from.ip() == to.ip() || from.ip().is_loopback(),
        (Some(from), None) => from.ip().is_loopback(),
        // A Unix domain socket.
        (None, _) => true,
    }
}

fn ranges(list: &[Cidr]) -> impl Iterator<Item = Option<Cidr>> {
    list.iter().map(|cidr| Some(*cidr)).chain(list.is_empty().then_some(None))
}

fn strings(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str).chain(list.is_empty().then_some(""))
}

/// Values by address range; the longest prefix that holds an address wins.
#[derive(Clone, Debug, PartialEq)]
struct IpTable<T> {
    ranges: HashMap<(IpAddr, u8), T>,
    /// The lengths that occur, longest first.
    v4_bits: Vec<u8>,
    v6_bits: Vec<u8>,
    /// For any address, and for connections without one.
    any: Option<T>,
}

impl<T> Default for IpTable<T> {
    fn default() -> Self {
        Self { ranges: HashMap::new(), v4_bits: Vec::new(), v6_bits: Vec::new(), any: None }
    }
}

impl<T: Default> IpTable<T> {
    /// The value of a range, made if it is not there. `None` is any address.
    fn entry(&mut self, range: Option<Cidr>) -> &mut T {
        let Some(range) = range else { return self.any.get_or_insert_default() };
        let bits = if range.network().is_ipv4() { &mut self.v4_bits } else { &mut self.v6_bits };
        let sorted: BTreeSet<u8> = bits.iter().copied().chain([range.bits()]).collect();
        *bits = sorted.into_iter().rev().collect();
        self.ranges.entry((range.network(), range.bits())).or_default()
    }
}

impl<T> IpTable<T> {
    fn find(&self, address: Option<IpAddr>) -> Option<&T> {
        if let Some(address) = address {
            let bits = if address.is_ipv4() { &self.v4_bits } else { &self.v6_bits };
            for bits in bits {
                if let Some(found) = self.ranges.get(&(masked(address, *bits), *bits)) {
                    return Some(found);
                }
            }
        }
        self.any.as_ref()
    }
}
