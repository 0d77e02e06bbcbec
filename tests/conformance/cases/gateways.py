"""What a gateway does: hosts, ports, every TLS mode, redirects to https, bytes."""

from corpus import ALPHA, BETA, USUAL, Cases, Feature, service_entry, upstream
from cases.protocols import tls_service

MANIFESTS = (service_entry("gw-a.test", {ALPHA: {}}, namespace="edge") + service_entry("gw-b.test", {BETA: {}}, namespace="edge")
             + service_entry("gw-tls.test", {41: {}}, protocol="TLS", port=443, target=9443, namespace="edge")
             + service_entry("gw-tcp.test", {31: {}}, protocol="TCP", port=5000, target=5000, namespace="edge") + """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: edge}
spec:
  selector: {istio: conformance-gateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: [a.example, "*.wild.example", "./own.example", "apps/foreign.example"]
  - port: {number: 8081, name: http-redirect, protocol: HTTP}
    hosts: [a.example]
    tls: {httpsRedirect: true}
  - port: {number: 8443, name: https, protocol: HTTPS}
    hosts: [a.example]
    tls: {mode: SIMPLE, serverCertificate: "{dir}/tls/a.example.pem", privateKey: "{dir}/tls/a.example.key"}
  - port: {number: 8443, name: https-b, protocol: HTTPS}
    hosts: [b.example]
    tls: {mode: MUTUAL, serverCertificate: "{dir}/tls/b.example.pem", privateKey: "{dir}/tls/b.example.key", caCertificates: "{dir}/tls/ca.pem"}
  - port: {number: 8443, name: https-c, protocol: HTTPS}
    hosts: [c.example]
    tls: {mode: OPTIONAL_MUTUAL, serverCertificate: "{dir}/tls/b.example.pem", privateKey: "{dir}/tls/b.example.key", caCertificates: "{dir}/tls/ca.pem"}
  - port: {number: 8443, name: https-old, protocol: HTTPS}
    hosts: [d.example]
    tls: {mode: SIMPLE, serverCertificate: "{dir}/tls/a.example.pem", privateKey: "{dir}/tls/a.example.key", minProtocolVersion: TLSV1_3}
  - port: {number: 8444, name: tls-pass, protocol: TLS}
    hosts: [gw-tls.test]
    tls: {mode: PASSTHROUGH}
  - port: {number: 8445, name: tls-tcp, protocol: TLS}
    hosts: [tcp.example]
    tls: {mode: SIMPLE, serverCertificate: "{dir}/tls/a.example.pem", privateKey: "{dir}/tls/a.example.key"}
  - port: {number: 5000, name: tcp, protocol: TCP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-a, namespace: edge}
spec:
  hosts: [a.example, b.example, c.example, d.example]
  gateways: [web]
  http:
  - match: [{uri: {prefix: /b}}]
    route: [{destination: {host: gw-b.test}}]
  - match: [{uri: {prefix: /port}, port: 8443}]
    route: [{destination: {host: gw-b.test}}]
  - match: [{gateways: [mesh], uri: {prefix: /mesh}}]
    route: [{destination: {host: gw-b.test}}]
  - match: [{uri: {prefix: /claims}, headers: {x-user: {exact: ada}}}]
    directResponse: {status: 250, body: {string: claims}}
  - route: [{destination: {host: gw-a.test}}]
    headers: {request: {set: {x-via-gateway: "yes"}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-more-of-a, namespace: edge}
spec:
  hosts: [a.example]
  gateways: [web]
  http:
  - match: [{uri: {prefix: /second}}]
    directResponse: {status: 251, body: {string: second}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-wild, namespace: edge}
spec:
  hosts: ["x.wild.example", "own.example"]
  gateways: [web]
  http:
  - directResponse: {status: 252, body: {string: wild}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-foreign, namespace: edge}
spec:
  hosts: [foreign.example]
  gateways: [web]
  http:
  - directResponse: {status: 253, body: {string: must not be bound}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-tls, namespace: edge}
spec:
  hosts: [gw-tls.test]
  gateways: [web]
  tls:
  - match: [{port: 8444, sniHosts: [gw-tls.test]}]
    route: [{destination: {host: gw-tls.test, port: {number: 443}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-tcp, namespace: edge}
spec:
  hosts: ["*"]
  gateways: [web]
  tcp:
  - match: [{port: 5000}]
    route: [{destination: {host: gw-tcp.test, port: {number: 5000}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: gw-tls-tcp, namespace: edge}
spec:
  hosts: [tcp.example]
  gateways: [web]
  tcp:
  - match: [{port: 8445}]
    route: [{destination: {host: gw-tcp.test, port: {number: 5000}}}]
""")


