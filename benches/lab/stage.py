"""What stands around the proxies: certificates, tokens, and the origins."""

import base64
import json
import os
import subprocess
import time

from .machine import free_port, start, stop, wait
from .shapes import connections_max

BODIES = {"small": 46, "1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}

# For every program that uses OpenSSL, as the clients, nginx and HAProxy do: one suite and one group.
# So that is what Envoy and sluis-proxy agree on with them, and by themselves they prefer the same.
OPENSSL = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = ours
[ours]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
[req]
distinguished_name = name
[name]
"""

ORIGIN = """
daemon off; worker_processes 1; pid {dir}/origin.pid; error_log {dir}/origin.log warn;
events {{ worker_connections {most}; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  client_body_temp_path {dir}/origin-body; proxy_temp_path {dir}/origin-proxy;
  fastcgi_temp_path {dir}/origin-fastcgi; uwsgi_temp_path {dir}/origin-uwsgi; scgi_temp_path {dir}/origin-scgi;
  default_type text/plain; open_file_cache max=100;
  server {{
    listen 127.0.0.1:{http} backlog=8192;
    listen 127.0.0.1:{tls} ssl backlog=8192;
    ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.3;
    location /body/ {{ root {dir}; }}
    location / {{ return 200 "a body of forty-six bytes, neither more nor le\\n"; }}
  }}
}}
"""


class Stage:
    """The folder, its certificates, and origins for HTTP, HTTPS and HTTP/2 on the client's core."""

    def __init__(self, options, folder):
        self.folder, self.log = folder, folder / "origin-output.log"
        folder.chmod(0o755)
        certificates(folder)
        (folder / "openssl.cnf").write_text(OPENSSL)
        os.environ["OPENSSL_CONF"] = str(folder / "openssl.cnf")
        (folder / "body").mkdir()
        for name, size in BODIES.items():
            (folder / "body" / name).write_bytes(b"x" * size)
        for path in [folder / "body", *(folder / "body").iterdir()]:
            os.chmod(path, 0o755)
        self.ports = {"http": free_port(), "tls": free_port(), "h2c": free_port()}
        (folder / "origin.conf").write_text(ORIGIN.format(dir=folder, most=connections_max(1), **self.ports))
        self.processes = []
        self.begin(options, [options.nginx, "-p", folder, "-c", folder / "origin.conf"], "http")
        if options.nghttpd:
            self.begin(options, [options.nghttpd, "--no-tls", "-n1", "-d", folder, self.ports["h2c"]], "h2c")

    def begin(self, options, command, kind):
        process = start(options.client_core, command, self.log)
        self.processes.append(process)
        wait(process, lambda: listens(self.ports[kind]), f"the origin ({kind})", self.log)

    def port(self, back):
        return self.ports[{"mtls": "tls", "tcp": "http"}.get(back, back)]

    def close(self):
        for process in self.processes:
            stop(process)


def listens(port):
    import socket
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def openssl(folder, *arguments, data=b""):
    return subprocess.run(["openssl", *map(str, arguments)], cwd=folder, input=data, check=True, capture_output=True).stdout


def certificates(folder):
    """A root, and a leaf for each side, ECDSA P-256."""
    curve = ("-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(folder, "req", "-x509", "-newkey", "ec", *curve, "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", "/CN=bench root")
    for name, san in (("server", "DNS:bench.local,DNS:istiod.istio-system.svc"), ("client", "URI:spiffe://cluster.local/ns/bench/sa/client")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        openssl(folder, "req", "-newkey", "ec", *curve, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")
    for name, both in (("server", "both.pem"), ("client", "client-both.pem")):
        (folder / both).write_text((folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text())
    for file in folder.iterdir():
        file.chmod(0o644)


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_and_token(folder):
    """A key set, and a token by its key: RS256 with 2,048 bits."""
    openssl(folder, "genrsa", "-out", "token.pem", "2048")
    modulus = openssl(folder, "rsa", "-in", "token.pem", "-noout", "-modulus").decode().strip().split("=")[1]
    keys = {"keys": [{"kty": "RSA", "alg": "RS256", "n": url64(bytes.fromhex(modulus)), "e": "AQAB"}]}
    claims = {"iss": "me.test", "sub": "you", "exp": int(time.time()) + 36000, "groups": ["a", "b"]}
    signed = ".".join(url64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    made = openssl(folder, "dgst", "-sha256", "-sign", "token.pem", data=signed.encode())
    return json.dumps(keys), f"{signed}.{url64(made)}"
