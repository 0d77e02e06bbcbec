//! What the client has asked for and what the proxy has accepted. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    google::rpc::Status,
};
use sluis_envoy::Kind;

use super::{Update, Wanted};

/// The name that stands for every resource of a kind.
const WILDCARD: &str = "*";

/// gRPC's `INVALID_ARGUMENT`, the code of a refused resource.
const INVALID_ARGUMENT: i32 = 3;

/// The client's memory. What was accepted outlives the stream; what was asked for does not.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    asked: Wanted,
    held: BTreeMap<Kind, BTreeMap<String, String>>,
}

/// What a response would change in the ledger once the proxy accepts it.
#[derive(Debug)]
pub(super) struct Receipt {
    kind: Kind,
    nonce: String,
    versions: Vec<(String, String)>,
    removed: Vec<String>,
}

/// Reads a response; `None` for one of a type that nobody asked for.
pub(super) fn read(response: DeltaDiscoveryResponse) -> Option<(Update, Receipt)> {
    let kind = Kind::from_type_url(&response.type_url)?;
    let (mut upserts, mut versions) = (Vec::new(), Vec::new());
    for resource in response.resources {
        if let Some(body) = resource.resource {
            upserts.push(body);
            versions.push((resource.name, resource.version));
        }
    }
    let removed = response.removed_resources;
    let receipt = Receipt { kind, nonce: response.nonce, versions, removed: removed.clone() };
    Some((Update { kind, upserts, removed }, receipt))
}

impl Ledger {
    /// A new stream: nothing was asked for on it.
    pub(super) fn begin(&mut self) {
        self.asked.clear();
    }

    /// The requests that make the stream's subscriptions equal to `wanted`, in the order of kinds.
    pub(super) fn want(&mut self, wanted: &Wanted) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for (&kind, names) in wanted {
            let before = self.asked.get(&kind);
            if before == Some(names) || (before.is_none() && names.is_empty()) {
                continue;
            }
            let is_first = before.is_none();
            let nothing = BTreeSet::new();
            let before = before.unwrap_or(&nothing);
            let mut request = DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: names.difference(before).cloned().collect(),
                resource_names_unsubscribe: before.difference(names).cloned().collect(),
                ..DeltaDiscoveryRequest::default()
            };
            let held = self.held.entry(kind).or_default();
            held.retain(|name, _| names.contains(WILDCARD) || names.contains(name));
            if is_first {
                request.initial_resource_versions =
                    held.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<HashMap<_, _>>();
            }
            self.asked.insert(kind, names.clone());
            requests.push(request);
        }
        requests
    }

    /// Notes the proxy's answer and makes the request that carries it.
    pub(super) fn settle(
        &mut self,
        receipt: Receipt,
        refusal: Option<String>,
    ) -> DeltaDiscoveryRequest {
        if refusal.is_none() {
            let held = self.held.entry(receipt.kind).or_default();
            held.extend(receipt.versions);
            for name in &receipt.removed {
                held.remove(name);
            }
        }
        DeltaDiscoveryRequest {
            type_url: receipt.kind.type_url().to_owned(),
            response_nonce: receipt.nonce,
            error_detail: refusal.map(|message| Status {
                code: INVALID_ARGUMENT,
                message,
                ..Status::default()
            }),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{envoy::service::discovery::v3::Resource, google::protobuf::Any};

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn response(upserts: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
        let resource = |(name, version): &(&str, &str)| Resource {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Some(Any::default()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            type_url: Kind::Route.type_url().to_owned(),
            resources: upserts.iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: "1".to_owned(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn versions(ledger: &mut Ledger, wanted: &Wanted) -> BTreeMap<String, String> {
        ledger.begin();
        let requests = ledger.want(wanted);
        requests.into_iter().flat_map(|request| request.initial_resource_versions).collect()
    }

    #[test]
    fn a_new_stream_begins_with_what_was_accepted_and_not_with_what_was_refused() {
        let wanted = Wanted::from([(Kind::Route, names(&["a", "b"]))]);
        let mut ledger = Ledger::default();
        assert!(versions(&mut ledger, &wanted).is_empty());
        let (_, receipt) = read(response(&[("a", "1")], &[])).unwrap();
        assert!(ledger.settle(receipt, None).error_detail.is_none());
        let (_, receipt) = read(response(&[("b", "2")], &[])).unwrap();
        let answer = ledger.settle(receipt, Some("bad".to_owned()));
        assert_eq!(answer.error_detail.unwrap().message, "bad");
        let held = versions(&mut ledger, &wanted);
        assert_eq!(held, BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    }

    #[test]
    fn names_are_added_and_taken_away_one_by_one() {
        let mut ledger = Ledger::default();
        let mut check = |wanted: &[&str], subscribe: &[&str], unsubscribe: &[&str]| {
            let requests = ledger.want(&Wanted::from([(Kind::Route, names(wanted))]));
            let (added, removed): (Vec<_>, Vec<_>) = requests
                .into_iter()
                .map(|r| (r.resource_names_subscribe, r.resource_names_unsubscribe))
                .unzip();
            assert_eq!(added.concat(), subscribe, "{wanted:?}");
            assert_eq!(removed.concat(), unsubscribe, "{wanted:?}");
        };
        check(&[], &[], &[]);
        check(&["a"], &["a"], &[]);
        check(&["a"], &[], &[]);
        check(&["b"], &["b"], &["a"]);
        check(&[], &[], &["b"]);
        check(&["b"], &["b"], &[]);
    }
}
