"""Hosts in network namespaces, joined by a router: a small data centre that one test builds and removes.

In:    the places (hosts), the mesh's manifests.
Out:   namespaces, links, a router with a firewall, `sluis up` with its proxies in their namespaces.
Never: touches the machine's own network; leaves a namespace or a process behind.

```
 esp  signer  frontend  reports     applications: captured, a sidecar each
   \\     |       |       /
    +--- router ----------+--- legacy           an application without a sidecar
   /      |        \\      \\
 control  gateway   api  hsm  db                outside the mesh: api, hsm, db
```

How to use it (needs root):

```python
from topology import Topology
with Topology("target/debug") as net:               # the mesh of examples/hsm-egress, in eleven hosts
    net["esp"].python(CLIENT, "192.0.2.23", "2223")  # as an ordinary user, in the host's namespace
    net["esp"].run("ping", "-c1", net["api"].ip, root=True)
    net["api"].witness(443)                          # a server that tells who came: net["api"].seen()
    net["gateway"].unplug(); net["gateway"].plug()   # the link
    net.log("istio-system/egressgateway"); net.status()
```

`Topology(bin_dir, places=[...], manifests=function)` makes another one: `manifests(net)` gives texts
by file name; `net.entry(place)` writes the WorkloadEntry of a place.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "examples"))

from onebox.scene import Scene, SceneError, python  # noqa: E402

NOBODY = 65534
CONTROL_PORT = 15012
GATEWAY_PORT = 8443
HSM = ROOT / "examples/hsm-egress"


@dataclasses.dataclass
class Place:
    """One host, as it is wanted."""

    name: str
    net: int = 0  # 10.77.NET.2 and fd77:NET::2, unless `ip` says otherwise
    ip: str = ""
    workload: str = ""  # NAMESPACE/NAME of its proxy, if it has one
    run: str = ""  # "sidecar" or "gateway"
    labels: dict = dataclasses.field(default_factory=dict)
    account: str = ""
    captured: bool = False  # a packet filter brings its connections to its sidecar
    is_outside: bool = False  # outside the mesh: only the gateway may reach it
    proxy: str = "sluis"


TALKS = {"talksToHsm": "true"}
PLACES = [
    Place("control", 1),
    Place("gateway", 2, workload="istio-system/egressgateway", run="gateway",
          labels={"istio": "egressgateway"}, account="istio-egressgateway-service-account"),
    Place("esp", 10, workload="proxy-node/esp", run="sidecar", labels=TALKS, captured=True),
    Place("signer", 11, workload="verify-metadata/signer", run="sidecar", labels=TALKS, captured=True),
    Place("frontend", 12, workload="proxy-node/frontend", run="sidecar", captured=True),
    Place("reports", 13, workload="billing/reports", run="sidecar", labels=TALKS, captured=True),
    Place("legacy", 14),
    Place("api", 20, ip="198.51.100.10", is_outside=True),
    Place("hsm", 21, ip="192.0.2.23", is_outside=True),
    Place("db", 22, ip="203.0.113.5", is_outside=True),
]


class Host:
    """One namespace, and what runs in it."""

    def __init__(self, topology, place):
        self.topology, self.place, self.name = topology, place, place.name
        self.netns = f"{topology.prefix}-{place.name}"
        self.path = f"/run/netns/{self.netns}"
        number = place.net
        self.ip = place.ip or f"10.77.{number}.2"
        self.ip6 = f"fd77:{number}::2"
        self.hop = self.ip.rsplit(".", 1)[0] + ".1"  # the router's end of the link
        self.hop6 = f"fd77:{number}::1"

    def __repr__(self):
        return f"<{self.name} {self.ip}>"

    # -- commands

    def enter(self, *command, root=False, group=None):
        """The command line that runs a command here: as nobody, without capabilities, unless root."""
        line = ["nsenter", f"--net={self.path}", "--"]
        if not root:
            line += ["setpriv", f"--reuid={NOBODY}", f"--regid={group or NOBODY}", "--clear-groups",
                     "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
        return [*line, *map(str, command)]

    def run(self, *command, root=False, group=None, timeout=60, text_in=None):
        """Runs a command to its end."""
        return subprocess.run(
            self.enter(*command, root=root, group=group), input=text_in, text=True,
            stdin=None if text_in is not None else subprocess.DEVNULL,
            capture_output=True, timeout=timeout, env=self.topology.environment(), check=False)

    def do(self, *command, text_in=None):
        """Runs a command as root, which must succeed; returns what it printed."""
        done = self.run(*command, root=True, text_in=text_in)
        if done.returncode:
            raise SceneError(f"{self.name}: {' '.join(map(str, command))}: {done.stderr or done.stdout}")
        return done.stdout

    def python(self, code, *arguments, **how):
        """Runs a few lines of Python; returns what they printed."""
        done = self.run(python(), "-c", code, *arguments, **how)
        return (done.stdout or done.stderr).strip()

    def start(self, name, *command, root=True):
        """Starts a program that runs until `topology.stop(name)` or the end."""
        log = self.topology.dir / f"{name}.log"
        return self.topology.start(name, self.enter(*command, root=root), {}, log)

    # -- servers that tell who came

    def witness(self, *ports):
        """Listens on TCP and UDP ports of all addresses; logs who comes; answers each line."""
        name = f"witness-{self.name}"
        self.start(name, sys.executable, HERE / "witness.py", *ports)
        log = self.topology.dir / f"{name}.log"
        self.topology.wait(f"{name} to listen", lambda: "ready" in log.read_text())

    def seen(self):
        """The lines of the witness: `tcp 443 from 10.77.2.2`, `tcp 443 said …`."""
        log = self.topology.dir / f"witness-{self.name}.log"
        return [line for line in log.read_text().splitlines() if line != "ready"]

    # -- the link

    def unplug(self):
        """Takes the link away, at the router's end."""
        self.topology.router_do("ip", "link", "set", "dev", self.name, "down")

    def plug(self):
        """Gives the link back; a downed link forgets its IPv6 address."""
        self.topology.router_do("ip", "link", "set", "dev", self.name, "up")
        self.topology.router_do("ip", "address", "replace", f"{self.hop6}/64", "dev", self.name, "nodad")

    # -- capture

    def capture(self, *options):
        """Has a packet filter bring this host's connections and name queries to its sidecar."""
        self.do(self.topology.sluis, "capture", "apply", *options)

    def release(self):
        """Takes the packet filter away."""
        self.do(self.topology.sluis, "capture", "remove")


