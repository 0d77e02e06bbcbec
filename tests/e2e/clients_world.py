"""A mesh with a site, a repository, Redis and PostgreSQL outside, reached through one egress gateway.

The gateway terminates the clients' TLS to the site with a certificate of the platform's own authority and
opens TLS to the site, whose certificate another authority has signed; what is no TLS goes to it by the
mesh's mutual TLS.
"""

import pathlib
import shutil
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

from onebox.scene import Scene, can_connect  # noqa: E402

CLIENT, GATEWAY = "apps/client", "egress/gateway"
HOST = "site.example"
SITE_PORT, PLAIN_PORT, REDIS_PORT, POSTGRES_PORT = 9443, 9080, 6379, 5432

MANIFESTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% sni=%REQUESTED_SERVER_NAME% from=%DOWNSTREAM_PEER_URI_SAN%\\n"
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: client
  namespace: apps
  annotations:
    sluis.dev/run: sidecar
    sluis.dev/proxy: SIDECAR
    sluis.dev/hide: ca, secrets
    sluis.dev/ca-certificates: platform.crt
    sluis.dev/read-only: DIR
    sluis.dev/writable: DIR/work, DIR/tmp
    sluis.dev/unix-sockets: work/agent.sock
spec: {address: NET.3, serviceAccount: client}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: gateway
  namespace: egress
  annotations:
    sluis.dev/run: gateway
    sluis.dev/proxy: GATEWAY
    sluis.dev/env: GATEWAY_KEY
spec: {address: NET.2, serviceAccount: gateway, labels: {istio: egress}}
---
apiVersion: v1
kind: Service
metadata: {name: gateway, namespace: egress}
spec:
  selector: {istio: egress}
  ports:
  - {name: https, port: 443, targetPort: 8443}
  - {name: http, port: 80, targetPort: 8080}
  - {name: tls, port: 15443, targetPort: 15443}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: site, namespace: egress}
spec:
  hosts: [site.example]
  location: MESH_EXTERNAL
  ports:
  - {number: 443, name: https, protocol: HTTPS}
  - {number: 80, name: http, protocol: HTTP}
  resolution: STATIC
  endpoints: [{address: NET.9, ports: {https: 9443, http: 9080}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: egress}
spec:
  selector: {istio: egress}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [site.example]
    tls: {mode: SIMPLE, serverCertificate: secrets/site.crt, privateKey: secrets/site.key}
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [site.example]
  - port: {number: 15443, name: tls-redis, protocol: TLS}
    hosts: [redis.example]
    tls: {mode: ISTIO_MUTUAL}
  - port: {number: 15443, name: tls-postgres, protocol: TLS}
    hosts: [postgres.example]
    tls: {mode: ISTIO_MUTUAL}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: site, namespace: egress}
spec:
  hosts: [site.example]
  gateways: [mesh, egress]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [site.example]}]
    route: [{destination: {host: gateway.egress.svc.cluster.local, subset: as-it-is, port: {number: 443}}}]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: gateway.egress.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 443}]
    route: [{destination: {host: site.example, port: {number: 443}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: site.example, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: site, namespace: egress}
spec:
  host: site.example
  trafficPolicy:
    portLevelSettings:
    - {port: {number: 443}, tls: {mode: SIMPLE, sni: site.example, caCertificates: DIR/manifests/secrets/site-ca.crt}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: gateway, namespace: egress}
spec:
  host: gateway.egress.svc.cluster.local
  trafficPolicy:
    portLevelSettings:
    - {port: {number: 80}, tls: {mode: DISABLE}}
  subsets:
  - name: as-it-is
    trafficPolicy:
      portLevelSettings:
      - {port: {number: 443}, tls: {mode: SIMPLE, sni: site.example}}
  - name: redis
    trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: redis.example}}
  - name: postgres
    trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: postgres.example}}
"""
RAW = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: egress}
spec:
  hosts: [NAME.example]
  addresses: [ADDRESSES]
  location: MESH_EXTERNAL
  ports: [{number: PORT, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: NET.9}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: egress}
spec:
  hosts: [NAME.example]
  gateways: [mesh, egress]
  tcp:
  - match: [{gateways: [mesh], port: PORT}]
    route: [{destination: {host: gateway.egress.svc.cluster.local, subset: NAME, port: {number: 15443}}}]
  - match: [{gateways: [egress], port: 15443}]
    route: [{destination: {host: NAME.example, port: {number: PORT}}}]
"""
POSTGRES_PROGRAMS = ["/usr/lib/postgresql"]


