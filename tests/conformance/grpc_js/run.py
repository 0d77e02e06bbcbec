#!/usr/bin/env python3
"""A gRPC library as its own proxy takes its routes and endpoints from the control plane.

Starts `sluis control-plane`, three echo servers and a client of @grpc/grpc-js-xds. Exits 0 when a
call follows a VirtualService's header match, and when an endpoint that was changed is followed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
HOST, PORT = "echo.example.com", 7070
WITHIN = 20  # seconds; a change takes well under one

MESH = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [{host}]
  ports: [{{number: {port}, name: grpc, protocol: GRPC}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, ports: {{grpc: {one}}}, labels: {{version: v1}}}}
  - {{address: 127.0.0.1, ports: {{grpc: {two}}}, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: shop}}
spec:
  host: {host}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [{host}]
  http:
  - match: [{{headers: {{x-version: {{exact: v2}}}}}}]
    route: [{{destination: {{host: {host}, subset: v2}}}}]
  - route: [{{destination: {{host: {host}, subset: v1}}}}]
"""


def install(target):
    """The modules of package-lock.json, below target/; nothing is fetched when they are there."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = target / f"grpc_js-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "installed").touch()
    for name in ("servers.js", "client.js"):
        shutil.copy(HERE / name, folder)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen([str(word) for word in command], text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write(path, **values):
    """Whole or not at all: the control plane reads when it likes."""
    new = path.with_suffix(".new")
    new.write_text(MESH.format(host=HOST, port=PORT, **values))
    new.rename(path)


def listening(port):
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


class Client:
    def __init__(self, process):
        self.process = process

    def call(self, **metadata):
        self.process.stdin.write(json.dumps(metadata) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def bootstrap(port):
    return {
        "xds_servers": [{
            "server_uri": f"127.0.0.1:{port}",
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": "sidecar~127.0.0.1~client.shop~shop.svc.cluster.local",
            "cluster": "client.shop",
            "locality": {"region": "here"},
            "metadata": {"GENERATOR": "grpc", "NAMESPACE": "shop"},
        },
    }


def run(sluis, target):
    modules = install(target)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluis-")))
        command = ["node", modules / "servers.js", "one", "two", "three"]
        servers = stack.enter_context(running(command, stdout=subprocess.PIPE))
        ports = json.loads(servers.stdout.readline())
        mesh = folder / "mesh"
        mesh.mkdir()
        write(mesh / "mesh.yaml", one=ports["one"], two=ports["two"])
        port = free_port()
        command = [sluis, "control-plane", "-f", mesh, "--state-dir", folder / "state",
                   "--xds", "127.0.0.1:0", "--plaintext-xds", f"127.0.0.1:{port}", "--debug", "127.0.0.1:0"]
        stack.enter_context(running(command, stdout=sys.stderr))
        listening(port)
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap(port)))
        environment = dict(os.environ, GRPC_XDS_BOOTSTRAP=str(folder / "bootstrap.json"))
        command = ["node", modules / "client.js", f"xds:///{HOST}:{PORT}"]
        client = Client(stack.enter_context(running(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)))

        for _ in range(5):
            told = client.call()
            expect(told == {"from": "one"}, f"without a header: {told}")
            told = client.call(**{"x-version": "v2"})
            expect(told == {"from": "two"}, f"with x-version: v2: {told}")
        print("calls follow the VirtualService's header match")

        write(mesh / "mesh.yaml", one=ports["three"], two=ports["two"])
        deadline = time.monotonic() + WITHIN
        told = client.call()
        while told != {"from": "three"}:
            expect("error" not in told, f"while the endpoint changes: {told}")
            expect(time.monotonic() < deadline, f"the endpoint's change is not followed: {told}")
            time.sleep(0.1)
            told = client.call()
        told = client.call(**{"x-version": "v2"})
        expect(told == {"from": "two"}, f"the other route: {told}")
        print("a changed endpoint is followed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default=ROOT / "target/debug")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target",
                        help="where the Node modules are installed")
    options = parser.parse_args()
    try:
        run(options.bin_dir / "sluis", options.target.resolve())
    except AssertionError as error:
        print(f"grpc_js: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