class Topology(Scene):
    """The hosts, the router and the mesh; gone at the end."""

    def __init__(self, programs, places=None, manifests=None, keep=False, up=()):
        self.places = list(places or PLACES)
        engines = {place.workload: place.proxy for place in self.places if place.workload}
        super().__init__(programs, engines, keep=keep, up=up)
        self.write, self.has_policies = manifests or hsm_manifests, manifests is None
        self.prefix = f"sl{os.getpid():x}"
        self.net = "10.77.0"
        self.router = Host(self, Place("router", 0))
        self.hosts = {place.name: Host(self, place) for place in self.places}

    def __getitem__(self, name):
        return self.hosts[name]

    def host_of(self, workload):
        return next(host for host in self.hosts.values() if host.place.workload == workload)

    # -- building

    def set(self):
        if os.geteuid():
            raise SceneError("network namespaces need root")
        self.build()
        for host in self.hosts.values():
            if host.place.captured:
                host.capture()
        self.manifests.mkdir()
        for name, text in self.write(self).items():
            (self.manifests / name).write_text(text)
        self.firewall()
        self.set_outside()
        self.start_all()

    def set_outside(self):
        """What runs outside the mesh: the HSM."""
        if "hsm" in self.hosts:
            hsm = self["hsm"]
            hsm.start("hsm", sys.executable, HSM / "hsm.py", hsm.ip)
            self.wait("the HSM to listen", lambda: "ready" in (self.dir / "hsm.log").read_text())

    def build(self):
        """Namespaces, links, addresses, routes."""
        self.step(f"build {len(self.hosts)} hosts and a router")
        for host in [self.router, *self.hosts.values()]:
            tell("ip", "netns", "add", host.netns)
            self.callback(remove, host.netns)
        router = ["link set lo up"]
        for host in self.hosts.values():
            tell("ip", "link", "add", "eth0", "netns", host.netns, "type", "veth",
                 "peer", "name", host.name, "netns", self.router.netns)
            router += [f"address add {host.hop}/24 dev {host.name}",
                       f"address add {host.hop6}/64 dev {host.name} nodad", f"link set dev {host.name} up"]
            batch(host.netns, [
                "link set lo up", f"address add {host.ip}/24 dev eth0",
                f"address add {host.ip6}/64 dev eth0 nodad", "link set eth0 up",
                f"route add default via {host.hop}", f"route add default via {host.hop6}"])
        batch(self.router.netns, router)
        self.router_do("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def router_do(self, *command, text_in=None):
        return self.router.do(*command, text_in=text_in)

    def firewall(self, *options):
        """The router's rules: from the NetworkPolicies and gateways of the manifests, or as listed below."""
        if not self.has_policies:
            self.router_do("nft", "-f", "-", text_in=self.firewall_text())
            return
        self.router_do(self.sluis, "capture", "firewall", "-f", self.manifests, "--apply",
                       "--control", f"{self['control'].ip}:{CONTROL_PORT}", *options)

    def open_router(self):
        """Takes the router's rules away: a hole that a test opens on purpose."""
        self.router_do(self.sluis, "capture", "firewall", "-f", self.manifests, "--remove")
        self.router_do("nft", "-f", "-", text_in="add table inet firewall\ndelete table inet firewall\n")

    def firewall_text(self):
        """Rules of a mesh that has no NetworkPolicies: to the outside from gateways alone."""
        inside = [host for host in self.hosts.values() if not host.place.is_outside]
        outside = [host for host in self.hosts.values() if host.place.is_outside]
        gateways = [host for host in inside if host.place.run == "gateway"]
        control = [host for host in inside if host.name == "control"]
        rules = ["ct state established,related accept"]
        for field, ip in (("ip", lambda host: host.ip), ("ip6", lambda host: host.ip6)):
            away = ", ".join(map(ip, outside))
            for host in gateways:
                rules.append(f"{field} saddr {ip(host)} {field} daddr {{ {away} }} accept")
            rules.append(f"{field} daddr {{ {away} }} counter reject")
            for host in control:
                rules.append(f"{field} daddr {ip(host)} tcp dport {CONTROL_PORT} accept")
            for host in gateways:
                rules.append(f"{field} daddr {ip(host)} tcp dport {GATEWAY_PORT} accept")
        lines = "\n    ".join(rules)
        return (f"table inet firewall\ndelete table inet firewall\ntable inet firewall {{\n  chain forward {{\n"
                f"    type filter hook forward priority 0; policy drop;\n    {lines}\n    counter reject\n  }}\n}}\n")

    def rejected(self):
        """How many packets the router's firewall has rejected."""
        told = self.router_do("nft", "-j", "list", "table", "inet", "firewall")
        rules = [one["rule"]["expr"] for one in json.loads(told)["nftables"] if "rule" in one]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    # -- the mesh

    def start_mesh(self, port=None):
        self.step("start the mesh: sluis up, in its own host")
        host = self["control"]
        self.control, self.state = CONTROL_PORT, self.dir / "state"
        command = [self.sluis, "up", "-f", self.manifests, "--state-dir", self.state,
                   "--listen", f"{host.ip}:{CONTROL_PORT}", *self.up_options]
        self.start("up", host.enter(*command, root=True), self.up_environment(), self.dir / "up.log")
        self.wait("sluis up to answer", lambda: self.status() is not None)

    def entry(self, place, annotations=()):
        """The WorkloadEntry of a place."""
        host = self[place.name]
        namespace, name = place.workload.split("/")
        lines = ["apiVersion: networking.istio.io/v1", "kind: WorkloadEntry", "metadata:",
                 f"  name: {name}", f"  namespace: {namespace}", "  annotations:",
                 f"    sluis.dev/run: {place.run}", f"    sluis.dev/proxy: {place.proxy}",
                 f"    sluis.dev/netns: {host.path}", *(f"    {line}" for line in annotations),
                 "spec:", f"  address: {host.ip}", f"  serviceAccount: {place.account or name}", "  labels:",
                 f"    app: {name}", *(f'    {key}: "{value}"' for key, value in place.labels.items())]
        return "\n".join(lines) + "\n"

    def start(self, name, command, environment, log):
        """As ever, but a real Envoy runs in its workload's host, as the group that capture leaves alone."""
        if name in self.engines:
            inside = self.host_of(name).enter(root=True)
            command = [*inside, "setpriv", "--regid=1337", "--clear-groups", "--", *command]
        return super().start(name, command, environment, log)

    def exec(self, workload, *command):
        return self.host_of(workload).run(*command)

    def pid(self, workload):
        """The process of a workload's proxy."""
        for proxy in (self.status() or {"proxies": []})["proxies"]:
            if f"{proxy['namespace']}/{proxy['name']}" == workload:
                return proxy.get("pid")
        return None

    def kill(self, workload):
        """kill -9 of a workload's proxy; `sluis up` starts it again."""
        os.kill(self.pid(workload), signal.SIGKILL)

    def kill_up(self):
        """kill -9 of `sluis up`: the proxies go on. `start_mesh()` starts it again."""
        process = self.processes.pop("up")
        process.kill()
        process.wait()

    @contextlib.contextmanager
    def packets(self, file, interface="any"):
        """Records the router's packets while the body runs."""
        path = self.dir / file
        command = self.router.enter(
            "dumpcap", "-q", "-i", interface, "-w", path, "-P", root=True)
        with open(self.dir / f"{file}.log", "wb") as log:
            recorder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait("dumpcap to record", lambda: path.exists() and path.stat().st_size > 0)
            yield path
        finally:
            time.sleep(0.3)  # the kernel's ring is read every so often; nothing tells when
            recorder.send_signal(signal.SIGINT)
            recorder.wait(20)


def hsm_manifests(net):
    """The mesh of examples/hsm-egress, with each workload in its own host."""
    texts = {path.name: path.read_text().replace("127.0.0.9", net["hsm"].ip)
             for path in (HSM / "istio").glob("*.yaml")}
    texts["mesh.yaml"] = (HSM / "machine/mesh.yaml").read_text()
    texts["workloads.yaml"] = "---\n".join(net.entry(place) for place in net.places if place.workload)
    service = (HSM / "machine/gateway.yaml").read_text().split("---")[0]
    return texts | {"gateway-service.yaml": service, "network-policies.yaml": POLICIES}


# The policy of the article (seed of examples/hsm-egress) as it is printed there, for both namespaces that
# may talk to the HSM; and the gateway's own: who may call it.
POLICIES = """
{apiVersion: v1, kind: Namespace, metadata: {name: proxy-node, labels: {namespace: proxy-node}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system, labels: {istio: system}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-egress-to-istio-system-and-kube-dns
  namespace: proxy-node
spec:
  podSelector: {}
  policyTypes:
  - Egress
  egress:
  - to:
    - namespaceSelector:
        matchLabels:
          kube-system: "true"
    ports:
    - protocol: UDP
      port: 53
  - to:
    - namespaceSelector:
        matchLabels:
          istio: system
  - to:
    - namespaceSelector:
        matchLabels:
          namespace: proxy-node
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: gateway-port
  namespace: istio-system
spec:
  podSelector:
    matchLabels:
      istio: egressgateway
  policyTypes:
  - Ingress
  ingress:
  - ports:
    - port: 8443
"""


def tell(*command, text_in=None):
    done = subprocess.run(command, input=text_in, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SceneError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def batch(netns, lines):
    tell("ip", "-n", netns, "-batch", "-", text_in="\n".join(lines) + "\n")


def remove(netns):
    """Removes a namespace with all that runs in it."""
    told = subprocess.run(["ip", "netns", "pids", netns], capture_output=True, text=True, check=False)
    for pid in told.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", netns], capture_output=True, check=False)


def namespaces(prefix):
    """The namespaces that there are of one topology."""
    return [line.split()[0] for line in tell("ip", "netns", "list").splitlines() if line.startswith(prefix)]
