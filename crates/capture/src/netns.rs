//! Enters another network namespace, and another group; tells which addresses a namespace has.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, setgid, setgroups};

use crate::sys;

/// Moves this process into the network namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
///
/// Only the calling thread moves, and threads that it starts later: call it first thing.
///
/// # Errors
/// `EBUSY` when there is a second thread; what open(2) and setns(2) say: `EPERM` without
/// `CAP_SYS_ADMIN`, `EINVAL` for what is no network namespace.
pub fn enter(path: &Path) -> io::Result<()> {
    if sys::threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Does some work in the network namespace at `path`, on a thread of its own; the caller stays.
///
/// # Errors
/// What open(2) and setns(2) say; then the work is not done.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    let visit = move || -> io::Result<T> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let visitor = scope.spawn(visit);
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Does some work in a new network namespace, on a thread of its own; the namespace goes with it.
///
/// # Errors
/// What unshare(2) says: `EPERM` without `CAP_SYS_ADMIN`.
pub fn within_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let visit = move || -> io::Result<T> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let visitor = scope.spawn(visit);
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The addresses of the network namespace at `path` that others can reach: neither loopback nor
/// link-local; IPv4 first.
///
/// # Errors
/// What [`within`] says, or that the kernel's tables cannot be read.
pub fn addresses(path: &Path) -> io::Result<Vec<IpAddr>> {
    within(path, || {
        let v4 = std::fs::read_to_string("/proc/thread-self/net/fib_trie")?;
        // Without IPv6 there is no such table.
        let v6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        let v4 = local_v4(&v4).into_iter().map(IpAddr::V4);
        Ok(v4.chain(local_v6(&v6).map(IpAddr::V6)).collect())
    })?
}

/// Reads the kernel's table of routes: an address stands on the line before `/32 host LOCAL`.
fn local_v4(table: &str) -> Vec<Ipv4Addr> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|ip| !ip.is_loopback() && !ip.is_link_local())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Reads the kernel's table of addresses: 32 digits, interface, length, scope (00 is global), flags,
/// name.
fn local_v6(table: &str) -> impl Iterator<Item = Ipv6Addr> + '_ {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok().map(Ipv6Addr::from)?;
        let scope = fields.nth(2)?;
        // `::6` is the sidecar's own, on loopback; Linux calls all compatible addresses (RFC 4291
        // §2.5.5.1) of scope 80.
        let is_global = scope == "00" && fields.nth(1) != Some("lo");
        is_global.then_some(address)
    })
}

/// Makes `group` the only group of this process.
///
/// # Errors
/// What setgroups(2) and setgid(2) say: `EPERM` without `CAP_SETGID`.
pub fn become_group(group: u32) -> io::Result<()> {
    let group = Gid::from_raw(group);
    setgroups(&[group])?;
    Ok(setgid(group)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_reach_are_told_from_those_of_loopback_and_links() {
        let v4 = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.77.2.0\n        /24 link UNICAST\n     |-- 10.77.2.2\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.77.2.2\n        /32 host LOCAL\n";
        assert_eq!(local_v4(v4), ["10.77.2.2".parse::<Ipv4Addr>().unwrap()]);
        let v6 = "00000000000000000000000000000001 01 80 10 80 lo\n00000000000000000000000000000006 01 80 00 80 lo\nfe8000000000000000c0fffee0000001 02 40 20 80 eth0\nfd770002000000000000000000000002 02 40 00 80 eth0\n";
        let found: Vec<Ipv6Addr> = local_v6(v6).collect();
        assert_eq!(found, ["fd77:2::2".parse::<Ipv6Addr>().unwrap()]);
    }
}
