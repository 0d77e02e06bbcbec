//! DNS messages (RFC 1035 §4): the questions that we ask, and the addresses in answers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The addresses; none when the name has none or does not exist.
    Addresses { addresses: Vec<IpAddr>, ttl: Option<Duration> },
    /// There is more than fits: ask by TCP.
    Truncated,
    /// The server could not say.
    Failed(u8),
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// Header length (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// A question; `None` when the name cannot be asked for.
pub(super) fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut query = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        query.push(length);
        query.extend(label.bytes());
    }
    query.push(0);
    if query.len() > HEADER + 255 {
        return None;
    }
    query.extend(kind.code().to_be_bytes());
    query.extend([0, 1]);
    Some(query)
}

/// Reads an answer to this question; `None` when it is none.
pub(super) fn reply(message: &[u8], query: &[u8]) -> Option<Reply> {
    let question = query.get(HEADER..)?;
    let flags = message.get(2..4)?;
    let is_answer = flags[0] & 0x80 != 0 && message.get(..2)? == &query[..2];
    let echoed = message.get(HEADER..HEADER + question.len())?;
    if !is_answer || u16_at(message, 4)? != 1 || !echoed.eq_ignore_ascii_case(question) {
        return None;
    }
    if flags[0] & 0x02 != 0 {
        return Some(Reply::Truncated);
    }
    match flags[1] & 0x0f {
        0 => {}
        // The name does not exist: that is an answer.
        3 => return Some(Reply::Addresses { addresses: Vec::new(), ttl: None }),
        code => return Some(Reply::Failed(code)),
    }
    let kind = u16_at(question, question.len() - 4)?;
    let (mut addresses, mut ttl) = (Vec::new(), None);
    let mut at = HEADER + question.len();
    for _ in 0..u16_at(message, 6)? {
        at = skip_name(message, at)?;
        let (found, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
        let life = u32::from_be_bytes(message.get(at + 4..at + 8)?.try_into().ok()?);
        let length = usize::from(u16_at(message, at + 8)?);
        let data = message.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        if found != kind || class != 1 {
            continue;
        }
        addresses.push(match length {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => return None,
        });
        let life = Duration::from_secs(u64::from(life));
        ttl = Some(ttl.map_or(life, |ttl: Duration| ttl.min(life)));
    }
    Some(Reply::Addresses { addresses, ttl })
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// The place behind a name. Compressed names are not followed: what they say does not matter.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_other_messages_are_not() {
        let query = query(7, "api.data.local", Kind::V4).unwrap();
        let mut answer = query.clone();
        answer[2] |= 0x80;
        answer[7] = 2;
        // A CNAME, then an address; both names compressed.
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
        let ttl = Some(Duration::from_secs(60));
        let addresses = vec!["10.1.2.3".parse().unwrap()];
        assert_eq!(reply(&answer, &query), Some(Reply::Addresses { addresses, ttl }));
        let mut other = answer.clone();
        other[1] = 8;
        assert_eq!(reply(&other, &query), None);
        for end in 0..answer.len() {
            assert!(!matches!(reply(&answer[..end], &query), Some(Reply::Addresses { .. })));
        }
        answer[3] = 3;
        assert_eq!(
            reply(&answer, &query),
            Some(Reply::Addresses { addresses: Vec::new(), ttl: None })
        );
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = "x".repeat(64);
        for name in ["", "a..b", &*long] {
            assert!(query(1, name, Kind::V6).is_none(), "{name}");
        }
    }
}
