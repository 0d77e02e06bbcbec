//! Takes from init, and so from the command, all that could open the jail.
//!
//! In:    whether Unix sockets are refused too; it acts on the calling process, once, after all set-up.
//! Out:   no capability, no way to gain one, and a seccomp filter.
//! Never: anything that a usual program needs.
//!
//! The filter closes what namespaces leave open: sockets of families that have no namespace (vsock
//! reaches the hypervisor), io_uring (it makes sockets past any seccomp filter), and pushing
//! keystrokes into the terminal, which the shell outside would run.

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use nix::sys::prctl;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys;

/// Gives everything up. What the process is afterwards cannot be undone.
pub(super) fn confine(without_unix: bool) -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know yet cannot be held either.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    prctl::set_no_new_privs()?;
    // The command cannot look into init, nor stop it.
    prctl::set_dumpable(false)?;
    sys::load_filter(&filter(without_unix))
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// Numbers from here on are the x32 variants of x86-64's calls; other machines have none so high.
const X32: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`; of an argument, the lower half (both machines are little-endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;
const ARGUMENT_1: u32 = 24;

const ALLOW: u32 = 0x7fff_0000;
const fn refuse(errno: i32) -> u32 {
    0x0005_0000 | errno.unsigned_abs()
}

/// Families whose sockets belong to a network namespace or, for unix sockets, to the mounts.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The filter, from the top: wrong machine, then call by call.
fn filter(without_unix: bool) -> Vec<sock_filter> {
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program =
        vec![load(ARCH), skip_if(BPF_JEQ, ARCHITECTURE, 1), ret(refuse(libc::ENOSYS))];
    program.extend([load(NUMBER), skip_unless(BPF_JGE, X32, 1), ret(refuse(libc::ENOSYS))]);
    program.extend([
        skip_unless(BPF_JEQ, number(libc::SYS_io_uring_setup), 1),
        ret(refuse(libc::ENOSYS)),
    ]);
    // ioctl(_, TIOCSTI | TIOCLINUX, …)
    program.extend([
        skip_unless(BPF_JEQ, number(libc::SYS_ioctl), 5),
        load(ARGUMENT_1),
        skip_if(BPF_JEQ, 0x5412, 1),
        skip_unless(BPF_JEQ, 0x541c, 1),
        ret(refuse(libc::EPERM)),
        ret(ALLOW),
    ]);
    // socket(family, …)
    program.extend([skip_if(BPF_JEQ, number(libc::SYS_socket), 1), ret(ALLOW), load(ARGUMENT_0)]);
    for family in FAMILIES {
        if without_unix && family == libc::AF_UNIX {
            continue;
        }
        program.extend([skip_unless(BPF_JEQ, family.unsigned_abs(), 1), ret(ALLOW)]);
    }
    program.push(ret(refuse(libc::EAFNOSUPPORT)));
    program
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn ret(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

fn skip_if(test: u32, value: u32, count: u8) -> sock_filter {
    instruction(BPF_JMP | test | BPF_K, value, count, 0)
}

fn skip_unless(test: u32, value: u32, count: u8) -> sock_filter {
    instruction(BPF_JMP | test | BPF_K, value, 0, count)
}
