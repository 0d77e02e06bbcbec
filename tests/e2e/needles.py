"""Looks for secrets in what a mesh gives away, in every form that somebody could read.

In:    secrets by name; outputs as bytes, by name.
Out:   which secret is where, in which form.
Never: prints a secret.
"""

import base64
import gzip
import hashlib
import pathlib
import urllib.parse

HALF_BYTES_MIN = 12  # shorter parts are in other text by chance
LIST_BYTES = 12  # so many numbers of a list of bytes are no chance
HASH_HEX = 24  # so much of a hash tells who knows the hash which secret it is
BYTES_MAX = 512 << 20  # a longer file is read this far


def forms(secret):
    """The forms of one secret: what they are called, and their bytes."""
    found = {"plain": secret, "reversed": secret[::-1]}
    for offset in range(3):
        # In base64 of a longer text a secret has one of three shapes; what its neighbours change is cut.
        text = base64.b64encode(b"\0" * offset + secret + b"\0" * (-(offset + len(secret)) % 3))
        first = (0, 2, 3)[offset]
        last = len(text) - (0, 2, 3)[-(offset + len(secret)) % 3]
        found[f"base64+{offset}"] = text[first:last]
        found[f"base64url+{offset}"] = text[first:last].translate(bytes.maketrans(b"+/", b"-_"))
    found["hex"] = secret.hex().encode()
    found["HEX"] = secret.hex().upper().encode()
    found["url"] = urllib.parse.quote_from_bytes(secret, safe="").encode()
    found["url form"] = urllib.parse.quote_plus(secret).encode()
    found["url, lower case"] = "".join(f"%{byte:02x}" for byte in secret).encode()
    found["url, upper case"] = "".join(f"%{byte:02X}" for byte in secret).encode()
    half = len(secret) // 2
    if half >= HALF_BYTES_MIN:
        found["first half"], found["second half"] = secret[:half], secret[half:]
        found["first half, reversed"] = secret[:half][::-1]
    found["list of bytes"] = ", ".join(map(str, secret[:LIST_BYTES])).encode()
    found["sha256"] = hashlib.sha256(secret).hexdigest()[:HASH_HEX].encode()
    found["sha256, base64"] = base64.b64encode(hashlib.sha256(secret).digest())[:HASH_HEX]
    return found


class Needles:
    """Secrets to look for."""

    def __init__(self, secrets):
        self.patterns = []
        for name, secret in secrets.items():
            assert len(secret) >= HALF_BYTES_MIN, f"{name} is too short to be looked for"
            unlike = {}
            for form, pattern in forms(secret).items():
                unlike.setdefault(pattern, form)
            self.patterns += [(name, form, pattern) for pattern, form in unlike.items()]

    def search(self, outputs):
        """Where they are: (secret, form, output)."""
        return [(name, form, where) for where, text in outputs.items()
                for name, form, pattern in self.patterns if pattern in text]


def files(folder, without=()):
    """All files under a folder, by path; compressed ones as what they hold."""
    found = {}
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_symlink() or not path.is_file() or any(path.is_relative_to(one) for one in without):
            continue
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                found[str(path)] = file.read(BYTES_MAX)
        except OSError:
            continue  # gone meanwhile
        found[f"{path} (its name)"] = str(path).encode()
    return found
