//! Looks at what another server answered, before the workload may believe it. Pure.
//!
//! In:    a reply of a server outside, to a query that was forwarded to it.
//! Out:   the reply; without `ech` parameters; or `None` for one that must not reach the workload.
//! Never: passes on what it cannot read.
//!
//! Two things are guarded. A name outside must not lead to this machine or its link (DNS rebinding): a
//! page could else speak to the sidecar's or the metadata server's ports under its own name. And the
//! server name of TLS must stay visible to policy, so that keys for hiding it (Encrypted Client Hello,
//! RFC 9460 §14.3.2, RFC 9848) are left out of SVCB and HTTPS records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const TYPE_RRSIG: u16 = 46;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;

/// The key of `ech` (RFC 9460 §14.3.2), and those of addresses (§7.3).
const KEY_ECH: u16 = 5;
const KEY_IPV4_HINT: u16 = 4;
const KEY_IPV6_HINT: u16 = 6;

/// The longest name (RFC 1035 §2.3.4); a chain of pointers longer than this goes in circles.
const NAME_BYTES_MAX: usize = 255;

/// Pointers that are followed in one name: each goes back, so that more would only be play.
const POINTERS_MAX: usize = 32;

/// The most records of one reply; a message of 64 KiB holds not many more.
const RECORDS_MAX: usize = 4096;

/// The reply that the workload may have.
pub(super) fn guard(reply: Vec<u8>) -> Option<Vec<u8>> {
    let message = Message::read(&reply)?;
    if message.records.iter().any(|record| record.leads_home(&reply)) {
        tracing::warn!(
            "name refused: a server outside gives an address of this machine or its link"
        );
        return None;
    }
    if !message.records.iter().any(|record| record.has_ech(&reply)) {
        return Some(reply);
    }
    message.without_ech(&reply)
}

/// One record, by the places of its parts.
struct Record {
    section: usize,
    name: usize,
    kind: u16,
    /// Type, class and time to live.
    head: usize,
    data: (usize, usize),
}

struct Message {
    /// The end of the questions.
    questions: usize,
    records: Vec<Record>,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The place behind a name.
fn behind_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => {
                bytes.get(at + 1)?;
                return Some(at + 2);
            }
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// A name without pointers.
fn whole_name(bytes: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut pointers = 0;
    loop {
        match *bytes.get(at)? {
            0 => {
                name.push(0);
                return Some(name);
            }
            length if length & 0xc0 == 0xc0 => {
                pointers += 1;
                if pointers > POINTERS_MAX {
                    return None;
                }
                at = usize::from(number(bytes, at)? & 0x3fff);
            }
            length if length & 0xc0 == 0 => {
                let end = at + 1 + usize::from(length);
                name.extend_from_slice(bytes.get(at..end)?);
                if name.len() >= NAME_BYTES_MAX {
                    return None;
                }
                at = end;
            }
            _ => return None,
        }
    }
}

impl Message {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = HEADER_BYTES;
        for _ in 0..number(bytes, 4)? {
            at = behind_name(bytes, at)? + 4;
        }
        let questions = at;
        bytes.get(..questions)?;
        let mut records = Vec::new();
        for section in 0..3 {
            for _ in 0..number(bytes, 6 + 2 * section)? {
                let name = at;
                let head = behind_name(bytes, at)?;
                let length = usize::from(number(bytes, head + 8)?);
                let data = (head + 10, head + 10 + length);
                bytes.get(data.0..data.1)?;
                records.push(Record { section, name, kind: number(bytes, head)?, head, data });
                if records.len() > RECORDS_MAX {
                    return None;
                }
                at = data.1;
            }
        }
        Some(Self { questions, records })
    }

