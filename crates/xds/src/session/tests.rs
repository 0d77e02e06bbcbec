//! Behaviour of the session: what is sent after what, as tables.

use std::sync::Arc;

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use sluis_envoy::{EncodedSet, Kind, ResourceSet};

use super::*;

/// A set written as `CDS/name=content`, for the kinds that the tests use.
pub(super) fn set(resources: &str) -> Arc<EncodedSet> {
    let mut set = ResourceSet::default();
    for resource in resources.split_whitespace() {
        let (kind, rest) = resource.split_once('/').unwrap();
        let (name, content) = rest.split_once('=').unwrap();
        let (name, content) = (name.to_owned(), content.to_owned());
        match kind {
            "CDS" => {
                let cluster =
                    Cluster { name: name.clone(), alt_stat_name: content, ..Cluster::default() };
                set.clusters.insert(name, Arc::new(cluster));
            }
            "EDS" => {
                let endpoints = ClusterLoadAssignment {
                    cluster_name: name.clone(),
                    named_endpoints: [(content, Default::default())].into(),
                    ..ClusterLoadAssignment::default()
                };
                set.endpoints.insert(name, Arc::new(endpoints));
            }
            "LDS" => {
                let listener =
                    Listener { name: name.clone(), stat_prefix: content, ..Listener::default() };
                set.listeners.insert(name, Arc::new(listener));
            }
            "RDS" => {
                let route = RouteConfiguration {
                    name: name.clone(),
                    internal_only_headers: vec![content],
                    ..RouteConfiguration::default()
                };
                set.routes.insert(name, Arc::new(route));
            }
            other => panic!("{other} is no kind of these tests"),
        }
    }
    Arc::new(set.encode())
}

pub(super) fn kind(short: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| kind.short() == short).unwrap()
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// One stream, with its actions as text: `CDS#1 +a -b`, `CDS ack`, `CDS nack why`.
struct Talk(Session);

impl Talk {
    fn new(dialect: Dialect, resources: &str) -> Self {
        Self(Session::new(dialect, set(resources)))
    }

    #[track_caller]
    fn on(&mut self, event: Event, expected: &[&str]) {
        let shown: Vec<_> = self.0.on(event).iter().filter_map(show).collect();
        assert_eq!(shown, expected);
    }

    #[track_caller]
    fn set(&mut self, resources: &str, expected: &[&str]) {
        self.on(Event::Set(set(resources)), expected);
    }

    #[track_caller]
    fn ask(&mut self, short: &str, nonce: &str, error: Option<&str>, n: Names, expected: &[&str]) {
        let (kind, nonce, error) = (kind(short), nonce.to_owned(), error.map(str::to_owned));
        self.on(Event::Ask(Ask { kind, nonce, error, names: n }), expected);
    }

    /// State of the world: `wanted` is the whole list.
    #[track_caller]
    fn sotw(&mut self, short: &str, nonce: &str, wanted: &str, expected: &[&str]) {
        self.ask(short, nonce, None, Names::All(names(wanted)), expected);
    }

    /// Incremental: `change` holds `+name` and `-name`.
    #[track_caller]
    fn delta(&mut self, short: &str, nonce: &str, change: &str, expected: &[&str]) {
        self.ask(short, nonce, None, changes(change, &[]), expected);
    }

    #[track_caller]
    fn nack(&mut self, short: &str, nonce: &str, expected: &[&str]) {
        let names = match self.0.dialect {
            Dialect::Sotw => Names::All(vec![]),
            Dialect::Delta => changes("", &[]),
        };
        self.ask(short, nonce, Some("bad"), names, expected);
    }
}

