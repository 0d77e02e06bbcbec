//! `x-forwarded-client-cert`: who the client is, said only by those who have verified it.

use sluis_http1::{Known, RequestHead};
use sluis_rules::ClientCertRule;

use crate::http::site::Site;

/// Removes, keeps, sets or appends to the field, as the manager says.
pub(super) fn mark(site: Site<'_>, head: &mut RequestHead, text: &mut Vec<u8>) {
    let forward = &site.manager.client_cert;
    let peer = site.connection.peer.as_ref();
    let keeps = match forward.rule {
        ClientCertRule::AlwaysForwardOnly => true,
        ClientCertRule::ForwardOnly | ClientCertRule::AppendForward => peer.is_some(),
        ClientCertRule::Sanitize | ClientCertRule::SanitizeSet => false,
    };
    let (ClientCertRule::AppendForward | ClientCertRule::SanitizeSet, Some(peer)) =
        (forward.rule, peer)
    else {
        if !keeps {
            head.fields.remove(Known::XForwardedClientCert);
        }
        return;
    };
    text.clear();
    if keeps {
        for value in head.fields.all(Known::XForwardedClientCert) {
            text.extend_from_slice(value);
            text.push(b',');
        }
    }
    let start = text.len();
    let mut part = |key: &str, value: &str, quoted: bool| {
        if text.len() > start {
            text.push(b';');
        }
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        if quoted {
            text.push(b'"');
        }
        text.extend_from_slice(value.as_bytes());
        if quoted {
            text.push(b'"');
        }
    };
    // Envoy's order: By, Hash, then what was asked for.
    for uri in site.connection.own_uris.iter().filter(|uri| is_plain(uri)) {
        part("By", uri, false);
    }
    part("Hash", &peer.hash(), false);
    let details = forward.details;
    if details.cert {
        part("Cert", &peer.pem_of_leaf(), true);
    }
    if details.chain {
        part("Chain", &peer.pem_of_chain(), true);
    }
    if details.subject {
        part("Subject", &peer.subject, true);
    }
    if details.uri {
        // The key is there even without a name, as in Envoy.
        part("URI", peer.uris.first().filter(|uri| is_plain(uri)).map_or("", |uri| uri), false);
    }
    if details.dns {
        for name in peer.dns_names.iter().filter(|name| is_plain(name)) {
            part("DNS", name, false);
        }
    }
    head.fields.set_trusted(Known::XForwardedClientCert, text);
}

/// A name that could end its element says nothing at all.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic() && !b",;=\"".contains(&byte))
}
