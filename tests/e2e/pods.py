"""Pods in network namespaces, IPv4 and IPv6: what a workload sends and receives behind its sidecar. Needs root."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

from machine import self_signed
from mesh import HERE, expect
from topology import Place, Topology

# A sidecar each, but for `plain` and for `six`, which is outside the mesh.
WEB = Place("web", 30, workload="shop/web", run="sidecar", captured=True)
KEPT = Place("kept", 31, workload="shop/kept", run="sidecar")  # TPROXY
CART = Place("cart", 32, workload="shop/cart", run="sidecar", captured=True)
PLACES = [Place("control", 1), WEB, KEPT, CART, Place("plain", 33), Place("six", 34)]
TPROXY = "sidecar.istio.io/interceptionMode"

MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"""
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %(name)s, namespace: shop}
spec:
  hosts: [%(name)s.shop.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: tcp, number: 9000, protocol: TCP}, {name: http, number: 8000, protocol: HTTP}]
  workloadSelector: {labels: {app: %(name)s}}
"""
# Outside the mesh, with an address of IPv6 alone.
SIX = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: six, namespace: shop}
spec:
  hosts: [six.test]
  addresses: ["%(ip)s"]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{name: tcp, number: 9000, protocol: TCP}, {name: http, number: 8000, protocol: HTTP}]
  endpoints: [{address: "%(ip)s"}]
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: %s}}
"""
CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as stream:
        stream.settimeout(10)
        stream.sendall(b"hello\\n")
        answer = stream.makefile().readline()
        print(answer.strip() if answer else "closed without an answer")
except OSError as error:
    print("refused:", error)
"""
# Answers each request with the client's address.
WHO = """
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
Server(("::", 8000), Handler).serve_forever()
"""


class Pods(Topology):
    """The hosts above. What `plain` and `six` run is theirs; the others listen behind their sidecars."""

    def __init__(self, options, annotations=None, mode="PERMISSIVE", servers="sluis"):
        self.annotations, self.mode = annotations or {}, mode
        places = [dataclasses.replace(place, proxy=servers) if place in (KEPT, CART) else place
                  for place in PLACES]
        super().__init__(options.bin_dir, places=places, manifests=Pods.texts)

    def texts(self):
        entries = [self.entry(place, [*([f"{TPROXY}: TPROXY"] if place.name == "kept" else []),
                                      *self.annotations.get(place.name, [])])
                   for place in self.places if place.workload]
        services = [SERVICE % {"name": place.name} for place in (KEPT, CART)]
        six = SIX % {"ip": self["six"].ip6}
        return {"mesh.yaml": MESH, "workloads.yaml": "\n---\n".join([*entries, *services, six]),
                "strict.yaml": STRICT % self.mode}

    def firewall(self, *options):
        """No router's firewall: what is tried here is the hosts' own."""

    def set_outside(self):
        self["kept"].capture("--annotation", f"{TPROXY}=TPROXY")
        for name in ("kept", "cart", "six"):
            self[name].witness(9000)
            self[name].start(f"who-{name}", "python3", "-c", WHO)

    def peers(self, name):
        """Who came to a host's witness, newest last."""
        return re.findall(r"tcp 9000 from (\S+)", "\n".join(self[name].seen()))


def call(host, address, port=9000):
    return host.python(CLIENT, address, port)


def curl(host, *words):
    done = host.run("curl", "-sS", "--max-time", "10", *words)
    return done.stdout or done.stderr


HELLO = "witness: hello"


