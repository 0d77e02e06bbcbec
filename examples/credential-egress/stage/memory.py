"""Looks for byte strings in a process's memory, as its user or root can from outside."""

import base64
import pathlib

CHUNK = 1 << 20


def forms(secret):
    """The secret in the forms in which a program may hold it: HMAC's two padded keys among them."""
    block = secret.ljust(64, b"\0")
    return {
        "itself": secret,
        "its bytes": bytes.fromhex(secret.decode()),
        "base64": base64.b64encode(secret),
        "HMAC inner pad": bytes(byte ^ 0x36 for byte in block),
        "HMAC outer pad": bytes(byte ^ 0x5C for byte in block),
    }


def search(pid, needles):
    """The names of the needles that are found; raises OSError when the process cannot be read."""
    found, size = set(), 0
    longest = max(len(needle) for needle in needles.values())
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, *rest = line.split()
            if "r" not in rights or rest[-1] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            tail = b""
            for at in range(start, end, CHUNK):
                try:
                    memory.seek(at)
                    chunk = memory.read(min(CHUNK, end - at))
                except OSError:
                    break  # a guard page, or a mapping beyond its file's end
                size += len(chunk)
                text = tail + chunk
                found |= {name for name, needle in needles.items() if needle in text}
                tail = chunk[-longest:]
    return found, size
