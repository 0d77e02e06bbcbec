"""The inbound scenario, inside a machine of its own: servers of every mode, behind both engines.

Clients without a sidecar, with ours and with a real Envoy ask every port of every server in every
protocol. What each must get follows from the port's mode alone, and is the same for both engines.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from judges import s_client, versions  # noqa: E402
from machine import PODS, VIPS, Machine, self_signed  # noqa: E402
from mesh import Failed, expect, python, wait_until  # noqa: E402

ENGINES = {"s": "sluis", "e": "envoy"}
LOG = {"port": "%DOWNSTREAM_LOCAL_ADDRESS%", "peer": "%DOWNSTREAM_PEER_URI_SAN%", "flags": "%RESPONSE_FLAGS%",
       "cluster": "%UPSTREAM_CLUSTER%", "version": "%DOWNSTREAM_TLS_VERSION%",
       "chain": "%FILTER_CHAIN_NAME%", "status": "%RESPONSE_CODE%", "received": "%BYTES_RECEIVED%"}
APP_TLS = 8086
PORTS = [8080, 8081, 8082, 8083, 8084, 9000, 9001, 18080]
# name: (namespace, mode, mode of port 8084, mode of port 9001)
SERVERS = {
    "strict": ("locked", "STRICT", "DISABLE", "PERMISSIVE"),
    "open": ("shop", "PERMISSIVE", "STRICT", "STRICT"),
    "off": ("shop", "DISABLE", "PERMISSIVE", "PERMISSIVE"),
    "scoped": ("locked", "STRICT", "STRICT", "STRICT"),
}
MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogEncoding: JSON
    accessLogFormat: |
      %s
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: locked}
---
# In the words of Istio 1.2, as tutorials of that time print it.
apiVersion: "authentication.istio.io/v1alpha1"
kind: "Policy"
metadata:
  name: "default"
  namespace: "locked"
spec:
  peers:
  - mtls: {}
""" % json.dumps(LOG)
WORKLOAD = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %(name)s
  namespace: %(namespace)s
  annotations:
    sluis.dev/run: sidecar
    sluis.dev/proxy: %(engine)s
    sidecar.istio.io/interceptionMode: REDIRECT
spec: {address: %(pods)s.%(number)s, serviceAccount: %(name)s, labels: {app: %(name)s}}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: %(name)s, namespace: %(namespace)s}
spec:
  clusterIP: %(vips)s.%(number)s
  selector: {app: %(name)s}
  ports:
  - {name: http-web, port: 80, targetPort: 8080}
  - {name: grpc, port: 8081}
  - {name: tcp-bytes, port: 8082}
  - {name: any, port: 8083}
  - {name: http-other, port: 8084}
  - {name: tls-own, port: 8086}
"""
POLICY = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: %(name)s, namespace: %(namespace)s}
spec:
  selector: {matchLabels: {app: %(name)s}}
  %(mode)s
  portLevelMtls:
    "8084": {mode: %(other)s}
    "9001": {mode: %(unserved)s}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""
ROLES = """
apiVersion: rbac.istio.io/v1alpha1
kind: ClusterRbacConfig
metadata: {name: default}
spec:
  mode: ON_WITH_INCLUSION
  inclusion:
    services: [strict-s.locked.svc.cluster.local, strict-e.locked.svc.cluster.local]
---
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRole
metadata: {name: reader, namespace: locked}
spec:
  rules:
  - {services: ["strict-*"], methods: [GET], paths: [/inbound]}
---
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRoleBinding
metadata: {name: readers, namespace: locked}
spec:
  subjects: [{user: cluster.local/ns/shop/sa/client-s}]
  roleRef: {kind: ServiceRole, name: reader}
"""
SIDECAR = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: %(name)s, namespace: %(namespace)s}
spec:
  workloadSelector: {labels: {app: %(name)s}}
  ingress:
  - {port: {number: 8080, protocol: HTTP, name: http-web}, defaultEndpoint: 127.0.0.1:18080}
  - {port: {number: 8082, protocol: TCP, name: tcp-bytes}, defaultEndpoint: "unix://%(socket)s"}
"""


