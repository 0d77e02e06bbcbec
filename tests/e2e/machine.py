"""A machine of its own for a scenario: network namespaces on a bridge, with sidecars behind a packet filter.

In:    a process that is alone in a user, mount and network namespace (`alone()` makes one).
Out:   one namespace for each workload, as a pod has it; what it receives goes to port 15006, what it
       sends to the mesh's virtual addresses to port 15001.
Never: touches the network of the machine around it.
"""

import os
import pathlib
import subprocess
import sys

from mesh import ROOT, expect

sys.path.insert(0, str(ROOT / "examples"))

from onebox.scene import Scene  # noqa: E402

PODS, VIPS = "10.9.0", "10.96.0"
WITHIN = 420  # seconds for a whole scenario
# Received connections go to the sidecar, and so do those to the mesh's virtual addresses. The
# sidecar's own go to addresses of workloads, and are left alone.
FILTER = """
table ip mesh {
  chain received {
    type nat hook prerouting priority -100
    iifname "eth0" meta l4proto tcp redirect to :15006
  }
  chain sent {
    type nat hook output priority -100
    ip daddr %s.0/16 meta l4proto tcp redirect to :15001
  }
}
""" % VIPS
WRAPPER = """#!/bin/sh
# Starts a sidecar where its workload is.
name=$(printf %%s "$*" | sed -n 's#.*/workloads/[^/]*/\\([^/]*\\)/.*#\\1#p')
if [ "$1" = run ]; then exec ip netns exec "$name" %(proxy)s "$@"; fi
exec %(proxy)s "$@"
"""


def alone(program, *arguments):
    """Runs a scenario's program in namespaces of its own; gives what it printed."""
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork",
               "--mount-proc", "--kill-child", sys.executable, program, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=WITHIN, cwd="/")
    expect(done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done.stdout.splitlines()


def run(*command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **more)
    expect(done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


class Machine(Scene):
    """A mesh whose workloads have a network namespace each, named as they are."""

    def __init__(self, programs, engines, pods):
        """`pods`: the last number of each namespace's address; the engines' workloads are among them."""
        super().__init__(programs, engines)
        self.pods = pods

    def set_up(self, manifests):
        for command in ("mount -t tmpfs run /run", "ip link set lo up", "ip link add mesh type bridge",
                        f"ip address add {PODS}.1/24 dev mesh", "ip link set mesh up"):
            run(*command.split())
        for name, number in self.pods.items():
            self.add_pod(name, number)
        self.manifests.mkdir()
        (self.manifests / "all.yaml").write_text(manifests)
        wrapper = self.dir / "sluis-proxy"
        wrapper.write_text(WRAPPER % {"proxy": self.sluis.parent / "sluis-proxy"})
        wrapper.chmod(0o755)
        self.up_options += ["--proxy-program", str(wrapper)]
        self.start_all()

    def add_pod(self, name, number):
        inner = f"ip -n {name}"
        for command in (f"ip netns add {name}", f"ip link add v{number} type veth peer name eth0 netns {name}",
                        f"ip link set v{number} master mesh up", f"{inner} link set lo up",
                        f"{inner} address add {PODS}.{number}/24 dev eth0", f"{inner} link set eth0 up",
                        f"{inner} route add default via {PODS}.1"):
            run(*command.split())
        if any(workload.endswith(f"/{name}") for workload in self.engines):
            run("ip", "netns", "exec", name, "nft", "-f", "-", input=FILTER)

    def start_mesh(self, port=None):
        self.control, self.state = port or 15012, self.dir / "state"
        command = [self.sluis, "up", "-f", self.manifests, "--state-dir", self.state,
                   "--listen", f"{PODS}.1:{self.control}", *self.up_options]
        self.start("up", command, self.up_environment(), self.dir / "up.log")
        self.wait("sluis up to answer", lambda: self.status() is not None)

    def start(self, name, command, environment, log):
        """As ever, but a real Envoy runs where its workload is."""
        if name in self.engines:
            command = ["ip", "netns", "exec", name.split("/")[1], *command]
            command = ["1" if one == "2" else one for one in command]
        return super().start(name, command, environment, log)

    def inside(self, pod, *command):
        return ["ip", "netns", "exec", pod, *map(str, command)]

    def log(self, workload):
        """A proxy's log: access log and events."""
        if self.engines[workload] == "envoy":
            return (self.dir / f"envoy-{workload.replace('/', '-')}.log").read_text()
        return (self.state / "workloads" / workload / "proxy.log").read_text()

    def step(self, what):
        """Steps are not told: a scenario tells what it found."""


def self_signed(directory, name):
    """A key and a certificate that nobody knows: of an application that speaks TLS itself."""
    key, certificate = pathlib.Path(directory) / f"{name}.key", pathlib.Path(directory) / f"{name}.crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate)
    return certificate, key


def is_alone():
    """Whether this process has a network of its own."""
    return len(os.listdir("/sys/class/net")) <= 1 or pathlib.Path("/proc/1/comm").read_text() != "systemd\n"
