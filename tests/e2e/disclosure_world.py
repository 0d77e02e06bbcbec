"""A mesh in which every feature that handles a secret is used, and all that it gives away.

In:    the programs.
Out:   `World`: it runs, was asked, and `outputs()` has every log, page, dump, stream and listing.
Never: counts the files from which secrets come as outputs: `folders_of_secrets` are the place meant.
"""

import base64
import contextlib
import json
import pathlib
import re
import secrets
import subprocess
import sys

import identities
from mesh import GATEWAY, HERE, NOTEBOOK, Mesh, can_connect, expect, free_port
from needles import files

HOST, KINDS_PORT, KINDS_GATEWAY_PORT = "kinds.data.local", 9444, 8444
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


class Kind:
    """A credential: how it is added, its entries, and where it comes from."""

    def __init__(self, name, inject, entries, source, shows, guard=""):
        self.name, self.inject, self.source, self.guard = name, inject, source, guard
        self.entries = entries  # entry: whether it is secret
        self.shows = shows  # what the API must have received: a regular expression over the head


# The kinds that gateways carry out from end to end.
CARRIED_OUT = ("header", "echo", "bearer", "basic", "query", "cookie", "hmac", "message", "aws", "jwt", "oauth")


def kinds():
    """The kinds that are carried out, over all sources that need no other program."""
    return [kind for kind in all_kinds() if kind.name in CARRIED_OUT]


def all_kinds():
    """One of each kind of injection."""
    secret = {"value": True}
    return [
        Kind("header", "header: {name: X-Api-Key}", secret, "file", r"x-api-key: {value}"),
        Kind("echo", "header: {name: X-Echo-Key}", secret, "file", r"x-echo-key: {value}",
             ", scanResponse: 65536"),
        Kind("bearer", "bearer: {}", {"token": True}, "env", r"authorization: Bearer {token}"),
        Kind("basic", "basic: {}", {"username": False, "password": True}, "exec",
             r"authorization: Basic {basic}"),
        Kind("query", "query: {name: api_key}", secret, "secretRef", r"target: \S*[?&]api_key={value}"),
        Kind("cookie", "cookie: {name: session}", secret, "json", r"cookie: .*session={value}"),
        Kind("hmac", r'hmac: {stringToSign: "{method}\n{host}\n{path}\n{date}\n{body_digest}", '
             'date: {header: X-Date}, bodyDigest: {maxBytes: 64Ki}, output: {header: X-Authorization, '
             "template: 'Version=V1, Credential={secret.accessKey}, Signature={signature:hex}'}}",
             {"accessKey": False, "secretKey": True}, "file",
             r"x-authorization: Version=V1, Credential={accessKey}, Signature=[0-9a-f]{{64}}"),
        Kind("message", "httpMessageSignature: {algorithm: hmac-sha256, key: {from: key, encoding: raw}, "
             "components: ['@method', '@authority', '@path']}",
             {"key": True}, "file", r"signature: sig1=:"),
        Kind("aws", "awsSigV4: {service: execute-api, region: eu-west-1, sessionToken: sessionToken}",
             {"accessKeyId": False, "secretAccessKey": True, "sessionToken": True}, "file",
             r"authorization: AWS4-HMAC-SHA256 Credential={accessKeyId}"),
        Kind("jwt", "jwtSign: {algorithm: HS256, key: {from: key, encoding: raw}, issuer: gateway, audiences: [api]}",
             {"key": True}, "file", r"authorization: Bearer ey"),
        Kind("oauth", f'oauth2: {{tokenUrl: "https://{HOST}/token"}}',
             {"clientId": False, "clientSecret": True}, "file", r"authorization: Bearer {token_given}"),
    ]


