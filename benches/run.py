#!/usr/bin/env python3
"""Measures sluis-proxy beside Envoy, HAProxy and nginx: what a request costs each, in the same run.

Each proxy has one worker on one core; client and origin share the other. Runs alternate, so that a
machine that slows down does so for all. See README.md for what is measured and how to read it.
"""

import argparse
import contextlib
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
import time

from lab import crowd, goals, idle, paced, report, scenarios, stage, swap
from lab.load import LoadFailed
from lab.machine import counted_calls, cpu_seconds, ended, free_port, raise_limits, resident_mib, start, stop, wait
from lab.shapes import KEY, Place, command

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
HISTORY = HERE / "history.csv"
WARM_SECONDS = 1
SETTLE_SECONDS = 0.3  # after the start, before idle memory is read: nginx's worker is not there yet
CALLS_SECONDS = 1
MARKS = "<!-- bench: begin -->", "<!-- bench: end -->"
TLS_COUNTS = (500, 3000)  # silent connections: their handshakes take long

HMAC = """
package.preload["lib.hash"] = function() %s end
local hash = require("lib.hash")
function envoy_on_request(handle)
  local headers = handle:headers()
  local text = headers:get(":method") .. "\\n" .. headers:get(":authority") .. "\\n" .. headers:get(":path")
  headers:replace("x-authorization", "Signature=" .. hash.hmac(hash.sha256, "%s", text))
end
"""


class Bench:
    """What scenarios need to know of the run."""

    def __init__(self, options, folder):
        self.options, self.folder, self.client_core = options, folder, options.client_core
        self.stage = stage.Stage(options, folder)
        self.keys, self.token = stage.key_and_token(folder)
        self.script = HMAC % ((ROOT / "examples/credential-egress/lua/lib/hash.lua").read_text(), KEY)
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

    def measure(self, peer, scenario, counts):
        """One run of one peer: what a unit of work cost, or None."""
        begun = self.begin(peer, scenario)
        if begun is None:
            return None
        processes, port, ready = begun
        pids = [process.pid for process in processes]
        with ended(*processes):
            if scenario.is_quick:
                time.sleep(SETTLE_SECONDS)
            idle = sum(map(resident_mib, pids))
            with contextlib.suppress(LoadFailed):  # nothing answered within a second counts below
                scenario.load(self, port, WARM_SECONDS)
            before, began = cpu_seconds(pids), time.monotonic()
            done = scenario.load(self, port, self.options.seconds)
            user, system = (after - before for after, before in zip(cpu_seconds(pids), before))
            each = 1e6 / done["requests"]
            row = {"cpu_us": (user + system) * each, "user_us": user * each, "system_us": system * each,
                   "busy": (user + system) / (time.monotonic() - began),
                   "rate": done["requests"] * 1e6 / done["microseconds"],
                   "p50_us": done.get("p50", 0), "p99_us": done.get("p99", 0), "p999_us": done.get("p999", 0),
                   "idle_mib": idle, "after_mib": sum(map(resident_mib, pids)), "ready_ms": ready * 1000}
            if counts:
                with contextlib.suppress(LoadFailed):  # traced on a busy machine, Envoy may answer nothing in time
                    row["by_name"] = self.calls(pids, scenario, port)
                    row["calls"] = sum(row["by_name"].values())
        for log in self.folder.glob("access.log*"):
            log.unlink()
        return row

    def calls(self, pids, scenario, port):
        """System calls for a unit of work, by name, in a short run of its own: tracing slows everything."""
        with counted_calls(pids) as counted:
            requests = scenario.load(self, port, CALLS_SECONDS)["requests"]
        return {name: count / requests for name, count in sorted(counted.items(), key=lambda one: -one[1])}


def revision():
    return subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


def remember(options, chosen, results):
    """Appends the ratios of this run to the history."""
    is_new = not HISTORY.exists()
    with open(HISTORY, "a", newline="") as file:
        out = csv.writer(file)
        if is_new:
            out.writerow(["date", "commit", "scenario", "cpu_us", *(f"of_{peer}" for peer in scenarios.PEERS[1:])])
        for scenario in chosen:
            middle = {peer: statistics.median(row["cpu_us"] for row in results[scenario.letter, peer])
                      for peer in scenarios.PEERS if results.get((scenario.letter, peer))}
            if "sluis" in middle:
                ratios = [f"{middle['sluis'] / middle[peer]:.3f}" if peer in middle else "" for peer in scenarios.PEERS[1:]]
                out.writerow([datetime.date.today().isoformat(), revision(), scenario.letter, f"{middle['sluis']:.2f}", *ratios])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target/release"
    parser.add_argument("--peers", default=",".join(scenarios.PEERS), help="[%(default)s]")
    parser.add_argument("--only", default="", help="letters of scenarios, or how they begin, with commas between [all]")
    parser.add_argument("--quick", action="store_true", help="the chief scenarios, short: under three minutes")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each [%(default)s]")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement [%(default)s]")
    parser.add_argument("--calls", action="store_true", help="count system calls too (strace)")
    parser.add_argument("--remember", action="store_true", help="append the ratios to history.csv")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the result here as Markdown; in a page with marks, between them")
    parser.add_argument("--all-runs", action="store_true", help="as many runs of scenarios without an aim, too")
    parser.add_argument("--json", type=pathlib.Path, help="write every run here")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", release / "sluis"))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", release / "sluis-proxy"))
    parser.add_argument("--open-loop", default=release / "examples/open_loop", help="the generator at a fixed rate")
    parser.add_argument("--configure", default=release / "examples/configure", help="the control plane whose sets come from files")
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", ROOT / "target/envoy/bin/envoy"))
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    parser.add_argument("--nghttpd", default=shutil.which("nghttpd"))
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    if not pathlib.Path(options.open_loop).exists():
        options.open_loop = None
    if not pathlib.Path(options.configure).exists():
        options.configure = None
    if options.quick:
        options.runs, options.seconds = 1, 2
    wanted = {"sluis": options.sluis_proxy, "envoy": options.envoy, "haproxy": options.haproxy, "nginx": options.nginx}
    missing = [tool for tool in ("wrk", "h2load", "strace") if not shutil.which(tool)]
    missing += [str(path) for peer, path in wanted.items() if peer in options.peers and not shutil.which(path)]
    if missing:
        sys.exit("not found: " + ", ".join(missing) + " (see benches/README.md)")
    return options


