"""The scenarios: hops between client and origin, and the load on them."""

import dataclasses
import typing

from . import load
from .shapes import FLOORS, Shape

PEERS = ("sluis", "envoy", "haproxy", "nginx")
REGEX_ROUTES = 1000  # of regular expressions; ten thousand are more than Envoy loads within its limit


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`load(bench, port, seconds)` gives what was done; `per` names the unit of the cost."""

    letter: str
    title: str
    hops: tuple
    load: typing.Callable
    per: str = "request"
    is_quick: bool = False
    peers: tuple = PEERS
    paced: dict | None = None  # how the generator at a fixed rate asks, where latency is measured
    counts: bool = False  # system calls too
    once: bool = False  # one run says enough: no aim hangs on it


def wrk(path="/", connections=64, scheme="http", **more):
    def run(bench, port, seconds):
        headers = [f"Authorization: Bearer {bench.token}"] if more.get("token") else []
        fresh = more.get("fresh", False)
        return load.wrk(bench.client_core, f"{scheme}://{more.get('host', '127.0.0.1')}:{port}{path}", connections, seconds, headers, fresh=fresh)
    return run


def h2(path="/", connections=8, streams=8, scheme="http", data=None, headers=()):
    def run(bench, port, seconds):
        body = data and bench.folder / data
        return load.h2load(bench.client_core, f"{scheme}://127.0.0.1:{port}{path}", connections, streams, seconds, headers, body)
    return run


def handshakes(bench, port, seconds):
    return load.handshakes(port, bench.folder, seconds)


def last_route(kind, count):
    return {"exact": f"/api/v1/items{count - 1}", "prefix": f"/api/v1/items{count - 1}/x",
            "regex": f"/api/v1/items{count - 1}/x"}[kind]


HTTP2 = {"headers": ("content-type: application/grpc", "te: trailers"), "body": 1024, "path": "/body/small",
         "connections": 8, "is_http2": True}


def all_of(bench):
    """Every scenario, in order."""
    http, grpc = Shape(), Shape(front="h2c", back="h2c")
    made = [
        Scenario("a", "HTTP/1.1, 64 connections, 46 bytes", (http,), wrk(), is_quick=True, paced={}, counts=True, peers=(*PEERS, *FLOORS)),
        Scenario("b", "HTTP/1.1, 1 connection", (http,), wrk(connections=1), is_quick=True, counts=True),
        Scenario("c1", "bodies of 1 KiB", (http,), wrk("/body/1k"), once=True),
        Scenario("c2", "bodies of 64 KiB", (http,), wrk("/body/64k", 32), once=True),
        Scenario("d", "bodies of 1 MiB", (http,), wrk("/body/1m", 16), is_quick=True, counts=True),
        Scenario("f0", "access log", (Shape(log=True),), wrk(), once=True),
        Scenario("f", "log, 20 rules, token", (Shape(log=True, rules=20, keys=bench.keys),), wrk(token=True), is_quick=True,
                 paced={"headers": (f"Authorization: Bearer {bench.token}",)}, counts=True, peers=("sluis", "envoy")),
        Scenario("g1", "TLS ended", (Shape(front="tls"),), wrk(scheme="https"), once=True),
        Scenario("g2", "TLS begun", (Shape(back="tls"),), wrk(), once=True),
        Scenario("g3", "mutual TLS, two hops", (Shape(back="mtls"), Shape(front="mtls")), wrk(), is_quick=True, paced={}, counts=True),
        Scenario("h1", "HTTP/2 to HTTP/1.1", (Shape(front="h2c"),), h2(), once=True),
        Scenario("h2", "HTTP/2 both sides (gRPC's shape: POST, 1 KiB)", (grpc,),
                 h2("/body/small", data="body/1k", headers=HTTP2["headers"]), is_quick=True, paced=HTTP2, counts=True),
        Scenario("h3", "HTTP/2 bodies of 1 MiB", (grpc,), h2("/body/1m", 4, 4), once=True),
        Scenario("i1", "TCP, bulk (1 MiB answers)", (Shape(front="tcp", back="tcp"),), wrk("/body/1m", 16), is_quick=True, counts=True),
        Scenario("i2", "TCP, to and fro", (Shape(front="tcp", back="tcp"),), wrk(), once=True, counts=True),
        Scenario("j", "TLS passed on by server name", (Shape(front="sni", back="tls"),), wrk(scheme="https", host="localhost"), once=True),
        Scenario("k1", "a new connection for each request", (http,), wrk(connections=16, fresh=True), counts=True),
        Scenario("k2", "TLS handshakes", (Shape(front="tls", answers=True),), wrk(connections=8, scheme="https", fresh=True),
                 per="handshake", is_quick=True, counts=True),
        Scenario("k3", "mutual TLS handshakes", (Shape(front="mtls", answers=True),), handshakes, per="handshake"),
    ]
    for letter, title, more in (("t0", "no token", {}), ("t1", "each token verified", {"keys": bench.keys, "forgets": True}),
                                ("t2", "verified tokens remembered", {"keys": bench.keys})):
        shape = Shape(answers=True, **more)
        made.append(Scenario(letter, title, (shape,), wrk(connections=16, token=True), peers=("sluis", "envoy"), once=True))
    for kind, counts in (("exact", (10, 10_000)), ("prefix", (10, 1000, 10_000)), ("regex", (10, REGEX_ROUTES))):
        for count in counts:
            shape = Shape(routes=(kind, count))
            made.append(Scenario(f"l-{kind}-{count}", f"{count:,} routes, {kind}", (shape,), wrk(last_route(kind, count)),
                                 peers=("sluis", "envoy"), once=kind == "regex" or count == 1000))
    many = Shape(routes=("exact", 5000), clusters=5000)
    made.append(Scenario("l-clusters", "5,000 clusters", (many,), wrk(last_route("exact", 5000)), peers=("sluis", "envoy"), once=True))
    # To an origin by TLS, where alone a Credential goes.
    made.append(Scenario("m", "HMAC in Lua, origin by TLS", (Shape(script=bench.script, back="tls"),), wrk(connections=16),
                         peers=("sluis", "envoy")))
    made.append(Scenario("m-native", "the same HMAC by our own signer", (Shape(signs=True, back="tls"),), wrk(connections=16),
                         peers=("sluis",)))
    return made
