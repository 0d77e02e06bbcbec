"""At a fixed rate, a share of what Envoy saturates at: latencies from when each request was due, and CPU."""

import statistics

from .load import LoadFailed, may_run_first, open_loop
from .machine import before_others, cpu_seconds, ended, undisturbed

SHARE = 0.6  # of Envoy's saturation
CONNECTIONS = 64
WARM_SECONDS = 1
DIRECT = "direct"  # the origin itself, with no proxy before it: what of a latency is the laboratory's


def begin(bench, peer, scenario):
    """The processes of a peer, none for the origin alone, and the port to ask; None when it cannot do the scenario."""
    if peer == DIRECT:
        return [], bench.stage.port("h2c" if scenario.paced.get("is_http2") else "http")
    begun = bench.begin(peer, scenario)
    return begun and begun[:2]


def run(bench, peer, scenario, rate):
    """One run of one peer, or None when it cannot do the scenario."""
    options, asks = bench.options, {**scenario.paced}
    begun = begin(bench, peer, scenario)
    if begun is None:
        return None
    processes, port = begun
    url = f"http://127.0.0.1:{port}{asks.pop('path', '/')}"
    connections = asks.pop("connections", CONNECTIONS)
    pids = [process.pid for process in processes]
    origins = [process.pid for process in bench.stage.processes]
    with ended(*processes), before_others(origins if may_run_first() else []):
        if may_run_first():
            undisturbed(pids)
        ask = lambda seconds: open_loop(options.client_core, options.open_loop, url, connections, rate, seconds, **asks)
        ask(WARM_SECONDS)
        before = cpu_seconds(pids)
        row = ask(options.seconds)
        user, system = (after - before for after, before in zip(cpu_seconds(pids), before))
        return {**row, "rate": rate, "cpu_us": (user + system) * 1e6 / row["requests"],
                "client_busy": row["cpu_us"] / 1e6 / options.seconds}


def all_of(bench, chosen, results):
    """Every scenario that is measured so, alternating: rows by scenario and peer."""
    options, found = bench.options, {}
    for scenario in chosen:
        rates = [row["rate"] for row in results.get((scenario.letter, "envoy"), [])]
        if scenario.paced is None or not rates:
            continue
        rate = int(statistics.median(rates) * SHARE)
        for _ in range(options.runs):
            for peer in [DIRECT, *(one for one in options.peers if one in scenario.peers)]:
                try:
                    row = run(bench, peer, scenario, rate)
                except LoadFailed as error:
                    print(f"latency {scenario.letter} {peer} failed: {str(error)[-300:]}")
                    continue
                if row:
                    found.setdefault((scenario.letter, peer), []).append(row)
    return found