def measured(bench, chosen):
    """Every scenario's runs, alternating; a table as they come."""
    options, results = bench.options, {}
    print(report.HEAD)
    for scenario in chosen:
        print(f"-- {scenario.letter}: {scenario.title}; for each {scenario.per}")
        peers = [one for one in options.peers if one in scenario.peers]
        for number in range(1 if scenario.once and not options.all_runs else options.runs):
            for peer in peers:
                try:
                    row = bench.measure(peer, scenario, options.calls and scenario.counts and number == 0)
                except LoadFailed as error:
                    print(f"{scenario.letter:14} {peer:8} failed: {str(error)[-300:]}")
                    continue
                if row:
                    results.setdefault((scenario.letter, peer), []).append(row)
        ours = results.get((scenario.letter, "sluis"))
        for peer in peers:
            if runs := results.get((scenario.letter, peer)):
                print(report.line(scenario.letter, peer, runs, ours))
        for row in [row for row in ours or [] if "by_name" in row]:
            print(" " * 15 + "sluis calls " + ", ".join(f"{name} {count:.2f}" for name, count in row["by_name"].items() if count >= 0.005))
        sys.stdout.flush()
    return results


def crowded(bench):
    """Many connections with little traffic: what they hold by kind and peer, and what a request costs by their number and peer."""
    silent = lambda *rest: idle.run(bench.options, bench.stage, bench.folder, bench.options.peers, *rest)
    held = {**silent(("http",), tuple(crowd.counts())), **silent(("tls",), TLS_COUNTS)}
    found = {}
    for count in crowd.counts():
        for peer in bench.options.peers:
            try:
                found[count, peer] = row = crowd.run(bench, peer, count)
            except LoadFailed as error:
                print(f"e {peer} with {count} connections failed: {error}")
                continue
            print(f"e {count:6} connections {peer:8} " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return held, found


def swapped(bench):
    """Starting, and changes under load: rows by the number of routes and the peer."""
    options, found = bench.options, {}
    for routes, peers in ((1, scenarios.PEERS), (1000, ("sluis", "envoy"))):
        for peer in [one for one in options.peers if one in peers]:
            try:
                found[routes, peer] = row = swap.run(bench, peer, routes)
            except (swap.NotTaken, LoadFailed) as error:
                print(f"n {peer} failed: {error}")
                continue
            print(f"n {routes:5} routes {peer:8} " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return found


def write(path, text):
    """The result as a file of its own, or between the marks of a page."""
    page = path.read_text() if path.exists() else ""
    if all(mark in page for mark in MARKS):
        before, rest = page.split(MARKS[0], 1)
        text = before + MARKS[0] + "\n\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1], 1)[1]
    path.write_text(text)


def main():
    options = arguments()
    raise_limits()
    os.sched_setaffinity(0, {options.client_core})
    began = time.monotonic()
    latencies, held, crowds, swaps = {}, {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="sluis-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        begins = tuple(options.only.split(",")) if options.only else ("",)
        chosen = [one for one in scenarios.all_of(bench) if one.letter.startswith(begins) and (one.is_quick or not options.quick)]
        try:
            results = measured(bench, chosen)
            if options.open_loop and not options.quick:
                latencies = paced.all_of(bench, chosen, results)
                for (letter, peer), runs in latencies.items():
                    print(f"latency {letter:4} {peer:8} " + ", ".join(f"{key} {goals.middle(runs, key):.4g}" for key in runs[0]))
            if not options.quick and "e".startswith(begins):
                held, crowds = crowded(bench)
            if options.open_loop and options.configure and not options.quick and "n".startswith(begins):
                swaps = swapped(bench)
        finally:
            bench.stage.close()
    counts = json.loads((HERE / "instructions.json").read_text())
    text = report.markdown(options, revision(), chosen, results, latencies, held, crowds, swaps, counts)
    print("\n" + report.table(["aim", "of Envoy's", "of HAProxy's", "of nginx's", "met"], report.goal_rows(results, latencies)))
    print(f"{time.monotonic() - began:.0f} s in all")
    if options.markdown:
        write(options.markdown, text)
    if options.remember:
        remember(options, chosen, results)
    if options.json:
        rows = [{"scenario": s, "peer": p, "run": n, **row} for (s, p), rows in results.items() for n, row in enumerate(rows)]
        rows += [{"latency": s, "peer": p, "run": n, **row} for (s, p), rows in latencies.items() for n, row in enumerate(rows)]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
