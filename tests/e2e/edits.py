"""Files are edited, broken and mended while requests flow."""

import contextlib
import os
import re
import socket
import ssl
import statistics
import subprocess
import time

from mesh import EXAMPLE, GATEWAY, GATEWAY_PORT, Mesh, expect, python, wait_until

APPLIED_WITHIN = 1.0  # seconds from the save to the first request that goes by it: the usual case
APPLIED_AT_MOST = 5.0  # the same on a machine that is busy with other tests
ROUNDS = 3  # there and back

# Another place where the API can be found: a second program that knows the same keys.
BACKUP = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: backup
  namespace: egress
spec:
  hosts: [backup.data.local]
  location: MESH_EXTERNAL
  ports: [{number: 443, name: https, protocol: HTTPS}]
  resolution: DNS
  endpoints:
    - address: NET.10
      ports: {https: 9443}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: backup
  namespace: egress
spec:
  host: backup.data.local
  trafficPolicy:
    tls:
      mode: SIMPLE
"""


def save(path, text):
    """As some editors save: in place."""
    path.write_text(text)


def replace(path, text):
    """As others do: a new file takes the old one's name."""
    new = path.with_name(".new")
    new.write_text(text)
    os.replace(new, path)


def another_host(options):
    """A VirtualService is led to another host and back under load, within a second, and no request fails."""
    with Mesh(options.bin_dir) as mesh:
        mesh.start_api("backup", host=10)
        (mesh.manifests / "machine/backup.yaml").write_text(BACKUP.replace("NET", mesh.net))
        path = mesh.manifests / "istio/virtual-service.yaml"
        there = path.read_text()
        expect(there.count("host: api.data.local") == 1, "the example's VirtualService has changed")
        other = there.replace("host: api.data.local", "host: backup.data.local")
        wait_until("the other host's cluster", lambda: "backup.data.local" in mesh.show("clusters", GATEWAY, "yaml"))
        pids, took = mesh.pids(), []
        with mesh.load() as load:
            for number in range(ROUNDS):
                write = (save, replace)[number % 2]
                for text, name in ((other, "backup"), (there, "api")):
                    took.append(edited(mesh, load, lambda: write(path, text), name))
            settled = time.monotonic()
            load.wait_for_good(20, settled)
        expect(mesh.pids() == pids, "a proxy was started anew")
        expect(statistics.median(took) <= APPLIED_WITHIN, f"edits took {took} seconds to be applied")
        notes = [load.expect_no_failure(100)]
    milliseconds = ", ".join(f"{one * 1000:.0f}" for one in took)
    return [*notes, f"ms from the save to the first request by the new file: {milliseconds}"]


def edited(mesh, load, write, name):
    """Edits; waits until requests arrive at the API called so; gives the seconds between."""
    before = mesh.requests(name)
    saved = time.monotonic()
    write()
    wait_until(f"a request at {name}", lambda: mesh.requests(name) > before, APPLIED_AT_MOST)
    took = time.monotonic() - saved
    # All others follow: then the next edit begins from one state.
    other = {"api": "backup", "backup": "api"}[name]

    def quiet():
        seen, since = mesh.requests(other), time.monotonic()
        load.wait_for_good(20, since)
        return mesh.requests(other) == seen

    wait_until(f"the last request at {other}", quiet)
    return took


def broken_yaml(options):
    """A file that is broken under load is named with its line, what was good is kept, and no request fails."""
    with Mesh(options.bin_dir) as mesh:
        path = mesh.manifests / "istio/service-entry.yaml"
        good = path.read_text()
        line = good.splitlines().index("  location: MESH_EXTERNAL") + 1
        cases = [
            ("locatoin: MESH_EXTERNAL", rf"istio/service-entry\.yaml:{line}:3: .*locatoin"),
            ("location: MESH_EXTERNALLY", rf"istio/service-entry\.yaml:{line}:\d+: .*MESH_EXTERNALLY"),
            ("location: [MESH_EXTERNAL", r"istio/service-entry\.yaml:\d+:\d+: "),
            ("location: MESH_EXTERNAL\n\tports: []", rf"istio/service-entry\.yaml:{line}:\d+: .*tab"),
        ]
        pids, notes = mesh.pids(), []
        with mesh.load() as load:
            for text, pattern in cases:
                saved, told = time.monotonic(), len(mesh.told())
                save(path, good.replace("location: MESH_EXTERNAL", text))
                wait_until(f"{pattern} in proxy-status", lambda: re.search(pattern, mesh.faults()))
                notes.append(f"named after {(time.monotonic() - saved) * 1000:.0f} ms: "
                             + mesh.faults().replace(str(mesh.dir) + "/", "").splitlines()[0])
                wait_until(f"{pattern} from sluis up", lambda: re.search(pattern, mesh.told()[told:]))
                load.wait_for_good(20, time.monotonic())
                save(path, good)
                wait_until("the end of the fault", lambda: not mesh.faults())
                wait_until("word of it", lambda: "no errors any more" in mesh.told()[told:])
            load.wait_for_good(20, time.monotonic())
        expect(mesh.pids() == pids, "a proxy was started anew")
        return [load.expect_no_failure(100), *notes]


def another_name(options):
    """A host that is added to a ServiceEntry under load is known in the jail, and unknown again without it."""
    with Mesh(options.bin_dir) as mesh:
        path = mesh.manifests / "istio/service-entry.yaml"
        good = path.read_text()

        def knows():
            script = "import socket; socket.getaddrinfo('second.data.local', 443)"
            return mesh.in_jail(python(), "-c", script).returncode == 0

        expect(not knows(), "the second host is known too early")
        with mesh.load() as load:
            save(path, good.replace("    - api.data.local", "    - api.data.local\n    - second.data.local"))
            wait_until("the new name", knows)
            save(path, good)
            wait_until("the end of the new name", lambda: not knows())
        return [load.expect_no_failure(20)]


def new_keypair(options):
    """The gateway serves a new keypair within moments of the files' change, and no request fails."""
    with Mesh(options.bin_dir) as mesh:
        again = mesh.dir / "again"
        subprocess.run([EXAMPLE / "setup.sh", again], check=True)
        trust = mesh.dir / "client/ca.crt"  # the new certificate is from another CA: trust both
        trust.write_text(trust.read_text() + (again / "client/ca.crt").read_text())
        old = served_certificate(mesh)
        with mesh.load() as load:
            saved = time.monotonic()
            for name in ("tls.key", "tls.crt"):
                os.replace(again / "egress-certs" / name, mesh.dir / "egress-certs" / name)
            wait_until("the new certificate", lambda: served_certificate(mesh) != old)
            took = time.monotonic() - saved
            load.wait_for_good(20, time.monotonic())
        return [load.expect_no_failure(20), f"served after {took * 1000:.0f} ms"]


def served_certificate(mesh):
    """What the gateway shows for api.data.local."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.closing(socket.create_connection((f"{mesh.net}.2", GATEWAY_PORT), 5)) as stream:
        with context.wrap_socket(stream, server_hostname="api.data.local") as wrapped:
            return wrapped.getpeercert(binary_form=True)


ALL = [another_host, broken_yaml, another_name, new_keypair]