fn changes(change: &str, held: &[(&str, &str)]) -> Names {
    let (subscribe, unsubscribe): (Vec<_>, Vec<_>) =
        names(change).into_iter().partition(|name| name.starts_with('+'));
    let strip = |names: Vec<String>| names.into_iter().map(|name| name[1..].to_owned()).collect();
    Names::Change {
        subscribe: strip(subscribe),
        unsubscribe: strip(unsubscribe),
        held: held.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn show(action: &Action) -> Option<String> {
    match action {
        Action::Send(Response { kind, nonce, upserts, removed, .. }) => {
            let mut text = format!("{kind}#{nonce}");
            upserts.iter().for_each(|resource| text += &format!(" +{}", resource.name));
            removed.iter().for_each(|name| text += &format!(" -{name}"));
            Some(text)
        }
        Action::Report(_, Report::Sent { .. }) => None,
        Action::Report(kind, Report::Ack { .. }) => Some(format!("{kind} ack")),
        Action::Report(kind, Report::Nack { detail, .. }) => Some(format!("{kind} nack {detail}")),
        Action::Close(breach) => Some(format!("close: {breach}")),
    }
}

#[test]
fn a_wildcard_subscriber_gets_everything_and_an_equal_set_sends_nothing() {
    let mut talk = Talk::new(Dialect::Sotw, "CDS/a=1 CDS/b=1");
    talk.sotw("CDS", "", "", &["CDS#1 +a +b"]);
    talk.sotw("CDS", "1", "", &["CDS ack"]);
    talk.set("CDS/a=1 CDS/b=1", &[]);

    let mut talk = Talk::new(Dialect::Delta, "CDS/a=1 CDS/b=1");
    talk.delta("CDS", "", "", &["CDS#1 +a +b"]);
    talk.delta("CDS", "1", "", &["CDS ack"]);
    talk.set("CDS/a=1 CDS/b=1", &[]);
}

#[test]
fn a_proxy_that_waits_for_its_first_response_gets_one_even_when_it_is_empty() {
    Talk::new(Dialect::Sotw, "").sotw("LDS", "", "", &["LDS#1"]);
    Talk::new(Dialect::Delta, "").delta("LDS", "", "+*", &["LDS#1"]);
}

#[test]
fn state_of_the_world_repeats_everything_and_removes_by_omission() {
    let mut talk = Talk::new(Dialect::Sotw, "LDS/a=1 LDS/b=1");
    talk.sotw("LDS", "", "", &["LDS#1 +a +b"]);
    talk.sotw("LDS", "1", "", &["LDS ack"]);
    talk.set("LDS/a=2 LDS/b=1", &["LDS#2 +a +b"]);
    talk.sotw("LDS", "2", "", &["LDS ack"]);
    talk.set("LDS/b=1", &["LDS#3 +b"]);
}

#[test]
fn delta_sends_what_changed_and_names_what_is_gone() {
    let mut talk = Talk::new(Dialect::Delta, "LDS/a=1 LDS/b=1 LDS/c=1");
    talk.delta("LDS", "", "+*", &["LDS#1 +a +b +c"]);
    talk.delta("LDS", "1", "", &["LDS ack"]);
    talk.set("LDS/a=2 LDS/b=1", &["LDS#2 +a -c"]);
}

#[test]
fn a_change_during_a_push_waits_for_the_answer_and_changes_merge() {
    for dialect in [Dialect::Sotw, Dialect::Delta] {
        let mut talk = Talk::new(dialect, "LDS/a=1");
        let ask = |nonce: &'static str| {
            (
                nonce,
                match dialect {
                    Dialect::Sotw => Names::All(vec![]),
                    Dialect::Delta => changes("", &[]),
                },
            )
        };
        let (nonce, empty) = ask("");
        talk.ask("LDS", nonce, None, empty, &["LDS#1 +a"]);
        talk.set("LDS/a=2", &[]);
        talk.set("LDS/a=3", &[]);
        let (nonce, empty) = ask("1");
        talk.ask("LDS", nonce, None, empty, &["LDS ack", "LDS#2 +a"]);
        talk.set("LDS/a=4", &[]);
        talk.set("LDS/a=3", &[]);
        let (nonce, empty) = ask("2");
        talk.ask("LDS", nonce, None, empty, &["LDS ack"]);
    }
}

#[test]
fn what_was_refused_is_not_sent_again_before_it_changes() {
    let mut talk = Talk::new(Dialect::Sotw, "LDS/a=1");
    talk.sotw("LDS", "", "", &["LDS#1 +a"]);
    talk.nack("LDS", "1", &["LDS nack bad"]);
    talk.set("LDS/a=1", &[]);
    talk.set("LDS/a=2", &["LDS#2 +a"]);

    let mut talk = Talk::new(Dialect::Delta, "LDS/a=1 LDS/b=1 LDS/c=1");
    talk.delta("LDS", "", "", &["LDS#1 +a +b +c"]);
    talk.delta("LDS", "1", "", &["LDS ack"]);
    talk.set("LDS/a=2 LDS/b=2 LDS/c=1", &["LDS#2 +a +b"]);
    talk.nack("LDS", "2", &["LDS nack bad"]);
    talk.set("LDS/a=2 LDS/b=2 LDS/c=1", &[]);
    // The proxy may have taken none of the refused response: `b` goes along with the change of `a`.
    talk.set("LDS/a=3 LDS/b=2 LDS/c=1", &["LDS#3 +a +b"]);
    talk.delta("LDS", "3", "", &["LDS ack"]);
    talk.set("LDS/a=4 LDS/b=2 LDS/c=1", &["LDS#4 +a"]);
}

#[test]
fn stale_nonces_answer_nothing() {
    let mut talk = Talk::new(Dialect::Sotw, "RDS/a=1 RDS/b=1");
    talk.sotw("RDS", "", "a", &["RDS#1 +a"]);
    talk.sotw("RDS", "1", "a", &["RDS ack"]);
    talk.set("RDS/a=2 RDS/b=1", &["RDS#2 +a"]);
    talk.sotw("RDS", "1", "a b", &[]);
    talk.sotw("RDS", "2", "a b", &["RDS ack", "RDS#3 +a +b"]);

    let mut talk = Talk::new(Dialect::Delta, "RDS/a=1");
    talk.delta("RDS", "", "+a", &["RDS#1 +a"]);
    talk.delta("RDS", "7", "", &[]);
    talk.delta("RDS", "1", "", &["RDS ack"]);
}

#[test]
fn a_named_subscriber_gets_its_names_and_waits_for_or_is_told_of_unknown_ones() {
    let mut talk = Talk::new(Dialect::Sotw, "RDS/a=1 RDS/b=1");
    talk.sotw("RDS", "", "x", &[]);
    talk.sotw("RDS", "", "a x", &["RDS#1 +a"]);
    talk.sotw("RDS", "1", "a x", &["RDS ack"]);
    talk.set("RDS/a=1 RDS/x=1", &["RDS#2 +a +x"]);

    let mut talk = Talk::new(Dialect::Delta, "RDS/a=1 RDS/b=1");
    talk.delta("RDS", "", "+a +x", &["RDS#1 +a -x"]);
    talk.delta("RDS", "1", "", &["RDS ack"]);
    talk.set("RDS/a=1 RDS/b=2", &[]);
    talk.set("RDS/a=1 RDS/x=1", &["RDS#2 +x"]);
    talk.delta("RDS", "2", "-x", &["RDS ack"]);
    talk.set("RDS/a=1 RDS/x=2", &[]);
}

#[test]
fn an_empty_list_of_names_is_no_subscription_for_kinds_asked_for_by_name() {
    Talk::new(Dialect::Sotw, "RDS/a=1").sotw("RDS", "", "", &[]);
    Talk::new(Dialect::Delta, "RDS/a=1").delta("RDS", "", "", &[]);
}

#[test]
fn a_delta_subscriber_that_asks_again_gets_the_resource_again() {
    let mut talk = Talk::new(Dialect::Delta, "EDS/a=1 EDS/b=1");
    talk.delta("EDS", "", "+a +b", &["EDS#1 +a +b"]);
    talk.delta("EDS", "1", "", &["EDS ack"]);
    talk.delta("EDS", "", "+a", &["EDS#2 +a"]);
}

#[test]
fn a_reconnecting_proxy_gets_only_what_differs_from_what_it_holds() {
    let held = set("CDS/a=1 CDS/b=1");
    let version = |name: &str| held.get(Kind::Cluster, name).unwrap().version.clone();
    let mut talk = Talk::new(Dialect::Delta, "CDS/a=1 CDS/b=2 LDS/l=1");
    let (a, b) = (version("a"), version("b"));
    let holding = changes("+*", &[("a", &a), ("b", &b), ("gone", "1")]);
    talk.ask("CDS", "", None, holding, &["CDS#1 +b"]);
    talk.delta("CDS", "1", "", &["CDS ack"]);
    // The listener that the proxy still holds may name `gone`.
    talk.delta("LDS", "", "+*", &["LDS#2 +l"]);
    talk.delta("LDS", "2", "", &["LDS ack", "CDS#3 -gone"]);
}

#[test]
fn a_reconnecting_proxy_that_holds_everything_is_in_sync_without_a_word() {
    let held = set("EDS/a=1");
    let version = held.get(Kind::Endpoints, "a").unwrap().version.clone();
    let mut talk = Talk::new(Dialect::Delta, "EDS/a=1");
    talk.ask("EDS", "", None, changes("+a", &[("a", &version)]), &["EDS ack"]);
    talk.set("EDS/a=2", &["EDS#1 +a"]);
}

#[test]
fn kinds_are_pushed_in_the_order_in_which_they_name_each_other() {
    let mut talk = Talk::new(Dialect::Delta, "");
    for (short, change) in [("RDS", "+r"), ("LDS", "+*"), ("EDS", "+c"), ("CDS", "+*")] {
        let response = Event::Ask(Ask {
            kind: kind(short),
            nonce: String::new(),
            error: None,
            names: changes(change, &[]),
        });
        let nonce = talk.0.on(response).into_iter().find_map(|action| match action {
            Action::Send(response) => Some(response.nonce),
            _ => None,
        });
        talk.delta(short, &nonce.unwrap(), "", &[&format!("{short} ack")]);
    }
    let all = "CDS/c=1 EDS/c=1 LDS/l=1 RDS/r=1";
    talk.set(all, &["CDS#5 +c", "EDS#6 +c", "LDS#7 +l", "RDS#8 +r"]);
}

#[test]
fn listeners_wait_for_clusters_that_cannot_be_sent_yet_and_endpoints_do_not() {
    let mut talk = Talk::new(Dialect::Delta, "CDS/a=1");
    talk.delta("LDS", "", "+*", &["LDS#1"]);
    talk.delta("LDS", "1", "", &["LDS ack"]);
    talk.delta("CDS", "", "+*", &["CDS#2 +a"]);
    talk.set("CDS/a=1 CDS/b=1 EDS/a=1 LDS/l=1", &[]);
    talk.delta("EDS", "", "+a", &["EDS#3 +a"]);
    talk.delta("CDS", "2", "", &["CDS ack", "CDS#4 +b", "LDS#5 +l"]);
}

#[test]
fn clusters_are_removed_only_after_the_listeners_that_named_them() {
    let mut talk = Talk::new(Dialect::Delta, "CDS/a=1 LDS/l=a");
    talk.delta("CDS", "", "+*", &["CDS#1 +a"]);
    talk.delta("CDS", "1", "", &["CDS ack"]);
    talk.delta("LDS", "", "+*", &["LDS#2 +l"]);
    talk.delta("LDS", "2", "", &["LDS ack"]);
    talk.set("CDS/b=1 LDS/l=b", &["CDS#3 +b", "LDS#4 +l"]);
    talk.delta("CDS", "3", "", &["CDS ack"]);
    talk.delta("LDS", "4", "", &["LDS ack", "CDS#5 -a"]);

    let mut talk = Talk::new(Dialect::Sotw, "CDS/a=1 LDS/l=a");
    talk.sotw("CDS", "", "", &["CDS#1 +a"]);
    talk.sotw("CDS", "1", "", &["CDS ack"]);
    talk.sotw("LDS", "", "", &["LDS#2 +l"]);
    talk.sotw("LDS", "2", "", &["LDS ack"]);
    talk.set("CDS/b=1 LDS/l=b", &["CDS#3 +a +b", "LDS#4 +l"]);
    talk.sotw("CDS", "3", "", &["CDS ack"]);
    talk.sotw("LDS", "4", "", &["LDS ack", "CDS#5 +b"]);
}

#[test]
fn a_cluster_stays_while_the_proxy_refuses_the_listener_that_no_longer_names_it() {
    let mut talk = Talk::new(Dialect::Delta, "CDS/a=1 LDS/l=a");
    talk.delta("CDS", "", "+*", &["CDS#1 +a"]);
    talk.delta("CDS", "1", "", &["CDS ack"]);
    talk.delta("LDS", "", "+*", &["LDS#2 +l"]);
    talk.delta("LDS", "2", "", &["LDS ack"]);
    talk.set("LDS/l=bad", &["LDS#3 +l"]);
    talk.nack("LDS", "3", &["LDS nack bad"]);
    talk.set("LDS/l=good", &["LDS#4 +l"]);
    talk.delta("LDS", "4", "", &["LDS ack", "CDS#5 -a"]);
}

/// Envoy asks again for the endpoints of an updated cluster in a request that looks like an ACK.
#[test]
fn endpoints_are_sent_again_after_clusters_in_state_of_the_world() {
    let mut talk = Talk::new(Dialect::Sotw, "CDS/a=1 EDS/a=1");
    talk.sotw("CDS", "", "", &["CDS#1 +a"]);
    talk.sotw("CDS", "1", "", &["CDS ack"]);
    talk.sotw("EDS", "", "a", &["EDS#2 +a"]);
    talk.sotw("EDS", "2", "a", &["EDS ack"]);
    talk.set("CDS/a=2 EDS/a=1", &["CDS#3 +a"]);
    talk.sotw("EDS", "2", "a", &["EDS#4 +a"]);
    talk.sotw("EDS", "4", "a", &["EDS ack"]);
}

#[test]
fn too_many_or_too_long_names_close_the_stream() {
    let check = |names: Vec<String>, expected: Breach| {
        let mut session = Session::new(Dialect::Sotw, Arc::default());
        let ask =
            Ask { kind: Kind::Route, nonce: String::new(), error: None, names: Names::All(names) };
        assert_eq!(session.on(Event::Ask(ask)), [Action::Close(expected)]);
    };
    let many = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
    check(many, Breach::Names { kind: Kind::Route });
    check(vec!["x".repeat(NAME_BYTES_MAX + 1)], Breach::Name { kind: Kind::Route });
}

#[test]
fn the_version_is_a_hash_of_everything_the_proxy_holds() {
    let version = |dialect: Dialect, resources: &str| {
        let names = match dialect {
            Dialect::Sotw => Names::All(vec![]),
            Dialect::Delta => changes("", &[]),
        };
        let mut session = Session::new(dialect, set(resources));
        let ask = Ask { kind: Kind::Cluster, nonce: String::new(), error: None, names };
        let Some(Action::Send(response)) = session.on(Event::Ask(ask)).into_iter().next() else {
            panic!("nothing was sent");
        };
        response.version
    };
    let one = version(Dialect::Sotw, "CDS/a=1");
    assert_eq!(one, version(Dialect::Sotw, "CDS/a=1 LDS/l=1"));
    assert_eq!(one, version(Dialect::Delta, "CDS/a=1"));
    assert_ne!(one, version(Dialect::Sotw, "CDS/a=2"));
    assert_ne!(one, version(Dialect::Sotw, "CDS/b=1"));
}
