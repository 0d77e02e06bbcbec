#!/usr/bin/env python3
"""Links sluis-proxy once more, with the functions that a start and a request run side by side.

A start runs a megabyte of functions that lie all over sixteen; the kernel maps 64 KiB around each page
that is touched. Side by side they are few pages: less memory, and fewer misses of the instruction TLB.
Callgrind tells which functions run. The result is TARGET/ordered/sluis-proxy.
Needs valgrind, nginx and openssl; and lld, which is the compiler's own linker on x86_64 Linux.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))

from lab import idle, machine, stage  # noqa: E402
from lab.shapes import Place, Shape, command  # noqa: E402

PACKAGE, BINARY = "sluis-proxy-bin", "sluis-proxy"
# What is run: plain HTTP/1.1, TLS, HTTP/2 over TLS; a log.
SHAPES = {"http": Shape(log=True), "tls": Shape(front="tls"), "h2": Shape(front="h2")}
CONNECTIONS = 3
FUNCTION = re.compile(r"c?fn=\(\d+\) (\S+)")
SLOW = 120  # seconds: callgrind is fifty times slower


def missing():
    """Programs that are not there."""
    return [name for name in ("valgrind", "nginx", "openssl")
            if not (shutil.which(name) or shutil.which(name, path="/usr/sbin"))]


def functions(sluis, binary):
    """The symbols of what runs, in the order of the profile."""
    options = types.SimpleNamespace(
        client_core=0, proxy_core=0, nghttpd=None, sluis=sluis, sluis_proxy=binary, envoy=None, haproxy=None,
        nginx=shutil.which("nginx") or "/usr/sbin/nginx")
    machine.READY_WITHIN = idle.WAIT = SLOW
    found = {}
    with tempfile.TemporaryDirectory(prefix="sluis-order-") as name:
        folder = pathlib.Path(name)
        around = stage.Stage(options, folder)
        try:
            for number, (kind, shape) in enumerate(SHAPES.items()):
                place = Place(machine.free_port(), around.port(shape.back), folder, number)
                profile, log = folder / f"profile{number}", folder / "proxy.log"
                line = ["valgrind", "-q", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={profile}"]
                process = machine.start(0, [*line, *command("sluis", shape, place, options)], log)
                try:
                    machine.wait(process, lambda: stage.listens(place.port), f"{binary} under callgrind", log)
                    clients = idle.Clients(kind, place.port, folder)
                    clients.grow(CONNECTIONS)
                    clients.close()
                finally:
                    machine.stop(process)
                for written in profile.read_text().splitlines():
                    if match := FUNCTION.match(written):
                        # Recursion is counted apart: `name'2`.
                        found[match[1].split("'")[0]] = None
        finally:
            around.close()
    return [name for name in found if not name.startswith("0x")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target", help="the build folder [%(default)s]")
    parser.add_argument("--profile", default="release", help="cargo's profile; it must have been built [%(default)s]")
    parser.add_argument("--sluis", type=pathlib.Path, help="the CLI that writes bootstraps [beside sluis-proxy]")
    options = parser.parse_args()
    folder = options.target.resolve() / options.profile
    binary, sluis = folder / BINARY, (options.sluis or folder / "sluis").resolve()
    lacking = missing() + [str(path) for path in (binary, sluis) if not path.exists()]
    if lacking:
        sys.exit("release-ordered: not made; `cargo build --release` needs none of what is missing: " + ", ".join(lacking))
    names = functions(sluis, binary)
    order = folder / f"{BINARY}.order"
    order.write_text("\n".join(names) + "\n")
    print(f"release-ordered: {len(names)} functions run; linking anew", flush=True)
    done = subprocess.run(
        ["cargo", "rustc", "--profile", options.profile, "--target-dir", options.target, "-p", PACKAGE, "--bin", BINARY,
         "--", f"-Clink-arg=-Wl,--symbol-ordering-file={order}", "-Clink-arg=-Wl,--no-warn-symbol-ordering"], cwd=ROOT)
    if done.returncode:
        sys.exit("release-ordered: not linked; `cargo build` makes the plain one again")
    (options.target / "ordered").mkdir(exist_ok=True)
    # A copy: the next `cargo build` puts the plain one back where this was linked.
    made = shutil.copy2(binary, options.target / "ordered" / BINARY)
    print(f"release-ordered: {made} is ready")


if __name__ == "__main__":
    main()
