"""kill -9 of each part, while requests flow and one is half sent."""

import contextlib
import os
import signal
import subprocess
import time

from mesh import GATEWAY, Load, Mesh, NOTEBOOK, WITHIN, descendants, expect, python, wait_until

RECOVERED_WITHIN = 5.0  # seconds without an answer that a killed proxy may cost
FLAWED_AFTER = 1.0  # seconds after the first answer in which connections of before may still fail
AT_ONCE = 0.05  # seconds that a killed process takes to be gone

# Sends half of a request, waits for a word, sends the rest, and tells what comes back.
HALF = """
import os, socket, ssl, sys
stream = ssl.create_default_context().wrap_socket(
    socket.create_connection(("api.data.local", 443), 20), server_hostname="api.data.local")
stream.settimeout(20)
head = f"POST /graphql?half={os.getpid()} HTTP/1.1\\r\\nHost: api.data.local\\r\\nContent-Length: 7\\r\\n"
head += "Authorization: Bearer " + os.environ["USER_JWT"] + "\\r\\n\\r\\n"
stream.sendall(head.encode() + b"que")
print("half", flush=True)
sys.stdin.readline()
try:
    stream.sendall(b"ry=x")
    print(stream.recv(1000).decode().partition("\\r\\n")[0] or "closed without an answer")
except OSError as error:
    print(f"broken: {type(error).__name__}: {error}")
"""


class Half:
    """A request of which one half is sent."""

    def __init__(self, mesh):
        self.process = subprocess.Popen(
            [mesh.sluis, "exec", NOTEBOOK, "--", python(), "-c", HALF], cwd=mesh.dir,
            env=mesh.jail_environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        line = self.process.stdout.readline()
        expect(line == "half\n", f"the half request said {line!r}")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            for pid in reversed(descendants(self.process.pid)):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def rest(self):
        """Sends the rest; gives what came of it."""
        answer, _ = self.process.communicate("go\n", WITHIN)
        return answer.strip()


def killed_proxy(options, workload, waits=False):
    """What a killed proxy costs, in words. With `waits`, nothing but what was open may fail."""
    with Mesh(options.bin_dir) as mesh, mesh.load() as load:
        before = mesh.pids()
        with Half(mesh) as half:
            os.kill(before[workload], signal.SIGKILL)
            killed = time.monotonic()
            answer = half.rest()
        expect(not answer.startswith("HTTP/1.1 2"), f"a half request was answered: {answer}")
        wait_until("another process", lambda: mesh.proxy(workload).get("pid") not in (None, before[workload]))
        load.wait_for_good(1, killed)
        mesh.wait("every proxy to be in sync", mesh.in_sync)
        settled = time.monotonic()
        load.wait_for_good(100, settled)
        other = next(name for name in before if name != workload)
        expect(mesh.pids()[other] == before[other], f"{other} was started anew as well")
        expect(mesh.proxy(workload)["restarts"] == 1, "not started anew exactly once")
    fresh = [one for one in load.failed() if one.began > killed + AT_ONCE and not one.reused]
    expect(not waits or not fresh, "did not wait: " + "; ".join(str(one) for one in fresh[:5]))
    return outage(load, killed, answer)


def outage(load: Load, killed, answer):
    """Checks that failures lie within the outage, and tells how long that was."""
    first = min(one.ended for one in load.good(killed))
    recovered = first - killed
    expect(recovered <= RECOVERED_WITHIN, f"{recovered:.1f} s until the first answer")
    failed = load.failed()
    outside = [one for one in failed
               if one.ended < killed or one.began > first + FLAWED_AFTER]
    expect(not outside, "failed outside the outage: " + "; ".join(str(one) for one in outside[:5]))
    kinds = {}
    for one in failed:
        kind = f"{one.status}" if one.status else one.fault.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    slowest = max(one.took for one in load.requests)
    return [
        f"the first answer {recovered:.2f} s after the kill; of {len(load.requests)} requests failed: {told};"
        f" the slowest took {slowest:.2f} s",
        f"the request that was half sent: {answer}",
    ]


def killed_gateway(options):
    """A gateway that is killed is back within moments; the half-sent request fails clearly."""
    return killed_proxy(options, GATEWAY)


def killed_sidecar(options):
    """A sidecar that is killed is back within moments; what its jail asks meanwhile waits, and nothing is refused."""
    return killed_proxy(options, NOTEBOOK, waits=True)


def killed_control_plane(options):
    """Without `sluis up` no request fails; the next one takes the proxies over and can change them."""
    with Mesh(options.bin_dir) as mesh:
        with mesh.load() as load:
            pids = mesh.pids()
            with Half(mesh) as half:
                mesh.kill_up()
                killed = time.monotonic()
                answer = half.rest()
            expect(answer.startswith("HTTP/1.1 200"), f"the half-sent request: {answer}")
            told = mesh.run([mesh.sluis, "proxy-status"])
            expect(told.returncode == 69, f"proxy-status without sluis up: {told.returncode} {told.stderr}")
            # New commands need `sluis up`; those that run do not.
            load.wait_for_good(200, killed)
            mesh.start_mesh(mesh.control)
            mesh.wait("every proxy to be in sync", mesh.in_sync)
            back = time.monotonic()
            expect(mesh.pids() == pids, f"not the same processes: {pids} before, {mesh.pids()} after")
            change(mesh)
            load.wait_for_good(50, time.monotonic())
        notes = [load.expect_no_failure(200), f"the half-sent request: {answer}",
                 f"{back - killed:.1f} s from the kill until all were in sync with the next one"]
        took = mesh.interrupt()
        left = mesh.left_behind()
        expect(not left, f"left behind after Ctrl-C: {left}")
    return [*notes, f"Ctrl-C: adopted proxies and all ended in {took:.1f} s"]


def change(mesh):
    """An edit reaches a proxy, so its stream is alive."""
    path = mesh.manifests / "istio/service-entry.yaml"
    good = path.read_text()
    path.write_text(good.replace("    - api.data.local", "    - api.data.local\n    - second.data.local"))
    script = "import socket; socket.getaddrinfo('second.data.local', 443)"
    wait_until("the edit in the jail", lambda: mesh.in_jail(python(), "-c", script).returncode == 0)
    path.write_text(good)


def interrupted(options):
    """Ctrl-C under load ends everything, and leaves no process behind."""
    with Mesh(options.bin_dir) as mesh, mesh.load() as load:
        proxies = mesh.pids().values()
        took = mesh.interrupt()
        load.kill()  # its connections wait for a sidecar that will not come
        alive = [pid for pid in proxies if os.path.exists(f"/proc/{pid}")]
        expect(not alive, f"still alive: {alive}")
    return [f"ended in {took:.1f} s"]


ALL = [killed_gateway, killed_sidecar, killed_control_plane, interrupted]
