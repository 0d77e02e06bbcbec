"""The scene: a directory, the API, the mesh, and a real Envoy where it is asked for."""

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

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent
READY_WITHIN = 60  # seconds; it takes less than one on an idle machine
COMMAND_WITHIN = 120  # the search of the whole file system is the longest
STOP_WITHIN = 20  # proxies drain for some seconds
GATEWAY, NOTEBOOK = "egress/gateway", "team-a/notebook"
GATEWAY_PORT, API_PORT = 8443, 9443


class SceneError(Exception):
    """The scene cannot be set."""


class Scene(contextlib.ExitStack):
    """Everything that runs; gone at the end."""

    def __init__(self, programs, sidecar="sluis", gateway="sluis", keep=False, up=()):
        super().__init__()
        self.began = time.time()
        self.sluis = pathlib.Path(programs).resolve() / "sluis"
        self.engines = {GATEWAY: gateway, NOTEBOOK: sidecar}
        self.keep = keep
        self.up_options = list(up)
        self.processes = {}
        # Loopback has 2^24 addresses: one network for each scene, so that several can run at once.
        self.net = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"

    def __enter__(self):
        super().__enter__()
        try:
            self.set()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def set(self):
        if not self.sluis.exists():
            raise SceneError(f"{self.sluis} is not there: build it first")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluis-"))
        if self.keep:
            print(f"directory: {self.dir}")
        else:
            self.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.step("make keys, certificates and a user's token (setup.sh)")
        subprocess.run([EXAMPLE / "setup.sh", self.dir], check=True)
        self.secret = (self.dir / "egress-secrets/secret-key").read_bytes()
        self.access_key = (self.dir / "egress-secrets/access-key").read_text()
        self.token = (self.dir / "client/user.jwt").read_text()
        self.write_manifests()
        self.start_api()
        self.start_mesh()
        for workload, engine in self.engines.items():
            if engine == "envoy":
                self.start_envoy(workload)
        self.step("wait until every proxy has its certificate and its configuration")
        self.wait("every proxy to be in sync", self.in_sync)

    # -- what runs

    def write_manifests(self):
        """A copy of the manifests, with this scene's addresses and the programs asked for."""
        self.manifests = self.dir / "manifests"
        for part in ("istio", "machine"):
            shutil.copytree(EXAMPLE / part, self.manifests / part)
        for path in self.manifests.glob("machine/*.yaml"):
            path.write_text(path.read_text().replace("127.0.0.", f"{self.net}."))
        files = {GATEWAY: "egress-gateway.yaml", NOTEBOOK: "notebook.yaml"}
        for workload, engine in self.engines.items():
            path = self.manifests / "machine" / files[workload]
            text = path.read_text()
            assert text.count("sluis.dev/proxy: sluis ") == 1, path
            path.write_text(text.replace("sluis.dev/proxy: sluis ", f"sluis.dev/proxy: {engine} "))

    def start_api(self):
        self.step(f"start the API at {self.api_address}:{API_PORT}")
        program = [sys.executable, EXAMPLE / "api/api.py", "--dir", self.dir / "api",
                   "--address", self.api_address, "--port", str(API_PORT),
                   "--record", self.dir / "api/last-request.json"]
        self.start("api", program, {}, self.dir / "api/log")
        self.wait("the API to listen", lambda: can_connect(self.api_address, API_PORT))

    def start_mesh(self, port=None):
        self.step("start the mesh: sluis up")
        self.control = port or free_port()
        self.state = self.dir / "state"
        command = [self.sluis, "up", "-f", self.manifests, "--state-dir", self.state,
                   "--listen", f"127.0.0.1:{self.control}", *self.up_options]
        # The access key reaches the gateway through the environment of `sluis up`.
        self.start("up", command, {"DATA_API_ACCESS_KEY": self.access_key}, self.dir / "up.log")
        self.wait("sluis up to answer", lambda: self.status() is not None)

    def start_envoy(self, workload):
        self.step(f"start a real Envoy as {workload}")
        installed = EXAMPLE.parent.parent / "target/envoy/bin/envoy"
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
        environment = {}
        if workload == GATEWAY:
            environment = {"DATA_API_ACCESS_KEY": self.access_key,
                           "LUA_PATH": f"{self.dir}/lua/?.lua"}
        self.start(workload, command, environment, self.dir / f"envoy-{name}.log")

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

    @property
    def gateway_address(self):
        return f"{self.net}.2"

    @property
    def api_address(self):
        return f"{self.net}.9"

    def environment(self):
        """The caller's environment, without what would lead anything past the mesh."""
        gone = {"DATA_API_ACCESS_KEY", "SSL_CERT_FILE", "SLUIS_STATE_DIR"}
        return {name: value for name, value in os.environ.items()
                if name not in gone and not name.lower().endswith("_proxy")}

    def run(self, command, **environment):
        """Runs a command to its end."""
        return subprocess.run(
            command, cwd=self.dir, env=self.jail_environment() | environment, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_WITHIN)

    def jail_environment(self):
        return self.environment() | {
            "SLUIS_STATE_DIR": str(self.state),
            "SSL_CERT_FILE": str(self.dir / "client/ca.crt"),
            "USER_JWT": self.token,
        }

    def in_jail(self, *command):
        """Runs a command in the jail of the notebook."""
        return self.run([self.sluis, "exec", NOTEBOOK, "--", *command])

    def client(self, *arguments):
        return self.in_jail(python(), EXAMPLE / "client.py", *arguments)

    def status(self):
        """What `sluis proxy-status` says; None while nobody answers."""
        if not self.state.exists():
            return None
        told = self.run([self.sluis, "proxy-status", "-o", "json"])
        return json.loads(told.stdout) if told.returncode == 0 else None

    def in_sync(self):
        status = self.status() or {"proxies": []}
        if status.get("faults"):
            raise SceneError("faults:\n" + "\n".join(status["faults"]))
        proxies = {f"{proxy['namespace']}/{proxy['name']}": proxy for proxy in status["proxies"]}
        return (set(proxies) >= set(self.engines) and all(map(is_in_sync, proxies.values()))
                and can_connect(self.gateway_address, GATEWAY_PORT))

    def gateway_pid(self):
        """The process that signs."""
        if self.engines[GATEWAY] == "envoy":
            return descendants(self.processes[GATEWAY].pid)[-1]
        for proxy in self.status()["proxies"]:
            if f"{proxy['namespace']}/{proxy['name']}" == GATEWAY:
                return proxy["pid"]
        raise SceneError("the gateway has no process")

    def log(self, workload):
        """A proxy's log: access log and events."""
        if self.engines[workload] == "envoy":
            return (self.dir / f"envoy-{workload.replace('/', '-')}.log").read_text()
        return self.run([self.sluis, "logs", workload]).stdout

    def api_log(self):
        """What the API says of each request; failed handshakes are no requests."""
        lines = (self.dir / "api/log").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if "status" in record]

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
            and all(states.get(kind) == "SYNCED" for kind in ("CDS", "EDS", "LDS")))


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
