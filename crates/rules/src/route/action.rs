//! What is done with a request that a route has matched.

use std::{sync::Arc, time::Duration};

use crate::{HeaderMatch, Pattern, Substitution};

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
    /// Upgrades that this route allows or forbids (type in lower case, allowed).
    pub upgrades: Vec<(Arc<str>, bool)>,
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
    /// The cluster's name.
    pub name: Arc<str>,
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

/// When and how a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The conditions, in Envoy's names (`connect-failure`, `reset`, `5xx`, …).
    pub on: Vec<Arc<str>>,
    /// Tries after the first. Default 1.
    pub retries: u32,
    /// Longest time of one try; `None` has none of its own.
    pub per_try_timeout: Option<Duration>,
    /// Statuses that `retriable-status-codes` means.
    pub statuses: Vec<u16>,
    /// Waits between tries.
    pub backoff: Backoff,
    /// How often an endpoint is drawn anew when it was tried before. 0 allows the same again.
    pub host_attempts: u32,
    /// Response headers that `retriable-headers` means.
    pub response_headers: Vec<HeaderMatch>,
    /// Only requests with one of these headers are tried again; empty means any.
    pub request_headers: Vec<HeaderMatch>,
}

/// How long to wait between tries: doubling, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait. Default 25 ms.
    pub base: Duration,
    /// The longest wait. Default ten times the first.
    pub max: Duration,
}

/// What a request's hash is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashPolicy {
    /// A header's value.
    Header(Arc<str>),
    /// The client's address.
    SourceIp,
    /// A query parameter's value.
    Query(Arc<str>),
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
