//! What passes and what does not.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        Secret as EnvoySecret, secret::Type as EnvoySecretType,
    },
};
use sluis_rules::{
    Case, DownstreamTls, SanKind, SanMatcher, SecretName, StringMatcher, Text, TlsVersion,
    TlsVersions, UpstreamTls, Validation,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::pki::{Leaf, NOW, Pki, now};
use crate::{
    ClientTls, Clock, MESH_ROOTS, PeerIdentity, Secret, SecretStore, ServerTls,
    WORKLOAD_CERTIFICATE, peer_identity,
};

pub(super) const NOTEBOOK: &str = "spiffe://cluster.local/ns/team-a/sa/notebook";
pub(super) const GATEWAY: &str = "spiffe://cluster.local/ns/egress/sa/gateway";

/// One side: its store and what it should do.
pub(super) struct Side<S> {
    pub(super) store: SecretStore,
    pub(super) settings: S,
}

fn store() -> SecretStore {
    SecretStore::new(Clock::new(now), None)
}

pub(super) fn meshed(pki: &Pki, uri: &'static [&'static str]) -> SecretStore {
    let store = store();
    store.set_identity(pki.pair(&Leaf { uris: uri, ..Leaf::default() }), pki.roots());
    store
}

fn validation(roots: &str, sans: Vec<SanMatcher>) -> Option<Validation> {
    let roots = SecretName::new(roots);
    Some(Validation {
        roots,
        sans,
        certificate_hashes: Vec::new(),
        spki_hashes: Vec::new(),
        crl: None,
        crl_leaf_only: false,
    })
}

pub(super) fn exact(kind: SanKind, name: &str) -> SanMatcher {
    SanMatcher { kind, matcher: StringMatcher::Exact(Text::new(name, Case::Sensitive)) }
}

pub(super) fn mutual_server(pki: &Pki) -> Side<DownstreamTls> {
    let settings = DownstreamTls {
        certificates: vec![SecretName::new(WORKLOAD_CERTIFICATE)],
        validation: validation(MESH_ROOTS, Vec::new()),
        require_client_certificate: true,
        require_sni: false,
        alpn: vec!["h2".into(), "http/1.1".into()],
        versions: TlsVersions::default(),
    };
    Side { store: meshed(pki, &[GATEWAY]), settings }
}

pub(super) fn mutual_client(pki: &Pki) -> Side<UpstreamTls> {
    let settings = UpstreamTls {
        certificate: Some(SecretName::new(WORKLOAD_CERTIFICATE)),
        validation: validation(MESH_ROOTS, vec![exact(SanKind::Uri, GATEWAY)]),
        sni: Some("outbound_.443_._.api.data.local".into()),
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: vec!["h2".into()],
        versions: TlsVersions::default(),
    };
    Side { store: meshed(pki, &[NOTEBOOK]), settings }
}

/// A server with a DNS certificate that asks for no client certificate.
pub(super) fn plain_server(pki: &Pki, dns: &'static [&'static str]) -> Side<DownstreamTls> {
    let mut side = mutual_server(pki);
    side.store.set_identity(pki.pair(&Leaf { dns, ..Leaf::default() }), pki.roots());
    side.settings.validation = None;
    side.settings.require_client_certificate = false;
    side
}

/// A client that goes by roots and the server's name alone.
pub(super) fn plain_client(pki: &Pki, sni: Option<&str>) -> Side<UpstreamTls> {
    let mut side = mutual_client(pki);
    side.settings.certificate = None;
    side.settings.validation = validation(MESH_ROOTS, Vec::new());
    side.settings.sni = sni.map(Into::into);
    side.settings.auto_sni_san_validation = true;
    side
}

/// What both sides know after a handshake.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) client: Option<PeerIdentity>,
    server: PeerIdentity,
    sni: Option<String>,
    alpn: Option<Vec<u8>>,
    server_io: tokio_rustls::server::TlsStream<DuplexStream>,
    client_io: tokio_rustls::client::TlsStream<DuplexStream>,
}

