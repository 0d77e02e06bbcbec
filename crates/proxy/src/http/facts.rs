//! The request as the route table sees it: the header block, without a copy.

use std::str;

use sluis_http1::{Known, RequestHead};
use sluis_rules::{HeaderValues, Metadata, RequestFacts};

/// A request head with the scheme that it came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'r> {
    pub(super) head: &'r RequestHead,
    pub(super) scheme: &'static str,
    /// The number that decides on shares of requests.
    pub(super) draw: u64,
    /// What filters have found out.
    pub(super) metadata: Option<&'r Metadata>,
}

/// The parser lets only ASCII through in method, target and authority.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

impl RequestFacts for Facts<'_> {
    fn method(&self) -> &str {
        text(self.head.method_name())
    }

    fn authority(&self) -> &str {
        text(self.head.authority())
    }

    fn path(&self) -> &str {
        text(self.head.path())
    }

    fn scheme(&self) -> &str {
        self.scheme
    }

    fn draw(&self) -> u64 {
        self.draw
    }

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata
    }

    fn header<'r>(&'r self, name: &str, values: &mut HeaderValues<'r>) {
        match Known::of(name.as_bytes()) {
            Some(known) => values.extend(self.head.fields.all(known)),
            None => {
                let named =
                    |(found, _): &(&[u8], &[u8])| found.eq_ignore_ascii_case(name.as_bytes());
                values.extend(self.head.fields.iter().filter(named).map(|(_, value)| value));
            }
        }
    }
}
