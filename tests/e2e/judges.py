"""What our TLS looks like to those who judge TLS: OpenSSL, curl and sslyze."""

import json
import os
import pathlib
import subprocess
import sys

from mesh import ROOT, expect

sys.path.insert(0, str(ROOT / "examples"))

from onebox.scene import Scene  # noqa: E402

CERTIFICATES = ROOT / "tests/conformance/certificates.sh"
# Installed by `scripts/setup.sh judges`.
SSLYZE = pathlib.Path(os.environ.get("SSLYZE_BIN") or ROOT / "target/judges/bin/sslyze")
VERSIONS = {"tls1": "TLSv1", "tls1_1": "TLSv1.1", "tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}
MODERN = {"TLSv1.2", "TLSv1.3"}
# What is left of TLS 1.2 for a certificate with an elliptic key, where nothing is configured.
USUAL_SUITES = {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}
# Others that OpenSSL could speak with such a certificate, and never should.
OLD_SUITES = {"ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA",
              "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES256-CCM", "ECDHE-ECDSA-CAMELLIA256-SHA384"}
ONE_SUITE = "ECDHE-ECDSA-AES256-GCM-SHA384"
PORTS = {
    8443: "mode: SIMPLE",
    8444: "mode: SIMPLE, minProtocolVersion: TLSV1_3",
    8445: f"mode: SIMPLE, maxProtocolVersion: TLSV1_2, cipherSuites: [{ONE_SUITE}]",
    8446: 'mode: MUTUAL, caCertificates: "{dir}/tls/ca.pem"',
    8447: 'mode: OPTIONAL_MUTUAL, caCertificates: "{dir}/tls/ca.pem"',
}
WIDE = 8449
ACCEPTED = {8443: MODERN, 8444: {"TLSv1.3"}, 8445: {"TLSv1.2"}, 8446: MODERN, 8447: MODERN}
MESH_PORT, MESH_SNI = 8448, "any.name.of.choice.test"
MESH = """
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: v1
kind: Namespace
metadata: {name: apps}
"""
WORKLOAD = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %(name)s
  namespace: %(namespace)s
  annotations: {sluis.dev/run: %(role)s, sluis.dev/proxy: %(engine)s}
spec: {address: %(address)s, serviceAccount: %(name)s, labels: {app: %(name)s, judged: "%(role)s"}}
"""
SERVER = """
  - port: {number: %(port)s, name: https-%(port)s, protocol: HTTPS}
    hosts: [a.example]
    tls: {serverCertificate: "{dir}/tls/a.example.pem", privateKey: "{dir}/tls/a.example.key", %(tls)s}
"""
GATEWAY = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: judged, namespace: edge}
spec:
  selector: {judged: gateway}
  servers:%(servers)s
  - port: {number: 8448, name: https-mesh, protocol: HTTPS}
    hosts: ["any.name.of.choice.test"]
    tls: {mode: ISTIO_MUTUAL}
  - port: {number: 8449, name: https-wide, protocol: HTTPS}
    hosts: ["*.example"]
    tls: {mode: SIMPLE, serverCertificate: "{dir}/tls/b.example.pem", privateKey: "{dir}/tls/b.example.key"}
  - port: {number: 8449, name: https-strict, protocol: HTTPS}
    hosts: [a.example]
    tls: {mode: MUTUAL, serverCertificate: "{dir}/tls/a.example.pem", privateKey: "{dir}/tls/a.example.key", caCertificates: "{dir}/tls/ca.pem"}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: judged, namespace: edge}
spec:
  hosts: [a.example, b.example, any.name.of.choice.test]
  gateways: [judged]
  http: [{directResponse: {status: 200, body: {string: "served"}}}]
"""
# Towards each gateway: plain HTTP in the client's jail, the mesh's TLS on the wire.
THROUGH = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: to-%(name)s, namespace: apps}
spec:
  hosts: [%(name)s.through.test]
  addresses: [240.1.1.%(number)s]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8448}]
  resolution: STATIC
  endpoints: [{address: %(address)s}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: to-%(name)s, namespace: apps}
spec:
  host: %(name)s.through.test
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL, sni: any.name.of.choice.test, subjectAltNames: ["spiffe://cluster.local/ns/edge/sa/%(name)s"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-%(name)s, namespace: apps}
spec:
  hosts: [%(name)s.through.test]
  http:
  - rewrite: {authority: any.name.of.choice.test}
    route: [{destination: {host: %(name)s.through.test, port: {number: 80}}}]