MESH = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}
    accessLogFile: /dev/stdout
    accessLogEncoding: TEXT
    accessLogFormat: |
      [%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME% AUTHORIZATION=%REQ(AUTHORIZATION)% X-AUTHORIZATION=%REQ(X-AUTHORIZATION)% X-API-KEY=%REQ(X-API-KEY)% X-ECHO-KEY=%REQ(X-ECHO-KEY)% COOKIE=%REQ(COOKIE)% PATH=%REQ(:PATH)% SIGNATURE=%REQ(SIGNATURE)% TOKEN=%REQ(X-AMZ-SECURITY-TOKEN)% RESPONSE=%RESP(X-API-KEY)% %RESP(SET-COOKIE)% METADATA=%DYNAMIC_METADATA(envoy.filters.http.lua)%
"""

KINDS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: kinds, namespace: egress}}
spec:
  hosts: [{host}]
  location: MESH_EXTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: https, protocol: HTTPS}}]
  resolution: STATIC
  endpoints: [{{address: {address}, ports: {{http: {port}, https: {port}}}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: kinds, namespace: egress}}
spec:
  selector: {{istio: egressgateway}}
  servers:
    - port: {{number: {gateway_port}, name: kinds, protocol: HTTPS}}
      hosts: [{host}]
      tls: {{mode: ISTIO_MUTUAL}}
---
apiVersion: v1
kind: Service
metadata: {{name: kinds-gateway, namespace: egress}}
spec:
  selector: {{istio: egressgateway}}
  ports: [{{name: https-kinds, port: {gateway_port}, targetPort: {gateway_port}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: kinds-gateway, namespace: egress}}
spec:
  host: kinds-gateway.egress.svc.cluster.local
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL, sni: {host}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: kinds, namespace: egress}}
spec:
  host: {host}
  trafficPolicy: {{portLevelSettings: [{{port: {{number: 443}}, tls: {{mode: SIMPLE, sni: {host}}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: kinds, namespace: egress}}
spec:
  hosts: [{host}]
  gateways: [kinds, mesh]
  http:
    - match: [{{gateways: [mesh], port: 80}}]
      route: [{{destination: {{host: kinds-gateway.egress.svc.cluster.local, port: {{number: {gateway_port}}}}}}}]
    - match: [{{gateways: [kinds], port: {gateway_port}}}]
      route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]
"""

CREDENTIAL = """
---
apiVersion: egress.sluis.dev/v1alpha1
kind: Credential
metadata: {{name: {name}, namespace: egress}}
spec:
  source: {{{source}}}
  inject:
    {inject}
  guard: {{hosts: [{host}]{guard}}}
---
apiVersion: egress.sluis.dev/v1alpha1
kind: CredentialGrant
metadata: {{name: {name}, namespace: egress}}
spec:
  credential: {name}
  from: [{{principals: [cluster.local/ns/team-a/sa/notebook]}}]
  to: [{{paths: [/{name}]}}]
"""

SECRET = """
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: egress}}
stringData: {{value: "{value}"}}
"""

DEBUG_PAGES = ["/ready", "/version", "/metrics", "/debug/syncz", "/debug/adsz", "/debug/endpointz",
               "/debug/registryz", "/debug/configz",
               *(f"/debug/config_dump?proxyID={name}" for name in ("gateway.egress", "notebook.team-a"))]
ADMIN_PAGES = ["/", "/ready", "/stats", "/stats/prometheus", "/listeners", "/config", "/certs", "/audit",
               "/config_dump", "/clusters", "/nothing"]


class World(Mesh):
    """The mesh, with credentials of the kinds that are asked for."""

    def __init__(self, programs, wanted):
        self.kinds = wanted
        self.debug_port, self.xds_port = free_port(), free_port()
        up = ["--debug", f"127.0.0.1:{self.debug_port}", "--plaintext-xds", f"127.0.0.1:{self.xds_port}"]
        super().__init__(programs, up=up)
        self.values, self.said = {}, {}

    # -- what is set up

    def set(self):
        super().set()
        # Only for a gateway that is known to be ours.
        for name, (old, new) in identities.EDITS.items():
            path = self.manifests / name
            text = path.read_text()
            expect(text.count(old) == 1, f"{name} of the example has changed")
            path.write_text(text.replace(old, new))

    def write_manifests(self):
        super().write_manifests()
        (self.manifests / "istio/mesh.yaml").write_text(MESH)
        (self.dir / "kinds").mkdir()
        self.write_secrets()
        self.values["token_given"] = self.draw()
        (self.dir / "kinds/token").write_text(self.values["token_given"])
        self.make_certificate()
        text = KINDS.format(host=HOST, address=self.api_address, port=KINDS_PORT,
                            gateway_port=KINDS_GATEWAY_PORT)
        text += "".join(self.manifest(kind) for kind in self.kinds)
        (self.manifests / "istio/kinds.yaml").write_text(text)

    def draw(self):
        return "".join(secrets.choice(LETTERS) for _ in range(40))

    def write_secrets(self):
        for kind in self.kinds:
            for entry in kind.entries:
                self.values[f"{kind.name}.{entry}"] = self.draw()

    def folder(self, kind):
        folder = self.dir / "kinds" / kind.name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def of(self, kind):
        return {entry: self.values[f"{kind.name}.{entry}"] for entry in kind.entries}

    def manifest(self, kind):
        folder, values, more = self.folder(kind), self.of(kind), ""
        if kind.source == "file":
            for entry, value in values.items():
                write_private(folder / entry, value)
            source = f"file: {{directory: {folder}}}"
        elif kind.source == "json":
            write_private(folder / "all.json", json.dumps(values))
            source = f"file: {{json: {folder}/all.json}}"
        elif kind.source == "env":
            source = "env: {" + ", ".join(f"{entry}: {variable(kind, entry)}" for entry in values) + "}"
        elif kind.source == "exec":
            write_private(folder / "all.json", json.dumps(values))
            source = f"exec: {{command: [/bin/cat, {folder}/all.json]}}"
        else:
            more = SECRET.format(name=kind.name, value=values["value"])
            source = f"secretRef: {{name: {kind.name}}}"
        return CREDENTIAL.format(name=kind.name, source=source, inject=kind.inject, guard=kind.guard,
                                 host=HOST) + more

    def make_certificate(self):
        run = self.dir / "kinds"
        (run / "tls.ext").write_text(f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n")
        for command in (
                ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-keyout", "tls.key", "-out", "tls.csr", "-subj", f"/CN={HOST}"],
                ["openssl", "x509", "-req", "-in", "tls.csr", "-CA", "../ca/api.crt", "-CAkey", "../ca/api.key",
                 "-CAcreateserial", "-days", "30", "-extfile", "tls.ext", "-out", "tls.crt"]):
            subprocess.run(command, cwd=run, check=True, capture_output=True)

    def start_api(self, *arguments, **named):
        super().start_api(*arguments, **named)
        command = [sys.executable, HERE / "kinds_api.py", "--address", self.api_address,
                   "--port", str(KINDS_PORT), "--certificate", self.dir / "kinds/tls.crt",
                   "--key", self.dir / "kinds/tls.key", "--token", self.dir / "kinds/token"]
        self.start("kinds", command, {}, self.dir / "kinds/requests")
        self.wait("the other API to listen", lambda: can_connect(self.api_address, KINDS_PORT))

    def up_environment(self):
        variables = {variable(kind, entry): value for kind in self.kinds if kind.source == "env"
                     for entry, value in self.of(kind).items()}
        return super().up_environment() | variables | {"SLUIS_LOG": "trace", "RUST_BACKTRACE": "1"}

    @property
    def folders_of_secrets(self):
        """The place meant: where secrets come from, and the APIs that are given them."""
        return [self.dir / "kinds", self.dir / "egress-secrets", self.dir / "api", self.manifests]

    def secrets(self):
        """What must be nowhere."""
        found = {"lua": self.secret, "oauth token": self.values["token_given"].encode()}
        for kind in self.kinds:
            for entry, is_secret in kind.entries.items():
                if is_secret:
                    found[f"{kind.name}.{entry}"] = self.values[f"{kind.name}.{entry}"].encode()
        return found

    # -- what is asked of it

    def ask(self, path, *options):
        """A request of the notebook; its whole answer is kept."""
        done = self.in_jail("curl", "-sv", "--max-time", "20", *options, f"http://{HOST}{path}")
        self.said[f"answer to {path} {len(self.said)}"] = (done.stdout + done.stderr).encode()
        status = re.search(r"^< HTTP/\S+ (\d+)", done.stderr, re.M)
        return int(status[1]) if status else 0

    def received(self):
        """What the other API was given: heads as text."""
        lines = (self.dir / "kinds/requests").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return ["\n".join([f"target: {one['target']}", *(f"{name.lower()}: {value}" for name, value in one["head"])])
                for one in records]

    def shown(self, kind):
        """The regular expression of what the API must have received."""
        values = {name: re.escape(value) for name, value in self.of(kind).items()}
        if kind.name == "basic":
            pair = f"{self.values['basic.username']}:{self.values['basic.password']}"
            values["basic"] = re.escape(base64.b64encode(pair.encode()).decode())
        values["token_given"] = re.escape(self.values["token_given"])
        return re.compile(kind.shows.format(**values), re.M)

    # -- what it gives away

    def outputs(self):
        """All of it, by name."""
        found = dict(self.said)
        found["log of sluis up"] = (self.dir / "up.log").read_bytes()
        found |= files(self.state)
        found |= self.verbs()
        for port, name in ((self.debug_port, "debug"),):
            token = (self.state / "debug-token").read_text()
            for page in DEBUG_PAGES:
                for authorization in (["-H", f"authorization: Bearer {token}"], []):
                    found[f"{name} {page} {len(authorization)}"] = curl(
                        *authorization, f"http://127.0.0.1:{port}{page}")
        for workload in (GATEWAY, NOTEBOOK):
            socket = self.state / "workloads" / workload / "admin.sock"
            for page in ADMIN_PAGES:
                found[f"admin of {workload} {page}"] = curl(
                    "--unix-socket", socket, f"http://admin{page}")
        for workload, account in ((GATEWAY, "istio-egressgateway"), (NOTEBOOK, "notebook")):
            found[f"xDS without proof, as {workload}"] = self.stream(workload, account)
        found |= self.processes_shown()
        return found

    def verbs(self):
        """Every verb that reads."""
        commands = [["status"], ["proxy-status", "-o", "json"], ["get", "all", "-A", "-o", "yaml"],
                    ["get", "credentials,credentialgrants", "-A", "-o", "yaml"], ["get", "secrets", "-A", "-o", "yaml"],
                    ["validate", "-f", str(self.manifests / "istio")], ["ca", "status"], ["ca", "log"],
                    ["credentials", "list"], ["credentials", "list", "-o", "json"],
                    ["audit", "show", "-o", "json"], ["audit", "show", "-o", "wide"], ["audit", "export"],
                    ["audit", "verify"], ["audit", "reconcile", "-o", "json"], ["audit", "tail", "--no-follow"]]
        commands += [["credentials", "describe", f"egress/{kind.name}"] for kind in self.kinds]
        for workload in (GATEWAY, NOTEBOOK):
            commands += [["proxy-config", kind, workload, "-o", form] for form in ("table", "json", "yaml")
                         for kind in ("listeners", "routes", "clusters", "endpoints", "secrets")]
            commands += [["logs", workload], ["authn", "tls-check", workload],
                         ["proxy", "bootstrap", "--envoy", workload]]
        found = {}
        for command in commands:
            done = self.run([self.sluis, *command])
            found[f"sluis {' '.join(command)}"] = (done.stdout + done.stderr).encode()
        return found

    def stream(self, workload, account):
        """An xDS stream of somebody who only says who he is, and asks for every secret by name."""
        names = [f"credential://egress/{kind.name}{end}" for kind in self.kinds for end in ("", "#previous")]
        namespace, name = workload.split("/")
        role = "router" if workload == GATEWAY else "sidecar"
        address = self.gateway_address if workload == GATEWAY else f"{self.net}.3"
        metadata = {"NAMESPACE": namespace, "WORKLOAD_NAME": name, "SERVICE_ACCOUNT": account}
        node = text(1, f"{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local")
        node += block(3, b"".join(block(1, text(1, key) + block(2, text(3, value)))
                                  for key, value in metadata.items()))
        answers = b""
        for kind in ("extensions.transport_sockets.tls.v3.Secret", "config.cluster.v3.Cluster",
                     "config.listener.v3.Listener"):
            asked = block(2, node) + text(4, f"type.googleapis.com/envoy.{kind}")
            if kind.endswith("Secret"):
                asked += b"".join(text(3, name) for name in names)
            body = self.dir / "xds-request"
            body.write_bytes(b"\0" + len(asked).to_bytes(4, "big") + asked)
            answers += curl("--http2-prior-knowledge", "--max-time", "3", "-H", "content-type: application/grpc",
                            "-H", "te: trailers", "--data-binary", f"@{body}",
                            f"http://127.0.0.1:{self.xds_port}"
                            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources")
        return answers

    def processes_shown(self):
        """Arguments and environments of all processes of the mesh; what a user with `ps` sees of all."""
        found = {"ps": subprocess.run(["ps", "axeww"], capture_output=True, check=True).stdout}
        ours = {self.processes["up"].pid, *(proxy["pid"] for proxy in self.status()["proxies"])}
        for pid in ours:
            for name in ("cmdline", "environ", "comm", "status", "maps"):
                # What `env` sources name is in the environment of `sluis up` by the user's own will.
                if name == "environ" and pid == self.processes["up"].pid:
                    continue
                with contextlib.suppress(OSError):
                    found[f"/proc/{pid}/{name}"] = pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
        if any(kind.source == "env" for kind in self.kinds):
            # `ps e` shows the environment to the process's own user only.
            of_env = [value.encode() for kind in self.kinds if kind.source == "env" for value in self.of(kind).values()]
            for value in of_env:
                lines = [line for line in found["ps"].splitlines() if value in line]
                expect(all(b"sluis" in line and b" up " in line for line in lines), "ps shows a variable elsewhere")
                found["ps"] = found["ps"].replace(value, b"")
        return found


def write_private(path, content):
    """A file that others cannot read: secrets in others are refused."""
    path.touch(mode=0o600)
    path.write_text(content)


def variable(kind, entry):
    return f"KIND_{kind.name}_{entry}".upper()


def curl(*arguments):
    done = subprocess.run(["curl", "-si", "--max-time", "10", *map(str, arguments)], capture_output=True, check=False)
    return done.stdout


def block(number, content):
    """A field of protobuf with a length."""
    size, length = len(content), b""
    while True:
        size, low = size >> 7, size & 127
        length += bytes([low | (128 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + length + content


def text(number, value):
    return block(number, value.encode())


def memory(pid, wanted):
    """Which of these bytes are in a process's memory (root)."""
    found = set()
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if not rights.startswith("rw") or "[vvar" in line:
                continue
            begin, end = (int(part, 16) for part in place.split("-"))
            try:
                file.seek(begin)
                content = file.read(end - begin)
            except (OSError, ValueError, OverflowError):
                continue
            found |= {name for name, value in wanted.items() if value in content}
    return found


__all__ = ["GATEWAY", "NOTEBOOK", "Kind", "World", "all_kinds", "kinds", "memory"]
