#!/usr/bin/env python3
"""Raw TCP to a hardware security module, through the egress gateway, for labelled workloads only.

Needs no root. `--sidecar envoy` and `--gateway envoy` put a real Envoy in that place.
"""

import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from onebox import table  # noqa: E402
from onebox.scene import Scene, can_connect, python  # noqa: E402
from onebox.table import Row, one_line  # noqa: E402

GATEWAY = "istio-system/egressgateway"
LABELLED, OTHER_NAMESPACE = ("proxy-node/esp", "verify-metadata/signer"), "billing/reports"
UNLABELLED = "proxy-node/frontend"
PORTS = (2223, 2224, 2225)
# A client of the HSM: knows its address and nothing else.
CLIENT = """
import socket, sys
port, text = int(sys.argv[1]), sys.argv[2]
try:
    with socket.create_connection(("192.0.2.23", port), 10) as stream:
        stream.sendall(text.encode() + b"\\n")
        answer = stream.makefile().readline()
        print(answer.strip() if answer else "closed without an answer")
except OSError as error:
    print("refused:", error)
"""


class HsmScene(Scene):
    def __init__(self, options):
        sidecars = dict.fromkeys((*LABELLED, UNLABELLED, OTHER_NAMESPACE), options.sidecar)
        super().__init__(options.bin_dir, {GATEWAY: options.gateway, **sidecars}, options.keep)

    def set(self):
        for part in ("istio", "machine"):
            shutil.copytree(HERE / part, self.manifests / part)
        for path in self.manifests.glob("*/*.yaml"):
            text = path.read_text().replace("127.0.0.", f"{self.net}.")
            engine = self.engines[GATEWAY if path.name == "gateway.yaml" else UNLABELLED]
            path.write_text(text.replace("sluis.dev/proxy: sluis ", f"sluis.dev/proxy: {engine} "))
        hsm = f"{self.net}.9"
        self.step(f"start the HSM at {hsm}, ports {PORTS}")
        self.start("hsm", [sys.executable, HERE / "hsm.py", hsm], {}, self.dir / "hsm.log")
        self.wait("the HSM to listen", lambda: all(can_connect(hsm, port) for port in PORTS))
        self.start_all()

    def listens_at(self):
        return [(f"{self.net}.2", 8443)]

    def ask(self, workload, port, text):
        return self.exec(workload, python(), "-c", CLIENT, str(port), text).stdout.strip()


def demonstrate(options):
    rows = []
    with HsmScene(options) as scene:
        for workload in LABELLED:
            for port in PORTS:
                text = f"sign for {workload}"
                answer = scene.ask(workload, port, text)
                rows.append(Row(f"{workload} asks port {port}", answer == f"HSM {port}: {text}", answer))
        for workload in (UNLABELLED, OTHER_NAMESPACE):
            answer = scene.ask(workload, 2223, "let me in")
            is_good = answer.startswith(("refused:", "closed"))
            rows.append(Row(f"{workload} asks port 2223", is_good, answer))
        log = (scene.dir / "hsm.log").read_text()
        rows.append(Row("the HSM's log has none of those two", "let me in" not in log, f"{len(log.splitlines())} lines"))
        for name in scene.engines:
            # Envoy writes what is left of its log as it ends.
            scene.stop(name)
        rows += gateway_says(scene)
    return rows


def gateway_says(scene):
    """Each identity in the gateway's log, which only mutual TLS can have told."""
    log = scene.log(GATEWAY)
    for workload in LABELLED:
        namespace, name = workload.split("/")
        wanted = f"from=spiffe://cluster.local/ns/{namespace}/sa/{name} sni=cloudhsm-2223.tcp.svc"
        lines = [line for line in log.splitlines() if wanted in line]
        is_good = bool(lines) and "to=outbound|2223||cloudhsm-2223.tcp.svc" in lines[0] and "tls=TLSv1.3" in lines[0]
        yield Row(f"the gateway's log knows {workload}", is_good, one_line(lines[0] if lines else log[-500:], 200))


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
