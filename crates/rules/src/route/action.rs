//! What is done with a request that a route has matched.

use std::{sync::Arc, time::Duration};

use super::{HashPolicy, RetryPolicy};
use crate::{Fraction, Labels, Pattern, Substitution};

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// It is sent to a cluster.
    Forward(Box<Forward>),
    /// The client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// It is answered at once.
    Direct(DirectResponse),
}

/// How a request is forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub target: Target,
    /// The status when there is no such cluster. Default 503.
    pub cluster_not_found: u16,
    /// Longest time from the end of the request to the end of the response. Default 15 s; `None`
    /// has no limit.
    pub timeout: Option<Duration>,
    /// Longest silence on the stream; `None` leaves it to the HTTP manager, zero has no limit.
    pub idle_timeout: Option<Duration>,
    /// Longest life of the stream; `None` leaves it to the HTTP manager, zero has no limit.
    pub max_stream_duration: Option<Duration>,
    /// What happens to the path.
    pub path: PathRewrite,
    /// What happens to the host.
    pub host: HostRewrite,
    /// Whether the former host is put into `x-forwarded-host` when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// How the request is tried again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What the request's hash is made of, for clusters that choose by hash.
    pub hash: Vec<HashPolicy>,
    /// Whether the cluster's limits for requests of high priority count.
    pub is_high_priority: bool,
    /// The metadata that the endpoint must have, in clusters with subsets.
    pub labels: Option<Labels>,
    /// Upgrades that this route allows or forbids.
    pub upgrades: Vec<RouteUpgrade>,
    /// Clusters that get a copy of the request; `None` leaves it to the virtual host.
    pub mirrors: Option<Vec<Mirror>>,
    /// How long a gRPC client may ask the request to take; `None` does not ask it.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// The route's own CORS policy in Envoy's older place.
    pub cors: Option<Arc<crate::CorsPolicy>>,
}

/// What a route says of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// The type in lower case.
    pub kind: Arc<str>,
    /// Whether it is allowed.
    pub enabled: bool,
    /// Whether a CONNECT ends here: what follows it goes to the endpoint as it is.
    pub terminates: bool,
}

/// How a gRPC client's `grpc-timeout` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The longest time that is granted; `None` grants any.
    pub max: Option<Duration>,
    /// Taken off what was asked for, so that we time out first.
    pub offset: Option<Duration>,
    /// Whether it bounds the stream's life rather than the wait for the response.
    pub is_of_stream: bool,
}

/// A cluster that gets a copy of requests, whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub target: MirrorTarget,
    /// The requests that are copied.
    pub fraction: Fraction,
    /// Whether `-shadow` is put behind the host's name.
    pub marks_host: bool,
    /// The copy's host.
    pub host: Option<Arc<str>>,
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorTarget {
    /// To this cluster.
    Cluster(Arc<str>),
    /// To the cluster that this request header names.
    Header(Arc<str>),
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To one cluster.
    Cluster(Arc<str>),
    /// To one of several, by weight.
    Weighted(WeightedClusters),
    /// To the cluster that this request header names.
    Header(Arc<str>),
}

/// Clusters that share requests or connections by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedClusters {
    list: Vec<WeightedCluster>,
    total: u64,
}

/// One of several clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// The cluster's name; empty when a header names it.
    pub name: Arc<str>,
    /// The request header that names the cluster.
    pub header: Option<Arc<str>>,
    /// Its share, relative to the others.
    pub weight: u32,
    /// What is done to the headers of requests that go there.
    pub mutations: HeaderMutations,
    /// The host of requests that go there.
    pub host: Option<Arc<str>>,
}

/// What happens to a request's path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// Nothing.
    Keep,
    /// The matched prefix (or the whole matched path) becomes this; the query stays.
    Prefix(Arc<str>),
    /// Each match in the path (without query) is replaced.
    Regex(Pattern, Substitution),
}

/// What happens to a request's host.
#[derive(Clone, Debug, PartialEq)]
pub enum HostRewrite {
    /// Nothing.
    Keep,
    /// It becomes this.
    To(Arc<str>),
    /// It becomes the chosen endpoint's host name, if that has one.
    Endpoint,
    /// It becomes the value of this request header, if there is one.
    Header(Arc<str>),
    /// It becomes what the replacement makes of the path (without query).
    Path(Pattern, Substitution),
}

