//! What the chains of a port claim, by what the port speaks and the mode of mutual TLS.
//!
//! In:    a protocol, a mode.
//! Out:   Istio's claims, in order; the chain of each.
//! Never: claims plain text under `STRICT`.

use sluis_model::MtlsMode;
use sluis_resources::{MeshConfig, Protocol};

use crate::{InboundChain, InboundHandler, ServerTls, Transport, select::tls};

/// What sidecars of the mesh name by ALPN: for bytes, and for requests.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What the HTTP inspector names.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Cipher suites of the mesh's own TLS 1.2 (Istio's list).
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// What a port speaks, as far as chains are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http,
    Tcp,
    Auto,
}

/// What one chain claims, and whether it reads HTTP and terminates the mesh's TLS.
pub(super) struct Claim {
    pub(super) is_http: bool,
    is_terminated: bool,
    transport: Transport,
    alpn: Vec<&'static str>,
}

impl Claim {
    pub(super) fn tls(is_http: bool, alpn: &[&'static str]) -> Self {
        Self { is_http, is_terminated: true, transport: Transport::Tls, alpn: alpn.to_vec() }
    }

    fn plain(is_http: bool, alpn: &[&'static str]) -> Self {
        Self { is_http, is_terminated: false, transport: Transport::Plain, alpn: alpn.to_vec() }
    }

    /// TLS that the workload terminates itself.
    fn opaque() -> Self {
        Self { transport: Transport::Tls, ..Self::plain(false, &[]) }
    }

    pub(super) fn chain(
        self,
        name: String,
        port: Option<u16>,
        handler: InboundHandler,
        mesh: &MeshConfig,
    ) -> InboundChain {
        InboundChain {
            name,
            port,
            transport: self.transport,
            alpn: self.alpn.into_iter().map(str::to_owned).collect(),
            tls: self.is_terminated.then(|| mutual(self.is_http, mesh)),
            handler,
            config: None,
        }
    }
}

/// Istio's chains for a protocol and a mode: `PERMISSIVE` tells the mesh's own TLS by its ALPN.
pub(super) fn claims(spoken: Spoken, mode: MtlsMode) -> Vec<Claim> {
    let any_mesh: Vec<&'static str> = MESH_TCP.into_iter().rev().chain(MESH_HTTP).collect();
    match (spoken, mode) {
        (Spoken::Http, MtlsMode::Strict) => vec![Claim::tls(true, &[])],
        (Spoken::Http, MtlsMode::Permissive) => {
            vec![Claim::tls(true, &any_mesh), Claim::plain(true, &[])]
        }
        (Spoken::Http, MtlsMode::Disable) => vec![Claim::plain(true, &[])],
        (Spoken::Tcp, MtlsMode::Strict) => vec![Claim::tls(false, &[])],
        (Spoken::Tcp, MtlsMode::Permissive) => {
            vec![Claim::tls(false, &any_mesh), Claim::plain(false, &[]), Claim::opaque()]
        }
        (Spoken::Tcp, MtlsMode::Disable) => vec![Claim::plain(false, &[])],
        (Spoken::Auto, MtlsMode::Strict) => {
            vec![Claim::tls(true, &MESH_HTTP), Claim::tls(false, &[])]
        }
        (Spoken::Auto, MtlsMode::Permissive) => vec![
            Claim::tls(true, &MESH_HTTP),
            Claim::plain(true, &PLAIN_HTTP),
            Claim::tls(false, &MESH_TCP),
            Claim::plain(false, &[]),
            Claim::opaque(),
        ],
        (Spoken::Auto, MtlsMode::Disable) => {
            vec![Claim::plain(true, &PLAIN_HTTP), Claim::plain(false, &[])]
        }
    }
}

/// The mesh's own TLS, towards clients.
fn mutual(is_http: bool, mesh: &MeshConfig) -> ServerTls {
    let alpn: &[&str] =
        if is_http { &["h2", "http/1.1"] } else { &["istio-peer-exchange", "h2", "http/1.1"] };
    let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
    let ciphers = match mesh.mesh_mtls_cipher_suites.as_slice() {
        [] => CIPHERS.iter().map(|name| (*name).to_owned()).collect(),
        written => written.to_vec(),
    };
    tls::mesh_server(mesh, alpn, ciphers)
}

pub(super) fn spoken(protocol: Protocol) -> Spoken {
    match protocol {
        _ if protocol.is_http() => Spoken::Http,
        Protocol::Unknown => Spoken::Auto,
        _ => Spoken::Tcp,
    }
}

pub(super) fn is_http2(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spoken: Spoken, mode: MtlsMode) -> Vec<String> {
        let show = |claim: Claim| {
            let what = if claim.is_http { "http" } else { "tcp" };
            let layer = if claim.is_terminated { "mtls" } else { "as-is" };
            format!("{:?} {} -> {what} {layer}", claim.transport, claim.alpn.join(","))
        };
        claims(spoken, mode).into_iter().map(show).collect()
    }

    #[test]
    fn each_protocol_and_mode_has_istios_chains() {
        let check = |spoken, mode, expected: &[&str]| {
            assert_eq!(shown(spoken, mode), expected, "{spoken:?} {mode:?}");
        };
        let all = "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2";
        let mesh_http = "istio-http/1.0,istio-http/1.1,istio-h2";
        use MtlsMode::{Disable, Permissive, Strict};
        check(Spoken::Http, Strict, &["Tls  -> http mtls"]);
        check(
            Spoken::Http,
            Permissive,
            &[&format!("Tls {all} -> http mtls"), "Plain  -> http as-is"],
        );
        check(Spoken::Http, Disable, &["Plain  -> http as-is"]);
        check(Spoken::Tcp, Strict, &["Tls  -> tcp mtls"]);
        check(
            Spoken::Tcp,
            Permissive,
            &[&format!("Tls {all} -> tcp mtls"), "Plain  -> tcp as-is", "Tls  -> tcp as-is"],
        );
        check(Spoken::Tcp, Disable, &["Plain  -> tcp as-is"]);
        let detected = format!("Tls {mesh_http} -> http mtls");
        check(Spoken::Auto, Strict, &[&detected, "Tls  -> tcp mtls"]);
        check(
            Spoken::Auto,
            Permissive,
            &[
                &detected,
                "Plain http/1.1,h2c -> http as-is",
                "Tls istio-peer-exchange,istio -> tcp mtls",
                "Plain  -> tcp as-is",
                "Tls  -> tcp as-is",
            ],
        );
        check(Spoken::Auto, Disable, &["Plain http/1.1,h2c -> http as-is", "Plain  -> tcp as-is"]);
    }
}
