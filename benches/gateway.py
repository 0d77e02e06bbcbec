#!/usr/bin/env python3
"""Measures one plain HTTP/1.1 gateway: sluis-proxy beside Envoy, nginx and HAProxy.

Every proxy gets one worker on one core; client and origin share the other. The runs alternate, so
that a machine that warms up or slows down does so for all. See README.md for what is printed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


def tree(pid):
    """The process and its children: nginx does its work in one."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += tree(int(child))
    return pids


def cpu_seconds(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_kib(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total


def fetch(port, path="/"):
    """One request on a connection of its own; its status, or None."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n".encode())
            return int(stream.recv(64).split(b" ")[1])
    except (OSError, IndexError, ValueError):
        return None


def ours(options, config):
    """How sluis-proxy starts with one worker, its configuration compiled beside the text."""
    compiled = pathlib.Path(config).with_suffix(".pb")
    with open(compiled, "wb") as out:
        subprocess.run([options.sluis, "proxy", "bootstrap", "--compile", config], stdout=out, check=True)
    return [options.sluis_proxy, "run", "--bootstrap", str(compiled), "--workers", "1"]


def envoy(options, config):
    """How Envoy starts with the same file and one worker."""
    return [options.envoy, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.origin_port = free_port()
        self.port = free_port()
        self.path = "/large/body" if options.large else "/api/items?page=1"

    def fill(self, name):
        text = (HERE / name).read_text()
        for key, value in (("LISTEN", self.port), ("ORIGIN", self.origin_port), ("DIR", self.folder)):
            text = text.replace(f"@{key}@", str(value))
        if name == "gateway.yaml" and self.options.access_log:
            text = text.replace("                route_config:", ACCESS_LOG % self.folder + "                route_config:", 1)
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def start(self, core, command):
        log = open(self.folder / "output.log", "ab")
        return subprocess.Popen(pinned(core, command), stdout=log, stderr=log, start_new_session=True)

    def start_origin(self):
        (self.folder / "large").mkdir()
        (self.folder / "large" / "body").write_bytes(b"x" * (1 << 20))
        command = [self.options.nginx, "-p", str(self.folder), "-c", self.fill("origin.nginx.conf")]
        process = self.start(self.options.client_core, command)
        self.wait(process, self.origin_port)
        return process

    def wait(self, process, port):
        """Waits until a request gets its 200; returns how long that took."""
        begin = time.monotonic()
        while time.monotonic() - begin < 20:
            if process.poll() is not None:
                break
            if fetch(port) == 200:
                return time.monotonic() - begin
            time.sleep(0.001)
        sys.exit(f"not ready: see {self.folder}/output.log\n" + (self.folder / "output.log").read_text()[-2000:])

    def commands(self):
        options = self.options
        config = self.fill("gateway.yaml")
        known = {}
        if "sluis" in options.proxies:
            known["sluis"] = ours(options, config)
        if "envoy" in options.proxies:
            known["envoy"] = envoy(options, config)
        if "nginx" in options.proxies:
            known["nginx"] = [options.nginx, "-p", str(self.folder), "-c", self.fill("proxy.nginx.conf")]
        if "haproxy" in options.proxies:
            known["haproxy"] = [options.haproxy, "-db", "-f", self.fill("proxy.haproxy.cfg")]
        return [(name, known[name]) for name in options.proxies]

    def load(self, connections, seconds):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "report.lua"),
                   "-H", "Host: bench.local", "-H", "User-Agent: bench/1.0", "-H", "Accept: */*",
                   f"http://127.0.0.1:{self.port}{self.path}"]
        out = subprocess.run(pinned(self.options.client_core, command), capture_output=True, text=True, check=True).stdout
        return json.loads(out.split("RESULT ", 1)[1].splitlines()[0])

    def measure(self, name, command):
        process = self.start(self.options.proxy_core, command)
        try:
            ready = self.wait(process, self.port)
            time.sleep(0.5)
            rows = []
            idle = resident_kib(process.pid)
            for connections in self.options.connections:
                self.load(connections, 1)
                before = cpu_seconds(process.pid)
                result = self.load(connections, self.options.seconds)
                spent = cpu_seconds(process.pid) - before
                if result["requests"] == 0:
                    sys.exit(f"{name} answered nothing: see {self.folder}/output.log")
                rows.append({
                    "proxy": name, "connections": connections, "errors": result["errors"],
                    "cpu_us": spent * 1e6 / result["requests"],
                    "rps": result["requests"] * 1e6 / result["microseconds"],
                    "p50_us": result["p50"], "p99_us": result["p99"],
                    "idle_mib": idle / 1024, "busy_mib": resident_kib(process.pid) / 1024,
                    "ready_ms": ready * 1000,
                })
            return rows
        finally:
            stop(process)


ACCESS_LOG = """                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: %s/access.log
"""


def stop(process):
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def report(rows, options):
    columns = ("cpu_us", "rps", "p50_us", "p99_us", "idle_mib", "busy_mib", "ready_ms")
    print("\nmedians of", options.runs, "runs of", options.seconds, "s")
    print(f"{'proxy':8} {'conns':>5} {'CPU us/req':>10} {'req/s':>8} {'p50 us':>7} {'p99 us':>7}"
          f" {'idle MiB':>8} {'busy MiB':>8} {'ready ms':>8} {'errors':>6}")
    for connections in options.connections:
        for name in options.proxies:
            mine = [r for r in rows if r["proxy"] == name and r["connections"] == connections]
            m = {c: statistics.median(r[c] for r in mine) for c in columns}
            errors = sum(r["errors"] for r in mine)
            print(f"{name:8} {connections:5} {m['cpu_us']:10.1f} {m['rps']:8.0f} {m['p50_us']:7.0f} {m['p99_us']:7.0f}"
                  f" {m['idle_mib']:8.1f} {m['busy_mib']:8.1f} {m['ready_ms']:8.1f} {errors:6}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target" / "release"
    parser.add_argument("--proxies", default="sluis,envoy", help="of sluis, envoy, nginx, haproxy [sluis,envoy]")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each [3]")
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement [5]")
    parser.add_argument("--connections", default="1,64", help="client connections, one measurement each [1,64]")
    parser.add_argument("--large", action="store_true", help="bodies of 1 MiB instead of 46 bytes")
    parser.add_argument("--access-log", action="store_true", help="sluis and Envoy write Envoy's default line")
    parser.add_argument("--json", type=pathlib.Path, help="also write every run here")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", str(release / "sluis")))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", str(release / "sluis-proxy")))
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", "envoy"))
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    options = parser.parse_args()
    options.proxies = options.proxies.split(",")
    options.connections = [int(n) for n in options.connections.split(",")]
    missing = [tool for tool in ("wrk", options.nginx) if not shutil.which(tool)]
    wanted = {"sluis": options.sluis_proxy, "envoy": options.envoy, "haproxy": options.haproxy}
    missing += [path for name, path in wanted.items() if name in options.proxies and not shutil.which(path)]
    if missing:
        sys.exit("not found: " + ", ".join(missing) + " (see benches/README.md)")
    return options


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="sluis-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        os.chmod(folder, 0o755)
        origin = bench.start_origin()
        rows = []
        try:
            for run in range(options.runs):
                for name, command in bench.commands():
                    for row in bench.measure(name, command):
                        rows.append({"run": run, **row})
                        print(f"run {run} {row['proxy']:8} {row['connections']:4} connections:"
                              f" {row['cpu_us']:6.1f} us CPU, p50 {row['p50_us']} us, p99 {row['p99_us']} us,"
                              f" {row['rps']:.0f}/s", flush=True)
        finally:
            stop(origin)
        report(rows, options)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