/// Where the client is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// The new scheme.
    pub scheme: Option<Arc<str>>,
    /// The new host, without port.
    pub host: Option<Arc<str>>,
    /// The new port.
    pub port: Option<u16>,
    /// What happens to the path.
    pub path: PathRedirect,
    /// Whether the query is dropped.
    pub strip_query: bool,
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What happens to the path in a redirect.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRedirect {
    /// Nothing.
    Keep,
    /// It becomes this; a query in it replaces the request's.
    To(Arc<str>),
    /// As for forwarding.
    Rewrite(PathRewrite),
}

/// An answer that needs no upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: u16,
    /// The body; may be empty.
    pub body: Arc<[u8]>,
}

/// What is done to headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutations {
    /// Request headers to remove (lower case), done first.
    pub request_remove: Vec<Arc<str>>,
    /// Request headers to set or add, in order.
    pub request_set: Vec<HeaderEdit>,
    /// Response headers to remove (lower case), done first.
    pub response_remove: Vec<Arc<str>>,
    /// Response headers to set or add, in order.
    pub response_set: Vec<HeaderEdit>,
}

/// One header to set or add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEdit {
    /// The name in lower case.
    pub name: Arc<str>,
    /// The value.
    pub value: HeaderText,
    /// What happens to a header of that name.
    pub action: HeaderAction,
    /// Whether an empty value is added rather than left out.
    pub keep_empty: bool,
}

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// As it stands.
    Literal(Arc<str>),
    /// With commands in the notation of access logs (`%DOWNSTREAM_REMOTE_ADDRESS%`).
    Format(Arc<str>),
}

/// What happens to a header of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderAction {
    /// It stays; the new one is added.
    Append,
    /// It stays, and the new one is not added.
    AddIfAbsent,
    /// It is replaced; without one the new one is added.
    Overwrite,
    /// It is replaced; without one nothing happens.
    OverwriteIfExists,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request_remove.is_empty()
            && self.request_set.is_empty()
            && self.response_remove.is_empty()
            && self.response_set.is_empty()
    }
}

impl WeightedClusters {
    /// Makes a choice; `None` when the weights add up to nothing or to more than a `u32`, which
    /// Envoy refuses too.
    #[must_use]
    pub fn new(list: Vec<WeightedCluster>) -> Option<Self> {
        let total = list.iter().map(|cluster| u64::from(cluster.weight)).sum();
        (1..=u64::from(u32::MAX)).contains(&total).then_some(Self { list, total })
    }

    /// Chooses by a number that the caller has drawn, uniformly from all `u64`.
    #[must_use]
    pub fn pick(&self, draw: u64) -> &WeightedCluster {
        let mut rest = draw % self.total;
        for cluster in &self.list {
            let weight = u64::from(cluster.weight);
            if rest < weight {
                return cluster;
            }
            rest -= weight;
        }
        self.list.last().expect("a positive total has a cluster")
    }

    /// The clusters in order.
    #[must_use]
    pub fn list(&self) -> &[WeightedCluster] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, weight: u32) -> WeightedCluster {
        WeightedCluster {
            name: name.into(),
            header: None,
            weight,
            mutations: HeaderMutations::default(),
            host: None,
        }
    }

    #[test]
    fn a_weighted_choice_gives_each_cluster_its_share() {
        let choice =
            WeightedClusters::new(vec![cluster("a", 1), cluster("b", 0), cluster("c", 3)]).unwrap();
        let picked: Vec<_> = (0..4).map(|draw| &*choice.pick(draw).name).collect();
        assert_eq!(picked, ["a", "c", "c", "c"]);
    }

    #[test]
    fn weights_that_add_up_to_nothing_are_refused() {
        assert!(WeightedClusters::new(vec![cluster("a", 0)]).is_none());
        assert!(WeightedClusters::new(vec![]).is_none());
        let huge = vec![cluster("a", u32::MAX), cluster("b", 1)];
        assert!(WeightedClusters::new(huge).is_none());
    }
}
