//! Who gets no certificate: each attempt is refused, counted and costs nobody else anything.

use sluis_tls::{Clock, PeerIdentity};
use tempfile::TempDir;

use super::*;
use crate::{
    AuthorityConfig, Review,
    test_pki::{notebook, open, request_pem},
};

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const LIFE: Duration = Duration::from_secs(60);

struct Case {
    dir: TempDir,
    desk: Desk,
    tokens: Arc<JoinTokens>,
}

impl Case {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Arc::new(open(&dir.path().join("ca")).unwrap());
        let tokens = Arc::new(JoinTokens::new(Clock::system()));
        Self { desk: Desk::new(authority, tokens.clone()), tokens, dir }
    }

    fn request(&self, uri: &str) -> IstioCertificateRequest {
        let csr = request_pem(self.dir.path(), P256, uri);
        IstioCertificateRequest { csr, ..IstioCertificateRequest::default() }
    }

    fn own(&self) -> IstioCertificateRequest {
        self.request(&notebook().to_string())
    }

    fn token(&self, life: Duration) -> Caller {
        let token = self.tokens.create(notebook(), life).unwrap();
        Caller { token: Some(token.reveal().to_owned()), peer: None }
    }

    /// The call is refused with this code, and counted for this reason.
    #[track_caller]
    fn refused(
        &self,
        caller: Caller,
        request: IstioCertificateRequest,
        code: Code,
        reason: &'static str,
    ) {
        let before = self.desk.counts().refusals.get(reason).copied().unwrap_or_default();
        let denial = block_on(self.desk.create_certificate(caller, request)).unwrap_err();
        assert_eq!(denial.code(), code, "{}", denial.message());
        let counts = self.desk.counts();
        assert_eq!(counts.refusals.get(reason), Some(&(before + 1)), "{:?}", counts.refusals);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn peer(uri: &str) -> Caller {
    let peer = PeerIdentity { id: uri.parse().ok(), uris: vec![uri.into()], ..Default::default() };
    Caller { token: None, peer: Some(peer) }
}

#[test]
fn a_replayed_token_is_refused_and_counted_as_a_replay() {
    let case = Case::new();
    let caller = case.token(LIFE);
    block_on(case.desk.create_certificate(caller.clone(), case.own())).unwrap();
    case.refused(caller, case.own(), Code::Unauthenticated, "token_replayed");
    assert_eq!(case.desk.counts().issued, 1);
}

#[test]
fn an_expired_an_unknown_and_no_token_are_refused() {
    let case = Case::new();
    let expired = case.token(Duration::ZERO);
    case.refused(expired, case.own(), Code::Unauthenticated, "token_expired");
    let unknown = Caller { token: Some("00.00".into()), peer: None };
    case.refused(unknown, case.own(), Code::Unauthenticated, "token_unknown");
    case.refused(Caller::default(), case.own(), Code::Unauthenticated, "no_proof");
}

#[test]
fn a_token_for_another_identity_is_refused_and_stays_good_for_its_own() {
    let case = Case::new();
    let caller = case.token(LIFE);
    for other in [
        "spiffe://cluster.local/ns/egress/sa/gateway",
        "spiffe://cluster.local/ns/team-b/sa/notebook",
        "spiffe://other.domain/ns/team-a/sa/notebook",
        "spiffe://cluster.local/ns/team-a/sa/notebook/",
        "https://cluster.local/ns/team-a/sa/notebook",
    ] {
        case.refused(caller.clone(), case.request(other), Code::PermissionDenied, "wrong_identity");
    }
    block_on(case.desk.create_certificate(caller, case.own())).unwrap();
}

#[test]
fn a_certificate_does_not_open_the_door_to_another_identity() {
    let case = Case::new();
    let caller = peer("spiffe://cluster.local/ns/team-a/sa/notebook");
    let other = case.request("spiffe://cluster.local/ns/egress/sa/gateway");
    case.refused(caller.clone(), other, Code::PermissionDenied, "wrong_identity");
    let foreign = peer("spiffe://other.domain/ns/team-a/sa/notebook");
    case.refused(foreign, case.own(), Code::PermissionDenied, "trust_domain");
    let unnamed = peer("https://cluster.local/notebook");
    case.refused(unnamed, case.own(), Code::Unauthenticated, "no_proof");
    let mut impersonating = case.own();
    let text = |text: &str| envoy_types::pb::google::protobuf::Value {
        kind: Some(Kind::StringValue(text.into())),
    };
    let wish = ("ImpersonatedIdentity".to_owned(), text("spiffe://cluster.local/ns/a/sa/b"));
    impersonating.metadata =
        Some(envoy_types::pb::google::protobuf::Struct { fields: [wish].into() });
    case.refused(caller, impersonating, Code::InvalidArgument, "impersonation");
}

#[test]
fn requests_that_are_malformed_forged_weak_or_huge_are_refused_and_cost_no_token() {
    let case = Case::new();
    let caller = case.token(LIFE);
    let with = |csr: String| IstioCertificateRequest { csr, ..Default::default() };
    let good = case.own().csr;
    for (csr, reason) in [
        (String::new(), "malformed"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into(),
            "malformed",
        ),
        (good.repeat(100), "malformed"),
        (request_pem(case.dir.path(), "rsa:1024", &notebook().to_string()), "weak_key"),
        (request_pem(case.dir.path(), "ed448", &notebook().to_string()), "weak_key"),
    ] {
        case.refused(caller.clone(), with(csr), Code::InvalidArgument, reason);
    }
    let negative = IstioCertificateRequest { validity_duration: -1, ..with(good) };
    case.refused(caller.clone(), negative, Code::InvalidArgument, "malformed");
    block_on(case.desk.create_certificate(caller, case.own())).unwrap();
}

/// Vouches for one token, as a cluster would.
#[derive(Debug)]
struct Cluster;

impl TokenReviewer for Cluster {
    fn review<'a>(&'a self, token: &'a str) -> Review<'a> {
        Box::pin(async move {
            match token {
                "head.body.signature" => Ok(notebook()),
                _ => Err("not authenticated".to_owned()),
            }
        })
    }
}

#[test]
fn a_token_that_a_reviewer_vouches_for_proves_an_identity() {
    let Case { dir, desk, tokens } = Case::new();
    let case = Case { desk: desk.with_reviewer(Arc::new(Cluster)), tokens, dir };
    let with = |token: &str| Caller { token: Some(token.into()), peer: None };
    block_on(case.desk.create_certificate(with("head.body.signature"), case.own())).unwrap();
    case.refused(
        with("head.body.forged"),
        case.own(),
        Code::Unauthenticated,
        "token_not_confirmed",
    );
    // Join tokens still go to their own desk.
    block_on(case.desk.create_certificate(case.token(LIFE), case.own())).unwrap();
    case.refused(with("unknown.token"), case.own(), Code::Unauthenticated, "token_unknown");
    assert_eq!(case.desk.authority.config().lifetime_max, AuthorityConfig::default().lifetime_max);
}
