"""The scene of this example: the API, its keys, and the mesh with the gateway that signs."""

import json
import pathlib
import shutil
import subprocess
import sys

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(EXAMPLE.parent))

from onebox import scene as onebox  # noqa: E402
from onebox.scene import (  # noqa: E402
    COMMAND_WITHIN, SceneError, can_connect, descendants, free_port, python)

GATEWAY, NOTEBOOK = "egress/gateway", "team-a/notebook"
GATEWAY_PORT, API_PORT = 8443, 9443


class Scene(onebox.Scene):
    """Everything that runs; gone at the end."""

    api_options = ()

    def __init__(self, programs, sidecar="sluis", gateway="sluis", keep=False, up=()):
        super().__init__(programs, {GATEWAY: gateway, NOTEBOOK: sidecar}, keep, up)

    def set(self):
        self.step("make keys, certificates and a user's token (setup.sh)")
        subprocess.run([EXAMPLE / "setup.sh", self.dir], check=True)
        self.secret = (self.dir / "egress-secrets/secret-key").read_bytes()
        self.access_key = (self.dir / "egress-secrets/access-key").read_text()
        self.token = (self.dir / "client/user.jwt").read_text()
        self.write_manifests()
        self.start_api()
        self.start_all()

    # -- what runs

    def write_manifests(self):
        """A copy of the manifests, with this scene's addresses and the programs asked for."""
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
                   "--record", self.dir / "api/last-request.json", *self.api_options]
        self.start("api", program, {}, self.dir / "api/log")
        self.wait("the API to listen", lambda: can_connect(self.api_address, API_PORT))

    def up_environment(self):
        # The access key reaches the gateway through the environment of `sluis up`.
        return {"DATA_API_ACCESS_KEY": self.access_key}

    def envoy_environment(self, workload):
        if workload != GATEWAY:
            return {}
        return {"DATA_API_ACCESS_KEY": self.access_key, "LUA_PATH": f"{self.dir}/lua/?.lua"}

    def listens_at(self):
        return [(self.gateway_address, GATEWAY_PORT)]

    # -- what can be asked

    @property
    def gateway_address(self):
        return f"{self.net}.2"

    @property
    def api_address(self):
        return f"{self.net}.9"

    def environment(self):
        return {name: value for name, value in super().environment().items()
                if name != "DATA_API_ACCESS_KEY"}

    def jail_environment(self):
        return super().jail_environment() | {"USER_JWT": self.token}

    def in_jail(self, *command):
        """Runs a command in the jail of the notebook."""
        return self.exec(NOTEBOOK, *command)

    def client(self, *arguments):
        return self.in_jail(python(), EXAMPLE / "client.py", *arguments)

    def gateway_pid(self):
        """The process that signs."""
        if self.engines[GATEWAY] == "envoy":
            return descendants(self.processes[GATEWAY].pid)[-1]
        for proxy in self.status()["proxies"]:
            if f"{proxy['namespace']}/{proxy['name']}" == GATEWAY:
                return proxy["pid"]
        raise SceneError("the gateway has no process")

    def api_log(self):
        """What the API says of each request; failed handshakes are no requests."""
        lines = (self.dir / "api/log").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if "status" in record]


__all__ = ["API_PORT", "COMMAND_WITHIN", "EXAMPLE", "GATEWAY", "GATEWAY_PORT", "NOTEBOOK", "Scene",
           "SceneError", "can_connect", "descendants", "free_port", "python"]
