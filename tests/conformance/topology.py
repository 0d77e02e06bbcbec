"""The topology: one mesh with every proxy twice, as `sluis-proxy` and as a real Envoy.

In:    the programs, and the features with their manifests.
Out:   for each engine the results of the client and the access log.
Never: lets the engines meet: each run has services of its own behind it, at the same addresses.
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from onebox.scene import Scene, SceneError  # noqa: E402

ENGINES = ("envoy", "sluis")
CLIENT_WITHIN = 300  # seconds for a whole corpus
# What both engines write for each request.
LOG_FORMAT = {
    "case": "%REQ(X-CASE)%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%", "cluster": "%UPSTREAM_CLUSTER%", "route": "%ROUTE_NAME%",
    "sni": "%REQUESTED_SERVER_NAME%", "protocol": "%PROTOCOL%",
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
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
    extensionProviders:
    - name: asked
      envoyExtAuthzHttp:
        service: asked.test
        port: 80
        timeout: 2s
        includeRequestHeadersInCheck: [x-do, x-user]
        includeRequestBodyInCheck: {maxRequestBytes: 64, allowPartialMessage: true}
        headersToUpstreamOnAllow: [x-granted]
        headersToDownstreamOnDeny: [x-why]
---
apiVersion: v1
kind: Namespace
metadata: {name: apps, labels: {team: apps}}
---
apiVersion: v1
kind: Namespace
metadata: {name: edge}
""" % json.dumps(LOG_FORMAT)
WORKLOAD = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %(name)s
  namespace: %(namespace)s
  annotations: {sluis.dev/run: %(role)s, sluis.dev/proxy: %(engine)s}
spec:
  address: %(address)s
  serviceAccount: %(account)s
  labels: %(labels)s
"""


class Topology(Scene):
    """Everything that runs; gone at the end."""

    def __init__(self, programs, features, keep=False):
        engines = {f"{place}-{engine}": engine for engine in ENGINES
                   for place in ("apps/client", "edge/gateway")}
        super().__init__(programs, engines, keep)
        self.features = features
        self.gateways = {"sluis": f"{self.net}.2", "envoy": f"{self.net}.3"}

    def set(self):
        self.step("make certificates")
        self.make_certificates()
        self.write_manifests()
        self.start_all()

    def listens_at(self):
        return [(address, port) for address in self.gateways.values()
                for feature in self.features for port in feature.gateway_ports]

    def make_certificates(self):
        names = sorted({name for feature in self.features for name in feature.certificates})
        subprocess.run([HERE / "certificates.sh", self.dir, *names], check=True,
                       stdout=subprocess.DEVNULL)

    def write_manifests(self):
        self.manifests.mkdir()
        roles = {"apps/client": ("sidecar", {"app": "client", "version": "v1"}),
                 "edge/gateway": ("gateway", {"istio": "conformance-gateway"})}
        mesh = MESH
        for workload, engine in self.engines.items():
            place, _, _ = workload.rpartition("-")
            role, labels = roles[place]
            namespace, name = workload.split("/")
            number = {"gateway": 2, "client": 5}[place.split("/")[1]] + (engine == "envoy")
            mesh += WORKLOAD % {"name": name, "namespace": namespace, "role": role,
                                "engine": engine, "address": f"{self.net}.{number}",
                                "account": place.split("/")[1], "labels": json.dumps(labels)}
        (self.manifests / "mesh.yaml").write_text(mesh)
        for feature in self.features:
            text = feature.manifests.replace("{net}", self.net).replace("{dir}", str(self.dir))
            (self.manifests / f"{feature.name}.yaml").write_text(text)

    # -- one engine's turn

    def services(self):
        """What the upstreams' program is told to serve."""
        found = {}
        for feature in self.features:
            for service in feature.services:
                one = {key: value.replace("{net}", self.net).replace("{dir}", str(self.dir))
                       if isinstance(value, str) else value for key, value in service.items()}
                found[one["address"], one["port"]] = one
        return list(found.values())

    def run_engine(self, engine, python):
        """Every case through one engine: `{id: results}`."""
        listed = self.dir / f"services-{engine}.json"
        listed.write_text(json.dumps(self.services()))
        upstreams = subprocess.Popen([python, HERE / "upstreams.py", listed], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, cwd=self.dir)
        try:
            if upstreams.stdout.readline() != "ready\n":
                raise SceneError("the services do not start")
            results = {}
            for place in ("sidecar", "gateway"):
                results |= self.run_client(engine, place, python)
        finally:
            upstreams.stdin.close()
            upstreams.wait()
        return results

    def records(self):
        """The access log by engine and case; all proxies end, for then all has been written."""
        for name in list(self.processes):
            self.stop(name)
        found = {}
        for engine in ENGINES:
            names = [workload for workload, one in self.engines.items() if one == engine]
            files = {"envoy": lambda name: self.dir / f"envoy-{name.replace('/', '-')}.log",
                     "sluis": lambda name: self.state / "workloads" / name / "proxy.log"}[engine]
            found[engine] = records("\n".join(files(name).read_text() for name in names))
        return found

    def run_client(self, engine, place, python):
        cases = [case.told(self) for feature in self.features for case in feature.cases
                 if case.place == place]
        if not cases:
            return {}
        corpus = self.dir / f"corpus-{engine}-{place}.json"
        corpus.write_text(json.dumps({"cases": cases, "addresses": {"gateway": self.gateways[engine]}}))
        command = [python, HERE / "client.py", corpus]
        if place == "sidecar":
            command = [self.sluis, "exec", f"apps/client-{engine}", "--", *command]
        done = subprocess.run(command, cwd=self.dir, env=self.jail_environment(), text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=CLIENT_WITHIN)
        if done.returncode:
            raise SceneError(f"the client in {place} of {engine}: {done.stderr[-3000:]}")
        lines = map(json.loads, done.stdout.splitlines())
        return {line["id"]: line["results"] for line in lines}


def records(text):
    """The access log by case; a case may have several records."""
    found = {}
    for line in text.splitlines():
        if line.startswith("{") and '"case"' in line:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("case"):
                found.setdefault(record["case"], []).append(record)
    return found