class World(Machine):
    """Ten sidecars, and one client without."""

    def __init__(self, programs):
        self.servers = {f"{kind}-{short}": (kind, short) for kind in SERVERS for short in ENGINES}
        self.clients = {f"client-{short}": short for short in ENGINES}
        names = [*self.servers, *self.clients]
        pods = {name: 11 + at for at, name in enumerate(names)} | {"outside": 9}
        engines = {f"{self.namespace(name)}/{name}": ENGINES[name[-1]] for name in names}
        super().__init__(programs, engines, pods)

    def namespace(self, name):
        return SERVERS[name[:-2]][0] if name[:-2] in SERVERS else "shop"

    def set(self):
        text = MESH
        for name in [*self.servers, *self.clients]:
            values = {"name": name, "namespace": self.namespace(name), "engine": ENGINES[name[-1]],
                      "pods": PODS, "vips": VIPS, "number": self.pods[name],
                      "socket": self.dir / f"{name}.sock"}
            text += WORKLOAD % values
            if name in self.clients:
                continue
            _, mode, other, unserved = SERVERS[name[:-2]]
            is_inherited = mode == "STRICT" or mode == "PERMISSIVE"
            written = "" if is_inherited else f"mtls: {{mode: {mode}}}"
            text += SERVICE % values
            if name.startswith("scoped"):
                text += SIDECAR % values
            else:
                text += POLICY % (values | {"mode": written, "other": other, "unserved": unserved})
        certificate, key = self_signed(self.dir, "own")
        self.set_up(text)
        for name in self.servers:
            command = self.inside(name, python(), HERE / "inbound_app.py", certificate, key, APP_TLS,
                                  self.dir / f"{name}.sock", *PORTS)
            log = self.dir / f"app-{name}.log"
            self.start(f"app-{name}", command, {}, log)
            self.wait(f"{name} to listen", lambda log=log: "ready" in log.read_text())

    def ask(self, pod, questions):
        done = subprocess.run(self.inside(pod, python(), HERE / "inbound_client.py"), cwd=HERE, text=True,
                              input=json.dumps(questions), capture_output=True, timeout=120)
        expect(done.returncode == 0, f"the client in {pod}: {done.stderr}")
        return json.loads(done.stdout)


class Case:
    """One question of one client to one server, and what must come of it."""

    def __init__(self, client, server, kind, mode, port, direct=None, alpn=None, fields=None, wanted=None,
                 at=None):
        self.client, self.server, self.kind, self.mode = client, server, kind, mode
        self.port, self.direct, self.alpn, self.fields = port, direct or port, alpn, fields
        self.wanted, self.at = wanted, at

    def question(self, world):
        is_meshed = self.client != "outside"
        net, port = (VIPS, self.port) if is_meshed else (PODS, self.direct)
        return {"kind": self.kind, "address": f"{net}.{world.pods[self.server]}", "port": port,
                "alpn": self.alpn, "fields": self.fields or {}}

    def __str__(self):
        alpn = f" alpn {','.join(self.alpn)}" if self.alpn else ""
        return f"{self.client} -> {self.server} {self.kind}{alpn} {self.direct} ({self.mode})"

    def fault(self, result):
        """What is wrong with a result; nothing when it is as it must be."""
        if self.wanted == "refused":
            return "" if "refused" in result else f"was served: {result}"
        if "answer" not in result:
            return f"was refused: {result}"
        answer = result["answer"]
        if "status" in answer:
            return f"got {answer['status']}"
        spoken = {"tls": "http1"}.get(self.kind, self.kind)
        if answer["spoken"] != spoken:
            return f"the workload saw {answer['spoken']}"
        port = self.at or self.direct
        if spoken == "tcp":
            return "" if answer["told"] == f"tcp:{port}:\0ab bytes\n" else f"told {answer['told']!r}"
        if answer["port"] != port:
            return f"reached port {answer['port']}"
        if self.kind != "http1":
            return ""
        client = answer["fields"].get("x-forwarded-client-cert", "")
        meshed = self.client != "outside" and self.mode != "DISABLE"
        if self.port == 8083 and not client and self.client == "client-e":
            # A port that says nothing: without the filter istio.alpn, which a stock Envoy lacks, the
            # client's sidecar promises bytes, and bytes they stay.
            return ""
        identity = f"URI=spiffe://cluster.local/ns/shop/sa/{self.client}"
        own = f"By=spiffe://cluster.local/ns/{SERVERS[self.server[:-2]][0]}/sa/{self.server};"
        if meshed and not (client.endswith(identity) and client.startswith(own)):
            return f"XFCC is {client!r}"
        return f"XFCC is {client!r} without mutual TLS" if client and not meshed else ""


