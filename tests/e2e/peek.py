"""Tries to look into a process as another process of its user without root's rights would.

`peek.py PID`: exits 1 and names what could be read. Root gives up its capabilities first (in the
child), so that what protects the process is the process itself, and not its owner.
"""

import ctypes
import os
import resource
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, PR_SET_SECUREBITS, SECURE_NOROOT = 24, 28, 0x5
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CAPABILITY_VERSION_3 = 0x20080522


def give_up_capabilities():
    """Stays the same user, and is root no more in any other sense."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    if LIBC.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def main():
    pid = int(sys.argv[1])
    if os.geteuid() == 0:
        give_up_capabilities()
    readable, tried = [], ["mem", "environ", "maps", "auxv", "syscall"]
    for name in tried:
        try:
            with open(f"/proc/{pid}/{name}", "rb", 0) as file:
                file.read(1)
            readable.append(name)
        except OSError as error:
            # Memory that is not there can be opened, and that is enough.
            if error.errno == 5:
                readable.append(name)
    if LIBC.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        os.waitpid(pid, 0x40000000)
        LIBC.ptrace(PTRACE_DETACH, pid, None, None)
        readable.append("ptrace")
    local = (ctypes.c_char * 8)()
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(local), 8)
    there = (ctypes.c_size_t * 2)(0x400000, 8)
    if LIBC.process_vm_readv(pid, vector, 1, there, 1, 0) > 0 or ctypes.get_errno() == 14:
        readable.append("process_vm_readv")
    if readable:
        print(f"readable: {', '.join(readable)}")
        return 1
    print(f"refused: {', '.join(tried)}, ptrace (as gcore does), process_vm_readv")
    return 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
