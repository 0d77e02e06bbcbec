"""Secrets are nowhere but where they are meant to be: the no-disclosure test."""

import os
import subprocess
import sys

from disclosure_world import GATEWAY, NOTEBOOK, World, kinds, memory
from mesh import HERE, Mesh, expect, wait_until
from needles import Needles, files, forms

FOUND_SHOWN_MAX = 20


def tell(found):
    """What was found, without saying it."""
    return "\n".join(f"{name} as {form} in {where}" for name, form, where in found[:FOUND_SHOWN_MAX])


def secrets_are_in_no_output(options):
    """Every feature is used at log level trace, and no log, page, dump, stream or listing has a secret."""
    with World(options.bin_dir, kinds()) as world:
        done = wait_until("the signed request", lambda: (lambda one: one if one.returncode == 0 else None)(world.client()))
        world.said["the client"] = (done.stdout + done.stderr).encode()
        missing = use_all(world)
        refuse_some(world)
        needles = Needles(world.secrets())
        outputs = world.outputs()
        found = needles.search(outputs)
        expect(not found, f"secrets are told:\n{tell(found)}")
        expect(not missing, f"the API did not receive: {', '.join(missing)}")
        size = sum(map(len, outputs.values()))
        notes = [f"{len(world.secrets())} secrets, {len(needles.patterns)} forms, {len(outputs)} outputs, {size >> 10} KiB: none",
                 f"kinds used: lua, {', '.join(kind.name for kind in world.kinds)}"]
        notes += look_into_memory(world)
        notes += plant(world, needles)
        return notes


def use_all(world):
    """Each kind is used; names those that the API was not given."""
    missing = []
    for kind in world.kinds:
        def is_given(kind=kind):
            if kind.name == "echo":
                return world.ask("/echo") in (502, 503)
            asked = world.ask(f"/{kind.name}", "-H", "cookie: mine=1", "-d", "{}")
            pattern = world.shown(kind)
            return asked == 200 and any(pattern.search(head) for head in world.received())
        try:
            wait_until(kind.name, is_given, within=15)
        except AssertionError:
            missing.append(kind.name)
    return missing


def refuse_some(world):
    """Refusals have bodies and records too: no grant, a host that is down, a head that is none."""
    asked = world.ask("/nobody")
    expect(not world.kinds or asked == 403, f"a path without a grant was answered with {asked}")
    world.ask("/header", "-H", "X-Api-Key: mine", "-H", "Connection: X-Api-Key")
    world.ask("/header", "-X", "TRACE")
    world.ask("/header?X-Api-Key=1", "-H", "Expect: 100-continue", "-d", "x" * 2000)
    world.stop("kinds")
    expect(world.ask("/header") == 503, "the API is down")


def look_into_memory(world):
    """Root looks into processes: only the gateway may hold what gateways add."""
    if os.geteuid() != 0:
        return []
    wanted = {name: value for name, value in world.secrets().items()}
    sidecar = memory(world.proxy(NOTEBOOK)["pid"], wanted)
    expect(not sidecar, f"the memory of the sidecar has {sorted(sidecar)}")
    gateway = memory(world.proxy(GATEWAY)["pid"], wanted)
    expect("lua" in gateway, "the search of memory does not find what must be there")
    return [f"the sidecar's memory has none of them; the gateway's has {len(gateway)}"]


def plant(world, needles):
    """The search finds what is there: every form in a file, and a script that logs its key."""
    place = world.state / "workloads/planted"
    secret = world.secrets()["lua"]
    for number, (form, text) in enumerate(forms(secret).items()):
        place.write_bytes(b"x=" + text + b";")
        expect(needles.search(files(world.state)), f"form {number}, {form}, is not found")
    place.unlink()
    path = world.manifests / "istio/envoy-filter.yaml"
    script = path.read_text()
    mark = "local method = request_handle"
    expect(script.count(mark) == 1, "the script of the example has changed")
    path.write_text(script.replace(mark, f"request_handle:logInfo(secret_key)\n                {mark}"))

    def is_found():
        world.client()
        return needles.search(files(world.state / "workloads/egress"))

    wait_until("the planted leak to be found", is_found)
    return [f"planted: {len(forms(secret))} forms and a script that logs its key, all found"]


def a_process_of_the_same_user_cannot_look_into_a_proxy(options):
    """A process of the same user, not root, cannot read the memory of a proxy or of the control plane."""
    with Mesh(options.bin_dir) as mesh:
        expect(mesh.client().returncode == 0, "the mesh does not work")
        watcher = [sys.executable, HERE / "peek.py"]
        pids = {"the gateway": mesh.gateway_pid(), "the sidecar": mesh.proxy(NOTEBOOK)["pid"],
                "sluis up": mesh.processes["up"].pid}
        notes = []
        with subprocess.Popen(["sleep", "60"]) as open_one:
            done = subprocess.run([*watcher, str(open_one.pid)], capture_output=True, text=True, check=False)
            open_one.kill()
        expect("mem, environ" in done.stdout, f"a process that is open cannot be read: {done.stdout}{done.stderr}")
        for name, pid in pids.items():
            done = subprocess.run([*watcher, str(pid)], capture_output=True, text=True, check=False)
            expect(done.returncode == 0, f"{name}: {done.stdout}{done.stderr}")
            notes.append(f"{name}: {done.stdout.strip()}")
        return notes


ALL = [secrets_are_in_no_output, a_process_of_the_same_user_cannot_look_into_a_proxy]
