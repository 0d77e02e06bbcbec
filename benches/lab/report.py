"""What a run found, as text for the terminal and as Markdown for docs/performance.md."""

import datetime
import platform
import re
import subprocess

from . import goals, paced
from .goals import NAMES, middle

HEAD = (f"{'scenario':14} {'proxy':8} {'CPU us':>9} {'spread':>17} {'user':>7} {'system':>7} {'ours/it':>7} {'calls':>6}"
        f" {'busy':>5} {'per s':>9} {'p50':>7} {'p99':>7} {'idle':>6} {'after':>6} MiB")


def line(letter, peer, runs, ours):
    """One scenario of one proxy: medians, spread, and ours divided by it."""
    found = {key: middle(runs, key) for key in runs[0] if key != "by_name"}
    costs = [row["cpu_us"] for row in runs]
    ratio = middle(ours, "cpu_us") / found["cpu_us"] if ours else float("nan")
    calls = f"{found['calls']:6.2f}" if "calls" in found else "     -"
    return (f"{letter:14} {peer:8} {found['cpu_us']:9.1f} {min(costs):8.1f}-{max(costs):<8.1f} {found['user_us']:7.1f} {found['system_us']:7.1f}"
            f" {ratio:7.2f} {calls} {found['busy']:5.0%} {found['rate']:9.0f} {found['p50_us']:7.0f} {found['p99_us']:7.0f}"
            f" {found['idle_mib']:6.1f} {found['after_mib']:6.1f}")


def versions(options):
    """Which releases were measured."""
    asked = {"envoy": ["--version"], "haproxy": ["-v"], "nginx": ["-v"]}
    found = []
    for peer in [one for one in options.peers if one in asked]:
        done = subprocess.run([getattr(options, peer), *asked[peer]], capture_output=True, text=True)
        number = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        found.append(f"{NAMES[peer]} {number[0] if number else '?'}")
    return ", ".join(found)


def processor():
    with open("/proc/cpuinfo") as file:
        return next((row.split(":")[1].strip() for row in file if row.startswith("model name")), platform.machine())


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(value, places=1):
    return "–" if value is None else f"{value:,.{places}f}"


def goal_rows(results, paced):
    rows = []
    for goal in goals.all_of(results, paced):
        cells = []
        for ratio, limit in zip(goal.ratios, goal.limits):
            shown = "–" if ratio is None else f"{ratio:.2f}"
            cells.append(shown if limit is None else f"{shown} (≤ {limit:g})")
        rows.append([goal.title, *cells, *["–"] * (3 - len(cells)), goal.verdict()])
    return rows