pub(super) async fn meet(server: &ServerTls, client: &ClientTls) -> io::Result<Met> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (server_io, client_io) = tokio::join!(server.accept(far), async {
        let mut io = client.connect(near, None).await?;
        // In TLS 1.3 the client is done before the server has judged it.
        io.write_all(b"?").await?;
        io.flush().await?;
        Ok::<_, io::Error>(io)
    });
    let (mut server_io, client_io) = (server_io?, client_io?);
    server_io.read_u8().await?;
    let seen = server_io.get_ref().1;
    Ok(Met {
        client: seen.peer_certificates().map(|chain| peer_identity(chain).unwrap()),
        server: peer_identity(client_io.get_ref().1.peer_certificates().unwrap()).unwrap(),
        sni: seen.server_name().map(str::to_owned),
        alpn: seen.alpn_protocol().map(<[u8]>::to_vec),
        server_io,
        client_io,
    })
}

pub(super) async fn shake(
    server: &Side<DownstreamTls>,
    client: &Side<UpstreamTls>,
) -> io::Result<Met> {
    let server = ServerTls::new(&server.settings, &server.store).unwrap();
    meet(&server, &ClientTls::new(&client.settings, &client.store).unwrap()).await
}

#[track_caller]
fn check(met: io::Result<Met>, passes: bool, case: &str) {
    match met {
        Ok(_) => assert!(passes, "{case}: must not pass"),
        Err(error) => assert!(!passes, "{case}: {error}"),
    }
}

