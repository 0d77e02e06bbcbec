#!/usr/bin/env python3
"""Measures sluis-proxy beside Envoy, HAProxy and nginx: what a request costs each, in the same run.

Each proxy has one worker on one core; client and origin share the other. Runs alternate, so that a
machine that slows down does so for all. See README.md for what is measured and how to read it.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from lab import scenarios, stage
from lab.load import LoadFailed, open_loop
from lab.machine import counted_calls, cpu_seconds, free_port, raise_limits, resident_mib, start, stop, wait
from lab.shapes import Place, command

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ("sluis", "envoy", "haproxy", "nginx")
HISTORY = HERE / "history.csv"
WARM_SECONDS = 1
LATENCY_SHARE = 0.6  # of Envoy's saturation


HMAC = """
package.preload["lib.hash"] = function() %s end
local hash = require("lib.hash")
function envoy_on_request(handle)
  local headers = handle:headers()
  local text = headers:get(":method") .. "\\n" .. headers:get(":authority") .. "\\n" .. headers:get(":path")
  headers:replace("x-authorization", "Signature=" .. hash.hmac(hash.sha256, "secret-key-of-the-bench", text))
end
"""


class Bench:
    """What scenarios need to know of the run."""

    def __init__(self, options, folder):
        self.options, self.folder, self.client_core = options, folder, options.client_core
        self.stage = stage.Stage(options, folder)
        self.keys, self.token = stage.key_and_token(folder)
        self.script = HMAC % (ROOT / "examples/credential-egress/lua/lib/hash.lua").read_text()
        self.log = folder / "output.log"

    def begin(self, peer, scenario):
        """Starts the hops, the last first; None when the peer cannot do them."""
        port, processes, ready = self.stage.port(scenario.hops[-1].back), [], 0
        for number, shape in reversed(list(enumerate(scenario.hops))):
            place = Place(free_port(), port, self.folder, number)
            line = command(peer, shape, place, self.options)
            if line is None:
                for process in processes:
                    stop(process)
                return None
            process = start(self.options.proxy_core, line, self.log)
            processes.append(process)
            ready += wait(process, lambda: stage.listens(place.port), f"{peer} for {scenario.title}", self.log)
            port = place.port
        return processes, port, ready

    def measure(self, peer, scenario):
        """One run of one peer: what a unit of work cost, or None."""
        begun = self.begin(peer, scenario)
        if begun is None:
            return None
        processes, port, ready = begun
        pids = [process.pid for process in processes]
        try:
            idle = sum(map(resident_mib, pids))
            scenario.load(self, port, WARM_SECONDS)
            before = sum(map(cpu_seconds, pids))
            done = scenario.load(self, port, self.options.seconds)
            spent = sum(map(cpu_seconds, pids)) - before
            row = {"cpu_us": spent * 1e6 / done["requests"], "rate": done["requests"] * 1e6 / done["microseconds"],
                   "p50_us": done.get("p50", 0), "p99_us": done.get("p99", 0), "p999_us": done.get("p999", 0),
                   "idle_mib": idle, "after_mib": sum(map(resident_mib, pids)), "ready_ms": ready * 1000}
            if self.options.calls:
                row["calls"] = self.calls(pids, scenario, port)
            return row
        finally:
            for process in processes:
                stop(process)
            for log in self.folder.glob("access.log*"):
                log.unlink()

    def calls(self, pids, scenario, port):
        """System calls for a unit of work, in a short run of its own: tracing slows everything."""
        total, requests = 0, 0
        with counted_calls(pids[0]) as counted:
            requests = scenario.load(self, port, 1)["requests"]
        total = sum(counted.values())
        return total / requests


def latencies(bench, options, results):
    """At a fixed rate, a share of what Envoy can do: the time of requests from when each was due."""
    print(f"\nlatency at {LATENCY_SHARE:.0%} of Envoy's saturation, 64 connections, from when a request was due")
    rates = [row["rate"] for row in results.get(("a", "envoy"), [])]
    if not rates or not options.open_loop:
        print("not measured: needs Envoy in scenario a, and the generator (--open-loop)")
        return
    rate = int(statistics.median(rates) * LATENCY_SHARE)
    scenario = scenarios.all_of(bench)[0]
    print(f"{'proxy':8} {'rate':>8} {'p50 us':>8} {'p99 us':>8} {'p99.9 us':>9}")
    found = {}
    for _ in range(options.runs):
        for peer in options.peers:
            processes, port, _ = bench.begin(peer, scenario)
            try:
                scenario.load(bench, port, WARM_SECONDS)
                url = f"http://127.0.0.1:{port}/"
                found.setdefault(peer, []).append(open_loop(options.client_core, options.open_loop, url, 64, rate, options.seconds))
            finally:
                for process in processes:
                    stop(process)
    for peer, rows in found.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in ("p50", "p99", "p999")}
        print(f"{peer:8} {rate:8} {middle['p50']:8.0f} {middle['p99']:8.0f} {middle['p999']:9.0f}")


def table(scenario, options, results):
    """One scenario's lines: medians, spread, and ours divided by each."""
    rows = {peer: results[scenario.letter, peer] for peer in options.peers if results.get((scenario.letter, peer))}
    ours = rows.get("sluis")
    for peer, runs in rows.items():
        middle = {key: statistics.median(row[key] for row in runs) for key in runs[0]}
        costs = [row["cpu_us"] for row in runs]
        ratio = statistics.median(row["cpu_us"] for row in ours) / middle["cpu_us"] if ours else float("nan")
        calls = f"{middle['calls']:6.2f}" if "calls" in middle else "     -"
        print(f"{scenario.letter:14} {peer:8} {middle['cpu_us']:9.1f} {min(costs):8.1f}-{max(costs):<8.1f} {ratio:7.2f} {calls}"
              f" {middle['rate']:9.0f} {middle['p50_us']:7.0f} {middle['p99_us']:7.0f} {middle['idle_mib']:6.1f} {middle['after_mib']:6.1f}")


