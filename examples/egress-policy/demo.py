#!/usr/bin/env python3
"""Who may go out where: a policy on each external host, held at the sidecar and at the gateway.

Needs no root. `--sidecar envoy` and `--gateway envoy` put a real Envoy in that place.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from onebox import table  # noqa: E402
from onebox.scene import Scene, SceneError, can_connect, python  # noqa: E402
from onebox.table import Row, one_line  # noqa: E402

GATEWAY = "istio-system/egressgateway"
A, B = "team/a", "team/b"
DENIED = "rbac_access_denied_matched_policy[none]"
# Knows addresses and names, and nothing of the mesh. `tls` asks for a server name, `tcp` does not.
CLIENT = """
import socket, ssl, sys
kind, address, port, name, ca, text = sys.argv[1:]
try:
    stream = socket.create_connection((address, int(port)), 10)
    if kind == "tls":
        stream = ssl.create_default_context(cafile=ca).wrap_socket(stream, server_hostname=name)
    stream.sendall(text.encode() + b"\\n")
    answer = stream.makefile().readline()
    print(answer.strip() if answer else "closed without an answer")
except OSError as error:
    print("refused:", error)
"""


class PolicyScene(Scene):
    # Without the policies on hosts the sidecars let everything through: the gateway stands alone.
    guards = True

    def __init__(self, options, guards=True):
        sidecars = dict.fromkeys((A, B), options.sidecar)
        self.guards = guards
        super().__init__(options.bin_dir, {GATEWAY: options.gateway, **sidecars}, options.keep)

    def set(self):
        for part in ("istio", "machine"):
            shutil.copytree(HERE / part, self.manifests / part)
        for path in self.manifests.glob("*/*.yaml"):
            text = path.read_text().replace("127.0.0.", f"{self.net}.")
            if path.name == "services.yaml" and not self.guards:
                documents = text.split("\n---\n")
                text = "\n---\n".join(one for one in documents if "kind: AuthorizationPolicy" not in one)
            engine = self.engines[GATEWAY if path.name == "gateway.yaml" else A]
            path.write_text(text.replace("sluis.dev/proxy: sluis ", f"sluis.dev/proxy: {engine} "))
        self.keys = self.dir / "keys"
        subprocess.run(["sh", HERE / "setup.sh", self.keys], check=True)
        self.keys.chmod(0o755)
        self.outside = f"{self.net}.9"
        self.step(f"start what lies outside at {self.outside}")
        command = [sys.executable, HERE / "site.py", self.outside, self.keys / "site.pem", self.keys / "site.key"]
        self.start("site", command, {}, self.dir / "site.log")
        self.wait("the site to listen", lambda: all(can_connect(self.outside, p) for p in (8443, 27017)))
        self.start_all()

    def listens_at(self):
        return [(f"{self.net}.2", 8443)]

    def line(self, workload, *wanted):
        """The first line of a proxy's log with all of these; the log's end without one."""
        found = []

        def look():
            found[:] = [line for line in self.log(workload).splitlines() if all(part in line for part in wanted)]
            return found
        try:
            self.wait(f"the log of {workload} to tell of {wanted}", look)
        except SceneError:
            return False, self.log(workload)[-500:]
        return True, one_line(found[0], 200)

    def tls(self, workload, name, text):
        return self.ask(workload, "tls", "192.0.2.80", 443, name, text)

    def tcp(self, workload, text, address="192.0.2.27", port=27017):
        return self.ask(workload, "tcp", address, port, "-", text)

    def ask(self, workload, *question):
        *question, text = map(str, question)
        return self.exec(workload, python(), "-c", CLIENT, *question, str(self.keys / "ca.pem"), text).stdout.strip()


def is_refused(answer):
    return answer.startswith(("refused:", "closed"))


def demonstrate(options):
    rows = both_hands(options)
    rows += gateway_alone(options)
    return rows


def both_hands(options):
    """Sidecar and gateway hold to the policies."""
    rows = []
    with PolicyScene(options) as scene:
        for name in ("www.ibm.com", "cloud.ibm.com"):
            answer = scene.tls(A, name, f"A to {name}")
            rows.append(Row(f"A asks {name}", answer == f"ibm: A to {name}", answer))
        answer = scene.tcp(B, "B to mongo")
        rows.append(Row("B asks mongo1.composedb.com", answer == "mongo: B to mongo", answer))
        for tried, answer in (
            ("B asks www.ibm.com", scene.tls(B, "www.ibm.com", "forbidden")),
            ("A asks mongo1.composedb.com", scene.tcp(A, "forbidden")),
            ("A asks www.example.com", scene.tls(A, "www.example.com", "forbidden")),
            ("A asks ibm.com.evil.example", scene.tls(A, "ibm.com.evil.example", "forbidden")),
            ("B asks another port", scene.tcp(B, "forbidden", port=27018)),
            ("B asks another address", scene.tcp(B, "forbidden", address="192.0.2.28")),
        ):
            rows.append(Row(tried, is_refused(answer), answer))
        log = (scene.dir / "site.log").read_text()
        rows.append(Row("outside nothing of that was heard", "forbidden" not in log, f"{len(log.splitlines())} lines"))
        for name in scene.engines:
            # Envoy writes what is left of its log as it ends.
            scene.stop(name)
        for workload in (A, B):
            rows.append(Row(f"the sidecar of {workload} refused, and its log says why",
                            *scene.line(workload, DENIED)))
        for workload, name in (("a", "www.ibm.com"), ("b", "mongo1.composedb.com")):
            wanted = f"from=spiffe://cluster.local/ns/team/sa/application-{workload} sni={name}"
            rows.append(Row(f"the gateway knows {workload} by its certificate", *scene.line(GATEWAY, wanted)))
        trial = "trial=ns[istio-system]-policy[no-databases]-rule[0]"
        for workload in (B, GATEWAY):
            rows.append(Row(f"the log of {workload} tells what the rule on trial would refuse",
                            *scene.line(workload, "mongo", trial)))
    return rows


def gateway_alone(options):
    """The sidecars let everything through, as one that was taken over would: the gateway does not."""
    rows = []
    with PolicyScene(options, guards=False) as scene:
        answer = scene.tls(A, "www.ibm.com", "A to ibm")
        rows.append(Row("gateway alone: A asks www.ibm.com", answer == "ibm: A to ibm", answer))
        answer = scene.tcp(B, "B to mongo")
        rows.append(Row("gateway alone: B asks mongo1.composedb.com", answer == "mongo: B to mongo", answer))
        for tried, answer in (
            ("gateway alone: B asks www.ibm.com", scene.tls(B, "www.ibm.com", "forbidden")),
            ("gateway alone: A asks mongo1.composedb.com", scene.tcp(A, "forbidden")),
        ):
            rows.append(Row(tried, is_refused(answer), answer))
        log = (scene.dir / "site.log").read_text()
        rows.append(Row("outside nothing of that was heard", "forbidden" not in log, f"{len(log.splitlines())} lines"))
        for name in scene.engines:
            scene.stop(name)
        for workload in "ab":
            wanted = f"from=spiffe://cluster.local/ns/team/sa/application-{workload} "
            rows.append(Row(f"the gateway refused {workload}, and its log says so",
                            *scene.line(GATEWAY, wanted, DENIED)))
    return rows


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