"""


class Court(Scene):
    """A gateway of ours and a real Envoy as one, with one server for each sort of TLS settings."""

    def __init__(self, programs):
        self.gateways = {"gateway-s": 2, "gateway-e": 3}
        self.clients = {"client-s": 5, "client-e": 6}
        engine = {"s": "sluis", "e": "envoy"}
        engines = {f"edge/{name}": engine[name[-1]] for name in self.gateways}
        engines |= {f"apps/{name}": engine[name[-1]] for name in self.clients}
        super().__init__(programs, engines)

    def set(self):
        subprocess.run([CERTIFICATES, self.dir, "a.example", "b.example", "client.example"], check=True,
                       stdout=subprocess.DEVNULL)
        text = MESH
        for name, number in {**self.gateways, **self.clients}.items():
            is_gateway = name in self.gateways
            text += WORKLOAD % {
                "name": name, "namespace": "edge" if is_gateway else "apps",
                "role": "gateway" if is_gateway else "sidecar", "address": f"{self.net}.{number}",
                "engine": "envoy" if name.endswith("e") else "sluis"}
            if is_gateway:
                text += THROUGH % {"name": name, "number": number, "address": f"{self.net}.{number}"}
        servers = "".join(SERVER % {"port": port, "tls": tls} for port, tls in PORTS.items())
        text += GATEWAY % {"servers": servers}
        self.manifests.mkdir()
        (self.manifests / "all.yaml").write_text(text.replace("{dir}", str(self.dir)))
        self.start_all()

    def listens_at(self):
        return [(self.address(name), port) for name in self.gateways for port in [*PORTS, MESH_PORT, WIDE]]

    def address(self, name):
        return f"{self.net}.{self.gateways[name]}"

    def step(self, what):
        """Steps are not told: a scenario tells what it found."""

    # -- the judges

    def s_client(self, name, port, *options):
        return s_client(f"{self.address(name)}:{port}", "-servername", "a.example", *options)

    def curl(self, name, port, *options, host="a.example", sni=None):
        """The status, or curl's own word on why there is none."""
        sni = sni or host
        done = self.run(["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "tls/ca.pem",
                         "--resolve", f"{sni}:{port}:{self.address(name)}", "-H", f"Host: {host}", *options,
                         f"https://{sni}:{port}/"])
        return int(done.stdout) if done.returncode == 0 else done.stderr.strip()

    def certificate(self, name):
        return ["--cert", f"tls/{name}.pem", "--key", f"tls/{name}.key"]

    def sslyze(self, name, port):
        report = self.dir / f"sslyze-{name}-{port}.json"
        done = self.run([SSLYZE, f"--json_out={report}", "--sni=a.example", "--mozilla_config=disable", "--slow_connection",
                         "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--sslv2", "--sslv3", "--heartbleed",
                         "--openssl_ccs", "--robot", "--reneg", "--compression", "--fallback", "--resum",
                         "--early_data", f"{self.address(name)}:{port}"])
        expect(report.exists(), f"sslyze: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        [server] = json.loads(report.read_text())["server_scan_results"]
        expect(server["scan_status"] == "COMPLETED", f"sslyze: {server['scan_status']} {server.get('connectivity_error_trace')}")
        failed = {key: found["error_trace"] for key, found in server["scan_result"].items()
                  if found["status"] == "ERROR"}
        expect(not failed, f"sslyze {name}:{port}: {failed}")
        return {key: found["result"] for key, found in server["scan_result"].items()
                if found["status"] == "COMPLETED"}


def s_client(address, *options):
    """What `openssl s_client` says of one handshake: whether it was done, and all that it printed."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, "-cipher", "ALL:@SECLEVEL=0", *options],
        input="Q\n", text=True, capture_output=True, timeout=20)
    is_done = "Cipher    : 0000" not in done.stdout and "Cipher is (NONE)" not in done.stdout
    return is_done and ", Cipher is " in done.stdout, done.stdout + done.stderr


def versions(ask):
    """The versions that a server takes."""
    return {name for option, name in VERSIONS.items() if ask("-" + option)[0]}


def suites_by_openssl(court, name, port):
    """The suites of TLS 1.2 that a server takes, one handshake for each."""
    taken = set()
    for suite in USUAL_SUITES | OLD_SUITES:
        is_done, told = court.s_client(name, port, "-tls1_2", "-cipher", suite + ":@SECLEVEL=0")
        if is_done and f"Cipher is {suite}" in told:
            taken.add(suite)
    return taken


def check_clients(court, name):
    """Certificates of clients are demanded as the servers say."""
    mine, strange = court.certificate("client.example"), court.certificate("stranger")
    expect(court.curl(name, 8443) == 200, f"{name}: SIMPLE")
    for port, options, is_served in [
            (8446, [], False), (8446, mine, True), (8446, strange, False),
            (8447, [], True), (8447, mine, True), (8447, strange, False)]:
        for version in ([], ["--tls-max", "1.2"]):
            found = court.curl(name, port, *options, *version)
            expect((found == 200) == is_served, f"{name}:{port} {options} {version}: {found}")
    for port, is_asked in {8443: False, 8446: True, 8447: True}.items():
        told = court.s_client(name, port, "-tls1_2")[1]
        asked = "Acceptable client certificate CA names" in told or "Client Certificate Types" in told
        expect(asked == is_asked, f"{name}:{port} asks for a certificate: {asked}\n{told}")


def check_fronting(court, name):
    """A name in the hello that asks for nothing does not open a host that demands a certificate."""
    mine = court.certificate("client.example")
    for host, sni, options, expected in [
            ("a.example", "a.example", mine, 200), ("b.example", "b.example", [], 200),
            ("a.example", "b.example", [], 421), ("A.EXAMPLE", "b.example", [], 421),
            ("a.example:8449", "b.example", [], 421)]:
        found = court.curl(name, WIDE, *options, host=host, sni=sni)
        expect(found == expected, f"{name}: {host} by {sni}: {found}")
    found = court.curl(name, WIDE, host="a.example")
    expect(found != 200, f"{name}: a.example without a certificate: {found}")


def check_mesh(court, name):
    """ISTIO_MUTUAL takes the mesh's clients by the name that they chose, and nobody else."""
    for client in court.clients:
        found = court.exec(f"apps/{client}", "curl", "-sS", "-m", "10", f"http://{name}.through.test/")
        expect(found.stdout == "served", f"{client} to {name}: {found.stdout}{found.stderr}")
    address = f"{court.address(name)}:{MESH_PORT}"
    expect(versions(lambda option: s_client(address, "-servername", MESH_SNI, option)) <= MODERN, f"{name}: {MESH_PORT}")
    found = court.curl(name, MESH_PORT, "-k", *court.certificate("client.example"), host=MESH_SNI)
    expect(found != 200, f"{name}: the mesh's port takes a stranger: {found}")


def by_openssl_and_curl(options):
    """OpenSSL and curl find the versions, suites and client certificates that Gateways ask for."""
    with Court(options.bin_dir) as court:
        for name in court.gateways:
            for port, accepted in ACCEPTED.items():
                found = versions(lambda option: court.s_client(name, port, option))
                expect(found == accepted, f"{name}:{port} takes {sorted(found)}")
            for port, expected in {8443: USUAL_SUITES, 8445: {ONE_SUITE}, 8444: set()}.items():
                found = suites_by_openssl(court, name, port)
                expect(found == expected, f"{name}:{port} takes {sorted(found)}")
            check_clients(court, name)
            check_fronting(court, name)
            check_mesh(court, name)
        return [f"{len(court.gateways)} gateways, {len(PORTS) + 2} ports each"]


def by_sslyze(options):
    """sslyze finds no old version, no weak suite and none of the known holes."""
    expect(SSLYZE.exists(), f"{SSLYZE} is not there: run scripts/setup.sh judges")
    with Court(options.bin_dir) as court:
        # Ours alone: of a real Envoy on a busy machine it sometimes has no answer.
        [name] = [name for name in court.gateways if name.endswith("-s")]
        for port in (8443, 8444, 8445):
            check_report(f"{name}:{port}", court.sslyze(name, port), ACCEPTED[port])
        return ["3 ports"]


def check_report(where, found, accepted):
    names = {"ssl_2_0": "", "ssl_3_0": "", "tls_1_0": "TLSv1", "tls_1_1": "TLSv1.1", "tls_1_2": "TLSv1.2", "tls_1_3": "TLSv1.3"}
    for key, version in names.items():
        suites = [one["cipher_suite"]["openssl_name"] for one in found[f"{key}_cipher_suites"]["accepted_cipher_suites"]]
        expect(bool(suites) == (version in accepted), f"{where} {key}: {suites}")
        if key == "tls_1_2":
            expect(set(suites) <= USUAL_SUITES, f"{where} {key}: {suites}")
    holes = {
        "heartbleed": found["heartbleed"]["is_vulnerable_to_heartbleed"],
        "CCS injection": found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"],
        "ROBOT": found["robot"]["robot_result"] not in ("NOT_VULNERABLE_NO_ORACLE", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
        "compression": found["tls_compression"]["supports_compression"],
        "renegotiation by clients": found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"],
        "early data": found["tls_1_3_early_data"]["supports_early_data"],
    }
    holes = [name for name, is_there in holes.items() if is_there]
    expect(not holes, f"{where}: {holes}")


ALL = [by_openssl_and_curl, by_sslyze]