def cases():
    case = Cases("gateways", "a.example", port=8080, place="gateway")
    for path in ("/", "/b", "/b/x?y=1", "/port", "/mesh", "/claims", "/second"):
        case.http1(path, path)
    case.http1("claims", "/claims", headers=[("x-user", "ada")])
    for host in ("A.example", "a.example:8080", "a.example:1", "x.wild.example", "y.wild.example", "wild.example", "own.example",
                 "foreign.example", "unknown.example", "b.example", "1.2.3.4"):
        case.http1(f"host {host}", "/", host=host)
    case.http1("redirect to https", "/x?y=1", port=8081)
    case.http1("redirect of a POST", "/x", port=8081, method="POST", body=b"1")
    case.http1("redirect, host with port", "/x", port=8081, authority="a.example:8081")
    case.http1("redirect, unknown host", "/x", port=8081, host="unknown.example")
    case.http2("2 without TLS", "/b", authority="a.example")
    fields = [("x-forwarded-for", "9.9.9.9, 8.8.8.8"), ("x-forwarded-proto", "https"), ("x-envoy-external-address", "7.7.7.7"),
              ("x-forwarded-client-cert", "By=spiffe://evil"), ("x-envoy-internal", "true"), ("x-forwarded-host", "evil")]
    for name, value in fields:
        case.http1(f"field {name}", "/", headers=[(name, value)])
    ca = "{dir}/tls/ca.pem"
    mine = {"certificate": "{dir}/tls/client.example.pem", "key": "{dir}/tls/client.example.key"}
    strange = {"certificate": "{dir}/tls/stranger.pem", "key": "{dir}/tls/stranger.key"}
    for host in ("a.example", "b.example", "c.example", "d.example", "unknown.example"):
        for name, more in (("no certificate", {}), ("a certificate", mine), ("a stranger's certificate", strange)):
            for alpn in ("http/1.1", "h2"):
                to = {"roots": ca, "sni": host, "alpn": [alpn], **more}
                kind = case.http2 if alpn == "h2" else case.http1
                kind(f"{host} with {name} by {alpn}", "/b", host=host, port=8443, tls=to, apart=("alert",))
    case.http1("no sni", "/", port=8443, tls={"roots": ca, "alpn": ["http/1.1"]})
    case.http1("host unlike sni", "/", port=8443, host="b.example", tls={"roots": ca, "sni": "a.example", "alpn": ["http/1.1"]})
    case.http1("old TLS where new is demanded", "/", host="d.example", port=8443,
               tls={"roots": ca, "sni": "d.example", "alpn": ["http/1.1"], "max": "TLSv1_2"})
    case.http1("TLS 1.2", "/", port=8443, tls={"roots": ca, "sni": "a.example", "alpn": ["http/1.1"], "max": "TLSv1_2"})
    case.http1("by port of https", "/port", port=8443, tls={"roots": ca, "sni": "a.example", "alpn": ["http/1.1"]})
    case.http1("plain bytes to https", "/", port=8443)
    for sni in ("gw-tls.test", "other.test"):
        case.http1(f"passed through {sni}", "/", port=8444, host=sni, tls={"roots": ca, "sni": sni, "alpn": ["http/1.1"]})
    case.tcp("bytes", port=5000)
    case.tcp("bytes behind TLS", port=8445, tls={"roots": ca, "sni": "tcp.example"})
    case.tcp("bytes behind TLS, other name", port=8445, tls={"roots": ca, "sni": "no.example"})
    return case


SERVICES = [*USUAL, tls_service("tls-one", 41, "gw-tls.test"), upstream("tcp-one", 31, 5000, "tcp")]
FEATURES = [Feature("gateways", MANIFESTS, cases(), SERVICES, gateway_ports=(8080, 8081, 8443, 8444, 8445, 5000),
                    certificates=("a.example", "b.example", "client.example", "gw-tls.test"))]