def remember(options, chosen, results):
    """Appends the ratios of this run to the history."""
    revision = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    is_new = not HISTORY.exists()
    with open(HISTORY, "a", newline="") as file:
        out = csv.writer(file)
        if is_new:
            out.writerow(["date", "commit", "scenario", "cpu_us", *(f"of_{peer}" for peer in PEERS[1:])])
        for scenario in chosen:
            middle = {peer: statistics.median(row["cpu_us"] for row in results[scenario.letter, peer])
                      for peer in PEERS if results.get((scenario.letter, peer))}
            if "sluis" in middle:
                ratios = [f"{middle['sluis'] / middle[peer]:.3f}" if peer in middle else "" for peer in PEERS[1:]]
                out.writerow([datetime.date.today().isoformat(), revision, scenario.letter, f"{middle['sluis']:.2f}", *ratios])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target/release"
    parser.add_argument("--peers", default=",".join(PEERS), help="[%(default)s]")
    parser.add_argument("--only", default="", help="letters of scenarios, or how they begin, with commas between [all]")
    parser.add_argument("--quick", action="store_true", help="the chief scenarios, short: under three minutes")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each [%(default)s]")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement [%(default)s]")
    parser.add_argument("--calls", action="store_true", help="count system calls too (strace)")
    parser.add_argument("--remember", action="store_true", help="append the ratios to history.csv")
    parser.add_argument("--json", type=pathlib.Path, help="write every run here")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", release / "sluis"))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", release / "sluis-proxy"))
    parser.add_argument("--open-loop", default=release / "examples/open_loop", help="the generator at a fixed rate")
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", ROOT / "target/envoy/bin/envoy"))
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    parser.add_argument("--nghttpd", default=shutil.which("nghttpd"))
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    if not pathlib.Path(options.open_loop).exists():
        options.open_loop = None
    if options.quick:
        options.runs, options.seconds = 1, 2
    wanted = {"sluis": options.sluis_proxy, "envoy": options.envoy, "haproxy": options.haproxy, "nginx": options.nginx}
    missing = [tool for tool in ("wrk", "h2load", "strace") if not shutil.which(tool)]
    missing += [str(path) for peer, path in wanted.items() if peer in options.peers and not shutil.which(path)]
    if missing:
        sys.exit("not found: " + ", ".join(missing) + " (see benches/README.md)")
    return options


def main():
    options = arguments()
    raise_limits()
    os.sched_setaffinity(0, {options.client_core})
    results = {}
    with tempfile.TemporaryDirectory(prefix="sluis-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        begins = tuple(options.only.split(",")) if options.only else ("",)
        chosen = [one for one in scenarios.all_of(bench) if one.letter.startswith(begins) and (one.is_quick or not options.quick)]
        try:
            print(f"{'scenario':14} {'proxy':8} {'CPU us':>9} {'spread':>17} {'ours/it':>7} {'calls':>6} {'per s':>9} {'p50':>7} {'p99':>7} {'idle':>6} {'after':>6} MiB")
            for scenario in chosen:
                print(f"-- {scenario.letter}: {scenario.title}; for each {scenario.per}")
                for _ in range(options.runs):
                    for peer in [one for one in options.peers if one in scenario.peers]:
                        try:
                            row = bench.measure(peer, scenario)
                        except LoadFailed as error:
                            print(f"{scenario.letter:14} {peer:8} failed: {str(error)[-300:]}")
                            continue
                        if row:
                            results.setdefault((scenario.letter, peer), []).append(row)
                table(scenario, options, results)
                sys.stdout.flush()
            if not options.quick and any(one.letter == "a" for one in chosen):
                latencies(bench, options, results)
        finally:
            bench.stage.close()
    if options.remember:
        remember(options, chosen, results)
    if options.json:
        options.json.write_text(json.dumps([{"scenario": s, "peer": p, "run": n, **row}
                                            for (s, p), rows in results.items() for n, row in enumerate(rows)], indent=1))


if __name__ == "__main__":
    main()
