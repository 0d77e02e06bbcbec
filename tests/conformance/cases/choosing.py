"""Which service gets a request: weights, subsets, balancing, consistent hashing, mirrors."""

from corpus import ALPHA, BETA, DELTA, GAMMA, USUAL, Cases, Feature, service_entry

VERSIONS = {ALPHA: {"version": "v1"}, BETA: {"version": "v2"}, GAMMA: {"version": "v3"}}
FOUR = {ALPHA: {}, BETA: {}, GAMMA: {}, DELTA: {}}


def rule(host, policy, subsets=""):
    """A DestinationRule; `{}` is no policy, which Istio wants left out."""
    policy = "" if policy == "{}" else f"  trafficPolicy: {policy}\n"
    return f"""
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host.replace('.', '-')}, namespace: apps}}
spec:
  host: {host}
{policy}{subsets}"""


SUBSETS = """  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
  - {name: none, labels: {version: v9}}
"""
WEIGHTS = service_entry("weights.test", VERSIONS) + rule("weights.test", "{}", SUBSETS) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: weights, namespace: apps}
spec:
  hosts: [weights.test]
  http:
  - match: [{uri: {prefix: /80-20}}]
    route:
    - {destination: {host: weights.test, subset: v1}, weight: 80}
    - {destination: {host: weights.test, subset: v2}, weight: 20}
  - match: [{uri: {prefix: /three}}]
    route:
    - {destination: {host: weights.test, subset: v1}, weight: 1, headers: {request: {set: {x-chosen: v1}}, response: {set: {x-chosen: v1}}}}
    - {destination: {host: weights.test, subset: v2}, weight: 1, headers: {request: {set: {x-chosen: v2}}}}
    - {destination: {host: weights.test, subset: v3}, weight: 2}
  - match: [{uri: {prefix: /zero}}]
    route:
    - {destination: {host: weights.test, subset: v1}, weight: 0}
    - {destination: {host: weights.test, subset: v2}, weight: 100}
  - match: [{uri: {prefix: /v3}}]
    route: [{destination: {host: weights.test, subset: v3}}]
  - match: [{uri: {prefix: /nobody}}]
    route: [{destination: {host: weights.test, subset: none}}]
  - match: [{uri: {prefix: /unknown}}]
    route: [{destination: {host: weights.test, subset: never-written}}]
  - route: [{destination: {host: weights.test}}]
"""


def weights():
    case = Cases("weights", "weights.test")
    for path in ("/80-20", "/three", "/zero", "/"):
        case.http1(f"share {path}", path, repeat=300, compare="share")
    for path in ("/v3", "/nobody", "/unknown", "/zero"):
        case.http1(f"one {path}", path)
    return case


HASHES = {
    "header": "{httpHeaderName: x-user}", "cookie": "{httpCookie: {name: user, ttl: 0s}}",
    "made-cookie": "{httpCookie: {name: made, ttl: 60s, path: /p}}", "query": "{httpQueryParameterName: user}",
    "maglev": "{httpHeaderName: x-user, maglev: {tableSize: 1009}}",
    "maglev-default": "{httpHeaderName: x-user, maglev: {tableSize: 65537}}",
    "ring": "{httpHeaderName: x-user, ringHash: {minimumRingSize: 16}}",
}
HASHING = "".join(
    service_entry(f"{name}.hash.test", FOUR)
    + rule(f"{name}.hash.test", f"{{loadBalancer: {{consistentHash: {policy}}}}}")
    for name, policy in HASHES.items())


def hashing():
    case = Cases("hashing")
    for user in [f"user-{number}" for number in range(24)] + ["", "\xe9", "a" * 300, "Ada Lovelace"]:
        for name in ("header", "maglev", "ring", "maglev-default"):
            case.http1(f"{name} {user[:20]!r}", "/", headers=[("x-user", user)], host=f"{name}.hash.test")
    for user in [f"u{number}" for number in range(12)]:
        case.http1(f"cookie {user}", "/", headers=[("cookie", f"a=b; user={user}")], host="cookie.hash.test")
        case.http1(f"query {user}", f"/?x=1&user={user}", host="query.hash.test")
    case.http1("header twice", "/", headers=[("x-user", "one"), ("x-user", "two")], host="header.hash.test")
    case.http1("no header", "/", host="header.hash.test", repeat=200, compare="share")
    case.http1("a cookie is made", "/", host="made-cookie.hash.test", apart=("upstream", "fields"))
    return case


SIMPLE = {"round-robin": "ROUND_ROBIN", "random": "RANDOM", "least": "LEAST_REQUEST", "unset": "UNSPECIFIED"}
BALANCING = "".join(
    service_entry(f"{name}.lb.test", FOUR) + rule(f"{name}.lb.test", f"{{loadBalancer: {{simple: {value}}}}}")
    for name, value in SIMPLE.items())


def balancing():
    case = Cases("balancing")
    for name in SIMPLE:
        case.http1(name, "/", host=f"{name}.lb.test", repeat=200, compare="share")
    return case


MIRROR = service_entry("mirror.test", {ALPHA: {}}) + service_entry("shadow.test", {BETA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mirror, namespace: apps}
spec:
  hosts: [mirror.test]
  http:
  - match: [{uri: {prefix: /one}}]
    route: [{destination: {host: mirror.test}}]
    mirror: {host: shadow.test}
    mirrorPercentage: {value: 100}
  - match: [{uri: {prefix: /never}}]
    route: [{destination: {host: mirror.test}}]
    mirror: {host: shadow.test}
    mirrorPercentage: {value: 0}
  - route: [{destination: {host: mirror.test}}]
    mirrors: [{destination: {host: shadow.test}, percentage: {value: 100}}]
"""


def mirror():
    # The copy has the request's id too, and is counted with it.
    case = Cases("mirror", "mirror.test", apart=("tries",))
    for path in ("/one", "/never", "/list"):
        case.http1(path, path)
        case.http1(f"POST {path}", path, method="POST", body=b"hello")
    return case


FEATURES = [Feature("weights", WEIGHTS, weights(), USUAL), Feature("hashing", HASHING, hashing(), USUAL),
            Feature("balancing", BALANCING, balancing(), USUAL), Feature("mirror", MIRROR, mirror(), USUAL)]
