//! A set of endpoints (a whole cluster or a subset) in priorities, localities and health.

use std::collections::BTreeMap;

use super::{
    Draw, Member,
    load::{Loads, Standing, loads},
    mix,
    table::Table,
};
use crate::{Cluster, Endpoints, Health, LbPolicy};

/// Endpoints of which some share the traffic.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread {
    policy: Option<LbPolicy>,
    loads: Loads,
    levels: Vec<Level>,
}

/// One priority.
#[derive(Clone, Debug)]
struct Level {
    priority: u32,
    all: Flat,
    healthy: Parts,
    degraded: Parts,
    /// For a choice by hash.
    table: Option<Table>,
}

/// Endpoints of one health.
#[derive(Clone, Debug)]
struct Parts {
    flat: Flat,
    /// Empty where localities do not matter: a weight, and the endpoints there.
    localities: Vec<(f64, Flat)>,
    slot: usize,
}

/// Endpoints that are chosen from at once.
#[derive(Clone, Debug)]
struct Flat {
    places: Vec<u32>,
    /// Empty when they are all equal.
    weights: Vec<f64>,
    slot: usize,
}

impl Spread {
    pub(super) fn new(
        cluster: &Cluster,
        endpoints: &Endpoints,
        members: &[Member],
        slots: &mut usize,
    ) -> Self {
        let priority = |member: &Member| endpoints.list[member.place as usize].priority;
        let mut groups: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for member in members {
            groups.entry(priority(member)).or_default().push(*member);
        }
        let standings: Vec<Standing> =
            groups.values().map(|group| standing(endpoints, group)).collect();
        let loads = loads(&standings, endpoints.overprovisioning, cluster.panic_threshold);
        let levels = groups
            .iter()
            .zip(&loads.panics)
            .map(|((priority, group), panics)| {
                Level::new(cluster, endpoints, (*priority, group), *panics, slots)
            })
            .collect();
        Self { policy: Some(cluster.policy), loads, levels }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub(super) fn has_endpoint(&self) -> bool {
        let all = self.levels.iter().zip(&self.loads.healthy).zip(&self.loads.degraded);
        all.zip(&self.loads.panics).any(|(((level, healthy), degraded), panics)| {
            (*healthy > 0 && !level.healthy.flat.places.is_empty())
                || (*degraded > 0 && !level.degraded.flat.places.is_empty())
                || (*panics && !level.all.places.is_empty())
        })
    }

    /// The place of the endpoint that is chosen.
    pub(super) fn pick(
        &self,
        draw: &mut Draw<'_>,
        in_flight: &impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let policy = self.policy?;
        let hash = draw.hash.unwrap_or(draw.random);
        let by_hash = matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. });
        let (at, is_degraded) =
            self.level(if by_hash { hash } else { draw.random }, draw.spurned)?;
        let level = &self.levels[at];
        if let Some(table) = &level.table {
            return table.find(hash, draw.attempt).map(|place| place as usize);
        }
        let flat = match (self.loads.panics[at], is_degraded) {
            (true, _) => &level.all,
            (false, true) => level.degraded.part(draw),
            (false, false) => level.healthy.part(draw),
        };
        flat.pick(policy, draw, in_flight)
    }

    /// The priority that a number falls to, and whether its degraded endpoints are meant.
    fn level(&self, number: u64, spurned: u64) -> Option<(usize, bool)> {
        let is_spurned = |at: usize| {
            let bit = 1_u64.checked_shl(self.levels[at].priority).unwrap_or(0);
            spurned & bit != 0
        };
        if spurned != 0
            && let Some([healthy, degraded]) = self.loads.without(is_spurned)
        {
            return fall(number, &healthy, &degraded);
        }
        if self.levels.len() == 1 && self.loads.healthy[0] == 100 {
            return Some((0, false));
        }
        fall(number, &self.loads.healthy, &self.loads.degraded)
    }
}

fn fall(number: u64, healthy: &[u32], degraded: &[u32]) -> Option<(usize, bool)> {
    let number = (number % 100 + 1) as u32;
    let mut sum = 0;
    for (loads, is_degraded) in [(healthy, false), (degraded, true)] {
        for (at, load) in loads.iter().enumerate() {
            sum += load;
            if number <= sum {
                return Some((at, is_degraded));
            }
        }
    }
    None
}

fn standing(endpoints: &Endpoints, group: &[Member]) -> Standing {
    let mut standing = Standing { all_hosts: group.len() as u64, ..Standing::default() };
    for member in group.iter().filter(|member| !member.is_excluded) {
        let weight = match endpoints.weighted_health {
            true => u64::from(endpoints.list[member.place as usize].weight),
            false => 1,
        };
        standing.total += weight;
        standing.hosts += 1;
        match member.health {
            Health::Healthy => standing.healthy += weight,
            Health::Degraded => standing.degraded += weight,
            Health::Unhealthy | Health::Draining => continue,
        }
        standing.usable_hosts += 1;
    }
    standing
}

impl Level {
    fn new(
        cluster: &Cluster,
        endpoints: &Endpoints,
        (priority, group): (u32, &[Member]),
        panics: bool,
        slots: &mut usize,
    ) -> Self {
        let of = |health| -> Vec<Member> {
            let fits = |member: &&Member| member.health == health && !member.is_excluded;
            group.iter().filter(fits).copied().collect()
        };
        let (healthy, degraded) = (of(Health::Healthy), of(Health::Degraded));
        let usable = if panics { group } else { &healthy };
        let shares = normalised(cluster, endpoints, group, usable);
        Self {
            priority,
            table: Table::new(cluster.policy, endpoints, &shares),
            all: Flat::new(endpoints, group, slots),
            healthy: Parts::new(cluster, endpoints, group, healthy, slots),
            degraded: Parts::new(cluster, endpoints, group, degraded, slots),
        }
    }
}

