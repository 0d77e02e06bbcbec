#!/usr/bin/env python3
"""What a user's token costs a request: sluis-proxy beside Envoy, without a token filter, with each
token verified, and with verified tokens remembered.

The token is RS256 with a key of 2,048 bits. The proxy answers itself; it has one worker on one core,
wrk the other; the runs alternate. CPU is the proxy's own, per answered request.
"""

import argparse
import base64
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from gateway import HERE, ROOT, cpu_seconds, envoy, fetch, free_port, ours, pinned, stop

READY_WITHIN = 20  # seconds
CONFIG = """
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          http_filters:
          {filter}
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
FILTER = """
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                me:
                  issuer: me.test
                  payload_in_metadata: payload
                  local_jwks: {{inline_string: '{keys}'}}
                  jwt_cache_config: {{jwt_cache_size: 100, jwt_max_token_size: {longest}}}
              rules:
              - match: {{prefix: /api}}
                requires: {{provider_name: me}}
"""
LONGEST = {"without": None, "verified": 1, "remembered": 4096}  # of a token that is remembered, in bytes


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_and_token(folder):
    """A key set, and a token by its key."""
    def openssl(*arguments, data=b""):
        return subprocess.run(["openssl", *arguments], cwd=folder, input=data, check=True, capture_output=True).stdout
    openssl("genrsa", "-out", "key.pem", "2048")
    modulus = openssl("rsa", "-in", "key.pem", "-noout", "-modulus").decode().strip().split("=")[1]
    keys = {"keys": [{"kty": "RSA", "alg": "RS256", "n": url64(bytes.fromhex(modulus)), "e": "AQAB"}]}
    claims = {"iss": "me.test", "sub": "you", "exp": int(time.time()) + 36000, "groups": ["a", "b"]}
    signed = ".".join(url64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return json.dumps(keys), f"{signed}.{url64(openssl('dgst', '-sha256', '-sign', 'key.pem', data=signed.encode()))}"


def start(name, options, folder, port, text):
    path = folder / "config.yaml"
    path.write_text(text)
    command = envoy(options, path) if name == "envoy" else ours(options, path)
    with open(folder / "output.log", "ab") as log:
        process = subprocess.Popen(pinned(options.proxy_core, command), stdout=log, stderr=log)
    deadline = time.monotonic() + READY_WITHIN
    while fetch(port) != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{name} is not ready\n{(folder / 'output.log').read_text()[-2000:]}")
        time.sleep(0.01)
    return process


def ask(port, token):
    """The status of one request with a token, and of one without."""
    def status(header):
        with socket.create_connection(("127.0.0.1", port), 5) as stream:
            stream.sendall(f"GET /api HTTP/1.1\r\nHost: bench.local\r\n{header}Connection: close\r\n\r\n".encode())
            return int(stream.recv(64).split(b" ")[1])
    return status(f"Authorization: Bearer {token}\r\n"), status("")


def measure(name, how, options, folder, keys, token):
    port = free_port()
    text = FILTER.format(keys=keys, longest=LONGEST[how]) if LONGEST[how] else ""
    process = start(name, options, folder, port, CONFIG.format(port=port, filter=text.strip()))
    try:
        wanted = (200, 401 if text else 200)
        if ask(port, token) != wanted:
            sys.exit(f"{name}, {how}: not {wanted}")
        command = ["wrk", "-t1", "-c16", f"-d{options.seconds}s", "-s", str(HERE / "report.lua"),
                   "-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}/api"]
        before = cpu_seconds(process.pid)
        out = subprocess.run(pinned(options.client_core, command), capture_output=True, text=True, check=True).stdout
        result = json.loads(out.split("RESULT ", 1)[1].splitlines()[0])
        if result["errors"]:
            sys.exit(f"{name}, {how}: {result['errors']} errors")
        return (cpu_seconds(process.pid) - before) * 1e6 / result["requests"]
    finally:
        stop(process)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target/release"
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", str(release / "sluis")))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", str(release / "sluis-proxy")))
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", str(ROOT / "target/envoy/bin/envoy")))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="sluis-bench-") as folder:
        keys, token = key_and_token(pathlib.Path(folder))
        for _ in range(options.runs):
            for how in LONGEST:
                for name in ("sluis", "envoy"):
                    value = measure(name, how, options, pathlib.Path(folder), keys, token)
                    found.setdefault((how, name), []).append(value)
    print(f"\nCPU us/request, medians of {options.runs} runs of {options.seconds} s")
    print(f"{'tokens':12} {'sluis-proxy':>12} {'Envoy':>8} {'ours / it':>10}")
    for how in LONGEST:
        ours, its = (statistics.median(found[how, name]) for name in ("sluis", "envoy"))
        print(f"{how:12} {ours:12.1f} {its:8.1f} {ours / its:10.2f}")


if __name__ == "__main__":
    main()
