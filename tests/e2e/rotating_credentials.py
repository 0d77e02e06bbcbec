#!/usr/bin/env python3
"""A credential is rotated under load, its source goes down and comes back; nothing fails that should not.

`rotating_credentials.py --bin-dir DIR [--source vault|file] [--requests N]`: one gateway of `sluis up`
on 127.77.0.2 adds a header from a `Credential`; nginx, an API behind TLS, answers 401 to a key that it
does not know and logs which one came; wrk keeps asking. The source is a stand-in for Vault
(`fake_vault.py`), or a file that is replaced. In the end the source is stopped: after `maxStale`
requests are refused with 503 and a reason of their own, and are answered again when it is back.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from mesh import HERE, Failed, expect, wait_until as until

GATEWAY, PORT = "127.77.0.2", 8080
HOST = "api.rotating.test"
KEYS = [f"s3cret-generation-{number}-of-the-key" for number in range(8)]
CONNECTIONS = 16
WITHIN = 60
LOADS = 12  # runs of wrk at most
SECONDS = 15  # each

MESH = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: gateway, namespace: egress, labels: {istio: out}, annotations: {sluis.dev/run: gateway}}
spec: {address: GATEWAY, serviceAccount: gateway}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: egress}
spec:
  hosts: [HOST]
  location: MESH_EXTERNAL
  ports: [{number: 443, name: https, protocol: HTTPS}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {https: API_PORT}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: egress}
spec:
  host: HOST
  trafficPolicy: {tls: {mode: SIMPLE, sni: HOST, subjectAltNames: [HOST], caCertificates: DIR/api.pem}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: egress}
spec:
  selector: {istio: out}
  servers: [{port: {number: PORT, name: http, protocol: HTTP}, hosts: [HOST]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: egress}
spec:
  hosts: [HOST]
  gateways: [out]
  http: [{route: [{destination: {host: HOST, port: {number: 443}}}]}]
---
apiVersion: egress.sluis.dev/v1alpha1
kind: Credential
metadata: {name: api, namespace: egress}
spec:
  source: {SOURCE}
  rotation: {refresh: 1s, grace: 5s, maxStale: 4s}
  inject: {header: {name: X-Api-Key}}
  guard: {hosts: [HOST]}
---
apiVersion: egress.sluis.dev/v1alpha1
kind: CredentialGrant
metadata: {name: all, namespace: egress}
spec:
  credential: api
  to: [{hosts: [HOST]}]
"""

NGINX = """
worker_processes 1; daemon off; pid DIR/nginx.pid; error_log DIR/nginx.err warn;
events { worker_connections 1024; }
http {
  log_format keys '$status $http_x_api_key'; access_log DIR/nginx.log keys buffer=64k flush=1s;
  client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  map $http_x_api_key $known { default 0; ALL }
  server {
    listen 127.0.0.1:API_PORT ssl; ssl_certificate DIR/api.pem; ssl_certificate_key DIR/api.key;
    keepalive_requests 1000000;
    location / { if ($known = 0) { return 401; } return 200 "well\\n"; }
  }
}
"""


