"""Who may do what: policies on an external host at the client's sidecar, and on a gateway."""

import base64
import hmac
import json

from corpus import ALPHA, BETA, GAMMA, USUAL, Cases, Feature, service_entry, upstream

HOST, OTHER = "policy.test", "policy-none.test"


KEY = b"0123456789abcdef0123456789abcdef"


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


KEYS = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": url64(KEY).decode()}]})


def policy(name, spec, namespace="apps", annotations="{}"):
    return f"""
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}
spec:
{spec}"""


TARGET = "  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: policy-test}]\n"
MANIFESTS = (service_entry(HOST, {ALPHA: {}}) + service_entry(OTHER, {BETA: {}})
             + service_entry("policy-tcp.test", {31: {}}, protocol="TCP", port=5000, target=5000)
             + policy("let", TARGET + """  rules:
  - from: [{source: {namespaces: [apps]}}]
    to:
    - operation: {methods: [GET, HEAD], paths: [/exact, /prefix/*, "*.end", "/t/{*}/end", "/all/{**}"]}
    - operation: {methods: ["P*"], notPaths: [/never*], hosts: ["policy.test", "policy.test:*", "*.policy.test"]}
  - from: [{source: {principals: [cluster.local/ns/nowhere/sa/nobody]}}]
  - when:
    - {key: "request.headers[x-let]", values: [one, two-*, "*-three"], notValues: [two-no]}
  - to: [{operation: {ports: ["81"]}}]
""")
             + policy("refuse", TARGET + """  action: DENY
  rules:
  - to: [{operation: {paths: [/prefix/private, /prefix/private/*]}}]
  - when: [{key: "request.headers[x-refuse]", values: ["*"]}]
  - from: [{source: {notNamespaces: [apps]}}]
""")
             + policy("trial", TARGET + """  action: DENY
  rules: [{to: [{operation: {methods: [HEAD]}}]}]
""", annotations='{istio.io/dry-run: "true"}')
             + policy("bytes", """  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: policy-tcp-test}]
  rules: [{from: [{source: {namespaces: [elsewhere]}}]}]
"""))


def at_sidecar():
    case = Cases("policies", HOST)
    paths = ["/exact", "/exact?x=1", "/exact/", "/Exact", "/prefix/", "/prefix/a", "/prefix", "/a.end", "/.end", "/end",
             "/t/a/end", "/t//end", "/t/a/b/end", "/all/", "/all/a/b", "/all", "/prefix/private", "/prefix/private/x",
             "/prefix/privately", "/prefix/./private", "/prefix/x/../private", "/prefix//private", "/prefix/%70rivate",
             "/prefix/private?x", "/prefix%2Fprivate", "/exact%00", "/other"]
    for path in paths:
        case.http1(f"path {path}", path)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        case.http1(f"method {method}", "/exact", method=method)
        case.http1(f"method {method} never", "/never", method=method)
    for authority in (HOST, f"{HOST}:80", "POLICY.test", OTHER):
        case.http1(f"authority {authority}", "/p", method="POST", authority=authority, connect=HOST)
    headers = {"one": [("x-let", "one")], "one in capitals": [("X-Let", "one")], "ONE": [("x-let", "ONE")],
               "prefix": [("x-let", "two-a")], "prefix refused": [("x-let", "two-no")], "suffix": [("x-let", "a-three")],
               "twice": [("x-let", "one"), ("x-let", "x")], "empty": [("x-let", "")],
               "let and refuse": [("x-let", "one"), ("x-refuse", "y")], "refuse empty": [("x-let", "one"), ("x-refuse", "")]}
    for name, fields in headers.items():
        case.http1(f"header {name}", "/h", headers=fields)
    case.http1("host without a policy", "/h", host=OTHER)
    case.http2("http2 let", "/exact")
    case.http2("http2 refused", "/other")
    case.tcp("bytes refused", b"hello", host="policy-tcp.test", port=5000)
    return case


GATEWAY = (service_entry("gated.test", {GAMMA: {}}, namespace="edge") + """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gated, namespace: edge}
spec:
  selector: {istio: conformance-gateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*.gated.example"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gated, namespace: edge}
spec:
  hosts: ["*.gated.example"]
  gateways: [gated]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: readers}}}]
    headers: {request: {set: {x-route: of-readers}}}
    route: [{destination: {host: gated.test}}]
  - route: [{destination: {host: gated.test}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: edge}
spec:
  selector: {matchLabels: {istio: conformance-gateway}}
  jwtRules:
  - issuer: users.test
    audiences: [readers.test]
    jwks: '%s'
    fromHeaders: [{name: authorization, prefix: "Bearer "}, {name: x-token}]
    fromParams: [token]
    fromCookies: [token]
    outputClaimToHeaders: [{header: x-group, claim: group}]
    outputPayloadToHeader: x-payload
""" % KEYS + policy("mark", """  selector: {matchLabels: {istio: conformance-gateway}}
  action: AUDIT
  rules: [{to: [{operation: {paths: [/marked]}}]}]
""", "edge") + policy("let", """  selector: {matchLabels: {istio: conformance-gateway}}
  rules:
  # The other features' servers of this gateway.
  - to: [{operation: {notPorts: ["8080"]}}]
  - to: [{operation: {hosts: [a.gated.example, "*.b.gated.example"], ports: ["8080"]}}]
    from: [{source: {ipBlocks: [127.0.0.0/8]}}]
  - to: [{operation: {hosts: [c.gated.example]}}]
    from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]
  - to: [{operation: {hosts: [d.gated.example]}}]
    from: [{source: {requestPrincipals: ["*"]}}]
  - to: [{operation: {hosts: [e.gated.example]}}]
    from: [{source: {notPrincipals: ["*"]}}]
""", "edge") + policy("refuse", """  selector: {matchLabels: {istio: conformance-gateway}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*], methods: [GET, POST], ports: ["8080"]}}]
  - to: [{operation: {ports: ["9999"]}}]
""", "edge") + service_entry("asked.test", {BETA: {}}) + policy("ask", """  selector: {matchLabels: {istio: conformance-gateway}}
  action: CUSTOM
  provider: {name: asked}
  rules: [{to: [{operation: {paths: [/asked*], hosts: [a.gated.example]}}]}]
""", "edge"))


