//! Chooses an endpoint for one request or connection.
//!
//! In:    the endpoints of a cluster with their health, and a [`Draw`] of the caller's randomness.
//! Out:   the endpoint's place in the list, or why there is none.
//! Never: counts requests or draws random numbers itself.

use crate::{Cluster, Endpoint, EndpointAddress, Health, LbPolicy};

/// Healthy endpoints count this much, in percent, when priorities share the traffic: a priority
/// with 72 % of its endpoints healthy still gets everything. Envoy's default.
const OVERPROVISIONING: u64 = 140;

/// Longest cycle of a weighted round robin. Beyond it weights are rounded to shares of the cycle;
/// each endpoint keeps at least one turn.
const CYCLE_MAX: u64 = 1024;

/// What the caller brings to one choice.
#[derive(Debug)]
pub struct Draw<'d> {
    /// A number drawn uniformly from all `u64`.
    pub random: u64,
    /// A counter that the caller keeps per cluster (and worker): it is advanced by one.
    pub turn: &'d mut u64,
}

/// Endpoints ready to be chosen from. Build it anew when endpoints or their health change.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    priorities: Vec<Priority>,
    policy: Option<LbPolicy>,
}

/// The endpoints of one priority that may be chosen.
#[derive(Clone, Debug)]
struct Priority {
    /// Its part of the traffic, in percent of the total.
    load: u64,
    /// Places in the cluster's list.
    eligible: Vec<usize>,
    /// The sums of weights up to and including each; for random choices.
    sums: Vec<u64>,
    /// Places in `eligible` in the order of a round robin.
    cycle: Vec<u32>,
}

/// Why no endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The cluster has no endpoints at all (as `BlackHoleCluster`).
    Empty,
    /// None is healthy, and the cluster does not panic.
    NoneHealthy,
    /// The cluster has nothing to choose from: it goes to the original destination.
    ClusterProvided,
}

impl Balancer {
    /// Prepares the choice among a cluster's endpoints.
    ///
    /// `endpoints` is the cluster's list, resolved; endpoints that are still names are left out.
    /// `health` may worsen what the control plane says, by place in the list.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        endpoints: &[Endpoint],
        health: impl Fn(usize) -> Health,
    ) -> Self {
        if cluster.policy == LbPolicy::ClusterProvided {
            return Self { priorities: Vec::new(), policy: Some(cluster.policy) };
        }
        let mut levels: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.priority).collect();
        levels.sort_unstable();
        levels.dedup();
        let members = |level: u32| {
            (0..endpoints.len()).filter(move |at| {
                endpoints[*at].priority == level
                    && matches!(endpoints[*at].address, EndpointAddress::Fixed(_))
            })
        };
        let state = |at: usize| worse(endpoints[at].health, health(at));
        let groups: Vec<Group> = levels
            .iter()
            .map(|level| Group::new(members(*level), &state))
            .filter(|group| !group.all.is_empty())
            .collect();
        let loads = loads(&groups);
        let panics = u64::from(cluster.panic_threshold);
        let priorities = groups
            .into_iter()
            .zip(loads)
            .filter(|(_, load)| *load > 0)
            .map(|(group, load)| Priority::new(load, group.eligible(panics), endpoints))
            .collect();
        Self { priorities, policy: Some(cluster.policy) }
    }

    /// Chooses an endpoint; `in_flight` says how many requests an endpoint has under way.
    ///
    /// # Errors
    ///
    /// [`NoEndpoint`] says why there is none.
    pub fn pick(
        &self,
        draw: &mut Draw<'_>,
        in_flight: impl Fn(usize) -> u32,
    ) -> Result<usize, NoEndpoint> {
        let policy = match self.policy {
            None => return Err(NoEndpoint::Empty),
            Some(LbPolicy::ClusterProvided) => return Err(NoEndpoint::ClusterProvided),
            Some(policy) => policy,
        };
        let priority = self.priority(draw.random).ok_or(NoEndpoint::Empty)?;
        if priority.eligible.is_empty() {
            return Err(NoEndpoint::NoneHealthy);
        }
        let turn = *draw.turn;
        *draw.turn = turn.wrapping_add(1);
        let place = match policy {
            LbPolicy::Random => priority.draw(mix(draw.random)),
            LbPolicy::LeastRequest { choices } => {
                let mut random = draw.random;
                (0..choices.max(1))
                    .map(|_| {
                        random = mix(random);
                        priority.draw(random)
                    })
                    .min_by_key(|place| in_flight(priority.eligible[*place]))
                    .expect("at least one is drawn")
            }
            LbPolicy::RoundRobin | LbPolicy::ClusterProvided => priority.turn(turn),
        };
        Ok(priority.eligible[place])
    }

    fn priority(&self, random: u64) -> Option<&Priority> {
        let total: u64 = self.priorities.iter().map(|priority| priority.load).sum();
        if self.priorities.len() <= 1 {
            return self.priorities.first();
        }
        // Other bits than those that the endpoint is drawn by.
        let mut rest = (random >> 32) % total.max(1);
        self.priorities.iter().find(|priority| {
            let here = rest < priority.load;
            rest = rest.saturating_sub(priority.load);
            here
        })
    }
}