class World:
    def __init__(self, programs, source):
        self.programs, self.source, self.processes = programs, source, {}
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rotating-", dir="/tmp"))
        self.state = self.dir / "state"
        self.dir.chmod(0o700)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for name in reversed(self.processes):
            process = self.processes[name]
            process.send_signal(signal.SIGINT if name == "up" else signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if error[0] is None:
            shutil.rmtree(self.dir, ignore_errors=True)
        else:
            print(f"left for you: {self.dir}", file=sys.stderr)

    def start(self, name, *command, **more):
        log = open(self.dir / f"{name}.log", "w")
        self.processes[name] = subprocess.Popen(
            list(map(str, command)), stdout=more.pop("stdout", log), stderr=log, text=True, **more)
        return self.processes[name]

    def write(self, number):
        """Puts a generation of the key where the source has it."""
        if self.source == "vault":
            self.vault("POST", "/v1/secret/data/app/api", {"data": {"value": KEYS[number]}})
        else:
            new = self.dir / "key.new"
            new.write_text(KEYS[number] + "\n")
            new.chmod(0o600)
            new.replace(self.dir / "key")

    def vault(self, method, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.vault_port}{path}", method=method,
                                         data=json.dumps(body).encode(), headers={"x-vault-token": "hvs.root"})
        return json.loads(urllib.request.urlopen(request, timeout=10).read() or "null")

    def stop_source(self):
        if self.source == "vault":
            self.vault("POST", "/_test/down", {"status": 503})
        else:
            (self.dir / "key").rename(self.dir / "key.away")

    def mend_source(self):
        if self.source == "vault":
            self.vault("POST", "/_test/up", {})
        else:
            (self.dir / "key.away").rename(self.dir / "key")

    def begin(self):
        d = str(self.dir)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", f"{d}/api.key", "-out", f"{d}/api.pem", "-subj", f"/CN={HOST}", "-addext",
             f"subjectAltName=DNS:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
        import socket
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.api_port = probe.getsockname()[1]
        known = " ".join(f'"{key}" 1;' for key in KEYS)
        conf = NGINX.replace("DIR", d).replace("API_PORT", str(self.api_port)).replace("ALL", known)
        (self.dir / "nginx.conf").write_text(conf)
        self.start("nginx-told", "nginx", "-c", self.dir / "nginx.conf", "-e", self.dir / "nginx.err")
        if self.source == "vault":
            fake = self.start("vault", sys.executable, HERE / "fake_vault.py", stdout=subprocess.PIPE)
            self.vault_port = int(fake.stdout.readline().split()[1])
            token = self.dir / "token"
            token.write_text("hvs.root\n")
            token.chmod(0o600)
            source = (f'vault: {{address: "http://127.0.0.1:{self.vault_port}", auth: {{tokenFile: {token}}}, '
                      "kv: {path: app/api}}")
        else:
            source = f"file: {{paths: {{value: {d}/key}}}}"
        self.write(0)
        text = MESH.replace("SOURCE", source)
        for name, value in {"GATEWAY": GATEWAY, "HOST": HOST, "API_PORT": self.api_port, "DIR": d, "PORT": PORT}.items():
            text = text.replace(name, str(value))
        (self.dir / "mesh.yaml").write_text(text)
        self.start("up", self.programs / "sluis", "up", "-f", self.dir / "mesh.yaml", "--state-dir", self.state,
                   env=dict(os.environ, SLUIS_LOG="info"))

    def cli(self, *arguments):
        return subprocess.run([self.programs / "sluis", *arguments], capture_output=True, text=True, timeout=60,
                              env=dict(os.environ, SLUIS_STATE_DIR=str(self.state)))

    def sources(self):
        shown = self.cli("credentials", "sources", "-o", "json")
        return json.loads(shown.stdout)[0] if shown.returncode == 0 and shown.stdout.strip() != "[]" else {}

    def ask(self):
        """Status and body of one request."""
        request = urllib.request.Request(f"http://{GATEWAY}:{PORT}/x", headers={"Host": HOST})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def keys_seen(self):
        seen = collections.Counter()
        for line in (self.dir / "nginx.log").read_text().splitlines():
            status, _, key = line.partition(" ")
            seen[(status, KEYS.index(key) if key in KEYS else "none")] += 1
        return seen


