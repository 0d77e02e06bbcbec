//! Signatures made again from the bytes that came, by code of this test's own.

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{capture::Captured, scene::SECRET};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// The seed's form, with the digest of the body: whether the signature is of what came.
pub(crate) fn is_seeds(request: &Captured) -> Result<(), String> {
    let date = request.field("x-date").ok_or("no date")?;
    let sent = request.field("content-digest").ok_or("no digest")?;
    let own = STANDARD.encode(digest::digest(&digest::SHA256, &request.body));
    if sent != format!("sha-256=:{own}:") {
        return Err(format!("digest {sent} of {:?}", request.body));
    }
    let Captured { method, host, target, .. } = request;
    let text = format!("{method}\n{host}\n{target}\n{date}\n{sent}");
    let signature = hex(&mac(SECRET.as_bytes(), text.as_bytes()));
    let expected = format!("Version=V1, Credential=AK1, Signature={signature}");
    let found = request.field("x-authorization").ok_or("no signature")?;
    if found == expected { Ok(()) } else { Err(format!("{found} is not of {text:?}")) }
}

/// AWS Signature Version 4 in fields, as its documentation says a server verifies it.
pub(crate) fn is_aws(request: &Captured) -> Result<(), String> {
    let found = request.field("authorization").ok_or("no signature")?;
    let part = |name: &str| {
        let rest = found.split(&format!("{name}=")).nth(1);
        rest.map(|rest| rest.split(',').next().unwrap_or_default().trim().to_owned())
    };
    let credential = part("Credential").ok_or("no credential")?;
    let names = part("SignedHeaders").ok_or("no names")?;
    let signature = part("Signature").ok_or("no signature")?;
    let payload = request.field("x-amz-content-sha256").ok_or("no payload")?;
    if payload != sha256(&request.body) {
        return Err(format!("payload {payload} of {:?}", request.body));
    }
    let date = request.field("x-amz-date").ok_or("no date")?;
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (escaped(&unescaped(name), false), escaped(&unescaped(value), false)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields: String = names
        .split(';')
        .map(|name| {
            let named = request.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            let mut values: Vec<String> =
                named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
            if name == "host" {
                values = vec![request.host.clone()];
            }
            let folded = values.iter().map(|value| {
                let words: Vec<&str> = value.split_ascii_whitespace().collect();
                words.join(" ")
            });
            format!("{name}:{}\n", folded.collect::<Vec<_>>().join(","))
        })
        .collect();
    // Encoded once as it came, and once more, as for all services but S3.
    let path = escaped(normal(path).as_bytes(), true);
    let canonical = [&request.method, &path, &query.join("&"), &fields, &names, &payload];
    let canonical = canonical.map(String::as_str).join("\n");
    let (_, scope) = credential.split_once('/').ok_or("no scope")?;
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for step in scope.split('/') {
        key = mac(&key, step.as_bytes());
    }
    let own = hex(&mac(&key, text.as_bytes()));
    if own == signature { Ok(()) } else { Err(format!("{signature} is not of {canonical:?}")) }
}

/// Without dots and doubled slashes, as for all services but S3.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let last = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{last}", parts.join("/"))
}

fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(code, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            // As in forms, which is how servers read queries.
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

fn escaped(bytes: &[u8], keeps_slash: bool) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keeps_slash && byte == b'/')
    };
    let text = bytes.iter().map(|byte| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    text.collect()
}