def markdown(options, revision, chosen, results, latencies, held, crowds, swaps, counts):
    """The whole result, to be put into the docs as it is."""
    out = [f"`make bench` of {datetime.date.today().isoformat()} at {revision}: {processor()}, Linux {platform.release().split('-')[0]}, "
           f"{versions(options)}; medians of {options.runs} runs of {options.seconds} s (scenarios without an aim: one), "
           "the proxy alone on one core, client and origin on another.\n",
           "### The aims\n",
           "Ours divided by each peer's: CPU time, or what the line names; in brackets the most that it may be.\n",
           table(["aim", "of Envoy's", "of HAProxy's", "of nginx's", "met"], goal_rows(results, latencies)),
           "### CPU time\n",
           "µs for each request (or handshake): user + system; in brackets the least and the most of the runs; bold, ours divided by it.\n"]
    rows = []
    for one in chosen:
        ours = results.get((one.letter, "sluis"))
        cells = []
        for peer in NAMES:
            runs = results.get((one.letter, peer))
            if not runs:
                cells.append("–")
                continue
            costs = [row["cpu_us"] for row in runs]
            spread = f" ({min(costs):.1f}–{max(costs):.1f})" if len(costs) > 1 else ""
            text = f"{middle(runs, 'cpu_us'):,.1f} = {middle(runs, 'user_us'):.1f} + {middle(runs, 'system_us'):.1f}{spread}"
            if peer != "sluis" and ours:
                text += f" **{middle(ours, 'cpu_us') / middle(runs, 'cpu_us'):.2f}**"
            cells.append(text)
        rows.append([f"{one.letter}: {one.title}", *cells])
    out.append(table(["scenario", *NAMES.values()], rows))
    out += ["### System calls, load, memory\n", "At saturation. Busy: the share of its core that the proxy had; under 95 % the client or the origin was the bound.\n"]
    rows = [[one.letter, NAMES[peer], number(middle(runs, "calls"), 2), f"{middle(runs, 'busy'):.0%}", number(middle(runs, "rate"), 0),
             number(middle(runs, "p50_us"), 0), number(middle(runs, "p99_us"), 0), number(middle(runs, "idle_mib")), number(middle(runs, "after_mib"))]
            for one in chosen for peer in NAMES if (runs := results.get((one.letter, peer))) and (one.is_quick or one.counts)]
    out.append(table(["", "proxy", "calls/request", "busy", "per second", "p50 µs", "p99 µs", "idle MiB", "after MiB"], rows))
    if latencies:
        out += ["### Latency at 60 % of Envoy's saturation\n",
                "From when each request was due, by a generator that runs before all on its core but the origin, and was itself late by no more than "
                "is said. The usual p99 is the median of those of each quarter of a second; the other figures are of whole runs.\n"]
        names = {**NAMES, paced.DIRECT: "none: the origin"}
        rows = [[letter, names[peer], number(middle(runs, "rate"), 0), number(middle(runs, "p50"), 0), number(middle(runs, "usual_p99"), 0),
                 number(middle(runs, "p99"), 0), number(middle(runs, "p999"), 0), number(middle(runs, "cpu_us")), number(middle(runs, "late_p99"), 0),
                 f"{middle(runs, 'client_busy'):.0%}"]
                for (letter, peer), runs in latencies.items()]
        out.append(table(["", "proxy", "per second", "p50 µs", "usual p99 µs", "p99 µs", "p99.9 µs", "CPU µs", "generator late, p99 µs", "its share of a core"], rows))
    if held:
        out.append("### Silent connections (e): resident MiB\n")
        for kind in dict.fromkeys(kind for kind, _ in held):
            of_kind = {peer: row for (one, peer), row in held.items() if one == kind}
            sizes = [key for key in next(iter(of_kind.values())) if isinstance(key, int)]
            rows = [[NAMES[peer], number(row["idle"]), *(number(row[size]) for size in sizes), number(row["after"]), number(row["bytes"] / 1024)]
                    for peer, row in of_kind.items()]
            out.append(table([kind, "idle", *(f"{size:,}" for size in sizes), "after", "KiB for each"], rows))
    if crowds:
        out.append("### CPU time for a request where 1,000 a second come on so many connections in turn (e)\n")
        sizes = sorted({count for count, _ in crowds})
        rows = [[NAMES[peer], *(number(crowds[count, peer]["cpu_us"]) if (count, peer) in crowds else "–" for count in sizes)] for peer in NAMES]
        out.append(table(["µs", *(f"{count:,}" for count in sizes)], rows))
    if swaps:
        out += ["### Start, and changes of the configuration under load (n)\n",
                "4,000 requests a second on 64 connections, a change every 0.4 s; failed: sent and not answered with 200.\n"]
        rows = [[NAMES[peer], f"{routes:,}", number(row["ready_ms"], 0), number(row["in_force_ms"]), number(row["cpu_ms"]), str(row["changes"]),
                 f"{row['failed']} of {row['requests']:,}", str(row["reconnects"]), number(row["still_p99"], 0), number(row["p99"], 0), number(row["p999"], 0),
                 number(row["idle_mib"]), number(row["after_mib"])]
                for (routes, peer), row in swaps.items()]
        out.append(table(["proxy", "routes", "ready ms", "in force ms", "CPU ms/change", "changes", "failed", "reconnects", "p99 µs without", "with", "p99.9 with",
                          "idle MiB", "after MiB"], rows))
    if counts:
        out += ["### Instructions of ours\n", "By callgrind, system calls apart (`make instructions`).\n",
                table(["for", "instructions"], [[case, f"{count:,}"] for case, count in counts.items()])]
    out += ["### Run after run\n", "CPU time of the chief scenarios, ours divided by each peer's (`benches/history.csv`, drawn by `make bench-plot`).\n",
            "![CPU time, ours divided by each peer's, run after run](performance-history.svg)\n"]
    return "\n".join(out)