def ipv6_is_captured_both_ways(options, servers="sluis"):
    """IPv6 of a captured host goes through its sidecar, outbound and inbound, as IPv4 does."""
    with Pods(options, servers=servers) as net:
        web, cart, six, plain = net["web"], net["cart"], net["six"], net["plain"]
        expect(call(web, six.ip6) == HELLO, f"IPv6 to a ServiceEntry: {call(web, six.ip6)}")
        seen = curl(web, "-6", "http://six.test:8000/")
        expect(seen == web.ip6, f"curl -6 by name: {seen}")
        expect("outbound|9000||six.test" in net.log("shop/web"), f"not by the sidecar: {net.log('shop/web')}")
        # What nobody declared stays closed.
        answer = call(web, plain.ip6)
        expect(answer.startswith(("refused", "closed")), f"an undeclared IPv6 address is reached: {answer}")
        # A name of the mesh by its automatic address of IPv6, to a sidecar that is told so.
        seen = curl(web, "-6", "http://cart.shop.test:8000/")
        expect(seen == "127.0.0.6", f"curl -6 to the mesh: {seen}")
        expect(call(web, "cart.shop.test") == HELLO, "the mesh is not reached by name")
        # Inbound: plain text by IPv6; the workload is called from ::6.
        expect(call(plain, cart.ip6) == HELLO, f"inbound IPv6: {call(plain, cart.ip6)}")
        expect(net.peers("cart")[-1] == "::6", f"the workload saw {net.peers('cart')}")
        expect(curl(plain, f"http://[{cart.ip6}]:8000/") == "::6", "inbound HTTP by IPv6")
        expect("InboundPassthroughCluster" in net.log("shop/cart") or "inbound|" in net.log("shop/cart"),
               "not by the sidecar")
        return []


def a_workload_behind_tproxy_sees_its_client(options, servers="sluis"):
    """TPROXY: the workload sees the client's own address, by plain text and by mutual TLS, IPv4 and IPv6."""
    with Pods(options, servers=servers) as net:
        web, kept, cart, plain = net["web"], net["kept"], net["cart"], net["plain"]
        for address, wanted in ((kept.ip, plain.ip), (kept.ip6, plain.ip6)):
            expect(call(plain, address) == HELLO, f"{address}: {call(plain, address)}")
            expect(net.peers("kept")[-1] == wanted, f"the workload saw {net.peers('kept')}")
        for number in range(3):
            for host, wanted in ((plain, plain.ip), (net["six"], net["six"].ip)):
                seen = curl(host, f"http://{kept.ip}:8000/{number}")
                expect(seen == wanted, f"HTTP from {host}: {seen}")
        # By mutual TLS: one client after the other, whose connections must not be mixed.
        seen = curl(web, "http://kept.shop.test:8000/")
        expect(seen == web.ip, f"HTTP by mutual TLS: {seen}")
        # By address: beside a real Envoy nobody answers name queries.
        vip = web.run("getent", "ahostsv4", "kept.shop.test").stdout.split()[0]
        seen = curl(cart, f"http://{vip}:8000/", "-H", "host: kept.shop.test")
        expect(seen == cart.ip, f"HTTP by mutual TLS from another: {seen}")
        expect(call(web, "kept.shop.test") == HELLO, "TCP by mutual TLS")
        expect(net.peers("kept")[-1] == web.ip, f"the workload saw {net.peers('kept')}")
        # Where capture is by REDIRECT it sees the sidecar.
        expect(call(plain, cart.ip) == HELLO and net.peers("cart")[-1] == "127.0.0.6", "REDIRECT differs")
        # STRICT holds for both.
        (net.manifests / "strict.yaml").write_text(STRICT % "STRICT")
        net.wait("plain text to be refused", lambda: call(plain, kept.ip) != HELLO)
        expect(call(plain, kept.ip6) != HELLO, "plain text passes by IPv6 under STRICT")
        expect(call(web, "kept.shop.test") == HELLO, "mutual TLS fails under STRICT")
        # The workload calls out, and itself.
        expect(call(kept, net["six"].ip6) == HELLO, "a workload behind TPROXY does not get out")
        expect(call(kept, "kept.shop.test" if servers == "sluis" else vip) == HELLO, "it does not reach itself")
        # By iptables as by nft.
        kept.release()
        kept.capture("--backend", "iptables", "--annotation", f"{TPROXY}=TPROXY")
        expect(call(web, "kept.shop.test") == HELLO and net.peers("kept")[-1] == web.ip, "not by iptables")
        kept.release()
        return []


