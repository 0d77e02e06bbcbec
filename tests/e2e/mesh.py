"""A running mesh for one scenario: looked after to its last process."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples/credential-egress"
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLE))

from stage.scene import (  # noqa: E402
    API_PORT, GATEWAY, GATEWAY_PORT, NOTEBOOK, Scene, can_connect, descendants, free_port, python)

API = "https://api.data.local/graphql"
WITHIN = 30  # seconds: the deadline of an event that takes less than one on an idle machine
STOPPED_WITHIN = 7  # seconds: connections have five to finish
POLL = 0.02  # seconds between two looks
THREADS, RATE = 4, 25  # of the load: 100 requests a second at most


class Failed(AssertionError):
    """What must hold does not."""


def expect(is_so, message):
    if not is_so:
        raise Failed(message)


def wait_until(what, ask, within=WITHIN):
    """Waits until `ask` gives something true, and returns that."""
    deadline = time.monotonic() + within
    while not (found := ask()):
        expect(time.monotonic() < deadline, f"waited {within} s for {what}")
        time.sleep(POLL)
    return found


class Mesh(Scene):
    """The scene of the example, for a scenario: quiet, and with questions of its own."""

    def __init__(self, programs, up=(), **engines):
        super().__init__(programs, up=up, **engines)
        self.steps = []

    def __exit__(self, *error):
        try:
            result = super().__exit__(*error)
        finally:
            left = self.left_behind()
            for pid, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if error[0] is None:
            expect(not left, f"left behind: {left}")
        return result

    # -- what the scene does otherwise

    def step(self, what):
        self.steps.append(what)

    def start_api(self, name="api", host=9):
        """An API with the keys and the certificate of the scene, and a log of its own."""
        address = f"{self.net}.{host}"
        command = [sys.executable, EXAMPLE / "api/api.py", "--dir", self.dir / "api",
                   "--address", address, "--port", str(API_PORT)]
        self.start(name, command, {}, self.dir / f"api/{name}-requests")
        self.wait(f"{name} to listen", lambda: can_connect(address, API_PORT))

    # -- what scenarios ask

    def requests(self, name="api"):
        """How many requests an API has answered with 200."""
        log = (self.dir / f"api/{name}-requests").read_text()
        return sum('"status": 200' in line for line in log.splitlines())

    def left_behind(self):
        """Processes that know our directory and are none of the scene's own: those of the mesh."""
        left = []
        ours = {os.getpid(), *(process.pid for process in self.processes.values())}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in ours:
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if str(self.dir).encode() in command:
                        left.append((int(entry.name), command.replace(b"\0", b" ").decode()))
        return left

    def proxy(self, workload):
        """The status of one proxy; empty while there is none."""
        for proxy in (self.status() or {"proxies": []})["proxies"]:
            if f"{proxy['namespace']}/{proxy['name']}" == workload:
                return proxy
        return {}

    def pids(self):
        return {workload: self.proxy(workload).get("pid") for workload in (GATEWAY, NOTEBOOK)}

    def faults(self):
        """What is wrong; warnings apart: the article's own script has one."""
        return "\n".join(self.errors(self.status() or {}))

    def told(self):
        """What `sluis up` has printed."""
        return (self.dir / "up.log").read_text()

    def show(self, kind, workload, form="json"):
        """The output of `sluis proxy-config`."""
        shown = self.run([self.sluis, "proxy-config", kind, workload, "-o", form])
        expect(shown.returncode == 0, f"proxy-config {kind} {workload}: {shown.stderr}")
        return json.loads(shown.stdout) if form == "json" else shown.stdout

    def load(self, threads=THREADS, rate=RATE, host=""):
        return Load(self, threads, rate, host)

    def interrupt(self):
        """Ctrl-C: how many seconds `sluis up` takes to end, and whether it did so well."""
        process, began = self.processes.pop("up"), time.monotonic()
        process.send_signal(signal.SIGINT)
        code = process.wait(WITHIN)
        took = time.monotonic() - began
        expect(code == 0, f"sluis up ended with {code} after Ctrl-C")
        # Proxies that do not end by themselves are killed after 8 seconds.
        expect(took < STOPPED_WITHIN, f"sluis up took {took:.1f} s to end: a proxy does not drain")
        return took

    def kill_up(self):
        """kill -9 of `sluis up`."""
        process = self.processes.pop("up")
        process.kill()
        process.wait()


class Request:
    """One request of the load."""

    def __init__(self, line):
        self.began, self.took, self.status, self.fault, self.reused = json.loads(line)
        self.ended = self.began + self.took

    def __str__(self):
        kind = "kept" if self.reused else "new"
        return f"{self.status or 'no answer'} {self.fault} ({kind} connection, {self.took:.2f} s)"


class Load:
    """A client in the jail that asks all the time, and what came of each request."""

    def __init__(self, mesh, threads, rate, host):
        command = [mesh.sluis, "exec", NOTEBOOK, "--", python(), HERE / "load.py", str(threads), str(rate),
                   *filter(None, [host])]
        self.requests, self.is_whole, self.is_killed = [], False, False
        self.process = subprocess.Popen(
            command, cwd=mesh.dir, env=mesh.jail_environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if line == "end\n":
                self.is_whole = True
            else:
                self.requests.append(Request(line))

    def __enter__(self):
        self.wait_for_good(20)
        return self

    def __exit__(self, kind, *_):
        try:
            self.process.stdin.close()
            self.process.wait(WITHIN)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self.reader.join(WITHIN)
        errors = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        if kind is None and not self.is_killed:
            expect(self.is_whole, f"the load ended by itself: {errors[-500:]}")

    def kill(self):
        """Ends it at once."""
        self.is_killed = True
        for pid in reversed(descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def good(self, since=0.0):
        """Requests begun since then and answered with 200."""
        return [one for one in list(self.requests) if one.status == 200 and one.began >= since]

    def failed(self):
        return [one for one in list(self.requests) if one.status != 200]

    def wait_for_good(self, count, since=0.0, within=WITHIN):
        """Waits for so many good answers to requests begun since then."""
        def ask():
            expect(self.process.poll() is None, "the load has ended")
            return len(self.good(since)) >= count

        try:
            wait_until(f"{count} answers of 200", ask, within)
        except Failed as error:
            last = "; ".join(str(one) for one in self.requests[-3:])
            self.__exit__(Failed)
            raise Failed(f"{error}; the last of {len(self.requests)} requests: {last}") from None

    def expect_no_failure(self, at_least):
        """Checks that all was well; returns a line that tells how much was asked."""
        failed = self.failed()
        some = "; ".join(str(one) for one in failed[:5])
        expect(not failed, f"{len(failed)} of {len(self.requests)} requests failed: {some}")
        expect(len(self.requests) >= at_least, f"only {len(self.requests)} requests: too few to tell")
        slowest = max(one.took for one in self.requests)
        return f"{len(self.requests)} requests, none failed, the slowest took {slowest * 1000:.0f} ms"


__all__ = ["API", "API_PORT", "EXAMPLE", "Failed", "GATEWAY", "GATEWAY_PORT", "HERE", "Load", "Mesh", "NOTEBOOK", "ROOT",
           "RATE", "THREADS", "WITHIN", "descendants", "expect", "free_port", "python", "wait_until"]
