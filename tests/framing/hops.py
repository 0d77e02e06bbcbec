"""The proxies under test, each told the same: forward what comes in at one address to another.

In:    pairs of addresses (lanes); each has an origin of its own, so that what arrives there is of one case.
Out:   running proxies.
Never: normalises, rewrites or retries: what is compared is how each reads bytes.
"""

import json
import socket
import subprocess
import time

TYPE = "type.googleapis.com/envoy.extensions."
PORT = 8080
PATIENCE = "1s"  # how long each proxy waits for bytes that do not come
STARTS_WITHIN = 20  # seconds


class HopError(Exception):
    """A proxy did not start."""


def bootstrap(engine, lanes):
    listeners, clusters = [], []
    for number, (front, back) in enumerate(lanes):
        name = f"lane{number}"
        manager = {
            "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "lane", "codec_type": "HTTP1", "use_remote_address": True,
            "request_headers_timeout": PATIENCE, "stream_idle_timeout": PATIENCE,
            "common_http_protocol_options": {"idle_timeout": PATIENCE},
            "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old"},
            "route_config": {"name": name, "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "5s"}}]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": TYPE + "filters.http.router.v3.Router"}}]}
        if engine == "envoy":
            manager["delayed_close_timeout"] = "0.1s"
        address = lambda pair: {"socket_address": {"address": pair[0], "port_value": pair[1]}}
        listeners.append({"name": name, "address": address(front), "filter_chains": [
            {"filters": [{"name": "http", "typed_config": manager}]}]})
        clusters.append({
            "name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}]}})
    return {"node": {"id": "framing", "cluster": "framing"},
            "static_resources": {"listeners": listeners, "clusters": clusters}}


def nginx(folder, lanes):
    servers = "".join(f"""
  upstream lane{n} {{ server {back[0]}:{back[1]}; keepalive 4; }}
  server {{ listen {front[0]}:{front[1]};
    location / {{ proxy_pass http://lane{n}; }} }}""" for n, (front, back) in enumerate(lanes))
    return f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
  lingering_close off; proxy_request_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_set_header Host $host; proxy_next_upstream off; proxy_read_timeout 5s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;{servers}
}}
"""


def haproxy(_, lanes):
    parts = "".join(f"""
frontend in{n}
  bind {front[0]}:{front[1]}
  default_backend lane{n}
backend lane{n}
  server origin {back[0]}:{back[1]}
""" for n, (front, back) in enumerate(lanes))
    return f"""global
  nbthread 1
  maxconn 2000
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 2s
  timeout client 1s
  timeout http-request 1s
  timeout http-keep-alive 1s
  timeout server 5s
{parts}"""


def command(name, lanes, folder, options):
    if name in ("sluis", "envoy"):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(bootstrap(name, lanes)))
        if name == "envoy":
            return [options.envoy, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "off"]
        compiled = folder / "sluis.pb"
        with open(compiled, "wb") as out:
            subprocess.run([options.sluis, "proxy", "bootstrap", "--compile", path], stdout=out, check=True)
        return [options.sluis_proxy, "run", "--bootstrap", compiled, "--workers", "1"]
    if name == "hyper":
        return [options.hyper, *(f"{a}:{p}={b}:{q}" for (a, p), (b, q) in lanes)]
    path = folder / f"{name}.conf"
    path.write_text({"nginx": nginx, "haproxy": haproxy}[name](folder, lanes))
    return [options.nginx, "-p", folder, "-c", path] if name == "nginx" else [options.haproxy, "-db", "-f", path]


class Hop:
    """One running proxy."""

    def __init__(self, name, lanes, folder, options):
        self.name, self.lanes = name, lanes
        self.log = folder / f"{name}.out"
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command(name, lanes, folder, options)], stdout=out, stderr=out)

    def wait(self):
        by = time.monotonic() + STARTS_WITHIN
        for front, _ in self.lanes:
            while True:
                try:
                    socket.create_connection(front, timeout=1).close()
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > by:
                        said = self.log.read_text(errors="replace")[-2000:]
                        raise HopError(f"{self.name} does not listen:\n{said}") from None
                    time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
