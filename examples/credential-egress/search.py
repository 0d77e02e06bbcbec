"""Looks for keys in all that a command in the jail can read. Run inside the jail by demo.py.

Arguments: a time (seconds since 1970) before which the keys did not exist, then NAME=SHA256 of each
thing to look for, as 64 hex digits: so the search itself brings no key into the jail. Prints JSON.

A file that was last changed before the keys were made cannot hold them (the kernel sets ctime; no
user can set it back), so only newer ones are read.
"""

import hashlib
import json
import os
import re
import stat
import sys

BYTES_MAX = 64 << 20  # a longer file is read this far
WORD = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

since = float(sys.argv[1])
wanted = {digest: name for name, digest in (item.split("=") for item in sys.argv[2:])}
looked, read, found = 0, 0, {name: [] for name in wanted.values()}


def search(path):
    global read
    try:
        with open(path, "rb") as file:
            text = file.read(BYTES_MAX)
    except OSError:
        return
    read += 1
    for word in set(WORD.findall(text)):
        name = wanted.get(hashlib.sha256(word).hexdigest())
        if name:
            found[name].append(path)


def walk(directory):
    global looked
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            if entry.path not in ("/proc", "/sys", "/dev"):
                walk(entry.path)
            continue
        looked += 1
        if stat.S_ISREG(status.st_mode) and status.st_ctime >= since:
            search(entry.path)


sys.setrecursionlimit(10_000)
walk("/")
walk("/dev/shm")
processes = [name for name in os.listdir("/proc") if name.isdigit()]
for process in processes:
    for name in ("environ", "cmdline", "cwd", "exe", "maps", "mountinfo"):
        search(f"/proc/{process}/{name}")
    try:
        for number in os.listdir(f"/proc/{process}/fd"):
            target = f"/proc/{process}/fd/{number}"
            if stat.S_ISREG(os.stat(target).st_mode):
                search(target)
    except OSError:
        pass
print(json.dumps({"looked": looked, "read": read, "processes": len(processes), "found": found}))