def cases(world):
    for server, (kind, _) in world.servers.items():
        _, mode, other, unserved = SERVERS[kind]
        for client in ["outside", *world.clients]:
            if kind == "scoped":
                yield from scoped(client, server, mode)
                continue
            for protocol, port, direct in [
                    ("http1", 80, 8080), ("http2", 8081, 8081), ("tcp", 8082, 8082),
                    ("http1", 8083, 8083), ("http2", 8083, 8083), ("tcp", 8083, 8083)]:
                yield plain(client, server, protocol, mode, port, direct)
            yield plain(client, server, "http1", other, 8084, 8084)
            yield plain(client, server, "tls", mode, APP_TLS, APP_TLS)
            if client == "outside":
                yield from outside(server, mode, unserved)


def plain(client, server, kind, mode, port, direct):
    is_refused = client == "outside" and mode == "STRICT"
    spoofed = {"x-forwarded-client-cert": "By=me;URI=spiffe://cluster.local/ns/shop/sa/admin"}
    return Case(client, server, kind, mode, port, direct, fields=spoofed,
                wanted="refused" if is_refused else "ok")


def outside(server, mode, unserved):
    for kind in ("http1", "tcp"):
        yield plain("outside", server, kind, mode, 9000, 9000)
        yield plain("outside", server, kind, unserved, 9001, 9001)
    # TLS without the mesh's certificate gets nowhere, whatever it calls itself.
    for alpn in (["istio-http/1.1"], ["istio"], ["istio-peer-exchange", "h2"], None):
        for port in (8080, 8082, 8083, 9000):
            yield Case("outside", server, "tls", mode, port, port, alpn=alpn, wanted="refused")


def scoped(client, server, mode):
    wanted = "refused" if client == "outside" else "ok"
    yield Case(client, server, "http1", mode, 80, 8080, wanted=wanted, at=18080)
    yield Case(client, server, "tcp", mode, 8082, 8082, wanted=wanted, at="unix")
    if client == "outside":
        yield Case(client, server, "http1", mode, 8083, 8083, wanted="refused")


def logged(world, server):
    """What a sidecar has logged of connections to its workload's port 8082 that carried something.

    Envoy connects to the workload before the client's handshake is done, and logs one that fails.
    """
    found = []
    for line in world.log(f"{world.namespace(server)}/{server}").splitlines():
        one = json.loads(line) if line.startswith("{\"") else {}
        if one.get("cluster") == "inbound|8082||" and one["received"] > 0:
            found.append(one)
    return found


def logs_are_whole(world):
    """Whether both meshed clients' connections are in every log; Envoy writes its own every 10 s."""
    return all(len(logged(world, server)) >= 2 for server in world.servers)


def check_logs(world):
    """Every connection to a STRICT port was TLS 1.3 and is logged with its identity."""
    for server in world.servers:
        if SERVERS[server[:-2]][1] == "STRICT":
            for one in logged(world, server):
                expect(one["version"] == "TLSv1.3", f"{server}: {one}")
                expect(one["peer"].startswith("spiffe://cluster.local/ns/shop/sa/client-"), f"{server}: {one}")


def check_told(world):
    """`sluis authn tls-check --probe` finds what it says; what it says is what was set."""
    told = world.run([world.sluis, "authn", "tls-check", "client-s", "-n", "shop", "--probe", "-o", "json"])
    rows = json.loads(told.stdout or "[]")
    for row in rows:
        for probe in row["probes"]:
            expect(probe["isConfirmed"], f"tls-check: {row}")
        name = row["host"].split(".")[0]
        namespace, mode, other, _ = SERVERS[name[:-2]]
        wanted = other if row["port"] == 8084 else mode
        client = "DISABLE" if wanted == "DISABLE" else "ISTIO_MUTUAL"
        expect((row["server"], row["client"], row["status"]) == (wanted, client, "OK"), f"tls-check: {row}")
    expect(told.returncode == 0, f"tls-check ended with {told.returncode}: {told.stdout[-3000:]}{told.stderr}")
    expect(len(rows) == 6 * len(world.servers), f"tls-check: {len(rows)} rows")
    text = world.run([world.sluis, "authn", "tls-check", "client-s.shop", "strict-e.locked:80"]).stdout
    expect(text.splitlines()[1].split() == [
        "strict-e.locked.svc.cluster.local:80", "OK", "mTLS", "mTLS", "default/locked", "-"], text)
    return sum(len(row["probes"]) for row in rows)