/// The endpoints of one priority by health.
struct Group {
    all: Vec<usize>,
    healthy: Vec<usize>,
    degraded: Vec<usize>,
}

impl Group {
    fn new(members: impl Iterator<Item = usize>, state: &impl Fn(usize) -> Health) -> Self {
        let mut group = Self { all: Vec::new(), healthy: Vec::new(), degraded: Vec::new() };
        for at in members {
            group.all.push(at);
            match state(at) {
                Health::Healthy => group.healthy.push(at),
                Health::Degraded => group.degraded.push(at),
                Health::Unhealthy => {}
            }
        }
        group
    }

    /// How much of the whole traffic this priority can take, in percent.
    fn availability(&self) -> u64 {
        let usable = (self.healthy.len() + self.degraded.len()) as u64;
        (usable * OVERPROVISIONING / self.all.len().max(1) as u64).min(100)
    }

    fn eligible(self, panic_threshold: u64) -> Vec<usize> {
        let percent = self.healthy.len() as u64 * 100 / self.all.len().max(1) as u64;
        if percent < panic_threshold {
            self.all
        } else if self.healthy.is_empty() {
            self.degraded
        } else {
            self.healthy
        }
    }
}

/// Each priority takes what it can of what those before it left; with too little in all, the parts
/// grow in proportion, and with nothing the first takes everything.
fn loads(groups: &[Group]) -> Vec<u64> {
    let total: u64 = groups.iter().map(Group::availability).sum();
    if total == 0 {
        return groups.iter().enumerate().map(|(at, _)| if at == 0 { 100 } else { 0 }).collect();
    }
    let mut left = total.min(100);
    groups
        .iter()
        .map(|group| {
            let load = group.availability().min(left);
            left -= load;
            load
        })
        .collect()
}

impl Priority {
    fn new(load: u64, eligible: Vec<usize>, endpoints: &[Endpoint]) -> Self {
        let weights: Vec<u64> =
            eligible.iter().map(|at| u64::from(endpoints[*at].weight.max(1))).collect();
        let sums = weights
            .iter()
            .scan(0u64, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Self { load, sums, cycle: cycle(&weights), eligible }
    }

    /// The place of the endpoint on turn.
    fn turn(&self, turn: u64) -> usize {
        if self.cycle.is_empty() {
            return (turn % self.eligible.len() as u64) as usize;
        }
        self.cycle[(turn % self.cycle.len() as u64) as usize] as usize
    }

    /// A place drawn in proportion to weight.
    fn draw(&self, random: u64) -> usize {
        let total = self.sums.last().copied().unwrap_or(1).max(1);
        let at = random % total;
        self.sums.partition_point(|sum| *sum <= at)
    }
}

/// The order of a smooth weighted round robin; empty when all weights are equal.
///
/// Each turn every endpoint gains its weight, the one with the most is taken and loses the total:
/// weights 5, 1, 1 give a a b a c a a rather than a a a a a b c.
fn cycle(weights: &[u64]) -> Vec<u32> {
    let Some(first) = weights.first() else { return Vec::new() };
    if weights.iter().all(|weight| weight == first) {
        return Vec::new();
    }
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
    let total: u64 = weights.iter().sum();
    let most = CYCLE_MAX.max(weights.len() as u64);
    if total > most {
        for weight in &mut weights {
            *weight = (u128::from(*weight) * u128::from(most) / u128::from(total)).max(1) as u64;
        }
    }
    let total = weights.iter().sum::<u64>() as i64;
    let mut current = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            for (value, weight) in current.iter_mut().zip(&weights) {
                *value += *weight as i64;
            }
            // The first of equals: `max_by_key` would take the last.
            let best = (0..current.len()).rev().max_by_key(|at| current[*at]).unwrap_or(0);
            current[best] -= total;
            best as u32
        })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Another number from a drawn one (the finaliser of splitmix64).
fn mix(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn worse(a: Health, b: Health) -> Health {
    match (a, b) {
        (Health::Unhealthy, _) | (_, Health::Unhealthy) => Health::Unhealthy,
        (Health::Degraded, _) | (_, Health::Degraded) => Health::Degraded,
        _ => Health::Healthy,
    }
}

#[cfg(test)]
mod tests;
