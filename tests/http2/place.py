"""A gateway for HTTP/2 clients that mean no good; behind it an origin of HTTP/1.1, and one that means none.

In:    the programs, and an empty folder.
Out:   a `sluis-proxy` that listens without and with TLS, and what it says and holds.
Never: reaches beyond 127.0.0.1.
"""

import http.server
import json
import pathlib
import socket
import subprocess
import threading
import time

from origin import CASES, Evil

TYPE = "type.googleapis.com/envoy.extensions."
NAME = "http2.test"
READY_WITHIN = 30  # seconds
BODY = b"a body of forty-six bytes, neither more nor le\n"
LARGE_BYTES = 1 << 20


class Origin(http.server.ThreadingHTTPServer):
    """Answers /large with a MiB, everything else with 46 octets once it has read the body."""

    daemon_threads, request_queue_size = True, 512

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests += 1
        if self.headers.get("transfer-encoding"):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b"x" * LARGE_BYTES if self.path == "/large" else BODY
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_PUT = do_HEAD = do_OPTIONS = do_DELETE = do_GET

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ValueError):
            pass  # the proxy has closed, as its client did


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


class Place:
    """The gateway and its origin; gone at the end of `with`."""

    def __init__(self, bin_dir, folder):
        self.folder, self.origin = pathlib.Path(folder), Origin()
        self.plain, self.tls, self.evil = free_port(), free_port(), Evil(CASES)
        certificate(self.folder)
        written, compiled = self.folder / "envoy.json", self.folder / "envoy.pb"
        written.write_text(json.dumps(self.bootstrap()))
        with open(compiled, "wb") as out:
            subprocess.run([bin_dir / "sluis", "proxy", "bootstrap", "--compile", written], stdout=out, check=True)
        self.log = self.folder / "proxy.log"
        with open(self.log, "wb") as out:
            self.proxy = subprocess.Popen([bin_dir / "sluis-proxy", "run", "--bootstrap", compiled, "--workers", "1"],
                                          stdout=out, stderr=out)
        self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proxy.terminate()
        self.proxy.wait(10)
        self.origin.shutdown()

    def wait(self):
        until = time.monotonic() + READY_WITHIN
        while time.monotonic() < until and self.proxy.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.tls), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the proxy does not listen:\n{self.log.read_text()}")

    def memory_kib(self, what):
        status = pathlib.Path(f"/proc/{self.proxy.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0])

    def begin_peak(self):
        """What the proxy holds in memory now, from where its peak is measured."""
        pathlib.Path(f"/proc/{self.proxy.pid}/clear_refs").write_text("5")
        return self.memory_kib("VmRSS")

    def peak_kib(self):
        """The most that the proxy has held since `begin_peak`."""
        return self.memory_kib("VmHWM")

    def bootstrap(self):
        return {"node": {"id": "http2", "cluster": "http2"}, "static_resources": {
            "listeners": [listener("plain", self.plain, "HTTP2"), listener("tls", self.tls, "AUTO", self.folder)],
            "clusters": [cluster("origin", self.origin.server_address[1]), {
                **cluster("evil", self.evil.port), "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}}}}}]}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name, port):
    endpoint = {"address": address(port)}
    return {"name": name, "type": "STATIC", "connect_timeout": "2s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}}


def listener(name, port, codec, tls=None):
    routes = [{"match": {"prefix": prefix}, "route": {"cluster": to, "timeout": "30s"}}
              for prefix, to in (("/evil/", "evil"), ("/", "origin"))]
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}
    manager = {"@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": name, "codec_type": codec, "use_remote_address": True, "http_filters": [router],
               "route_config": {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls:
        pair = {"certificate_chain": {"filename": f"{tls}/server.pem"}, "private_key": {"filename": f"{tls}/server.key"}}
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [pair], "alpn_protocols": ["h2"]}}}
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", folder / "server.key", "-out", folder / "server.pem", "-days", "2",
                    "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"], check=True, capture_output=True)
