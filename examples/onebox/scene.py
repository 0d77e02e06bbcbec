"""A mesh on one machine, for an example or a test: a directory, `sluis up`, real Envoys where asked.

In:    the programs, and which program serves each workload.
Out:   something that runs, can be asked, and is gone at the end.
Never: knows an example: those say in `set` what else there is.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
READY_WITHIN = 60  # seconds; it takes less than one on an idle machine
COMMAND_WITHIN = 120  # seconds; the longest command searches a whole file system
STOP_WITHIN = 20  # seconds; proxies drain for some


class SceneError(Exception):
    """The scene cannot be set."""


class Scene(contextlib.ExitStack):
    """Everything that runs; gone at the end."""

    def __init__(self, programs, engines, keep=False, up=()):
        super().__init__()
        self.began = time.time()
        self.sluis = pathlib.Path(programs).resolve() / "sluis"
        self.engines = dict(engines)  # workload: "sluis" or "envoy"
        self.keep = keep
        self.up_options = list(up)
        self.processes = {}
        # Loopback has 2^24 addresses: one network for each scene, so that several can run at once.
        self.net = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"

    def __enter__(self):
        super().__enter__()
        try:
            if not self.sluis.exists():
                raise SceneError(f"{self.sluis} is not there: build it first")
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluis-"))
            if self.keep:
                print(f"directory: {self.dir}")
            else:
                self.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.manifests = self.dir / "manifests"
            self.set()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    # -- what an example says

    def set(self):
        """Writes manifests, starts what is wanted: for an example to say."""
        raise NotImplementedError

    def up_environment(self):
        """Variables of `sluis up`, which it may pass on to proxies."""
        return {}

    def envoy_environment(self, workload):
        """Variables of the real Envoy that serves a workload."""
        return {}

    def listens_at(self):
        """Addresses and ports at which gateways must listen before the scene is set."""
        return []

    # -- what runs

    def start_all(self):
        """The mesh, the real Envoys, and a look whether all is well."""
        self.start_mesh()
        for workload, engine in self.engines.items():
            if engine == "envoy":
                self.start_envoy(workload)
        self.step("wait until every proxy has its certificate and its configuration")
        self.wait("every proxy to be in sync", self.in_sync)

    def start_mesh(self, port=None):
        self.step("start the mesh: sluis up")
        self.control = port or free_port()
        self.state = self.dir / "state"
        command = [self.sluis, "up", "-f", self.manifests, "--state-dir", self.state,
                   "--listen", f"127.0.0.1:{self.control}", *self.up_options]
        self.start("up", command, self.up_environment(), self.dir / "up.log")
        self.wait("sluis up to answer", lambda: self.status() is not None)

    def start_envoy(self, workload):
        self.step(f"start a real Envoy as {workload}")
        installed = ROOT / "target/envoy/bin/envoy"
        envoy = os.environ.get("ENVOY_BIN") or shutil.which("envoy") or installed
        if not pathlib.Path(envoy).exists():
            raise SceneError("no Envoy: set ENVOY_BIN (make setup installs one in target/envoy)")
        name = workload.replace("/", "-")
        made = self.run([self.sluis, "proxy", "bootstrap", "--envoy", workload])
        if made.returncode:
            raise SceneError(f"sluis proxy bootstrap: {made.stderr}")
        bootstrap = self.dir / f"envoy-{name}.json"
        bootstrap.write_text(made.stdout)
        command = [envoy, "-c", bootstrap, "--concurrency", "2", "--disable-hot-restart",
                   "--log-level", "warning"]
        self.start(workload, command, self.envoy_environment(workload), self.dir / f"envoy-{name}.log")

    def start(self, name, command, environment, log):
        with open(log, "ab") as output:
            process = subprocess.Popen(
                command, cwd=self.dir, env=self.environment() | environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.processes[name] = process
        self.callback(self.stop, name, log)
        return process

    def stop(self, name, log=None):
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGINT if name == "up" else signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"demo: {name} did not end when asked ({log})", file=sys.stderr)

    # -- what can be asked

    def environment(self):
        """The caller's environment, without what would lead anything past the mesh."""
        gone = {"SSL_CERT_FILE", "SLUIS_STATE_DIR"}
        return {name: value for name, value in os.environ.items()
                if name not in gone and not name.lower().endswith("_proxy")}

    def run(self, command, **environment):
        """Runs a command to its end."""
        return subprocess.run(
            command, cwd=self.dir, env=self.jail_environment() | environment, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_WITHIN)

    def jail_environment(self):
        return self.environment() | {"SLUIS_STATE_DIR": str(self.state)}

    def exec(self, workload, *command):
        """Runs a command in the jail of a workload."""
        return self.run([self.sluis, "exec", workload, "--", *command])

    def status(self):
        """What `sluis proxy-status` says; None while nobody answers."""
        if not self.state.exists():
            return None
        told = self.run([self.sluis, "proxy-status", "-o", "json"])
        return json.loads(told.stdout) if told.returncode == 0 else None

    def in_sync(self):
        status = self.status() or {"proxies": []}
        if faults := self.errors(status):
            raise SceneError("faults:\n" + "\n".join(faults))
        proxies = {f"{proxy['namespace']}/{proxy['name']}": proxy for proxy in status["proxies"]}
        return (set(proxies) >= set(self.engines) and all(map(is_in_sync, proxies.values()))
                and all(can_connect(*address) for address in self.listens_at()))

    def errors(self, status):
        """What is wrong with the mesh, as the control plane sees it."""
        return [fault for fault in status.get("faults", []) if ": warning: " not in fault]

    def log(self, workload):
        """A proxy's log: access log and events."""
        if self.engines[workload] == "envoy":
            return (self.dir / f"envoy-{workload.replace('/', '-')}.log").read_text()
        return self.run([self.sluis, "logs", workload]).stdout

    def wait(self, what, is_so):
        """Asks until it is so; tells what runs and what it said if that takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while not is_so():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise SceneError(f"{name} has ended with {process.returncode}\n{self.logs()}")
            if time.monotonic() > deadline:
                raise SceneError(f"waited {READY_WITHIN} s for {what}\n{self.logs()}")
            time.sleep(0.05)

    def logs(self):
        """The ends of all logs, for one who must find out what went wrong."""
        files = [*self.dir.glob("*.log"), *self.dir.glob("state/workloads/*/*/proxy.log")]
        ends = [f"--- {file}\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files]
        return "\n".join([*ends, "--- status", json.dumps(self.status(), indent=1)])

    def step(self, what):
        print(f"- {what}", flush=True)


def is_in_sync(proxy):
    """Whether a proxy has taken all it was sent; of some kinds it may need nothing."""
    states = {kind: sync["state"] for kind, sync in proxy["sync"].items()}
    return (proxy["is_connected"] and set(states.values()) <= {"SYNCED", "NOT SENT"}
            and all(states.get(kind) == "SYNCED" for kind in ("CDS", "LDS")))


def python():
    """The system's python, which every user may run; else the present one."""
    return next((path for path in ("/usr/bin/python3",) if os.access(path, os.X_OK)), sys.executable)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def can_connect(host, port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def descendants(pid):
    """A process and all below it, parents first."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            children = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text()
            found.extend(int(child) for child in children.split())
    return found
