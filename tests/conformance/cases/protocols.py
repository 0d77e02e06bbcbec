"""Which protocol is spoken: HTTP/2, gRPC, upgrades, bytes, TLS passed through and originated."""

from corpus import ALPHA, BETA, USUAL, Cases, Feature, service_entry, upstream
from cases.choosing import rule

HTTP2 = (service_entry("two.test", {ALPHA: {}}, protocol="HTTP2") + service_entry("one.test", {BETA: {}})
         + service_entry("grpc.test", {ALPHA: {}}, protocol="GRPC", port=7070) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: grpc, namespace: apps}
spec:
  hosts: [grpc.test]
  http:
  - match: [{uri: {prefix: /echo.Echo/Abort}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
    route: [{destination: {host: grpc.test}}]
  - match: [{headers: {x-user: {exact: ada}}}]
    headers: {request: {set: {x-routed: ada}}, response: {set: {x-routed: ada}}}
    route: [{destination: {host: grpc.test}}]
  - match: [{uri: {prefix: /echo.Echo/Late}}]
    timeout: 0.3s
    route: [{destination: {host: grpc.test}}]
  - match: [{uri: {prefix: /echo.Echo/Retry}}]
    retries: {attempts: 2, retryOn: "unavailable,cancelled,resource-exhausted"}
    route: [{destination: {host: grpc.test}}]
  - route: [{destination: {host: grpc.test}}]
""")


def http2():
    case = Cases("http2")
    for host in ("one.test", "two.test"):
        case.http1(f"1.1 to {host}", "/x?y=1", host=host)
        case.http2(f"2 to {host}", "/x?y=1", host=host)
        for kind in (case.http1, case.http2):
            version = kind.__name__
            case_body = {"method": "POST", "body": b"hello" * 1000}
            kind(f"{version} POST to {host}", "/p", host=host, **case_body)
            kind(f"{version} large answer of {host}", "/l", host=host, do="length=300000")
            kind(f"{version} large request to {host}", "/l", host=host, method="POST", body=b"q" * 300_000)
            kind(f"{version} HEAD to {host}", "/h", host=host, method="HEAD")
            kind(f"{version} 204 of {host}", "/n", host=host, do="status=204")
            kind(f"{version} 304 of {host}", "/n", host=host, do="status=304")
            kind(f"{version} 503 of {host}", "/n", host=host, do="status=503")
            kind(f"{version} trailers of {host}", "/t", host=host, do="trailer=x-t:1")
            kind(f"{version} early hints of {host}", "/e", host=host, do="interim=103")
            kind(f"{version} {host} closes", "/c", host=host, do="close")
            kind(f"{version} cookies to {host}", "/k", host=host, headers=[("cookie", "a=1"), ("cookie", "b=2")])
            kind(f"{version} echo of {host}", "/o", host=host, method="PUT", body=b"abc" * 50, do="echo")
        case.http2(f"2 with trailers to {host}", "/t", host=host, method="POST", body=b"hi", trailers=[("x-t", "1")])
        case.http2(f"2 te to {host}", "/t", host=host, headers=[("te", "trailers")])
        case.http2(f"2 unknown host on {host}", "/", host=host, authority="unknown.test", connect=host)
        case.http2(f"2 with scheme https to {host}", "/s", host=host, scheme="https")
    bad = {"connection": [("connection", "close")], "transfer-encoding": [("transfer-encoding", "chunked")],
           "keep-alive": [("keep-alive", "x")], "te gzip": [("te", "gzip")], "upgrade": [("upgrade", "h2c")],
           "capitals": [("X-Capital", "1")], "unknown pseudo": [(":evil", "1")], "host besides": [("host", "other.test")],
           "newline": [("x-a", "a\r\nb: c")], "nul": [("x-a", "a\0b")], "space in name": [("x a", "1")],
           "length too long": [("content-length", "5")], "length of words": [("content-length", "five")]}
    for name, fields in bad.items():
        case.http2(f"2 bad {name}", "/", host="one.test", headers=fields)
    for path in ("", "x", "/a b", "*", "/a#b"):
        case.http2(f"2 path {path!r}", path, host="one.test")
    return case


def grpc():
    case = Cases("grpc", "grpc.test", port=7070)
    case.grpc("unary")
    case.grpc("status 5", do="grpc=5")
    case.grpc("status 14", do="grpc=14")
    case.grpc("retried 14", path="/echo.Echo/Retry", do="grpc=14")
    case.grpc("http 503", do="status=503")
    case.grpc("http 404", do="status=404")
    case.grpc("aborted", path="/echo.Echo/Abort")
    case.grpc("routed by header", headers=[("x-user", "ada")])
    case.grpc("late", path="/echo.Echo/Late", do="grpc=0;delay=1")
    case.grpc("with a deadline", headers=[("grpc-timeout", "5S")])
    case.grpc("large message", message=b"m" * 200_000)
    case.grpc("closed", do="close")
    case.grpc("unknown host", authority="unknown.test:7070")
    case.http1("HTTP/1.1 to it", "/plain")
    return case


UPGRADES = service_entry("socket.test", {ALPHA: {}})
WEBSOCKET = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
             ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]


def upgrades():
    case = Cases("upgrades", "socket.test")
    case.http1("websocket", "/ws", headers=WEBSOCKET, do="switch")
    case.http1("websocket in capitals", "/ws", headers=[("connection", "upgrade"), ("upgrade", "WebSocket")], do="switch")
    case.http1("websocket refused", "/ws", headers=WEBSOCKET, do="status=403")
    case.http1("h2c", "/h", headers=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")])
    case.http1("another protocol", "/o", headers=[("Connection", "Upgrade"), ("Upgrade", "foo/2")], do="switch")
    case.raw("CONNECT", b"CONNECT socket.test:80 HTTP/1.1\r\nHost: socket.test:80\r\nx-case: {case}\r\n\r\n", method="CONNECT")
    return case


BYTES = (service_entry("tcp.test", {31: {}}, protocol="TCP", port=5000, target=5000)
         + service_entry("tcp-weights.test", {31: {"version": "v1"}, 32: {"version": "v2"}}, protocol="TCP", port=5001, target=5000)
         + rule("tcp-weights.test", "{}", "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]")
         + service_entry("tcp-gone.test", {33: {}}, protocol="TCP", port=5002, target=5000) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp-weights, namespace: apps}
spec:
  hosts: [tcp-weights.test]
  tcp:
  - match: [{port: 5001}]
    route:
    - {destination: {host: tcp-weights.test, subset: v1}, weight: 70}
    - {destination: {host: tcp-weights.test, subset: v2}, weight: 30}
""")
TCP_SERVICES = [upstream("tcp-one", 31, 5000, "tcp"), upstream("tcp-two", 32, 5000, "tcp")]


def tcp():
    case = Cases("tcp", "tcp.test", port=5000)
    case.tcp("echo")
    case.tcp("one byte", b"x")
    case.tcp("looks like HTTP", b"GET / HTTP/1.1\r\n\r\n")
    case.tcp("nobody listens", host="tcp-gone.test", port=5002)
    for number in range(6):
        case.tcp(f"weights {number}", host="tcp-weights.test", port=5001, apart=("body",))
    return case


TLS = (service_entry("secure.test", {41: {}}, protocol="TLS", port=443, target=9443)
       + service_entry("sni-one.test", {41: {}}, protocol="HTTPS", port=443, target=9443)
       + service_entry("sni-two.test", {42: {}}, protocol="HTTPS", port=443, target=9443)
       + service_entry("origin.test", {43: {}}, target=9443) + rule("origin.test",
         "{tls: {mode: SIMPLE, caCertificates: '{dir}/tls/ca.pem', sni: origin.test}}")
       + service_entry("origin-wrong.test", {44: {}}, target=9443) + rule("origin-wrong.test",
         "{tls: {mode: SIMPLE, caCertificates: '{dir}/tls/ca.pem', sni: origin-wrong.test}}")
       + service_entry("origin-stranger.test", {45: {}}, target=9443) + rule("origin-stranger.test",
         "{tls: {mode: SIMPLE, caCertificates: '{dir}/tls/ca.pem', sni: stranger.test}}")
       + service_entry("origin-mutual.test", {46: {}}, target=9443) + rule("origin-mutual.test",
         "{tls: {mode: MUTUAL, caCertificates: '{dir}/tls/ca.pem', clientCertificate: '{dir}/tls/origin.test.pem', "
         "privateKey: '{dir}/tls/origin.test.key', sni: origin-mutual.test}}")
       + service_entry("origin-plain.test", {ALPHA: {}}) + rule("origin-plain.test",
         "{tls: {mode: SIMPLE, caCertificates: '{dir}/tls/ca.pem', sni: origin.test}}") + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sni, namespace: apps}
spec:
  hosts: [sni-one.test, sni-two.test]
  tls:
  - match: [{sniHosts: [sni-one.test], port: 443}]
    route: [{destination: {host: sni-two.test, port: {number: 443}}}]
  - match: [{sniHosts: [sni-two.test], port: 443}]
    route: [{destination: {host: sni-one.test, port: {number: 443}}}]
""")


def tls_service(name, number, certificate, **more):
    return upstream(name, number, 9443, "tls", certificate=f"{{dir}}/tls/{certificate}.pem", key=f"{{dir}}/tls/{certificate}.key", **more)


TLS_SERVICES = [tls_service("tls-one", 41, "sni-one.test"), tls_service("tls-two", 42, "sni-two.test"),
                tls_service("origin", 43, "origin.test", alpn=["http/1.1"]), tls_service("origin-wrong", 44, "origin.test"),
                tls_service("origin-stranger", 45, "stranger"),
                tls_service("origin-mutual", 46, "origin-mutual.test", roots="{dir}/tls/ca.pem"), *USUAL]


def tls():
    case = Cases("tls", port=443)
    for host in ("secure.test", "sni-one.test", "sni-two.test"):
        to = {"roots": "{dir}/tls/ca.pem", "sni": host, "alpn": ["http/1.1"]}
        case.http1(f"passed through {host}", "/", host=host, tls=to, apart=("flags", "details"))
    for sni in ("sni-one.test", "sni-two.test", "unknown.test", None):
        to = {"roots": "{dir}/tls/ca.pem", "sni": sni, "alpn": ["http/1.1"]}
        case.http1(f"sni {sni} to sni-one.test", "/", host="sni-one.test", tls=to)
    case.http1("plain bytes to a port of TLS", "/", host="sni-one.test")
    for host in ("origin", "origin-wrong", "origin-stranger", "origin-mutual", "origin-plain"):
        case.http1(f"originated {host}", "/", host=f"{host}.test", port=80)
    return case


FEATURES = [Feature("http2", HTTP2, [*http2(), *grpc()], USUAL), Feature("upgrades", UPGRADES, upgrades(), USUAL),
            Feature("tcp", BYTES, tcp(), TCP_SERVICES),
            Feature("tls", TLS, tls(), TLS_SERVICES, certificates=("sni-one.test", "sni-two.test", "origin.test", "origin-mutual.test"))]