def token(key=KEY, algorithm="HS256", **claims):
    """A token of a user, for whom and until when it should be, but for what `claims` say."""
    usual = {"iss": "users.test", "sub": "ada", "aud": "readers.test", "exp": 4102444800, "group": "readers"}
    parts = ({"alg": algorithm, "typ": "JWT"}, {key: value for key, value in {**usual, **claims}.items() if value})
    signed = b".".join(url64(json.dumps(part).encode()) for part in parts)
    return b".".join((signed, url64(hmac.digest(key, signed, "sha256")))).decode()


TOKENS = {
    "good": token(), "of another key": token(key=b"x" * 32), "of another issuer": token(iss="else.test"),
    "for others": token(aud="else.test"), "for several": token(aud=["else.test", "readers.test"]),
    "expired": token(exp=1), "of tomorrow": token(nbf=4102444000), "without an end": token(exp=None),
    "unsigned": token(algorithm="none"), "of another algorithm": token(algorithm="RS256"),
    "of no subject": token(sub=None), "of another group": token(group="writers"),
    "of several groups": token(group=["readers", "writers"]), "cut": token()[:-3], "of two parts": token().rpartition(".")[0],
    "of four parts": token() + ".x", "no token": "x", "a space": "a b",
}


def with_tokens(case):
    """Whoever shows a token must show a good one; `d` wants one of a known user."""
    for host in ("a", "d"):
        for name, text in TOKENS.items():
            case.http1(f"{host}: token {name}", host=f"{host}.gated.example", headers=[("authorization", f"Bearer {text}")])
        case.http1(f"{host}: no token", host=f"{host}.gated.example")
        case.http1(f"{host}: in a header", host=f"{host}.gated.example", headers=[("x-token", token())])
        case.http1(f"{host}: in the query", f"/?token={token()}", host=f"{host}.gated.example")
        case.http1(f"{host}: in a cookie", host=f"{host}.gated.example", headers=[("cookie", f"a=b; token={token()}")])
        case.http1(f"{host}: forged claims", host=f"{host}.gated.example", headers=[("x-group", "readers"), ("x-payload", "e30")])
        case.http1(f"{host}: two tokens", host=f"{host}.gated.example",
                   headers=[("authorization", f"Bearer {token()}"), ("x-token", token(exp=1))])
        case.http2(f"{host}: http2", headers=[("authorization", f"Bearer {token()}")], host=f"{host}.gated.example")
    case.http1("a preflight", method="OPTIONS", host="d.gated.example",
               headers=[("origin", "https://a.test"), ("access-control-request-method", "GET")])


def asked(case):
    """The service that is asked is one of ours: it says what the request's `x-do` wants of both."""
    for path in ("/asked", "/asked/x?y=1", "/not-asked"):
        case.http1(f"allowed {path}", path, headers=[("x-user", "ada")])
        case.http1(f"denied {path}", path, do="status=403;header=x-why:no")
        case.http1(f"redirected {path}", path, do="status=302")
        case.http1(f"failing {path}", path, do="status=503")
        case.http1(f"closing {path}", path, do="close")
        case.http1(f"body {path}", path, method="POST", body=b"hello" * 5)
        case.http1(f"long body {path}", path, method="POST", body=b"hello" * 50)
        case.http2(f"asked by http2 {path}", path)
    case.http1("both headers", "/asked", headers=[("x-user", "ada"), ("x-user", "eve")])


def at_gateway():
    case = Cases("gateway-policies", "a.gated.example", port=8080, place="gateway")
    for host in ("a", "A", "x.b", "b", "c", "d", "e", "f"):
        case.http1(f"host {host}", host=f"{host}.gated.example")
    for path in ("/admin", "/admin/x", "/Admin", "/adm%69n", "/x/../admin", "//admin", "/marked"):
        case.http1(f"path {path}", path)
    case.http1("forwarded for", host="c.gated.example", headers=[("x-forwarded-for", "192.0.2.9")])
    case.http1("a token that nobody has read", host="d.gated.example", headers=[("authorization", "Bearer e30.e30.")])
    case.http1("method PUT", "/admin", method="PUT")
    case.http2("http2", "/admin")
    with_tokens(case)
    asked(case)
    return case


FEATURES = [
    Feature("policies", MANIFESTS, at_sidecar(), [*USUAL, upstream("bytes", 31, 5000, "tcp")]),
    Feature("gateway-policies", GATEWAY, at_gateway(), USUAL, gateway_ports=(8080,)),
]
