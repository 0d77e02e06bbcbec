//! Which Unix sockets of this machine a jail must not see.
//!
//! In:    what the command may call; `/proc/net/unix` of the namespace that the jail is made in.
//! Out:   the paths of all other sockets that take connections or messages.
//! Never: an answer for sockets that are made later: [`UnixSockets::None`] is for those.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::UnixSockets;

/// The most sockets that are covered, by a mount each: far more than a machine has.
const SOCKETS_MAX: usize = 4096;

/// The paths to cover.
pub(super) fn to_cover(policy: &UnixSockets) -> io::Result<Vec<PathBuf>> {
    let UnixSockets::Only(allowed) = policy else { return Ok(Vec::new()) };
    let allowed: Vec<PathBuf> =
        allowed.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    let is_allowed = |path: &Path| {
        let path = path.canonicalize();
        path.is_ok_and(|path| allowed.iter().any(|allowed| path.starts_with(allowed)))
    };
    let mut paths = open(&std::fs::read("/proc/self/net/unix")?);
    paths.retain(|path| !is_allowed(path));
    if paths.len() > SOCKETS_MAX {
        return Err(io::Error::other(format!("there are more than {SOCKETS_MAX}")));
    }
    Ok(paths.into_iter().collect())
}

/// The paths of sockets that accept connections or take messages: proc(5), `/proc/net/unix`.
fn open(table: &[u8]) -> BTreeSet<PathBuf> {
    const ACCEPTS: u32 = 1 << 16; // __SO_ACCEPTCON
    const DATAGRAM: u32 = 2;
    let table = String::from_utf8_lossy(table);
    let path = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let number = |word: Option<&str>| u32::from_str_radix(word.unwrap_or(""), 16).ok();
        let (flags, kind) = (number(words.nth(3))?, number(words.next())?);
        let start = line.find(" /")?;
        (flags & ACCEPTS != 0 || kind == DATAGRAM).then(|| PathBuf::from(&line[start + 1..]))
    };
    table.lines().skip(1).filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_take_something_are_listed_once_and_abstract_ones_never() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 24 /run/a b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 25 /run/a b.sock\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 26 /dev/log\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 27 /run/connected\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 28 @/tmp/abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 29\n";
        let found: Vec<_> = open(table).into_iter().collect();
        assert_eq!(found, [PathBuf::from("/dev/log"), PathBuf::from("/run/a b.sock")]);
    }
}