ANY = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web, namespace: shop}
spec:
  workloadSelector: {labels: {app: web}}
  outboundTrafficPolicy: {mode: ALLOW_ANY}
  egress: [{hosts: ["*/*"]}]
"""


def names_are_answered_by_the_sidecar(options):
    """Whatever server a workload asks, its sidecar answers: names of the mesh, and of others as policy says."""
    with Pods(options) as net:
        web = net["web"]
        # The server of this machine, which the sidecar asks for what is not the mesh's.
        servers = re.findall(r"^nameserver\s+(\S+)", pathlib.Path("/etc/resolv.conf").read_text(), re.M)
        server = (servers or ["127.0.0.1"])[0].split("%")[0]
        if not server.startswith("127."):
            web.do("ip", "address", "add", server, "dev", "lo")
        web.start("names", sys.executable, HERE / "nameserver.py", "serve", server)
        log = net.dir / "names.log"
        net.wait("the name server", lambda: "ready" in log.read_text())

        def ask(kind, name, transport="udp", of="198.51.100.53"):
            told = web.run(sys.executable, HERE / "nameserver.py", "ask", of, kind, name, transport)
            return told.stdout.split() or told.stderr.split("\n")[-2:]

        for transport in ("udp", "tcp"):
            for of in ("198.51.100.53", "2001:db8::53"):
                code, *found = ask("A", "cart.shop.test", transport, of)
                expect(code == "NOERROR" and found[0].startswith("240.240."), f"a name of the mesh: {code} {found}")
            code, *found = ask("AAAA", "cart.shop.test", transport)
            expect(code == "NOERROR" and found[0].startswith("2001:2:"), f"its IPv6: {code} {found}")
            # No service record: nothing that could hide the server name.
            expect(ask("HTTPS", "cart.shop.test", transport) == ["NOERROR"], "HTTPS of the mesh")
            # What policy hides is not there, and nobody outside learns that it was asked for.
            expect(ask("A", "public.test", transport) == ["NXDOMAIN"], f"hidden: {ask('A', 'public.test', transport)}")
        expect("asked" not in log.read_text(), f"a name leaked: {log.read_text()}")
        found = web.run("getent", "ahostsv4", "cart.shop.test").stdout
        expect(found.startswith("240.240."), f"the system's resolver: {found}")

        (net.manifests / "any.yaml").write_text(ANY)
        net.wait("the policy to change", lambda: ask("A", "public.test") == ["NOERROR", "203.0.113.7"])
        for transport in ("udp", "tcp"):
            expect(ask("AAAA", "public.test", transport) == ["NOERROR", "2001:db8::7"], "a name outside")
            for kind in ("HTTPS", "SVCB"):
                found = ask(kind, "hidden.test", transport)
                expect(found == ["NOERROR", "alpn", "ipv4hint"], f"{kind} by {transport}: {found}")
            for name, kind in (("loopback.test", "A"), ("loopback.test", "AAAA"), ("metadata.test", "A"),
                               ("meshlike.test", "A")):
                found = ask(kind, name, transport)
                expect(found == ["REFUSED"], f"rebinding, {name} {kind} by {transport}: {found}")
            expect(ask("A", "nobody.test", transport) == ["NXDOMAIN"], "a name that is nowhere")
        expect(ask("A", "cart.shop.test")[1].startswith("240.240."), "the mesh's own names come first")
        return []


# A pod as its owner writes it, and what its containers serve.
POD = """
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop}
spec:
  containers:
  - name: web
    image: web
    ports: [{name: web, containerPort: 8001}]
    livenessProbe: {httpGet: {path: /live, port: web}}
    readinessProbe: {httpGet: {path: /ready, port: 8443, scheme: HTTPS}}
    startupProbe: {tcpSocket: {port: 9000}}
    lifecycle: {preStop: {httpGet: {path: /away, port: web}}}
  - name: calls
    image: calls
    livenessProbe: {grpc: {port: 9001, service: shop}}
    readinessProbe: {grpc: {port: 9001, service: closed}}
    startupProbe: {tcpSocket: {port: 9999}}
