#!/usr/bin/env python3
"""What a new TLS connection costs the proxy: sluis-proxy beside Envoy, HAProxy and nginx, in one run.

Every connection is new, TLS 1.3, never resumed (tickets are sent, none is used), ECDSA P-256 on the server (and, with a client
certificate, on the client), X25519; it carries one request, which the proxy answers itself. The
proxy has one worker on one core, the client the other; the runs alternate. CPU is the proxy's own.
"""

import argparse
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

from gateway import ROOT, cpu_seconds, envoy, free_port, ours, pinned, stop

REQUEST = b"GET / HTTP/1.1\r\nHost: bench.local\r\n\r\n"
READY_WITHIN = 20  # seconds

ENVOY = """
static_resources:
  listeners:
  - name: tls
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: {mutual}
          common_tls_context:
            tls_certificates:
            - certificate_chain: {{filename: {dir}/server.pem}}
              private_key: {{filename: {dir}/server.key}}
            {validation}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                direct_response: {{status: 200, body: {{inline_string: "hello"}}}}
"""
VALIDATION = "validation_context: {{trusted_ca: {{filename: {dir}/ca.pem}}}}"
NGINX = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off; ssl_protocols TLSv1.3;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_ecdh_curve X25519;
        {validation}
        location / {{ return 200 "hello"; }}
    }}
}}
"""
HAPROXY = """
global
    nbthread 1
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend tls
    bind 127.0.0.1:{port} ssl crt {dir}/both.pem curves X25519 {validation}
    http-request return status 200 content-type text/plain string "hello"
"""


def make_certificates(folder):
    """A root, and a leaf for each side."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
            "-out", "ca.pem", "-days", "2", "-subj", "/CN=bench root")
    for name, san in (("server", "DNS:bench.local"), ("client", "URI:spiffe://cluster.local/ns/bench/sa/client")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")
    (folder / "both.pem").write_text((folder / "server.pem").read_text() + (folder / "server.key").read_text())
    for file in folder.iterdir():
        file.chmod(0o644)


def command(name, options, folder, port, mutual):
    """How a proxy starts, its configuration written."""
    def write(file, text, validation):
        path = folder / file
        path.write_text(text.format(dir=folder, port=port, mutual=str(mutual).lower(),
                                    validation=validation.format(dir=folder) if mutual else ""))
        return str(path)
    if name == "nginx":
        path = write("nginx.conf", NGINX, "ssl_client_certificate {dir}/ca.pem; ssl_verify_client on;")
        return [options.nginx, "-p", str(folder), "-c", path]
    if name == "haproxy":
        return [options.haproxy, "-db", "-f", write("haproxy.cfg", HAPROXY, "ca-file {dir}/ca.pem verify required")]
    path = write("envoy.yaml", ENVOY, VALIDATION)
    return envoy(options, path) if name == "envoy" else ours(options, path)


def connect_many(port, context, count):
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), 10) as tcp:
            with context.wrap_socket(tcp, server_hostname="bench.local") as tls:
                if tls.version() != "TLSv1.3" or tls.session_reused:
                    sys.exit(f"not a full handshake of TLS 1.3: {tls.version()}")
                tls.sendall(REQUEST)
                answer = tls.recv(4096)
                while answer and not answer.endswith(b"hello"):
                    answer += tls.recv(4096) or sys.exit("closed in the middle of an answer")
                if not answer.startswith(b"HTTP/1.1 200"):
                    sys.exit(f"answered {answer!r}")
                # All of it is here; the client closes first, for Envoy would wait a second for that.


def measure(name, options, folder, mutual):
    port = free_port()
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if mutual:
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
    with open(folder / "output.log", "ab") as log:
        process = subprocess.Popen(pinned(options.proxy_core, command(name, options, folder, port, mutual)),
                                   stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                connect_many(port, context, 50)
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{name} is not ready: {error}\n{(folder / 'output.log').read_text()[-2000:]}")
                time.sleep(0.02)
        before = cpu_seconds(process.pid)
        connect_many(port, context, options.handshakes)
        return (cpu_seconds(process.pid) - before) * 1e6 / options.handshakes
    finally:
        stop(process)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target/release"
    parser.add_argument("--proxies", default="sluis,envoy,haproxy,nginx", help="[%(default)s]")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each [%(default)s]")
    parser.add_argument("--handshakes", type=int, default=400, help="in each run; Envoy and a client that waits take 40 ms each [%(default)s]")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", str(release / "sluis")))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", str(release / "sluis-proxy")))
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", str(ROOT / "target/envoy/bin/envoy")))
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    options = parser.parse_args()
    names = options.proxies.split(",")
    os.sched_setaffinity(0, {options.client_core})
    for mutual in (False, True):
        found = {name: [] for name in names}
        with tempfile.TemporaryDirectory(prefix="sluis-bench-") as folder:
            folder = pathlib.Path(folder)
            folder.chmod(0o755)
            make_certificates(folder)
            for _ in range(options.runs):
                for name in names:
                    found[name].append(measure(name, options, folder, mutual))
        print(f"\n{'mutual TLS' if mutual else 'TLS'}, {options.runs} runs of {options.handshakes} new connections")
        print(f"{'proxy':8} {'CPU us/connection':>18} {'spread':>15} {'ours / it':>10}")
        ours = statistics.median(found[names[0]])
        for name in names:
            middle = statistics.median(found[name])
            print(f"{name:8} {middle:18.1f} {min(found[name]):7.1f}-{max(found[name]):<7.1f} {ours / middle:10.2f}")


if __name__ == "__main__":
    main()
