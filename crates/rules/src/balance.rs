//! Chooses an endpoint for one request or connection.
//!
//! In:    the endpoints of a cluster with their health, and a [`Draw`] of the caller's randomness.
//! Out:   the endpoint's place in the list, or why there is none.
//! Never: counts requests or draws random numbers itself; allocates while it chooses, but for the
//!        first choices after the endpoints have changed.
//!
//! Start at [`Balancer::pick`]: subset, then priority and health ([`load`]), then locality and
//! endpoint ([`spread`]). All of it places and shares as Envoy does.

mod edf;
mod load;
mod spread;
mod subset;
mod table;

pub use self::edf::Turns;
use self::{spread::Spread, subset::SubsetSpreads};
use crate::{Cluster, EndpointAddress, Endpoints, Health, Labels, LbPolicy};

/// What the caller brings to one choice.
#[derive(Debug)]
pub struct Draw<'d> {
    /// A number drawn uniformly from all `u64`.
    pub random: u64,
    /// The request's hash, for clusters that choose by hash; without one they choose at random.
    pub hash: Option<u64>,
    /// The metadata that the endpoint must have, for clusters with subsets.
    pub labels: Option<&'d Labels>,
    /// How often an endpoint has been chosen for this request and not been wanted.
    pub attempt: u32,
    /// Priorities that are left out while another is of use, as bits: those tried before.
    pub spurned: u64,
    /// What the caller keeps per balancer (and worker).
    pub turns: &'d mut Turns,
}

/// What is known of an endpoint beside its configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Its health as seen from here; it can only worsen what the control plane says.
    pub health: Health,
    /// Its part of its weight, from 0 to 1, while it is new (slow start).
    pub share: f64,
    /// Whether nobody has asked for its health yet, although somebody will.
    pub is_pending: bool,
}

impl From<Health> for Observed {
    fn from(health: Health) -> Self {
        Self { health, share: 1.0, is_pending: false }
    }
}

/// Endpoints ready to be chosen from. Build it anew when endpoints or their health change.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    all: Spread,
    subsets: Option<SubsetSpreads>,
    /// Slots of [`Turns`] that are used.
    slots: usize,
    is_provided: bool,
}

/// Why no endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The cluster has no endpoints at all (as `BlackHoleCluster`).
    Empty,
    /// None is healthy, and the cluster does not panic; or the subset does not exist.
    NoneHealthy,
    /// The cluster has nothing to choose from: it goes to the original destination.
    ClusterProvided,
}

/// One endpoint as the balancer sees it.
#[derive(Clone, Copy, Debug)]
struct Member {
    place: u32,
    health: Health,
    share: f64,
    is_excluded: bool,
}

impl Balancer {
    /// Prepares the choice among a cluster's endpoints.
    ///
    /// `endpoints` is the cluster's list, resolved; endpoints that are still names are left out.
    /// `observe` tells what is known of each, by place in the list.
    #[must_use]
    pub fn new<O: Into<Observed>>(
        cluster: &Cluster,
        endpoints: &Endpoints,
        observe: impl Fn(usize) -> O,
    ) -> Self {
        if cluster.policy == LbPolicy::ClusterProvided {
            return Self { is_provided: true, ..Self::default() };
        }
        let members: Vec<Member> = (0..endpoints.list.len())
            .filter(|at| matches!(endpoints.list[*at].address, EndpointAddress::Fixed(_)))
            .map(|at| {
                let seen = observe(at).into();
                let health = worse(endpoints.list[at].health, seen.health);
                let is_new = cluster.ignores_new_hosts && seen.is_pending;
                Member {
                    place: at as u32,
                    health,
                    share: seen.share,
                    is_excluded: is_new || health == Health::Draining,
                }
            })
            .collect();
        let mut slots = 0;
        let all = Spread::new(cluster, endpoints, &members, &mut slots);
        let subsets = cluster
            .subsets
            .as_ref()
            .map(|config| SubsetSpreads::new(config, cluster, endpoints, &members, &mut slots));
        Self { all, subsets, slots, is_provided: false }
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
        if self.is_provided {
            return Err(NoEndpoint::ClusterProvided);
        }
        if self.all.is_empty() {
            return Err(NoEndpoint::Empty);
        }
        draw.turns.fit(self.slots);
        let spread = match &self.subsets {
            Some(subsets) => subsets.find(draw.labels, &self.all).ok_or(NoEndpoint::NoneHealthy)?,
            None => &self.all,
        };
        spread.pick(draw, &in_flight).ok_or(NoEndpoint::NoneHealthy)
    }

    /// Whether an endpoint would be chosen, without choosing it.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        self.is_provided || self.all.has_endpoint()
    }
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
        (Health::Draining, _) | (_, Health::Draining) => Health::Draining,
        (Health::Unhealthy, _) | (_, Health::Unhealthy) => Health::Unhealthy,
        (Health::Degraded, _) | (_, Health::Degraded) => Health::Degraded,
        _ => Health::Healthy,
    }
}

#[cfg(test)]
mod tests;
