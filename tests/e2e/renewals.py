"""Certificates of a minute are renewed, again and again, while requests flow."""

import contextlib
import http.server
import json
import re
import threading
import time

from mesh import GATEWAY, Mesh, NOTEBOOK, expect, wait_until

LIFE = 60  # seconds
RENEWALS = 2  # to be seen for each proxy; at half life each
LONG = 180  # seconds under load with --long
HANDSHAKES = 5  # seconds until the cluster is changed, which makes the sidecar connect anew
LATE = 30  # seconds that a renewal may be later than half life, on a busy machine
IDENTITY = "spiffe://cluster.local/ns/team-a/sa/notebook"

# A second way, on which the workloads' certificates themselves are used: plain text from the client,
# the mesh's mutual TLS from sidecar to gateway.
MUTUAL = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: plain, namespace: egress}
spec:
  hosts: [plain.data.local]
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
  endpoints:
    - address: NET.11
      ports: {http: 9080}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: mutual, namespace: egress}
spec:
  selector: {istio: egressgateway}
  servers:
    - port: {number: 444, name: https-mutual, protocol: HTTPS}
      hosts: [plain.data.local]
      tls: {mode: ISTIO_MUTUAL}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mutual, namespace: egress}
spec:
  host: istio-egressgateway.egress.svc.cluster.local
  subsets:
    - name: plain
      trafficPolicy:
        portLevelSettings:
          - port: {number: 444}
            loadBalancer: {simple: ROUND_ROBIN}
            tls: {mode: ISTIO_MUTUAL, sni: plain.data.local}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: plain, namespace: egress}
spec:
  hosts: [plain.data.local]
  gateways: [mutual, mesh]
  http:
    - match: [{gateways: [mesh], port: 80}]
      route:
        - destination: {host: istio-egressgateway.egress.svc.cluster.local, subset: plain, port: {number: 444}}
    - match: [{gateways: [mutual], port: 444}]
      route:
        - destination: {host: plain.data.local, port: {number: 80}}
"""
SERVICE_PORT = ("  ports:\n", "  ports:\n    - {name: https-mutual, port: 444, targetPort: 8444}\n")


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers who asked, as the gateway says: 200 for the notebook, 403 for others."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        known = f"URI={IDENTITY}" in self.headers.get("x-forwarded-client-cert", "")
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nobody reads it."""


@contextlib.contextmanager
def origin(address):
    with http.server.ThreadingHTTPServer((address, 9080), Origin) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        try:
            yield
        finally:
            server.shutdown()


def add_mutual(mesh):
    """Adds the second way to a running mesh."""
    path = mesh.manifests / "machine/egress-gateway.yaml"
    text = path.read_text()
    expect(text.count(SERVICE_PORT[0]) == 1, "the example's Service has changed")
    path.write_text(text.replace(*SERVICE_PORT))
    (mesh.manifests / "machine/mutual.yaml").write_text(MUTUAL.replace("NET", mesh.net))
    wait_until("the second way", lambda: "8444" in mesh.show("listeners", GATEWAY, "table") or mesh.faults())
    expect(not mesh.faults(), mesh.faults())
    mesh.wait("every proxy to be in sync", mesh.in_sync)


def change_cluster(mesh, number):
    """Makes the sidecar's cluster another one."""
    path = mesh.manifests / "machine/mutual.yaml"
    policy = ("ROUND_ROBIN", "RANDOM")[number % 2]
    text = MUTUAL.replace("NET", mesh.net).replace("ROUND_ROBIN", policy)
    if path.read_text() != text:
        path.write_text(text)


def handshakes(mesh):
    """How many connections the gateway has accepted for mutual TLS, by its log."""
    ends = re.findall(rf" {re.escape(mesh.net)}\.2:8444 (127\.\S+) ", mesh.log(GATEWAY))
    return len(set(ends))


def renewed(options):
    """Certificates that live a minute are renewed under load, in use for mutual TLS, and no request fails."""
    with Mesh(options.bin_dir, up=("--certificate-life", f"{LIFE}s")) as mesh, origin(f"{mesh.net}.11"):
        add_mutual(mesh)
        seen = {GATEWAY: [], NOTEBOOK: []}
        pids, began = mesh.pids(), time.monotonic()
        # Past the end of the first certificates, so that all depends on the later ones.
        until = began + (LONG if options.long else LIFE + 5)

        def look():
            """Notes each serial number that a proxy holds; has connections made anew."""
            change_cluster(mesh, int((time.monotonic() - began) / HANDSHAKES))
            for workload, serials in seen.items():
                serial = next(secret["serial"] for secret in mesh.show("secrets", workload)
                              if secret["name"] == "default")
                if serial not in serials:
                    serials.append(serial)
            enough = all(len(serials) > RENEWALS for serials in seen.values())
            if not enough or time.monotonic() < until:
                time.sleep(1)  # a look starts two processes: the load has the machine
                return False
            return True

        with mesh.load() as encrypted, mesh.load(host="plain.data.local") as plain:
            wait_until(f"{RENEWALS} renewals of each: {seen}", look, max(LONG, RENEWALS * LIFE / 2) + LATE)
            for load in (encrypted, plain):
                load.wait_for_good(20, time.monotonic())
        expect(mesh.pids() == pids, "a proxy was started anew")
        expect(mesh.in_sync(), "a proxy is not in sync")
        lasted = time.monotonic() - began
        issued = [json.loads(line) for line in (mesh.state / "ca/issued.jsonl").read_text().splitlines()]
        known = {one["serial"] for one in issued}
        expect(all(set(serials) <= known for serials in seen.values()), "a serial that the CA does not know")
        made = handshakes(mesh)
        expect(made >= LIFE / HANDSHAKES / 2, f"only {made} handshakes: too few to tell")
        counts = ", ".join(f"{workload} {len(serials) - 1}" for workload, serials in seen.items())
        return [f"{lasted:.0f} s through the client's TLS: {encrypted.expect_no_failure(500)}",
                f"and through mutual TLS, {made} handshakes: {plain.expect_no_failure(500)}", f"renewals seen: {counts}"]


ALL = [renewed]