def load(world, wanted):
    """Asks at least so often, and rotates meanwhile. How many answers, and how many not 2xx."""
    answered = failed = 0
    number, due, runs = 0, time.monotonic() + 2, 0
    while answered < wanted or number < len(KEYS) - 1:
        expect(runs < LOADS, f"only {answered} answers, generation {number}")
        runs += 1
        wrk = subprocess.Popen(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", f"Host: {HOST}",
                                f"http://{GATEWAY}:{PORT}/"], stdout=subprocess.PIPE, text=True)
        while wrk.poll() is None:
            if time.monotonic() >= due and number < len(KEYS) - 1:
                number += 1
                world.write(number)
                due = time.monotonic() + 3
            time.sleep(0.1)
        told = wrk.stdout.read()
        answered += int(re.search(r"(\d+) requests in", told).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
        failed += int(bad.group(1)) if bad else 0
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
        failed += sum(map(int, errors.groups())) if errors else 0
    return answered, failed


def scenario(programs, source, requests, tell):
    with World(programs.resolve(), source) as world:
        world.begin()
        until("the gateway to answer", lambda: world.ask()[0] == 200, WITHIN)
        expect(world.sources()["gateways"] == ["egress/gateway"], f"{world.sources()}")
        tell(f"1. {source}: the gateway has the credential")

        answered, failed = load(world, requests)
        until("nginx to have written", lambda: len(world.keys_seen()) >= len(KEYS))
        seen = world.keys_seen()
        expect(not failed, f"{failed} of {answered} requests failed; {seen}")
        expect(all(status == "200" for status, _ in seen), f"{seen}")
        used = sorted(key for _, key in seen)
        expect(used == list(range(len(KEYS))), f"not all generations were used: {used}")
        tell(f"2. {len(KEYS) - 1} rotations under load: {failed} of {answered} requests failed")

        world.stop_source()
        plan = world.cli("credentials", "rotate", "--dry-run", "egress/api")
        expect(plan.returncode == 1 and "gives nothing" in plan.stdout, f"dry run: {plan.stdout}{plan.stderr}")
        expect(world.ask()[0] == 200, "the last good version is not used for a while")
        until("the credential to be withdrawn", lambda: world.sources().get("state") == "withdrawn", WITHIN)
        status, body = until("a refusal", lambda: (got := world.ask())[0] == 503 and got)
        expect("credential" in body, f"the reason is not told: {body!r}")
        report = world.sources()
        expect(report["reason"] in ("unreachable", "missing"), f"{report}")
        tell(f"3. source down: {status}, {body.strip()!r}; {report['state']} ({report['reason']})")

        world.mend_source()
        until("recovery", lambda: world.ask()[0] == 200, 2 * WITHIN)
        tell("4. source back: requests are answered")

        told = (world.dir / "up.log").read_text()
        for command in (("credentials", "sources"), ("credentials", "rotate", "--dry-run", "egress/api"),
                        ("proxy-config", "secret", "egress/gateway"), ("get", "credentials", "-o", "yaml"),
                        ("status",)):
            told += world.cli(*command).stdout
        told += "".join(path.read_text(errors="replace") for path in world.state.rglob("*.log"))
        expect(not any(key in told for key in KEYS), "a value was printed")
        tell("5. no log and no table has a value")
        return answered


def a_credential_of_vault_is_rotated_under_load(options):
    """A credential of Vault is rotated under load, Vault goes down and comes back"""
    return [f"{scenario(options.bin_dir, 'vault', 20_000, lambda _: None)} requests"]


def a_credential_in_a_file_is_rotated_under_load(options):
    """A credential in a file is rotated under load, the file is taken away and comes back"""
    return [f"{scenario(options.bin_dir, 'file', 20_000, lambda _: None)} requests"]


ALL = [a_credential_of_vault_is_rotated_under_load, a_credential_in_a_file_is_rotated_under_load]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bin-dir", type=pathlib.Path, required=True)
    arguments.add_argument("--source", choices=["vault", "file"], default="vault")
    arguments.add_argument("--requests", type=int, default=50_000)
    options = arguments.parse_args()
    try:
        scenario(options.bin_dir, options.source, options.requests, lambda text: print(text, flush=True))
    except Failed as failed:
        sys.exit(f"rotating_credentials: {failed}")
    print("5 passed, 0 failed")


if __name__ == "__main__":
    main()
