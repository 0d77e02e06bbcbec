#!/usr/bin/env python3
"""The scenario end to end: with our proxy and with real Envoy in each place, edited and killed.

`run.py --bin-dir DIR [unittest arguments]`, for example `run.py --bin-dir target/debug -k kill`.
SLUIS_E2E_LONG=1 renews certificates of 60 seconds for three minutes, instead of shorter ones.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "examples/credential-egress"))

from stage import checks  # noqa: E402
from stage.scene import GATEWAY, NOTEBOOK, Scene, python  # noqa: E402

LOAD = pathlib.Path(__file__).resolve().parent / "load.py"
LOAD_WITHIN = 60  # seconds for the load's last request
PROGRAMS = ROOT / "target/debug"
LONG = os.environ.get("SLUIS_E2E_LONG") == "1"


class Load:
    """A client in the jail that asks all the time; tells at the end what failed."""

    def __init__(self, scene):
        command = [scene.sluis, "exec", NOTEBOOK, "--", python(), LOAD]
        self.process = subprocess.Popen(
            command, cwd=scene.dir, env=scene.jail_environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.report = None

    def __enter__(self):
        assert self.process.stdout.readline() == "started\n"
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.report is None:
            output, _ = self.process.communicate(timeout=LOAD_WITHIN)
            self.report = json.loads(output)
        return self.report


class TheScenario(unittest.TestCase):
    """Every check of the demo, for each pair of proxies."""

    def check(self, sidecar, gateway):
        with Scene(PROGRAMS, sidecar, gateway) as scene:
            rows = checks.run(scene)
        rows.append(checks.nothing_left(scene))
        for row in rows:
            with self.subTest(row.tried):
                self.assertTrue(row.is_good, row.seen)

    def test_holds_with_our_proxies(self):
        self.check("sluis", "sluis")

    def test_holds_with_envoy_as_sidecar(self):
        self.check("envoy", "sluis")

    def test_holds_with_envoy_as_gateway(self):
        self.check("sluis", "envoy")

    def test_holds_with_envoy_in_both_places(self):
        self.check("envoy", "envoy")


class OneMesh(unittest.TestCase):
    """What one running mesh endures."""

    up_options = ()

    @classmethod
    def setUpClass(cls):
        cls.scene = cls.enterClassContext(Scene(PROGRAMS, up=cls.up_options))

    def proxy(self, name):
        """The status of one proxy."""
        for proxy in (self.scene.status() or {"proxies": []})["proxies"]:
            if f"{proxy['namespace']}/{proxy['name']}" == name:
                return proxy
        return None

    def answers(self):
        """Whether a client is served now."""
        return self.scene.client(f"https://api.data.local/graphql?{time.time_ns()}").returncode == 0

    def wait_in_sync(self):
        self.scene.wait("every proxy to be in sync", lambda: self.scene.in_sync())

    def assert_no_failure(self, report, requests):
        self.assertEqual(report["failures"], [])
        self.assertGreater(report["done"], requests, "the load was too small to prove anything")


class WhileFilesChange(OneMesh):
    """Edits reach the proxies within moments, and no request notices."""

    def knows(self, host):
        script = f"import socket; socket.getaddrinfo({host!r}, 443)"
        return self.scene.in_jail(python(), "-c", script).returncode == 0

    def faults(self):
        return "\n".join((self.scene.status() or {"faults": []})["faults"])

    def test_an_edit_a_fault_and_its_repair_fail_no_request(self):
        path = self.scene.manifests / "istio/service-entry.yaml"
        before = path.read_text()
        self.addCleanup(path.write_text, before)
        self.assertFalse(self.knows("second.data.local"))
        with Load(self.scene) as load:
            path.write_text(before.replace("- api.data.local", "- api.data.local\n    - second.data.local"))
            self.scene.wait("the new host", lambda: self.knows("second.data.local"))

            path.write_text(before.replace("location: MESH_EXTERNAL", "locatoin: MESH_EXTERNAL"))
            line = before.splitlines().index("  location: MESH_EXTERNAL") + 1
            self.scene.wait("the fault", lambda: f"service-entry.yaml:{line}:" in self.faults())
            self.assertIn("locatoin", self.faults())
            self.assertTrue(self.knows("second.data.local"), "the last good state is kept")

            path.write_text(before)
            self.scene.wait("the repair", lambda: not self.faults())
            self.scene.wait("the old state", lambda: not self.knows("second.data.local"))
        self.assert_no_failure(load.end(), 20)

    def test_a_new_keypair_is_served_without_a_failed_request(self):
        certs = self.scene.dir / "egress-certs"
        with Load(self.scene) as load:
            old = served_certificate()
            again = self.scene.dir / "again"
            script = ROOT / "examples/credential-egress/setup.sh"
            subprocess.run([script, again], check=True)
            # The new certificate is from another CA; the client trusts both.
            trust = self.scene.dir / "client/ca.crt"
            trust.write_text(trust.read_text() + (again / "client/ca.crt").read_text())
            for name in ("tls.key", "tls.crt"):
                os.replace(again / "egress-certs" / name, certs / name)
            self.scene.wait("the new certificate", lambda: served_certificate() != old)
        self.assert_no_failure(load.end(), 10)


class WhenKilled(OneMesh):
    """kill -9 of each part, under load."""

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)

    def check_proxy(self, name):
        with Load(self.scene) as load:
            self.scene.wait("a first answer", self.answers)
            killed = self.proxy(name)["pid"]
            at = time.time()
            self.kill(killed)
            self.scene.wait(
                "another process", lambda: (self.proxy(name) or {}).get("pid") not in (None, killed))
            self.wait_in_sync()
            self.scene.wait("an answer", self.answers)
            recovered = time.time()
        report = load.end()
        late = [failure for failure in report["failures"] if not at - 30 < failure[0] < recovered]
        self.assertEqual(late, [], "requests failed outside the outage")
        self.assertLess(recovered - at, 10, "recovery took too long")

    def test_a_killed_gateway_comes_back(self):
        self.check_proxy(GATEWAY)

    def test_a_killed_sidecar_comes_back_and_its_jail_goes_on(self):
        self.check_proxy(NOTEBOOK)

    def test_without_the_control_plane_requests_go_on_and_its_return_is_not_noticed(self):
        pids = {name: self.proxy(name)["pid"] for name in (GATEWAY, NOTEBOOK)}
        with Load(self.scene) as load:
            self.scene.processes["up"].kill()
            self.scene.processes.pop("up").wait()
            time.sleep(2)  # the load goes on without it
            self.scene.start_mesh(self.scene.control)
            self.wait_in_sync()
        self.assert_no_failure(load.end(), 20)
        self.assertEqual(pids, {name: self.proxy(name)["pid"] for name in pids}, "adopted, not replaced")


class WhenCertificatesAreShort(OneMesh):
    """Certificates are renewed at half life, and no connection notices."""

    life, run = (60, 180) if LONG else (12, 20)
    up_options = ("--certificate-life", f"{life}s")

    def ends(self):
        return [self.proxy(name)["certificate_ends"] for name in (GATEWAY, NOTEBOOK)]

    def test_renewal_fails_no_request(self):
        first = self.ends()
        with Load(self.scene) as load:
            time.sleep(self.run)  # longer than the first certificates live
        self.assert_no_failure(load.end(), 100)
        for old, new in zip(first, self.ends(), strict=True):
            self.assertNotEqual(old, new)


def served_certificate():
    """What the gateway shows for api.data.local."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.closing(socket.create_connection(("127.0.0.2", 8443), 5)) as stream:
        with context.wrap_socket(stream, server_hostname="api.data.local") as wrapped:
            return wrapped.getpeercert(binary_form=True)


if __name__ == "__main__":
    if "--bin-dir" in sys.argv:
        at = sys.argv.index("--bin-dir")
        PROGRAMS = pathlib.Path(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    unittest.main(verbosity=2)
