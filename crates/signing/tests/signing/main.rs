//! Each way to add a credential, beside the examples of its specification.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod aws;
mod never;
mod plain;
mod template;

use std::sync::Arc;

use sluis_signing::{Digest, Edits, Kind, Material, Moment, RequestView, Scheme, Secret, Signer};

/// A request, to be changed where a test needs it.
struct Request {
    method: &'static str,
    authority: &'static str,
    target: String,
    fields: Vec<(&'static str, String)>,
    body: Option<Digest>,
    moment: Moment,
}

fn request(method: &'static str, authority: &'static str, target: &str) -> Request {
    let moment = Moment { unix_nanos: 1_440_938_160 * 1_000_000_000, nonce: [7; 16] };
    Request { method, authority, target: target.to_owned(), fields: Vec::new(), body: None, moment }
}

impl Request {
    fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn at(mut self, unix_seconds: i128) -> Self {
        self.moment.unix_nanos = unix_seconds * 1_000_000_000;
        self
    }

    fn sign(&self, signer: &Signer) -> Result<Edits, sluis_signing::SignError> {
        let fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let view = RequestView {
            method: self.method,
            scheme: "https",
            authority: self.authority,
            path_and_query: &self.target,
            fields: &fields,
            body: self.body.as_ref(),
        };
        signer.sign(&view, &self.moment)
    }
}

fn material(entries: &[(&str, &[u8])]) -> Arc<Material> {
    Arc::new(entries.iter().map(|(name, value)| (*name, Secret::new(value.to_vec()))).collect())
}

fn signer(kind: Kind, entries: &[(&str, &[u8])]) -> Signer {
    Scheme::compile(kind).unwrap().signer(material(entries)).unwrap()
}

/// The fields that are set, as lines.
fn lines(edits: &Edits) -> Vec<String> {
    let line = |(name, value): (&str, &[u8])| format!("{name}: {}", str::from_utf8(value).unwrap());
    edits.set().map(line).collect()
}
