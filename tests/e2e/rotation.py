#!/usr/bin/env python3
"""The root is changed, and the authority killed and started again, under load; no request fails.

`rotation.py --bin-dir DIR [--only NAME] [--requests N]`: two proxies under the mesh's mutual TLS, ours on both sides and then
a real Envoy as the gateway; a client in the jail of the sidecar (wrk) keeps asking. The connections
between the proxies end after REQUESTS_EACH requests, so that handshakes happen throughout. openssl
judges the chain that the gateway shows in each phase.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import renewals
from mesh import GATEWAY, HERE, NOTEBOOK, ROOT, Failed, Mesh, expect, wait_until

LIFE = 40  # seconds
REQUESTS = 100_000  # that must be answered, at least, by our own proxies
REQUESTS_ENVOY = 20_000  # and by a real Envoy: once
LOAD = 110  # seconds of load; wrk ends by itself
LOAD_ENVOY = 60
CONNECTIONS = 16
REQUESTS_EACH = 200  # on one connection between the proxies
MUTUAL_PORT = 8444

# The gateway answers by itself: what is measured is the way to it.
MESH = renewals.MUTUAL.replace("""      route:
        - destination: {host: plain.data.local, port: {number: 80}}
""", """      directResponse: {status: 200, body: {string: well}}
""").replace("            loadBalancer: {simple: ROUND_ROBIN}\n",
             "            loadBalancer: {simple: ROUND_ROBIN}\n"
             f"            connectionPool: {{http: {{maxRequestsPerConnection: {REQUESTS_EACH}}}}}\n")


def ca(mesh, *arguments):
    """The output of `sluis ca`."""
    shown = mesh.run([mesh.sluis, "ca", *arguments])
    expect(shown.returncode == 0, f"sluis ca {' '.join(map(str, arguments))}: {shown.stderr or shown.stdout}")
    return shown.stdout


def status(mesh):
    return json.loads(ca(mesh, "status", "-o", "json"))


def add_way(mesh):
    path = mesh.manifests / "machine/egress-gateway.yaml"
    text = path.read_text()
    expect(text.count(renewals.SERVICE_PORT[0]) == 1, "the example's Service has changed")
    path.write_text(text.replace(*renewals.SERVICE_PORT))
    (mesh.manifests / "machine/mutual.yaml").write_text(MESH.replace("NET", mesh.net))
    wait_until("the way", lambda: str(MUTUAL_PORT) in mesh.show("listeners", GATEWAY, "table") or mesh.faults())
    expect(not mesh.faults(), mesh.faults())
    mesh.wait("every proxy to be in sync", mesh.in_sync)


def openssl_verifies(mesh):
    """The chain that the gateway shows now, by openssl and the bundle of now; gives its issuer."""
    roots = mesh.dir / "roots.pem"
    roots.write_text(ca(mesh, "bundle"))
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"{mesh.net}.2:{MUTUAL_PORT}", "-servername", "plain.data.local",
         "-CAfile", roots, "-verify_return_error", "-showcerts", "-x509_strict"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    told = shown.stdout + shown.stderr
    expect("Verification: OK" in told or "Verify return code: 0 (ok)" in told, f"openssl: {told[-2000:]}")
    return re.search(r"i:(.*)", told).group(1)


class Wrk:
    """The load."""

    def __init__(self, mesh, seconds):
        self.process = subprocess.Popen(
            [mesh.sluis, "exec", NOTEBOOK, "--", shutil.which("wrk"), "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s",
             "--timeout", "10s", "http://plain.data.local/"],
            cwd=mesh.dir, env=mesh.jail_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def end(self, within):
        told, _ = self.process.communicate(timeout=within)
        found = re.search(r"(\d+) requests in", told)
        expect(found, f"wrk said:\n{told}")
        for bad in ("Socket errors", "Non-2xx"):
            expect(bad not in told, f"requests failed:\n{told}")
        return int(found.group(1))


def change(mesh, notes):
    """Each step, as soon as the one before has reached everybody."""
    first = openssl_verifies(mesh)
    for step in ("begin", "switch", "finish"):
        began = time.monotonic()
        if step != "begin":
            wait_until(f"{step} to be possible", lambda: not status(mesh)["waitingFor"], 3 * LIFE)
        ca(mesh, "rotate", step)
        notes.append(f"{step} after {time.monotonic() - began:.1f} s; {len(status(mesh)['roots'])} roots trusted")
        openssl_verifies(mesh)
    wait_until("the gateway's chain under the new root", lambda: openssl_verifies(mesh) != first)


def rotate(options, seconds, at_least, **engines):
    notes = []
    with Mesh(options.bin_dir, up=("--certificate-life", f"{LIFE}s"), **engines) as mesh:
        add_way(mesh)
        began = time.monotonic()
        load = Wrk(mesh, seconds)
        change(mesh, notes)
        mesh.kill_up()
        time.sleep(1)  # the authority is away
        mesh.start_mesh(mesh.control)
        mesh.wait("every proxy to be in sync", mesh.in_sync)
        changed = time.monotonic() - began
        expect(changed < seconds, f"the change took {changed:.0f} s, longer than the load")
        answered = load.end(seconds + 30)
        expect(answered >= at_least, f"only {answered} requests")
        notes.append(f"{answered} requests, none failed; all was changed within {changed:.0f} s")
        if not engines:
            made = renewals.handshakes(mesh)
            expect(made >= answered / REQUESTS_EACH / 4, f"only {made} handshakes")
            notes.append(f"{made} handshakes by mutual TLS")
        expect("whole" in ca(mesh, "log"), "the issue log is not whole")
    return notes


def our_proxies(options):
    """The root is changed and the authority killed under load, and no request fails."""
    return rotate(options, LOAD, options.requests)


def envoy_as_gateway(options):
    """The same with a real Envoy as the gateway."""
    return rotate(options, LOAD_ENVOY + 2 * LIFE, REQUESTS_ENVOY, gateway="envoy")


def workload_api(options):
    """py-spiffe in the jail gets the workload's certificate, follows its renewal, and finds no other's."""
    folders = {"notebook.yaml": "own-notebook", "egress-gateway.yaml": "own-gateway"}

    class Told(Mesh):
        def write_manifests(self):
            super().write_manifests()
            for file, folder in folders.items():
                path = self.manifests / "machine" / file
                annotation = "    sluis.dev/run: "
                text = path.read_text()
                expect(text.count(annotation) == 1, f"{path} has changed")
                path.write_text(text.replace(annotation, f"    sluis.dev/workload-api: {folder}\n{annotation}"))

    with Told(options.bin_dir, up=("--certificate-life", f"{LIFE}s")) as mesh:
        (mesh.dir / "roots.pem").write_text(ca(mesh, "bundle"))
        told = subprocess.run(
            [mesh.sluis, "exec", NOTEBOOK, "--", options.spiffe, HERE / "spiffe_client.py", mesh.dir / "own-gateway"],
            cwd=mesh.dir, env=mesh.jail_environment(), text=True, capture_output=True, timeout=3 * LIFE)
        expect(told.returncode == 0, told.stdout + told.stderr[-3000:])
        found = json.loads(told.stdout)
        expect(found["id"] == renewals.IDENTITY, f"another identity: {found}")
        expect(len(found["serials"]) > 1, "no renewal was seen")
        log = ca(mesh, "log")
        expect(all(serial in log for serial in found["serials"]), f"serials that the log does not know: {found}")
        expect(found["bundles"] == 1 and found["chain"] == 2, f"{found}")
        for number, (chain, roots) in enumerate(zip(found["chains"], found["roots"])):
            (mesh.dir / "chain.pem").write_text(chain)
            (mesh.dir / "trusted.pem").write_text(roots)
            judged = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", "trusted.pem", "-untrusted",
                                     "chain.pem", "chain.pem"], cwd=mesh.dir, capture_output=True, text=True)
            expect(judged.returncode == 0, f"openssl, chain {number}: {judged.stderr}")
        expect(found["jwt"] != "issued", "a JWT-SVID was issued")
        expect(found["other"] == [], f"the gateway's socket is seen in the notebook's jail: {found['other']}")
        return [f"{found['id']}, {len(found['serials'])} certificates; JWT-SVID: {found['jwt'][:80]}"]


def make_authority(folder):
    """An operator's root, and an authority under it, as Istio's `cacerts`."""
    folder.mkdir(mode=0o700)

    def openssl(command):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)

    (folder / "extensions").write_text("basicConstraints=critical,CA:true,pathlen:0\n"
                                       "keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
                                       "authorityKeyIdentifier=keyid\n")
    openssl("req -x509 -new -nodes -newkey rsa:2048 -keyout root-key -out root-cert.pem -days 30 -subj /O=Operator/CN=root "
            "-addext keyUsage=critical,keyCertSign,cRLSign")
    openssl("ecparam -name prime256v1 -genkey -out ca-key.pem")
    openssl("req -new -key ca-key.pem -out csr -subj /O=Operator/CN=mesh")
    openssl("x509 -req -in csr -CA root-cert.pem -CAkey root-key -CAcreateserial -out ca-cert.pem -days 20 -extfile extensions")
    parts = [(folder / name).read_text() for name in ("ca-cert.pem", "root-cert.pem")]
    (folder / "cert-chain.pem").write_text("".join(parts))


def own_authority(options):
    """The operator's authority, a Secret `cacerts` in the YAML, signs; openssl verifies by its root alone."""
    names = ("ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem")

    class Own(Mesh):
        def write_manifests(self):
            super().write_manifests()
            make_authority(self.dir / "operator")
            entries = {name: (self.dir / "operator" / name).read_text() for name in names}
            secret = {"apiVersion": "v1", "kind": "Secret", "stringData": entries,
                      "metadata": {"name": "cacerts", "namespace": "istio-system"}}
            (self.manifests / "machine/cacerts.yaml").write_text(json.dumps(secret))

    with Own(options.bin_dir) as mesh:
        add_way(mesh)
        issuer = status(mesh)["issuer"]
        expect(issuer["source"] == "plugin" and "CN=mesh" in issuer["subject"], f"{issuer}")
        expect(ca(mesh, "bundle").strip() == (mesh.dir / "operator/root-cert.pem").read_text().strip(), "another bundle")
        shown = openssl_verifies(mesh)
        expect("CN" in shown and "mesh" in shown, f"signed by {shown}")
        keys = json.loads(ca(mesh, "bundle", "--format", "spiffe"))["keys"]
        expect([key["kty"] for key in keys] == ["RSA"], f"{keys}")
        # Another authority of the operator's: by the same steps.
        make_authority(mesh.dir / "second")
        ca(mesh, "rotate", "begin", "--ca-dir", mesh.dir / "second")
        wait_until("everybody to know both roots", lambda: not status(mesh)["waitingFor"])
        ca(mesh, "rotate", "switch")
        second = status(mesh)["issuer"]
        expect(second["source"] == "plugin" and second["serial"] != issuer["serial"], f"{second}")
        (mesh.dir / "second/ca-key.pem").chmod(0o644)
        refused = mesh.run([mesh.sluis, "ca", "rotate", "finish"])
        expect(refused.returncode == 1 and "older than this phase" in refused.stderr, refused.stderr)
        return [f"signed by {shown}; then by another one of the operator's; to finish early is refused"]


ALL = [our_proxies, envoy_as_gateway, workload_api, own_authority]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/debug")
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--spiffe", default=ROOT / "target/spiffe/bin/python", help="a Python with py-spiffe")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    options.bin_dir = options.bin_dir.resolve()
    failed = 0
    for scenario in (one for one in ALL if options.only in one.__name__):
        began = time.monotonic()
        try:
            notes, word = scenario(options), "ok    "
        except Failed as error:
            notes, word, failed = [str(error)], "FAILED", failed + 1
        print(f"{word} {time.monotonic() - began:6.1f} s  {scenario.__doc__.splitlines()[0]}")
        for note in notes:
            print(f"                  {note}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(tempfile.gettempdir()) > 40:
        tempfile.tempdir = "/tmp"
    main()
