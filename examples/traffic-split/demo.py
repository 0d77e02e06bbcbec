#!/usr/bin/env python3
"""An ingress gateway that sends 80 % of all requests to one version and 20 % to the other.

Needs no root. `--gateway envoy` puts a real Envoy in that place. 10,000 requests are counted.
"""

import collections
import http.client
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from onebox import table  # noqa: E402
from onebox.scene import Scene, can_connect  # noqa: E402
from onebox.table import Row  # noqa: E402

GATEWAY = "istio-system/ingressgateway"
REQUESTS = 10_000
# Four standard deviations of a share of 0.8 among so many: one run in 16,000 is outside.
TOLERANCE = 0.016


class WebScene(Scene):
    def __init__(self, options):
        super().__init__(options.bin_dir, {GATEWAY: options.gateway}, options.keep)

    def set(self):
        for part in ("istio", "machine"):
            shutil.copytree(HERE / part, self.manifests / part)
        path = self.manifests / "machine/machine.yaml"
        text = path.read_text().replace("127.0.0.", f"{self.net}.")
        path.write_text(text.replace("sluis.dev/proxy: sluis ", f"sluis.dev/proxy: {self.engines[GATEWAY]} "))
        for version, number in (("v1", 11), ("v2", 12)):
            address = f"{self.net}.{number}"
            self.start(version, [sys.executable, HERE / "webapp.py", address, version], {}, self.dir / f"{version}.log")
            self.wait(f"{version} to listen", lambda address=address: can_connect(address, 8080))
        self.start_all()

    def listens_at(self):
        return [(f"{self.net}.2", 8080)]


def demonstrate(options):
    counts = collections.Counter()
    with WebScene(options) as scene:
        scene.step(f"send {REQUESTS} requests")
        connection = http.client.HTTPConnection(f"{scene.net}.2", 8080, timeout=10)
        for _ in range(REQUESTS):
            connection.request("GET", "/")
            answer = connection.getresponse()
            counts[answer.status, answer.read().decode().strip()] += 1
    rows = []
    for version, share in (("v1", 0.8), ("v2", 0.2)):
        seen = counts[200, f"version {version}"] / REQUESTS
        rows.append(Row(f"share of {version}", abs(seen - share) <= TOLERANCE, f"{seen:.4f} of {REQUESTS} (configured: {share})"))
    failed = REQUESTS - sum(count for (status, _), count in counts.items() if status == 200)
    return [*rows, Row("failed requests", failed == 0, str(failed))]


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
