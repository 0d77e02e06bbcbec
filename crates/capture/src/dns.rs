//! Answers DNS queries from a table of names, as the resolver that a jail sees.
//!
//! In:    one query as it came off the wire, the transport, and a [`Lookup`].
//! Out:   the reply, or `None` for what deserves no reply.
//! Never: reads a clock, or trusts a length in the query; asks another server unless the table says
//!        that the name is its business ([`Unknown::Elsewhere`]).
//!
//! Start at [`answer`]. Only the questions of a mesh are answered: A and AAAA of names that the
//! mesh knows (RFC 1035 §4, RFC 3596). Every other type of a known name exists without data
//! (NOERROR, RFC 2308 §2.2); other names get what [`Unknown`] says.

mod forward;
mod guard;
mod query;
mod reply;
mod serve;

use std::net::{IpAddr, SocketAddr};

use query::{Question, Refusal};
use reply::Reply;

pub use serve::{serve_tcp, serve_udp};

/// How long a client may keep an answer, in seconds. Short: the mesh's configuration may change.
pub const TTL_SECONDS: u32 = 30;

/// The most addresses in one answer; more would only be cut off again by the transport.
pub const ADDRESSES_MAX: usize = 64;

/// Which transport a query came by; it bounds the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// At most 512 bytes, or what EDNS(0) allows up to 1232; a longer reply is truncated.
    Udp,
    /// Up to 65535 bytes. The two bytes of length are not part of the query or of the reply.
    Tcp,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The name exists, with these addresses (perhaps none of the family that is asked for).
    Addresses(Vec<IpAddr>),
    /// The name is not in the table.
    Unknown(Unknown),
}

/// What to say of a name that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// There is no such name: the table is all there is.
    NxDomain,
    /// It is not known now (the table has not arrived yet); the client may ask again.
    ServFail,
    /// This resolver does not answer for such names.
    Refused,
    /// The servers of [`Lookup::servers`] answer for such names.
    Elsewhere,
}

/// A table of names.
pub trait Lookup {
    /// Finds a name: lower case, without the final dot. Wildcards are the table's own business.
    fn lookup(&self, name: &str) -> Found;

    /// The servers that answer for [`Unknown::Elsewhere`]; none, and such names are refused.
    fn servers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

/// What becomes of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It deserves no reply.
    Silence,
    /// It is answered so.
    Reply(Vec<u8>),
    /// Another server is to be asked, with the query as it is; if none answers, this is the reply.
    Forward(Vec<u8>),
}

/// Answers one query.
///
/// `None` for what is no query at all (shorter than a header, or itself a reply): answering those
/// would let two resolvers talk to each other for ever.
#[must_use]
pub fn answer(lookup: &dyn Lookup, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match judge(lookup, query, transport) {
        Verdict::Silence => None,
        Verdict::Reply(reply) | Verdict::Forward(reply) => Some(reply),
    }
}

/// Answers one query, or says that another server should.
#[must_use]
pub fn judge(lookup: &dyn Lookup, query: &[u8], transport: Transport) -> Verdict {
    let question = match query::parse(query) {
        Ok(question) => question,
        Err(Refusal::Silence) => return Verdict::Silence,
        Err(Refusal::Code(header, code)) => return Verdict::Reply(Reply::bare(header, code)),
    };
    let limit = match (transport, &question.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => reply::PLAIN_UDP_BYTES,
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.udp_bytes).clamp(reply::PLAIN_UDP_BYTES, reply::EDNS_UDP_BYTES)
        }
    };
    let (reply, is_elsewhere) = decide(lookup, &question);
    let reply = reply.encode(&question, limit);
    if is_elsewhere { Verdict::Forward(reply) } else { Verdict::Reply(reply) }
}

/// The reply to a well-formed question, and whether another server should give it.
fn decide(lookup: &dyn Lookup, question: &Question<'_>) -> (Reply, bool) {
    if question.edns.as_ref().is_some_and(|edns| edns.version > 0) {
        return (Reply::code(reply::BADVERS), false);
    }
    if question.class != query::CLASS_IN {
        return (Reply::code(reply::REFUSED), false);
    }
    // A name that no host can have (RFC 1123 §2.1 and the underscore) is in no table.
    let found = match &question.name {
        Some(name) => lookup.lookup(name),
        None => Found::Unknown(Unknown::NxDomain),
    };
    let is_elsewhere = found == Found::Unknown(Unknown::Elsewhere);
    let reply = match found {
        Found::Addresses(addresses) => {
            let wanted = |ip: &IpAddr| match question.kind {
                query::TYPE_A => ip.is_ipv4(),
                query::TYPE_AAAA => ip.is_ipv6(),
                _ => false,
            };
            Reply::addresses(addresses.into_iter().filter(wanted).take(ADDRESSES_MAX).collect())
        }
        Found::Unknown(Unknown::NxDomain) => Reply::code(reply::NXDOMAIN),
        Found::Unknown(Unknown::ServFail) => Reply::code(reply::SERVFAIL),
        Found::Unknown(Unknown::Refused | Unknown::Elsewhere) => Reply::code(reply::REFUSED),
    };
    (reply, is_elsewhere)
}

#[cfg(test)]
mod tests;