class World(Scene):
    """The mesh, and what is outside of it."""

    def __init__(self, programs, sidecar="sluis", gateway="sluis"):
        super().__init__(programs, {GATEWAY: gateway, CLIENT: sidecar})

    def set(self):
        self.outside = f"{self.net}.9"
        for name in ("work", "tmp", "ca", "secrets", "site"):
            (self.dir / name).mkdir()
        self.make_certificates()
        self.make_repository()
        self.start_site()
        self.start_redis()
        if self.postgres():
            self.start_postgres()
        self.write_manifests()
        self.start_all()

    def write_manifests(self):
        self.manifests.mkdir()
        raw = [("redis", REDIS_PORT, "192.0.2.63, \"2001:db8::63\""), ("postgres", POSTGRES_PORT, "192.0.2.54")]
        parts = [RAW.replace("NAME", name).replace("PORT", str(port)).replace("ADDRESSES", addresses)
                 for name, port, addresses in raw]
        text = (MANIFESTS + "".join(parts)).replace("NET.", f"{self.net}.").replace("DIR", str(self.dir))
        text = text.replace("manifests/secrets", "secrets")
        text = text.replace("SIDECAR", self.engines[CLIENT]).replace("proxy: GATEWAY", f"proxy: {self.engines[GATEWAY]}")
        (self.manifests / "mesh.yaml").write_text(text)

    def environment(self):
        """Without the authorities that the machine around us has its programs trust."""
        return {name: value for name, value in super().environment().items()
                if not any(part in name for part in ("CA_BUNDLE", "CA_CERTS", "CAINFO", "_CERT"))}

    def listens_at(self):
        return [(f"{self.net}.2", port) for port in (8443, 8080, 15443)]

    def up_environment(self):
        return {"GATEWAY_KEY": "of the gateway alone"}

    def step(self, what):
        """Steps are not told: a scenario tells what it found."""

    # -- what is outside

    def make_certificates(self):
        for authority, place in (("platform", "secrets/site"), ("site", "site/site")):
            key, certificate = self.dir / f"ca/{authority}.key", self.dir / f"ca/{authority}.crt"
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-keyout", key, "-out", certificate, "-subj", f"/CN={authority} CA",
                    "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
            leaf = self.dir / place
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", f"{leaf}.key", "-out", f"{leaf}.csr", "-subj", f"/CN={HOST}")
            extensions = self.dir / "ca/extensions"
            extensions.write_text(f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n")
            openssl("x509", "-req", "-in", f"{leaf}.csr", "-CA", certificate, "-CAkey", key, "-CAcreateserial",
                    "-days", "2", "-extfile", extensions, "-out", f"{leaf}.crt")
        shutil.copy(self.dir / "ca/platform.crt", self.dir / "platform.crt")
        shutil.copy(self.dir / "ca/site.crt", self.dir / "secrets/site-ca.crt")

    def make_repository(self):
        work, bare = self.dir / "site/work", self.dir / "site/repository.git"
        git = ["git", "-c", "user.name=Nobody", "-c", "user.email=nobody@site.example"]
        for command in ([*git, "init", "-q", work],
                        [*git, "-C", work, "commit", "-q", "--allow-empty", "-m", "one commit of a repository"],
                        [*git, "clone", "-q", "--bare", work, bare],
                        [*git, "-C", bare, "update-server-info"]):
            subprocess.run(command, check=True, capture_output=True)

    def start_site(self):
        command = [sys.executable, HERE / "clients_site.py", self.outside, str(SITE_PORT), str(PLAIN_PORT),
                   self.dir / "site"]
        self.start("site", command, {}, self.dir / "site.log")
        self.wait("the site to listen", lambda: can_connect(self.outside, SITE_PORT) and can_connect(self.outside, PLAIN_PORT))

    def start_redis(self):
        command = ["redis-server", "--bind", self.outside, "--port", str(REDIS_PORT), "--save", "", "--dir", self.dir / "site"]
        self.start("redis", command, {}, self.dir / "redis.log")
        self.wait("Redis to listen", lambda: can_connect(self.outside, REDIS_PORT))

    @staticmethod
    def postgres():
        """The folder of PostgreSQL's programs, where they are installed."""
        if not shutil.which("psql"):
            return None
        found = [path.parent for root in POSTGRES_PROGRAMS for path in pathlib.Path(root).glob("*/bin/initdb")]
        return found[-1] if found else None

    def start_postgres(self):
        """PostgreSQL runs as no root; the server's own folder is given to nobody then."""
        import os
        import pwd
        data, programs = self.dir / "postgres", self.postgres()
        data.mkdir()
        user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(data, nobody.pw_uid, nobody.pw_gid)
            self.dir.chmod(0o711)
        subprocess.run([programs / "initdb", "-D", data / "db", "-U", "app", "-A", "trust", "-N"], check=True,
                       capture_output=True, cwd="/", **user)
        (data / "db/pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")
        command = [programs / "postgres", "-D", data / "db", "-h", self.outside, "-p", str(POSTGRES_PORT),
                   "-c", "unix_socket_directories=", "-c", "fsync=off"]
        with open(self.dir / "postgres.log", "ab") as output:
            process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, **user)
        self.processes["postgres"] = process
        self.callback(self.stop, "postgres")
        self.wait("PostgreSQL to answer", self.postgres_answers)

    def postgres_answers(self):
        ready = [self.postgres() / "pg_isready", "-q", "-h", self.outside, "-p", str(POSTGRES_PORT)]
        return subprocess.run(ready, check=False).returncode == 0


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


__all__ = ["CLIENT", "GATEWAY", "HOST", "World", "socket"]
