//! The indexed decision is that of trying the policies in turn.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    condition::{Condition, Holds},
    *,
};
use crate::{
    Case, Cidr, HeaderMatch, HeaderValues, MetaValue, Metadata, MetadataMatch, Pattern,
    RequestFacts, StringMatcher, Text, ValueMatch, route::HeaderTest,
};

/// A request and its connection, from small sets of values so that policies often match.
#[derive(Clone, Debug, Default)]
struct Sample {
    uris: Vec<String>,
    subject: String,
    is_tls: bool,
    sni: String,
    port: u16,
    ip: u8,
    method: String,
    host: String,
    path: String,
    tags: Vec<Vec<u8>>,
    iss: Option<String>,
}

impl RequestFacts for Sample {
    fn method(&self) -> &str {
        &self.method
    }

    fn authority(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn header<'r>(&'r self, name: &str, values: &mut HeaderValues<'r>) {
        if name == "x-tag" {
            values.extend(self.tags.iter().map(Vec::as_slice));
        }
    }
}

impl Sample {
    fn with<T>(&self, run: impl FnOnce(&RbacFacts<'_>) -> T) -> T {
        let mut metadata = Metadata::default();
        if let Some(iss) = &self.iss {
            metadata.set("jwt", "iss", MetaValue::text(iss));
        }
        let ip = std::net::IpAddr::from([10, 0, 0, self.ip]);
        let peer = PeerFacts {
            is_tls: self.is_tls,
            uris: if self.is_tls { &self.uris } else { &[] },
            dns_names: &[],
            subject: &self.subject,
            server_name: &self.sni,
            local: Some((ip, self.port).into()),
            direct_remote: Some(ip),
            source: Some(ip),
            remote: Some(ip),
        };
        run(&RbacFacts { peer, request: Some(self), metadata: &metadata })
    }
}

const URIS: [&str; 5] = [
    "spiffe://td/ns/a/sa/x",
    "spiffe://td/ns/a/sa/y",
    "spiffe://td/ns/b/sa/x",
    "spiffe://td/ns//ns/b/sa/x",
    "spiffe://TD/ns/A/sa/x",
];
const PATHS: [&str; 7] = ["/", "/a", "/a/b", "/A/b?x=/a", "/a/b/c#f", "", "/b"];
const HOSTS: [&str; 4] = ["a.com", "A.com", "b.a.com", "c.org:80"];

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(values).prop_map(str::to_owned)
}

fn sample() -> impl Strategy<Value = Sample> {
    let tag = prop_oneof![
        one_of(&["", "a", "b", "ab"]).prop_map(String::into_bytes),
        Just(b"a\xff".to_vec())
    ];
    (
        (prop::collection::vec(one_of(&URIS), 0..3), any::<bool>(), one_of(&["", "CN=a"])),
        (one_of(&["", "a.com", "b.a.com"]), 80..84_u16, 0..4_u8),
        (one_of(&["GET", "POST"]), one_of(&HOSTS), one_of(&PATHS)),
        prop::collection::vec(tag, 0..3),
        prop::option::of(one_of(&["me", "you"])),
    )
        .prop_map(
            |((uris, is_tls, subject), (sni, port, ip), (method, host, path), tags, iss)| Sample {
                uris,
                subject,
                is_tls,
                sni,
                port,
                ip,
                method,
                host,
                path,
                tags,
                iss,
            },
        )
}

fn matcher(values: &'static [&'static str]) -> impl Strategy<Value = StringMatcher> {
    let text = (one_of(values), any::<bool>(), 0..12_usize, 0..3_usize);
    let regex = prop::sample::select(
        &[".*/ns/a/.*", "spiffe://.+/ns/b/(.+/|)sa/x(/.+)?", ".*", ".+", "/a.*", "a|b", ".*/b"][..],
    );
    prop_oneof![
        4 => text.prop_map(|(value, folds, cut, kind)| {
            let case = if folds { Case::Ignored } else { Case::Sensitive };
            let cut = cut.min(value.len());
            match kind {
                0 => StringMatcher::Exact(Text::new(&value, case)),
                1 => StringMatcher::Prefix(Text::new(&value[..cut], case)),
                _ => StringMatcher::Suffix(Text::new(&value[cut..], case)),
            }
        }),
        1 => one_of(values).prop_map(|v| StringMatcher::Contains(Text::new(&v, Case::Sensitive))),
        2 => regex.prop_map(|regex| StringMatcher::Regex(Pattern::whole(regex).unwrap())),
    ]
}