"""
# HTTP on 8001, HTTPS on 8443: tells who asks for what; /away leads elsewhere, all others to 200 or 404.
SERVED = """
import http.server, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.headers["host"], self.headers["x-probe"], self.client_address[0], flush=True)
        status = {"/live": 200, "/ready": 200, "/away": 302}.get(self.path, 404)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "http://elsewhere.test/")
        self.end_headers()
        self.wfile.write(b"as you see")
secret = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
secret.socket = context.wrap_socket(secret.socket, server_side=True)
threading.Thread(target=secret.serve_forever, daemon=True).start()
print("ready", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8001), Handler).serve_forever()
"""


def probes_work_under_strict_mutual_tls(options, servers="sluis"):
    """A pod's probes by HTTP, HTTPS, TCP and gRPC, rewritten as Istio's injector does, work under STRICT."""
    sluis = options.bin_dir / "sluis"

    def rewritten(*more):
        done = subprocess.run([sluis, "capture", "probes", "-f", "-", *more], input=POD, text=True,
                              capture_output=True, check=False)
        expect(done.returncode == 0, done.stderr)
        return done.stdout

    probers = rewritten("--probers").strip()
    expect("/app-health/web/livez" in rewritten() and "tcpSocket" not in rewritten(), rewritten())
    config = json.dumps({"proxyMetadata": {"ISTIO_KUBE_APP_PROBERS": probers}})
    told = {"cart": [f"proxy.istio.io/config: {json.dumps(config)}"]}
    with Pods(options, told, mode="STRICT", servers=servers) as net:
        cart, kubelet = net["cart"], net["plain"]
        certificate, key = self_signed(net.dir, "cart")
        cart.start("served", "python3", "-c", SERVED, certificate, key)
        cart.start("calls", "node", HERE / "grpc_health.js", "9001", "shop")
        for name in ("served", "calls"):
            net.wait(name, lambda: "ready" in (net.dir / f"{name}.log").read_text())

        def probe(path):
            told = curl(kubelet, "-o", "-", "-w", " %{http_code}", "-H", "x-probe: yes",
                        f"http://{cart.ip}:15020{path}")
            return told.split()[-1], told

        answered = {path: probe(path) for path in json.loads(probers)}
        status = {path: code for path, (code, _) in answered.items()}
        wanted = dict.fromkeys(status, "200") | {
            "/app-health/calls/readyz": "500", "/app-health/calls/startupz": "500"}
        expect(status == wanted, f"probes: {answered}")
        expect("as you see" in answered["/app-health/web/livez"][1], "the application's own words are lost")
        expect(probe("/app-health/web/other")[0] == "400", "an unknown probe is answered")
        log = (net.dir / "served.log").read_text()
        expect(f"/live {cart.ip}:8001 yes 127.0.0.6" in log, f"the application saw: {log}")
        # STRICT holds, past the status port and beside it.
        expect("200" not in curl(kubelet, "-w", "%{http_code}", f"http://{cart.ip}:8001/live"), "STRICT does not hold")
        if servers == "sluis":
            ready = curl(kubelet, "-w", "%{http_code}", f"http://{cart.ip}:15020/healthz/ready")
            expect(ready == "200", f"the sidecar says: {ready}")
        return []


def real_envoys_in_namespaces_do_the_same(options):
    """Behind real Envoys, started in their namespaces, IPv6, TPROXY and probes do the same."""
    ipv6_is_captured_both_ways(options, "envoy")
    a_workload_behind_tproxy_sees_its_client(options, "envoy")
    probes_work_under_strict_mutual_tls(options, "envoy")
    return []


ALL = [ipv6_is_captured_both_ways, names_are_answered_by_the_sidecar, probes_work_under_strict_mutual_tls, a_workload_behind_tproxy_sees_its_client, real_envoys_in_namespaces_do_the_same]