/// The endpoints by locality, those without one together.
fn by_locality<'e>(
    endpoints: &'e Endpoints,
    members: &[Member],
) -> BTreeMap<&'e str, (u32, Vec<Member>)> {
    let mut localities: BTreeMap<&str, (u32, Vec<Member>)> = BTreeMap::new();
    for member in members {
        let endpoint = &endpoints.list[member.place as usize];
        let (weight, list) = localities.entry(&endpoint.locality).or_default();
        *weight = endpoint.locality_weight;
        list.push(*member);
    }
    localities
}

/// Each usable endpoint's part of the whole, for tables of hashes.
fn normalised(
    cluster: &Cluster,
    endpoints: &Endpoints,
    group: &[Member],
    usable: &[Member],
) -> Vec<(u32, f64)> {
    let mut shares = Vec::new();
    let mut add = |members: &[Member], of: f64| {
        let weight = |member: &Member| f64::from(endpoints.list[member.place as usize].weight);
        let sum: f64 = members.iter().map(weight).sum();
        shares.extend(members.iter().map(|member| (member.place, weight(member) * of / sum)));
    };
    let localities = by_locality(endpoints, group);
    let total: u64 = localities.values().map(|(weight, _)| u64::from(*weight)).sum();
    if !cluster.locality_weighted || localities.values().all(|(weight, _)| *weight == 0) {
        add(usable, 1.0);
        return shares;
    }
    let usable = by_locality(endpoints, usable);
    for (_, (weight, members)) in usable.iter().filter(|(_, (weight, _))| *weight > 0) {
        add(members, f64::from(*weight) / total as f64);
    }
    shares
}

impl Parts {
    fn new(
        cluster: &Cluster,
        endpoints: &Endpoints,
        group: &[Member],
        members: Vec<Member>,
        slots: &mut usize,
    ) -> Self {
        let mut localities = Vec::new();
        if cluster.locality_weighted {
            let usable = by_locality(endpoints, &members);
            for (name, (weight, all)) in by_locality(endpoints, group) {
                let counted = all.iter().filter(|member| !member.is_excluded).count();
                let Some((_, members)) = usable.get(name).filter(|_| weight > 0 && counted > 0)
                else {
                    continue;
                };
                // A locality keeps its whole share while enough of it is left.
                let left = members.len() as f64 / counted as f64;
                let factor = f64::from(endpoints.overprovisioning) / 100.0;
                let weight = f64::from(weight) * (left * factor).min(1.0);
                localities.push((weight, Flat::new(endpoints, members, slots)));
            }
        }
        let slot = next(slots);
        Self { flat: Flat::new(endpoints, &members, slots), localities, slot }
    }

    /// The endpoints of the locality on turn, or all.
    fn part(&self, draw: &mut Draw<'_>) -> &Flat {
        match &self.localities[..] {
            [] => &self.flat,
            [(_, only)] => only,
            several => {
                let weight = |at: usize| several[at].0;
                &several[draw.turns.weighted(self.slot, several.len(), weight)].1
            }
        }
    }
}

impl Flat {
    fn new(endpoints: &Endpoints, members: &[Member], slots: &mut usize) -> Self {
        let weight = |member: &Member| {
            f64::from(endpoints.list[member.place as usize].weight.max(1)) * member.share
        };
        let mut weights: Vec<f64> = members.iter().map(weight).collect();
        if weights.iter().all(|weight| *weight == weights[0]) {
            weights = Vec::new();
        }
        let places = members.iter().map(|member| member.place).collect();
        Self { places, weights, slot: next(slots) }
    }

    fn pick(
        &self,
        policy: LbPolicy,
        draw: &mut Draw<'_>,
        in_flight: &impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let count = self.places.len();
        let load = |at: usize| in_flight(self.places[at] as usize);
        let at = match (policy, count) {
            (_, 0) => return None,
            (_, 1) => 0,
            (LbPolicy::LeastRequest { bias, .. }, _) if !self.weights.is_empty() => {
                let weight = |at: usize| self.weights[at] / divisor(load(at), bias);
                draw.turns.weighted(self.slot, count, weight)
            }
            (LbPolicy::LeastRequest { is_full_scan: true, .. }, _) => {
                let first = (mix(draw.random) % count as u64) as usize;
                (0..count).map(|at| (at + first) % count).min_by_key(|at| load(*at))?
            }
            (LbPolicy::LeastRequest { choices, .. }, _) => {
                let mut random = draw.random;
                let drawn = (0..choices.max(1)).map(|_| {
                    random = mix(random);
                    (random % count as u64) as usize
                });
                drawn.min_by_key(|at| load(*at))?
            }
            (LbPolicy::Random, _) => (mix(draw.random) % count as u64) as usize,
            _ if self.weights.is_empty() => draw.turns.round(self.slot, count),
            _ => draw.turns.weighted(self.slot, count, |at| self.weights[at]),
        };
        Some(self.places[at] as usize)
    }
}

/// What requests under way divide a weight by.
fn divisor(under_way: u32, bias: f64) -> f64 {
    let load = f64::from(under_way) + 1.0;
    if bias == 1.0 { load } else { load.powf(bias) }
}

fn next(slots: &mut usize) -> usize {
    *slots += 1;
    *slots - 1
}