fn header(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Condition> {
    let test = prop_oneof![
        4 => matcher(values).prop_map(HeaderTest::String),
        1 => any::<bool>().prop_map(HeaderTest::Present),
    ];
    (test, any::<bool>(), any::<bool>()).prop_map(move |(test, invert, missing_is_empty)| {
        Condition::Header(HeaderMatch { name: name.into(), test, invert, missing_is_empty })
    })
}

fn leaf() -> impl Strategy<Value = Condition> {
    let range = (0..4_u8, 24..33_u8)
        .prop_map(|(ip, bits)| Cidr::new(std::net::IpAddr::from([10, 0, 0, ip]), bits).unwrap());
    let iss = matcher(&["me", "you"]).prop_map(|matcher| {
        Condition::Metadata(MetadataMatch {
            namespace: "jwt".into(),
            path: vec!["iss".into()],
            value: ValueMatch::Text(matcher),
            invert: false,
        })
    });
    prop_oneof![
        1 => Just(Condition::Always),
        4 => matcher(&URIS).prop_map(|m| Condition::Authenticated(Some(m))),
        1 => Just(Condition::Authenticated(None)),
        4 => matcher(&PATHS).prop_map(Condition::Path),
        2 => matcher(&["a.com", "b.a.com"]).prop_map(Condition::ServerName),
        3 => header(":authority", &HOSTS),
        2 => header(":method", &["GET", "POST"]),
        2 => header("x-tag", &["", "a", "b", "ab"]),
        2 => (80..84_u32, 1..3_u32).prop_map(|(start, n)| Condition::Port(start, start + n)),
        1 => range.clone().prop_map(Condition::Source),
        1 => range.prop_map(Condition::Destination),
        1 => iss,
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    leaf().prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 1..7).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

/// Envoy's way: each policy in the order of the names.
fn naive(action: RbacAction, policies: &[Policy], facts: &RbacFacts<'_>) -> Option<Arc<str>> {
    let mut sorted: Vec<&Policy> = policies.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let matches = |policy: &&Policy| match (action, policy.when.holds(facts)) {
        (RbacAction::Deny, holds) => holds != Holds::No,
        (_, holds) => holds == Holds::Yes,
    };
    sorted.into_iter().find(matches).map(|policy| Arc::clone(&policy.name))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_index_decides_as_trying_each_policy_in_turn(
        conditions in prop::collection::vec(condition(), 0..12),
        samples in prop::collection::vec(sample(), 8),
        action in prop::sample::select(&[RbacAction::Allow, RbacAction::Deny][..]),
    ) {
        let policies: Vec<Policy> = conditions
            .into_iter()
            .enumerate()
            .map(|(at, when)| Policy { name: format!("p{:02}", at * 7 % 12).into(), when })
            .collect();
        let rbac = Rbac::new(action, policies.clone());
        for sample in &samples {
            sample.with(|facts| {
                let expected = naive(action, &policies, facts);
                let verdict = rbac.decide(facts);
                assert_eq!(verdict.policy, expected.as_ref(), "{sample:?}");
                assert_eq!(verdict.is_allowed, expected.is_some() == (action == RbacAction::Allow));
            });
        }
    }
}

fn exact(uri: &str) -> Condition {
    Condition::Authenticated(Some(StringMatcher::Exact(Text::new(uri, Case::Sensitive))))
}

fn tag(regex: &str) -> Condition {
    let test = HeaderTest::String(StringMatcher::Regex(Pattern::whole(regex).unwrap()));
    Condition::Header(HeaderMatch {
        name: "x-tag".into(),
        test,
        invert: false,
        missing_is_empty: false,
    })
}

fn one(action: RbacAction, when: Condition) -> Rbac {
    Rbac::new(action, vec![Policy { name: "p q".into(), when }])
}

#[test]
fn cve_2026_73552_an_expression_over_bytes_that_are_no_text_never_lets_pass() {
    let odd = Sample { tags: vec![b"secret\xff".to_vec()], ..Sample::default() };
    let plain = Sample { tags: vec![b"secret".to_vec()], ..Sample::default() };
    let allowed = |rbac: &Rbac, sample: &Sample| sample.with(|facts| rbac.decide(facts).is_allowed);
    let deny = one(RbacAction::Deny, tag("public.*"));
    assert!(allowed(&deny, &plain));
    assert!(!allowed(&deny, &odd));
    let deny_other = one(RbacAction::Deny, Condition::Not(Box::new(tag("secret.*"))));
    assert!(allowed(&deny_other, &plain));
    assert!(!allowed(&deny_other, &odd));
    let allow = one(RbacAction::Allow, tag("secret.*"));
    assert!(allowed(&allow, &plain));
    assert!(!allowed(&allow, &odd));
}

#[test]
fn cve_2026_26308_each_value_of_a_repeated_header_is_compared_by_itself() {
    let twice = Sample { tags: vec![b"a".to_vec(), b"bad".to_vec()], ..Sample::default() };
    let deny = one(RbacAction::Deny, tag("bad"));
    assert!(!twice.with(|facts| deny.decide(facts).is_allowed));
}

#[test]
fn cve_2020_8595_query_and_fragment_do_not_hide_a_path() {
    let path = StringMatcher::Exact(Text::new("/admin", Case::Sensitive));
    let deny = one(RbacAction::Deny, Condition::Path(path));
    for path in ["/admin", "/admin?x", "/admin#x", "/admin?#"] {
        let sample = Sample { path: path.to_owned(), ..Sample::default() };
        assert!(!sample.with(|facts| deny.decide(facts).is_allowed), "{path}");
    }
}

#[test]
fn cve_2020_16844_a_suffix_of_a_principal_matches_without_a_request() {
    let suffix = StringMatcher::Suffix(Text::new("/ns/x/sa/y", Case::Sensitive));
    let deny = one(RbacAction::Deny, Condition::Authenticated(Some(suffix)));
    let uris = ["spiffe://td/ns/x/sa/y".to_owned()];
    let peer = PeerFacts { is_tls: true, uris: &uris, ..PeerFacts::default() };
    let metadata = Metadata::default();
    assert!(!deny.decide(&RbacFacts { peer, request: None, metadata: &metadata }).is_allowed);
}

#[test]
fn without_tls_there_is_no_name_and_with_it_there_is_at_least_the_subject() {
    let any = Condition::Authenticated(Some(StringMatcher::Regex(Pattern::whole(".*").unwrap())));
    let allow = one(RbacAction::Allow, any);
    let at = |is_tls| Sample { is_tls, uris: vec![URIS[0].to_owned()], ..Sample::default() };
    assert!(!at(false).with(|facts| allow.decide(facts).is_allowed));
    assert!(at(true).with(|facts| allow.decide(facts).is_allowed));
    let own = one(RbacAction::Allow, exact(URIS[0]));
    assert!(!at(false).with(|facts| own.decide(facts).is_allowed));
}

#[test]
fn a_denial_names_the_policy_without_white_space() {
    let deny = one(RbacAction::Deny, Condition::Always);
    let details = Sample::default().with(|facts| deny.decide(facts).details());
    assert_eq!(details, "rbac_access_denied_matched_policy[p_q]");
    let allow = Rbac::new(RbacAction::Allow, Vec::new());
    let details = Sample::default().with(|facts| allow.decide(facts).details());
    assert_eq!(details, "rbac_access_denied_matched_policy[none]");
}

#[test]
fn of_many_exact_names_only_one_policy_is_tried() {
    let name = |at: usize| format!("spiffe://td/ns/n{at}/sa/s");
    let policies = (0..1000).map(|at| Policy {
        name: format!("p{at:04}").into(),
        when: Condition::All(vec![Condition::Any(vec![exact(&name(at))]), Condition::Always]),
    });
    let rbac = Rbac::new(RbacAction::Allow, policies.collect());
    let sample = Sample { is_tls: true, uris: vec![name(700)], ..Sample::default() };
    let mut tried = Vec::new();
    sample.with(|facts| {
        rbac.index.candidates(facts, |at| {
            tried.push(at);
            false
        })
    });
    assert_eq!(tried, [700]);
}
