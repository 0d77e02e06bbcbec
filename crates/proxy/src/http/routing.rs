//! Finds the route of a request in its table, and the cluster that the route leads to.

use sluis_http1::RequestHead;
use sluis_rules::{Forward, Matched, Metadata, NoRoute, RouteTable, Target, WeightedCluster};

use super::{facts::Facts, scene::Scene};

/// The route of a request, or why there is none.
pub(super) type Found<'c> = Result<Matched<'c>, Missing>;

/// Why there is no route, with or without a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missing {
    Table,
    Route,
    Https,
}

/// Finds the route of a request.
pub(super) fn find<'c>(
    scene: Scene<'_>,
    table: Option<&'c RouteTable>,
    head: &RequestHead,
    metadata: &Metadata,
) -> Found<'c> {
    let table = table.ok_or(Missing::Table)?;
    let facts = Facts { metadata: Some(metadata), ..scene.facts(head) };
    table.route(&facts).map_err(|none| match none {
        NoRoute::HttpsRequired { .. } => Missing::Https,
        NoRoute::NoVirtualHost | NoRoute::NoRoute { .. } => Missing::Route,
    })
}

/// The cluster that a request goes to, with its share of them where several share.
pub(super) fn cluster_of<'f: 'h, 'h>(
    scene: Scene<'_>,
    forward: &'f Forward,
    head: &'h RequestHead,
) -> (Option<&'h str>, Option<&'f WeightedCluster>) {
    match &forward.target {
        Target::Cluster(name) => (Some(name), None),
        Target::Weighted(clusters) => {
            // The number that decides on shares of requests, as in Envoy.
            let chosen = clusters.pick(scene.draw);
            let name = match &chosen.header {
                Some(header) => named(head, header),
                None => Some(&*chosen.name),
            };
            (name, Some(chosen))
        }
        Target::Header(name) => (named(head, name), None),
    }
}

/// What a request header says.
fn named<'h>(head: &'h RequestHead, header: &str) -> Option<&'h str> {
    let value = head.fields.get_name(header.as_bytes())?;
    std::str::from_utf8(value).ok()
}
