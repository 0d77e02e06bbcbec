#!/usr/bin/env python3
"""Builds sluis-proxy for speed and little memory: TARGET/tuned/sluis-proxy.

Twice compiled: the first time it counts what runs while the bench's scenarios run, and the second time
the compiler knows (profile-guided optimisation). Then it is linked with the functions that a start and a
request run side by side: a start runs a megabyte of functions that lie all over sixteen, and the kernel
maps 64 KiB around each page that is touched. Side by side they are few pages: less memory, and fewer
misses of the instruction TLB. Callgrind tells which functions these are.

Needs what `make bench` needs, valgrind, and for the profile the compiler's own llvm-profdata
(`rustup component add llvm-tools`; without it the second step alone is done).
It takes some twenty minutes on two cores.
"""

import argparse
import os
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
# The scenarios of the bench whose counts the compiler gets: all but those of thousands of routes.
TRAINING = "a,b,c,d,f,g,h,i,j,k,t1,t2,l-exact-10,l-prefix-10,l-regex,m"
# What is run for the order: plain HTTP/1.1, TLS, HTTP/2 over TLS; a log.
SHAPES = {"http": Shape(log=True), "tls": Shape(front="tls"), "h2": Shape(front="h2")}
CONNECTIONS = 3
FUNCTION = re.compile(r"c?fn=\(\d+\) (\S+)")
SLOW = 120  # seconds: callgrind is fifty times slower


def say(text):
    print(f"release-tuned: {text}", flush=True)


def rustc(*words):
    return subprocess.run(["rustc", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def profdata():
    """The program that reads the compiler's profiles, or None."""
    host = re.search(r"^host: (\S+)", rustc("-vV"), re.M)[1]
    path = pathlib.Path(rustc("--print", "sysroot").strip()) / "lib/rustlib" / host / "bin/llvm-profdata"
    return host, path if path.exists() else None


class Build:
    """Builds in a folder of its own, whose flags do not disturb others'."""

    def __init__(self, folder, host):
        self.folder, self.host = folder, host
        self.binary = folder / host / "release" / BINARY

    def run(self, flags, linking=()):
        """With --target, so that the flags are not those of build scripts."""
        line = ["cargo", "rustc", "--release", "--target", self.host, "--target-dir", self.folder, "-p", PACKAGE, "--bin", BINARY]
        links = [f"-Clink-arg=-Wl,{one}" for one in linking]
        done = subprocess.run([*line, "--", *links], cwd=ROOT, env={**os.environ, "RUSTFLAGS": " ".join(flags)})
        if done.returncode:
            sys.exit("release-tuned: not built; `cargo build --release` makes the plain one")


def trained(build, sluis, merge):
    """What ran in the scenarios, as the compiler reads it."""
    raw = build.folder / "counts"
    shutil.rmtree(raw, ignore_errors=True)
    say("building the one that counts")
    # With as many units as the release has: another number inlines otherwise before it counts.
    build.run([f"-Cprofile-generate={raw}"])
    say("counting what the scenarios of the bench run: about a minute")
    subprocess.run(
        [sys.executable, ROOT / "benches/run.py", "--peers", "sluis", "--runs", "1", "--seconds", "1", "--only", TRAINING,
         "--sluis", sluis, "--sluis-proxy", build.binary], check=True, stdout=subprocess.DEVNULL)
    merged = build.folder / "counts.profdata"
    subprocess.run([merge, "merge", "-o", merged, *raw.glob("*.profraw")], check=True)
    return merged


def functions(sluis, binary):
    """The symbols of what runs at a start and for some requests."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target", help="the build folder [%(default)s]")
    parser.add_argument("--sluis", type=pathlib.Path, help="the CLI that writes bootstraps [TARGET/release/sluis]")
    options = parser.parse_args()
    target = options.target.resolve()
    sluis = (options.sluis or target / "release/sluis").resolve()
    tools = [name for name in ("valgrind", "nginx", "openssl")
             if not (shutil.which(name) or shutil.which(name, path="/usr/sbin"))]
    if tools or not sluis.exists():
        sys.exit("release-tuned: not found: " + ", ".join(tools + ([] if sluis.exists() else [str(sluis)])))
    host, merge = profdata()
    build = Build(target / "tuned", host)
    flags = []
    if merge:
        flags.append(f"-Cprofile-use={trained(build, sluis, merge)}")
    else:
        say("no llvm-profdata (`rustup component add llvm-tools`): linked in order only, without a profile")
    say("building")
    build.run(flags)
    names = functions(sluis, build.binary)
    order = build.folder / "order"
    order.write_text("\n".join(names) + "\n")
    say(f"{len(names)} functions run; linking them side by side")
    build.run(flags, (f"--symbol-ordering-file={order}", "--no-warn-symbol-ordering"))
    made = shutil.copy2(build.binary, build.folder / BINARY)
    say(f"{made} is ready")


if __name__ == "__main__":
    main()
