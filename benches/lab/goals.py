"""What is aimed at: ratios of our figure to each peer's, and whether a run meets them."""

import dataclasses
import statistics

PEERS = ("envoy", "haproxy", "nginx")
NAMES = {"sluis": "sluis-proxy", "envoy": "Envoy", "haproxy": "HAProxy", "nginx": "nginx"}

# What it is, the scenario, and the most that ours may be of Envoy's, HAProxy's and nginx's.
CPU = [
    ("HTTP/1.1, small answers", "a", (0.22, 0.75, 0.80)),
    ("one connection", "b", (0.45, 0.9, 0.9)),
    ("bodies of 1 MiB", "d", (0.8, 0.95, 0.95)),
    ("log, metrics, 20 rules, token", "f", (0.25, None, None)),
    ("mutual TLS, two hops", "g3", (0.35, 0.8, 0.8)),
    ("HTTP/2, gRPC's shape, unary", "h2", (0.45, 0.9, None)),
    ("TCP, bulk", "i1", (0.5, 1.0, 0.6)),
    ("TLS handshakes", "k2", (0.8, 0.95, 0.95)),
    ("mutual TLS handshakes", "k3", (0.8, 0.95, 0.95)),
]
IDLE = (0.15, 0.8, 1.0)
LATENCY = (0.5, 0.9, 0.9)
GROWTH = 1.1  # from 10 routes to 10,000
SIGNER = 0.15  # of Envoy's Lua
CALLS = 5.0  # for a keep-alive request


@dataclasses.dataclass(frozen=True)
class Goal:
    """One line: for each peer a ratio and the most that it may be; None where there is none."""

    title: str
    ratios: tuple
    limits: tuple

    def verdict(self):
        pairs = [(ratio, limit) for ratio, limit in zip(self.ratios, self.limits) if limit is not None and ratio is not None]
        if not pairs:
            return "not measured"
        missed = [ratio / limit for ratio, limit in pairs if ratio > limit]
        return f"no, by {(max(missed) - 1) * 100:.0f} %" if missed else "yes"


def middle(rows, key):
    """The median of a figure, or None."""
    found = [row[key] for row in rows or [] if key in row]
    return statistics.median(found) if found else None


def ratios(results, letter, key):
    ours = middle(results.get((letter, "sluis")), key)
    theirs = [middle(results.get((letter, peer)), key) for peer in PEERS]
    return tuple(ours / one if ours is not None and one else None for one in theirs)


def all_of(results, paced):
    """Each goal with what this run found."""
    made = [Goal(f"{letter}: {title}", ratios(results, letter, "cpu_us"), limits) for title, letter, limits in CPU]
    cost = lambda letter, peer="sluis": middle(results.get((letter, peer)), "cpu_us")
    share = lambda one, other: (one / other if one and other else None,)
    for kind in ("exact", "prefix"):
        made.append(Goal(f"l: 10,000 {kind} routes to 10, ours alone", share(cost(f"l-{kind}-10000"), cost(f"l-{kind}-10")), (GROWTH,)))
    made.append(Goal("m: HMAC by our signer to Envoy's Lua", share(cost("m-native"), cost("m", "envoy")), (SIGNER,)))
    made.append(Goal("resident memory, idle", ratios(results, "a", "idle_mib"), IDLE))
    for letter in ("a", "f", "g3", "h2"):
        made.append(Goal(f"usual p99 at 60 % of Envoy's saturation, {letter}", ratios(paced, letter, "usual_p99"), LATENCY))
    made.append(Goal("system calls for a keep-alive request, ours", (middle(results.get(("a", "sluis")), "calls"),), (CALLS,)))
    return made
