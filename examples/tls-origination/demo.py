#!/usr/bin/env python3
"""TLS origination: `curl http://edition.cnn.com` before and after three resources.

Needs no root. `--sidecar envoy` puts a real Envoy beside the application. Before, the site answers
with a redirect, and the path goes out in clear text; afterwards the same command gets the page.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from onebox import table  # noqa: E402
from onebox.scene import Scene, can_connect  # noqa: E402
from onebox.table import Row  # noqa: E402

SLEEP = "default/sleep"
URL = "http://edition.cnn.com/politics"


class SiteScene(Scene):
    def __init__(self, options):
        super().__init__(options.bin_dir, {SLEEP: options.sidecar}, options.keep)

    def set(self):
        subprocess.run([HERE / "setup.sh", self.dir / "site"], check=True)
        shutil.copytree(HERE / "machine", self.manifests / "machine")
        path = self.manifests / "machine/machine.yaml"
        text = path.read_text().replace("127.0.0.", f"{self.net}.")
        path.write_text(text.replace("sluis.dev/proxy: sluis ", f"sluis.dev/proxy: {self.engines[SLEEP]} "))
        self.apply("before")
        address = f"{self.net}.9"
        self.step(f"start the site at {address}")
        self.start("site", [sys.executable, HERE / "site.py", address, self.dir / "site"], {}, self.dir / "site.log")
        self.wait("the site to listen", lambda: can_connect(address, 8443) and can_connect(address, 8080))
        self.start_all()

    def apply(self, folder):
        """Puts the files of a folder in the place of those of the other."""
        files = sorted((HERE / folder).glob("*.yaml"))
        text = "---\n".join(file.read_text() for file in files).replace("127.0.0.", f"{self.net}.")
        new = self.manifests / "site.yaml.new"
        new.write_text(text)
        new.rename(self.manifests / "site.yaml")

    def envoy_environment(self, workload):
        return {"SSL_CERT_FILE": str(self.dir / "site/ca.pem")}

    def curl(self, *options):
        """What the article runs: every answer's first line, and its length."""
        command = ["curl", "-s", "-o", "/dev/null", "-D", "-", "--max-time", "10",
                   "--cacert", self.dir / "site/ca.pem", *options, URL]
        told = self.exec(SLEEP, *command)
        return [line for line in told.stdout.splitlines() if line.startswith("HTTP/")] + told.stderr.splitlines()

    def site_log(self):
        return (self.dir / "site.log").read_text().split("\n")[1:-1]

    def originate(self):
        self.step("put the article's three resources in the place of the first ones")
        self.apply("istio")
        self.wait("the sidecar to originate TLS", lambda: [line[:12] for line in self.curl()] == ["HTTP/1.1 200"])


def demonstrate(options):
    with SiteScene(options) as scene:
        before = scene.curl()
        rows = [Row("before: curl", [line[:12] for line in before] == ["HTTP/1.1 301"], ", ".join(before))]
        followed = scene.curl("-L")
        rows.append(Row("before: curl -L", [line.split()[1] for line in followed] == ["301", "200"], ", ".join(followed)))
        log = scene.site_log()
        rows.append(Row("before: the site saw", log == ["http /politics", "http /politics", "https /politics"], ", ".join(log)))
        scene.originate()
        seen = len(scene.site_log())
        after = scene.curl("-L")
        rows.append(Row("after: curl -L", [line[:12] for line in after] == ["HTTP/1.1 200"], ", ".join(after)))
        log = scene.site_log()[seen:]
        rows.append(Row("after: the site saw", log == ["https /politics"], ", ".join(log)))
    return rows


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
