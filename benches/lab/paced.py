"""At a fixed rate, a share of what Envoy saturates at: latencies from when each request was due, and CPU."""

import statistics

from .load import LoadFailed, open_loop
from .machine import cpu_seconds, ended

SHARE = 0.6  # of Envoy's saturation
CONNECTIONS = 64
WARM_SECONDS = 1


def run(bench, peer, scenario, rate):
    """One run of one peer, or None when it cannot do the scenario."""
    options, asks = bench.options, {**scenario.paced}
    begun = bench.begin(peer, scenario)
    if begun is None:
        return None
    processes, port, _ = begun
    url = f"http://127.0.0.1:{port}{asks.pop('path', '/')}"
    connections = asks.pop("connections", CONNECTIONS)
    pids = [process.pid for process in processes]
    with ended(*processes):
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
            for peer in [one for one in options.peers if one in scenario.peers]:
                try:
                    row = run(bench, peer, scenario, rate)
                except LoadFailed as error:
                    print(f"latency {scenario.letter} {peer} failed: {str(error)[-300:]}")
                    continue
                if row:
                    found.setdefault((scenario.letter, peer), []).append(row)
    return found
