"""A real Envoy as the gateway adds a declared credential, by filters of its own."""

import http.server
import json
import ssl
import threading

from mesh import API_PORT, NOTEBOOK, Mesh, expect, python, wait_until

CREDENTIAL = """
apiVersion: egress.sluis.dev/v1alpha1
kind: Credential
metadata: {name: data-api, namespace: egress}
spec:
  source: {file: {paths: {value: egress-secrets/secret-key}}}
  inject: {header: {name: X-Api-Key, prefix: 'Key '}}
  guard: {hosts: [api.data.local], stripFromRequest: [X-Debug]}
---
apiVersion: egress.sluis.dev/v1alpha1
kind: CredentialGrant
metadata: {name: queries, namespace: egress}
spec:
  credential: data-api
  to: [{methods: [POST], paths: [/graphql]}]
"""

ASK = """
import sys, urllib.error, urllib.request
headers = {"X-Api-Key": "forged", "X-Debug": "1"}
request = urllib.request.Request("https://api.data.local" + sys.argv[1], b"query=x", headers)
try:
    with urllib.request.urlopen(request, timeout=10) as response:
        print(response.status, response.read().decode())
except urllib.error.HTTPError as refused:
    print(refused.code, refused.read().decode())
"""


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers, and keeps the fields of each request."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.headers.items())
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        """What is kept says it all."""


class Declared(Mesh):
    """The example with the declared credential in place of its script, and a server that records."""

    def write_manifests(self):
        super().write_manifests()
        (self.manifests / "istio/envoy-filter.yaml").unlink()
        (self.manifests / "istio/credential.yaml").write_text(CREDENTIAL)

    def start_api(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.dir / "api/tls.crt", self.dir / "api/tls.key")
        self.server = http.server.ThreadingHTTPServer((self.api_address, API_PORT), Recorder)
        self.server.seen = []
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.callback(self.server.server_close)
        self.callback(self.server.shutdown)


def envoy_adds_a_declared_credential(options):
    """A real Envoy gateway adds a declared header under its grant, and nobody else's in its place."""
    with Declared(options.bin_dir, gateway="envoy") as mesh:
        def ask(path):
            done = mesh.exec(NOTEBOOK, python(), "-c", ASK, path)
            return done.stdout + done.stderr

        said = []

        def is_answered():
            said.append(ask("/graphql"))
            return said[-1].startswith("200 ")

        wait_until("an answer", is_answered)
        fields = mesh.server.seen[-1]
        keys = [value for name, value in fields if name.lower() == "x-api-key"]
        expect(keys == [f"Key {mesh.secret.decode()}"], f"{len(keys)} keys, or another")
        expect(all(name.lower() != "x-debug" for name, _ in fields), "X-Debug was sent on")
        asked = len(mesh.server.seen)
        refused = ask("/admin")
        expect(refused.startswith("403 "), f"another path: {refused}")
        expect(len(mesh.server.seen) == asked, "a request without a grant was sent on")
        status = json.dumps(mesh.status())
        expect(mesh.secret.decode() not in status, "the status tells the secret")
        return ["a real Envoy added the key, 403 without a grant"]


ALL = [envoy_adds_a_declared_credential]