#[tokio::test]
async fn each_side_learns_who_the_other_is() {
    let pki = Pki::new("mesh");
    let met = shake(&mutual_server(&pki), &mutual_client(&pki)).await.unwrap();
    assert_eq!(met.client.unwrap().id, Some(NOTEBOOK.parse().unwrap()));
    assert_eq!(met.server.id, Some(GATEWAY.parse().unwrap()));
    assert_eq!(met.sni.as_deref(), Some("outbound_.443_._.api.data.local"));
    assert_eq!(met.alpn.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_secret_that_is_missing_fails_the_handshake_on_the_side_that_needs_it() {
    let pki = Pki::new("mesh");
    let missing = Some(SecretName::new("kubernetes://absent"));
    let rules = || validation("kubernetes://absent", Vec::new());

    let mut server = mutual_server(&pki);
    server.settings.certificates = missing.clone().into_iter().collect();
    check(shake(&server, &mutual_client(&pki)).await, false, "server certificate");

    let mut server = mutual_server(&pki);
    server.settings.validation = rules();
    check(shake(&server, &mutual_client(&pki)).await, false, "server's roots");

    let mut server = plain_server(&pki, &["api.data.local"]);
    let mut client = plain_client(&pki, Some("api.data.local"));
    check(shake(&server, &client).await, true, "nothing");
    client.settings.certificate = missing;
    check(shake(&server, &client).await, false, "client certificate");

    server.settings.require_sni = true;
    let mut client = plain_client(&pki, Some("api.data.local"));
    check(shake(&server, &client).await, true, "SNI is there");
    client.settings.validation = rules();
    check(shake(&server, &client).await, false, "client's roots");
}

#[tokio::test]
async fn a_client_without_the_right_certificate_is_refused() {
    let pki = Pki::new("mesh");
    let other = Pki::new("other");
    let mut server = mutual_server(&pki);

    let mut client = mutual_client(&pki);
    client.settings.certificate = None;
    check(shake(&server, &client).await, false, "none, and one is required");
    server.settings.require_client_certificate = false;
    check(shake(&server, &client).await, true, "none, and none is required");

    let client = mutual_client(&pki);
    let stranger = other.pair(&Leaf { uris: &[NOTEBOOK], ..Leaf::default() });
    client.store.set_identity(stranger, pki.roots());
    check(shake(&server, &client).await, false, "of another authority, though none is required");

    let two = pki.pair(&Leaf { uris: &[NOTEBOOK, GATEWAY], ..Leaf::default() });
    client.store.set_identity(two, pki.roots());
    check(shake(&server, &client).await, false, "two URI names");

    let signer = pki.pair(&Leaf { uris: &[NOTEBOOK], is_ca: true, ..Leaf::default() });
    client.store.set_identity(signer, pki.roots());
    check(shake(&server, &client).await, false, "may sign");
}

#[tokio::test]
async fn names_are_compared_as_the_resource_says() {
    let pki = Pki::new("mesh");
    let text = |value: &str| Text::new(value, Case::Sensitive);
    let uri = |matcher| SanMatcher { kind: SanKind::Uri, matcher };
    let cases = [
        (exact(SanKind::Uri, GATEWAY), true),
        (exact(SanKind::Any, GATEWAY), true),
        (exact(SanKind::Uri, NOTEBOOK), false),
        (exact(SanKind::Dns, GATEWAY), false),
        (uri(StringMatcher::Prefix(text("spiffe://cluster.local/"))), true),
        (uri(StringMatcher::Prefix(text("spiffe://other.local/"))), false),
        (uri(StringMatcher::Suffix(text("/sa/gateway"))), true),
        (uri(StringMatcher::Suffix(text("/sa/notebook"))), false),
    ];
    for (san, passes) in cases {
        let mut client = mutual_client(&pki);
        let case = format!("{san:?}");
        client.settings.validation = validation(MESH_ROOTS, vec![san]);
        check(shake(&mutual_server(&pki), &client).await, passes, &case);
    }
}

#[tokio::test]
async fn an_exact_dns_name_is_covered_by_a_wildcard_of_one_label() {
    let pki = Pki::new("api");
    for (name, passes) in [
        ("api.data.local", true),
        ("a.api.data.local", false),
        ("data.local", false),
        ("evilapi.other.local", false),
    ] {
        let mut client = plain_client(&pki, None);
        client.settings.auto_sni_san_validation = false;
        client.settings.validation = validation(MESH_ROOTS, vec![exact(SanKind::Dns, name)]);
        check(shake(&plain_server(&pki, &["*.data.local"]), &client).await, passes, name);
    }
}

#[tokio::test]
async fn the_server_name_is_verified_when_that_is_asked() {
    let pki = Pki::new("api");
    let server = plain_server(&pki, &["api.data.local"]);
    check(shake(&server, &plain_client(&pki, Some("api.data.local"))).await, true, "same");
    check(shake(&server, &plain_client(&pki, Some("evil.local"))).await, false, "other");
    check(shake(&server, &plain_client(&pki, None)).await, false, "none sent");
    let mut client = plain_client(&pki, Some("evil.local"));
    client.settings.auto_sni_san_validation = false;
    check(shake(&server, &client).await, true, "other, and that is not asked");
}

#[tokio::test]
async fn verification_is_off_only_when_the_resource_has_none() {
    let pki = Pki::new("api");
    let stranger = Pki::new("other");
    let server = plain_server(&pki, &["api.data.local"]);
    let mut client = plain_client(&stranger, Some("api.data.local"));
    check(shake(&server, &client).await, false, "unknown authority");
    client.settings.validation = None;
    client.settings.auto_sni_san_validation = false;
    check(shake(&server, &client).await, true, "verification is off");
}

#[tokio::test]
async fn a_pinned_certificate_passes_and_another_of_the_same_authority_does_not() {
    let pki = Pki::new("api");
    let server = plain_server(&pki, &["api.data.local"]);
    let secret = server.store.slot(WORKLOAD_CERTIFICATE).unwrap().get().unwrap();
    let zeros = "00".repeat(32);
    for (pin, passes) in [(secret.fingerprint(), true), (&*zeros, false)] {
        let mut client = plain_client(&pki, Some("api.data.local"));
        let mut rules = validation(MESH_ROOTS, Vec::new()).unwrap();
        rules.certificate_hashes = vec![pin.into()];
        client.settings.validation = Some(rules);
        check(shake(&server, &client).await, passes, pin);
    }
}

#[tokio::test]
async fn a_client_with_whom_no_protocol_is_shared_goes_on_without_one() {
    let pki = Pki::new("mesh");
    let mut client = mutual_client(&pki);
    client.settings.alpn = vec!["istio".into()];
    let met = shake(&mutual_server(&pki), &client).await.unwrap();
    assert_eq!(met.alpn, None);
}

#[tokio::test]
async fn versions_that_do_not_overlap_fail() {
    let pki = Pki::new("mesh");
    let only = |version| TlsVersions { min: version, max: version, ..TlsVersions::default() };
    for (version, passes) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let (mut server, mut client) = (mutual_server(&pki), mutual_client(&pki));
        server.settings.versions = only(TlsVersion::V1_2);
        client.settings.versions = only(version);
        check(shake(&server, &client).await, passes, &format!("{version:?}"));
    }
}

#[tokio::test]
async fn a_client_without_sni_is_refused_when_one_is_required() {
    let pki = Pki::new("mesh");
    let mut server = mutual_server(&pki);
    server.settings.require_sni = true;
    let mut client = mutual_client(&pki);
    client.settings.sni = None;
    check(shake(&server, &client).await, false, "no SNI");
}

#[tokio::test]
async fn the_certificate_that_fits_the_sni_is_shown_else_the_first() {
    let pki = Pki::new("api");
    let server = plain_server(&pki, &["one.local"]);
    let (chain, key) = pki.pems(&Leaf { dns: &["*.two.local"], ..Leaf::default() });
    let pair = crate::KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let pushed: EnvoySecret = Secret::KeyPair(Arc::new(pair)).to_envoy("kubernetes://two");
    server.store.put(&pushed).unwrap();
    let names = [WORKLOAD_CERTIFICATE, "kubernetes://two"].map(SecretName::new);
    let settings = DownstreamTls { certificates: names.into(), ..server.settings };
    let server = Side { settings, ..server };
    for (sni, shown) in [
        (Some("one.local"), "one.local"),
        (Some("a.two.local"), "*.two.local"),
        (Some("three.local"), "one.local"),
        (None, "one.local"),
    ] {
        let mut client = plain_client(&pki, sni);
        client.settings.auto_sni_san_validation = false;
        assert_eq!(shake(&server, &client).await.unwrap().server.dns_names, [shown], "{sni:?}");
    }
}

#[tokio::test]
async fn certificates_are_judged_by_the_clock_that_was_given() {
    let pki = Pki::new("mesh");
    let seconds = Arc::new(AtomicU64::new(NOW));
    let read = seconds.clone();
    let clock = Clock::new(move || UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
    let mut client = mutual_client(&pki);
    client.store = SecretStore::new(clock, None);
    let leaf = Leaf { uris: &[NOTEBOOK], ..Leaf::default() };
    client.store.set_identity(pki.pair(&leaf), pki.roots());
    for (offset, passes) in [(0, true), (1_799, true), (1_801, false)] {
        seconds.store(NOW + offset, Ordering::Relaxed);
        check(shake(&mutual_server(&pki), &client).await, passes, &format!("{offset} s later"));
    }
}

#[tokio::test]
async fn a_rotation_reaches_the_next_handshake_and_leaves_open_connections_alone() {
    let (old, new) = (Pki::new("old"), Pki::new("new"));
    let (server, client) = (mutual_server(&old), mutual_client(&old));
    let server_tls = ServerTls::new(&server.settings, &server.store).unwrap();
    let client_tls = ClientTls::new(&client.settings, &client.store).unwrap();
    let mut met = meet(&server_tls, &client_tls).await.unwrap();

    let leaf = |uris| Leaf { uris, ..Leaf::default() };
    server.store.set_identity(new.pair(&leaf(&[GATEWAY])), new.roots());
    check(meet(&server_tls, &client_tls).await, false, "only the server is new");
    client.store.set_identity(new.pair(&leaf(&[NOTEBOOK])), new.roots());
    check(meet(&server_tls, &client_tls).await, true, "both are new");

    met.server_io.write_all(b"still here").await.unwrap();
    met.server_io.flush().await.unwrap();
    let mut heard = [0; 10];
    met.client_io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

/// Each case: what the list says of the client's certificate, by file and with the roots.
#[tokio::test]
async fn a_revoked_certificate_is_refused_wherever_the_list_comes_from() {
    let pki = Pki::new("root");
    let (chain, key) = pki.pems(&Leaf { uris: &[NOTEBOOK], ..Leaf::default() });
    let client = mutual_client(&pki);
    let pair = crate::KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    client.store.set_identity(pair, pki.roots());
    let dir = tempfile::tempdir().unwrap();
    let lists = [
        ("none is on it", pki.crl(None), true),
        ("it is on it", pki.crl(Some(&chain)), false),
        ("another authority's", Pki::new("other").crl(None), false),
    ];
    for (case, list, passes) in lists {
        let mut by_file = mutual_server(&pki);
        let path = dir.path().join("crl.pem");
        std::fs::write(&path, &list).unwrap();
        let name = format!("file-crl:{}", path.display());
        by_file.settings.validation.as_mut().unwrap().crl = Some(SecretName::new(&name));
        check(shake(&by_file, &client).await, passes, &format!("by file: {case}"));

        let mut sent = mutual_server(&pki);
        let Some(EnvoySecretType::ValidationContext(mut context)) =
            Secret::Roots(Arc::new(pki.roots())).to_envoy("kubernetes://ca").r#type
        else {
            panic!("roots are a validation context");
        };
        context.crl = Some(DataSource {
            specifier: Some(Specifier::InlineString(list)),
            ..DataSource::default()
        });
        let secret = EnvoySecret {
            name: "kubernetes://ca".to_owned(),
            r#type: Some(EnvoySecretType::ValidationContext(context)),
        };
        sent.store.put(&secret).unwrap();
        sent.settings.validation.as_mut().unwrap().roots = SecretName::new("kubernetes://ca");
        check(shake(&sent, &client).await, passes, &format!("by SDS: {case}"));
    }
    let mut missing = mutual_server(&pki);
    let nowhere = SecretName::new("file-crl:/nowhere/crl.pem");
    missing.settings.validation.as_mut().unwrap().crl = Some(nowhere);
    check(shake(&missing, &client).await, false, "a list that is not there");
}

/// CVE-2022-21654: a session must not outlive the settings under which it was made.
#[tokio::test]
async fn a_ticket_is_worth_nothing_under_other_settings() {
    let pki = Pki::new("mesh");
    let first = plain_server(&pki, &["a.test"]);
    let mut strict = mutual_server(&pki);
    strict.settings.require_client_certificate = false;
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12][..]] {
        let config = Arc::new(
            rustls::ClientConfig::builder_with_provider(crate::provider())
                .with_protocol_versions(versions)
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(
                    crate::probe::Anybody(crate::provider()),
                ))
                .with_no_client_auth(),
        );
        let kind = async |server: &ServerTls| {
            let (near, far) = tokio::io::duplex(64 << 10);
            let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            let (client, server) = tokio::join!(connector.connect(name, near), server.accept(far));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            // Tickets of TLS 1.3 come behind the handshake.
            server.write_all(b"!").await.unwrap();
            server.flush().await.unwrap();
            client.read_u8().await.unwrap();
            client.get_ref().1.handshake_kind().unwrap()
        };
        use rustls::HandshakeKind::Resumed;
        let one = ServerTls::new(&first.settings, &first.store).unwrap();
        assert_ne!(kind(&one).await, Resumed);
        assert_eq!(kind(&one).await, Resumed, "tickets are given: {versions:?}");
        let again = ServerTls::new(&first.settings, &first.store).unwrap();
        assert_ne!(kind(&again).await, Resumed, "new settings, new keys: {versions:?}");
        let other = ServerTls::new(&strict.settings, &strict.store).unwrap();
        assert_ne!(
            kind(&other).await,
            Resumed,
            "a server that asks for certificates: {versions:?}"
        );
        assert_ne!(kind(&other).await, Resumed, "and gives no tickets: {versions:?}");
    }
}