def judge(world):
    """What OpenSSL finds at sidecars: no old version, and a certificate of the client demanded.

    Then the mesh asks for TLS 1.3: sidecars refuse what is older, and speak with each other as before.
    """
    asked = ["-alpn", "istio-http/1.1"]
    places = [f"{PODS}.{world.pods[name]}:8080" for name in world.servers if name[:-2] in ("strict", "open")]
    for place in places:
        expect(versions(lambda option: s_client(place, *asked, option)) == {"TLSv1.2", "TLSv1.3"}, place)
        told = s_client(place, *asked, "-tls1_2")[1]
        expect("Client Certificate Types" in told, f"{place} asks for no certificate: {told}")
    manifests = world.manifests / "all.yaml"
    before = manifests.read_text()
    manifests.write_text(before.replace("  mesh: |\n", "  mesh: |\n    meshMTLS: {minProtocolVersion: TLSV1_3}\n", 1))
    for place in places:
        wait_until(f"{place} to refuse TLS 1.2", lambda: not s_client(place, *asked, "-tls1_2")[0])
        expect(s_client(place, *asked, "-tls1_3")[0], f"{place}: TLS 1.3")
    again = [plain(client, server, "http1", SERVERS[server[:-2]][1], 80, 8080)
             for client in world.clients for server in world.servers if not server.startswith("scoped")]
    for case in again:
        [result] = world.ask(case.client, [case.question(world)])
        expect(not case.fault(result), f"with TLS 1.3 alone: {case}: {case.fault(result)}")


def http_case(client, server, mode):
    return Case(client, server, "http1", mode, 80, 8080)


def change_mode(world):
    """A namespace that becomes STRICT refuses plain text at once, and takes it again afterwards."""
    path = world.manifests / "strict.yaml"
    servers = [server for server in world.servers if server.startswith("open")]
    asked = [http_case("outside", server, "PERMISSIVE") for server in servers]

    def refused():
        return ["refused" in one for one in world.ask("outside", [case.question(world) for case in asked])]

    path.write_text(STRICT)
    wait_until("plain text to be refused", lambda: all(refused()))
    for client in world.clients:
        for server in servers:
            case = http_case(client, server, "STRICT")
            [result] = world.ask(client, [case.question(world)])
            expect(not case.fault(result), f"{case}: {case.fault(result)}")
    path.unlink()
    wait_until("plain text to be taken again", lambda: not any(refused()))


def check_roles(world):
    """Roles in the words of Istio 1.2 let one client in, and no other, behind either engine."""
    (world.manifests / "roles.yaml").write_text(ROLES)
    servers = [server for server in world.servers if server.startswith("strict")]

    def statuses(client):
        results = world.ask(client, [http_case(client, server, "STRICT").question(world) for server in servers])
        return [one.get("answer", one).get("status", "HTTP/1.1 200 OK") for one in results]

    wait_until("the other client to be denied", lambda: all(" 403 " in one for one in statuses("client-e")))
    expect(all(" 200 " in one for one in statuses("client-s")), f"client-s: {statuses('client-s')}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin-dir", required=True)
    options = parser.parse_args()
    with World(options.bin_dir) as world:
        asked = list(cases(world))
        faults, total = [], 0
        for client in ["outside", *world.clients]:
            mine = [case for case in asked if case.client == client]
            results = world.ask(client, [case.question(world) for case in mine])
            for case, result in zip(mine, results):
                total += 1
                if fault := case.fault(result):
                    faults.append(f"{case}: {fault}")
        if faults and os.environ.get("SHOW"):
            print(world.logs())
        expect(not faults, f"{len(faults)} of {total}:\n" + "\n".join(faults))
        rows = check_told(world)
        judge(world)
        wait_until("the access logs", lambda: logs_are_whole(world))
        check_logs(world)
        change_mode(world)
        check_roles(world)
        print(f"{total} questions to 8 sidecars, by 3 clients; tls-check confirmed {rows} endpoints")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        print(error)
        sys.exit(1)