    /// The answers again, with names written out, as places have moved. Servers and signatures that
    /// stand beside them are left out: they are of no use to a workload, and would not fit any more.
    fn without_ech(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = bytes.get(..self.questions)?.to_vec();
        let mut counts = [0_u16; 3];
        for record in &self.records {
            let is_kept = match record.section {
                0 => record.kind != TYPE_RRSIG,
                1 => false,
                _ => record.kind == TYPE_OPT,
            };
            if !is_kept {
                continue;
            }
            counts[record.section] += 1;
            text.extend(whole_name(bytes, record.name)?);
            text.extend_from_slice(bytes.get(record.head..record.head + 8)?);
            let data = record.plain_data(bytes)?;
            text.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
            text.extend(data);
        }
        for (section, count) in counts.iter().enumerate() {
            let at = 6 + 2 * section;
            text[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        // Authenticated data (RFC 4035 §3.2.3): not any more.
        text[3] &= !0x20;
        Some(text)
    }
}

impl Record {
    fn is_service(&self) -> bool {
        matches!(self.kind, TYPE_SVCB | TYPE_HTTPS)
    }

    /// The parameters of a service record: the place of each, with key and value.
    fn parameters<'a>(&self, bytes: &'a [u8]) -> Option<Vec<(u16, &'a [u8])>> {
        let mut at = behind_name(bytes, self.data.0 + 2)?;
        let mut all = Vec::new();
        while at < self.data.1 {
            let (key, length) = (number(bytes, at)?, usize::from(number(bytes, at + 2)?));
            let end = at + 4 + length;
            if end > self.data.1 {
                return None;
            }
            all.push((key, bytes.get(at + 4..end)?));
            at = end;
        }
        Some(all)
    }

    /// What cannot be read counts as having it: it is then written anew, and fails there.
    fn has_ech(&self, bytes: &[u8]) -> bool {
        self.is_service()
            && self.parameters(bytes).is_none_or(|all| all.iter().any(|(key, _)| *key == KEY_ECH))
    }

    fn plain_data(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let data = bytes.get(self.data.0..self.data.1)?;
        if self.kind == TYPE_CNAME {
            return whole_name(bytes, self.data.0);
        }
        if !self.is_service() {
            return Some(data.to_vec());
        }
        let mut text = data.get(..2)?.to_vec();
        text.extend(whole_name(bytes, self.data.0 + 2)?);
        for (key, value) in self.parameters(bytes)? {
            if key != KEY_ECH {
                text.extend_from_slice(&key.to_be_bytes());
                text.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
                text.extend_from_slice(value);
            }
        }
        Some(text)
    }

    /// Whether it gives an address that is this machine's or its link's.
    fn leads_home(&self, bytes: &[u8]) -> bool {
        let data = bytes.get(self.data.0..self.data.1).unwrap_or_default();
        match self.kind {
            TYPE_A => v4(data).is_none_or(is_home),
            TYPE_AAAA => v6(data).is_none_or(is_home),
            TYPE_SVCB | TYPE_HTTPS => {
                let all = self.parameters(bytes).unwrap_or_default();
                all.iter().any(|(key, value)| match *key {
                    KEY_IPV4_HINT => value.chunks(4).any(|hint| v4(hint).is_none_or(is_home)),
                    KEY_IPV6_HINT => value.chunks(16).any(|hint| v6(hint).is_none_or(is_home)),
                    _ => false,
                })
            }
            _ => false,
        }
    }
}

fn v4(data: &[u8]) -> Option<IpAddr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into())
}

fn v6(data: &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into())
}

/// Loopback, "this host", the link (where metadata servers are), and the addresses that the mesh gives
/// to hosts without one (240.240.0.0/16, Istio's choice): no name outside has a business there. Private
/// addresses are left: a company's own servers have them.
fn is_home(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 0 || v4.is_loopback() || v4.is_link_local() || (first, second) == (240, 240)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to a question about `a.example`, with records that point to its name.
    fn reply(records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![1, 2, 0x81, 0xa0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes[7] = u8::try_from(records.len()).unwrap();
        bytes.extend_from_slice(b"\x01a\x07example\x00\x00\x41\x00\x01");
        for (kind, data) in records {
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn an_ordinary_reply_stays_as_it_is() {
        let plain = reply(&[(TYPE_CNAME, &[0xc0, 12]), (TYPE_A, &[10, 1, 2, 3])]);
        assert_eq!(guard(plain.clone()), Some(plain));
    }

    #[test]
    fn addresses_of_this_machine_are_not_believed() {
        let refused =
            |kind, data: &[u8]| assert_eq!(guard(reply(&[(kind, data)])), None, "{data:?}");
        refused(TYPE_A, &[127, 0, 0, 1]);
        refused(TYPE_A, &[169, 254, 169, 254]);
        refused(TYPE_A, &[0, 0, 0, 0]);
        refused(TYPE_A, &[240, 240, 0, 1]);
        refused(TYPE_AAAA, &Ipv6Addr::LOCALHOST.octets());
        refused(TYPE_AAAA, &Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        refused(TYPE_AAAA, &"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        refused(TYPE_HTTPS, &[0, 1, 0, 0, 4, 0, 4, 127, 0, 0, 1]);
        refused(TYPE_A, &[1, 2, 3]);
    }

    #[test]
    fn ech_is_left_out_and_the_rest_stays() {
        // Priority 1, the name itself, alpn "h2", ech, a hint.
        let with = [0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 5, 0, 2, 7, 7, 0, 4, 0, 4, 8, 8, 8, 8];
        let without = [0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 4, 8, 8, 8, 8];
        let kept = guard(reply(&[(TYPE_HTTPS, &with), (TYPE_CNAME, &[0xc0, 12])])).unwrap();
        let message = Message::read(&kept).unwrap();
        assert_eq!(message.records.len(), 2);
        let (from, to) = message.records[0].data;
        assert_eq!(kept[from..to], without);
        let (from, to) = message.records[1].data;
        assert_eq!(kept[from..to], *b"\x01a\x07example\x00");
        assert_eq!(kept[3] & 0x20, 0, "it is not authenticated any more");
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_on() {
        let whole = reply(&[(TYPE_A, &[8, 8, 8, 8])]);
        for length in 0..whole.len() {
            assert_eq!(guard(whole[..length].to_vec()), None, "{length}");
        }
        let endless = [0, 1, 0xc0, 12];
        let mut circle = reply(&[(TYPE_HTTPS, &[&endless[..], &[0, 5, 0, 0]].concat())]);
        circle[12] = 0xc0;
        circle[13] = 12;
        assert_eq!(guard(circle), None);
    }
}
