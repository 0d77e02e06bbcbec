"""Several hosts in network namespaces: capture, firewall, and no way around the gateway. Needs root."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from mesh import HERE, Failed, expect, wait_until
from topology import PLACES, Topology, hsm_manifests, namespaces, remove, tell

CAPTURED_AT_ONCE = 200


def many_namespaces_are_captured_and_released(options):
    """200 namespaces are captured and released; no rule and no namespace is left."""
    sluis = options.bin_dir / "sluis"
    names = [f"slmany-{number}" for number in range(CAPTURED_AT_ONCE)]
    try:
        for name in names:
            tell("ip", "netns", "add", name)
        took = {}
        for verb in ("apply", "remove"):
            began = time.monotonic()
            for name in names:
                tell(str(sluis), "capture", verb, "--netns", f"/run/netns/{name}")
            took[verb] = (time.monotonic() - began) / len(names) * 1000
            for name in (names[0], names[-1]):
                rules = tell("ip", "netns", "exec", name, "nft", "list", "ruleset")
                is_there = "redirect to :15001" in rules
                expect(is_there == (verb == "apply"), f"after {verb}, {name} has: {rules or 'no rules'}")
                expect(verb == "apply" or not rules, f"left in {name}: {rules}")
    finally:
        for name in names:
            remove(name)
    expect(not namespaces("slmany-"), "namespaces are left")
    return [f"for each namespace: captured in {took['apply']:.1f} ms, released in {took['remove']:.1f} ms"]


def capture_replaces_its_rules_and_no_others(options):
    """Capture is idempotent with nft and with iptables, and leaves rules of others alone."""
    sluis, name = str(options.bin_dir / "sluis"), "slagain"
    tell("ip", "netns", "add", name)
    try:
        inside = ["ip", "netns", "exec", name]
        tell(*inside, "nft", "add table inet theirs { chain c { type filter hook input priority 0; } ; }")
        tell(*inside, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
        for backend in ("nft", "iptables"):
            place = ["--netns", f"/run/netns/{name}", "--backend", backend]
            shown = []
            for _ in range(3):
                tell(sluis, "capture", "apply", *place, "--closed")
                shown.append(tell(sluis, "capture", "show", *place))
            expect(len(set(shown)) == 1, f"{backend}: applied again, the rules differ:\n{shown[0]}\n{shown[-1]}")
            bad = subprocess.run(
                [sluis, "capture", "apply", *place, "-a", "traffic.sidecar.istio.io/excludeInboundPorts=http"],
                capture_output=True, text=True, check=False)
            expect(bad.returncode == 1 and "excluded inbound ports" in bad.stderr, f"{bad}")
            expect(tell(sluis, "capture", "show", *place) == shown[0], f"{backend}: refused, yet changed")
            tell(sluis, "capture", "remove", *place)
            left = tell(*inside, "nft", "list", "ruleset")
            expect("15001" not in left and "SLUIS" not in left, f"{backend} leaves {left}")
            expect("theirs" in left and "dport 9" in left, f"{backend} took others' rules: {left}")
    finally:
        remove(name)
    return []


CLIENT = """
import socket, sys
host, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    with socket.create_connection((host, port), 10) as stream:
        stream.settimeout(10)
        stream.sendall(text.encode() + b"\\n")
        answer = stream.makefile().readline()
        print(answer.strip() if answer else "closed without an answer")
except OSError as error:
    print("refused:", error)
"""
HSM_IP = "192.0.2.23"
TALKERS = ("esp", "signer")  # proxy-node and verify-metadata, with the label
OTHERS = ("frontend", "reports", "legacy")  # without the label; of another namespace; without a sidecar
SECRET = "the-key-is-under-the-mat"  # what must not be seen on the wire


def ask(host, port=2223, text="sign"):
    """What the HSM says to a host, in one line."""
    return host.python(CLIENT, HSM_IP, str(port), text)


def is_refused(answer):
    return answer.startswith(("refused:", "closed"))


def the_hsm_is_reached_through_the_gateway_alone(options):
    """Seed 001 on eleven hosts: ports 2223 to 2225 by mutual TLS; only the gateway reaches the outside."""
    with Topology(options.bin_dir) as net:
        with net.packets("router.pcapng") as packets:
            for name in TALKERS:
                for port in (2223, 2224, 2225):
                    answer = ask(net[name], port, SECRET)
                    expect(answer == f"HSM {port}: {SECRET}", f"{name} asks {port}: {answer}")
            for name in OTHERS:
                expect(is_refused(ask(net[name])), f"{name} is answered")
        log = (net.dir / "hsm.log").read_text()
        came = {line.split()[-1] for line in log.splitlines() if "connection from" in line}
        expect(came == {net["gateway"].ip}, f"the HSM saw {came}")
        for name in TALKERS:
            wanted = f"from=spiffe://cluster.local/ns/{net[name].place.workload.replace('/', '/sa/')} sni=cloudhsm-2223.tcp.svc tls=TLSv1.3"
            expect(wanted in net.log("istio-system/egressgateway"), f"the gateway's log has no {wanted}")
        # In a namespace of its own the gateway takes IPv6 too.
        told = net["gateway"].run("openssl", "s_client", "-connect", f"[{net['gateway'].ip6}]:8443", "-servername",
                                  "cloudhsm-2223.tcp.svc", "-alpn", "istio")
        expect("CONNECTED" in told.stdout and "spiffe" not in told.stderr, f"the gateway by IPv6: {told}")
        notes = mutual_tls_only(net, packets)
        notes += only_the_gateway_leaves(net)
        return notes


def mutual_tls_only(net, packets):
    """What the router carried between applications and gateway: TLS with the names expected, no plain text."""
    inside = [net[name].ip for name in (*TALKERS, *OTHERS)]
    hellos = tshark(packets, "tls.handshake.type == 1", "ip.src", "ip.dst", "tls.handshake.extensions_server_name")
    to_gateway = {(source, name) for source, to, name in hellos if to == net["gateway"].ip}
    wanted = {(net[name].ip, f"cloudhsm-{port}.tcp.svc") for name in TALKERS for port in (2223, 2224, 2225)}
    expect(to_gateway == wanted, f"hellos to the gateway: {to_gateway}")
    ours = " or ".join(f"ip.addr == {ip}" for ip in inside)
    secret = SECRET.encode().hex(":")
    seen = tshark(packets, f"({ours}) and tcp.payload contains {secret}", "ip.src", "ip.dst")
    expect(not seen, f"plain text on the wire: {seen}")
    behind = tshark(packets, f"ip.dst == {HSM_IP} and tcp.payload contains {secret}", "ip.src")
    expect({source for source, in behind} == {net["gateway"].ip}, f"to the HSM came {behind}")
    first = {}
    both = f"ip.addr == {net['gateway'].ip} and ({ours}) and tcp.len > 0"
    for stream, payload in tshark(packets, both, "tcp.stream", "tcp.payload"):
        first.setdefault(stream, payload)
    strange = [payload for payload in first.values() if not payload.startswith("1603")]
    expect(first and not strange, f"streams that do not begin as TLS: {strange}")
    return [f"{len(hellos)} hellos on the router, all with the names expected; the text only behind the gateway"]


def only_the_gateway_leaves(net):
    """Every host but the gateway is refused by the router, whatever it tries."""
    net["api"].witness(443, 53)
    for name in (*TALKERS, *OTHERS):
        for group in (None, 1337):
            answer = net[name].python(CLIENT, net["api"].ip, "443", "x", group=group)
            expect(is_refused(answer), f"{name} (group {group}) reaches the API: {answer}")
    answer = net["gateway"].python(CLIENT, net["api"].ip, "443", "x")
    expect(answer == "witness: x", f"the gateway does not reach the API: {answer}")
    came = {line.split()[-1] for line in net["api"].seen() if " from " in line}
    expect(came == {net["gateway"].ip}, f"the API saw {came}")
    return ["the API saw the gateway alone"]


def tshark(file, matching, *fields):
    """The packets that match: a tuple of fields for each."""
    words = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(["tshark", "-r", file, "-Y", matching, "-T", "fields", *words],
                          capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"tshark: {done.stderr}")
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def is_alive(pid):
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def each_piece_may_stop_and_nothing_gets_out(options):
    """Sidecar, gateway, control plane or link stop: nothing gets out, and all recovers."""
    with Topology(options.bin_dir) as net:
        esp, gateway = net["esp"], "istio-system/egressgateway"
        net["api"].witness(443)

        def works():
            return ask(esp, text="back") == "HSM 2223: back"

        def is_closed(what):
            answer = esp.python(CLIENT, net["api"].ip, "443", "x")
            expect(is_refused(answer), f"{what}: the API is reached: {answer}")

        expect(works(), "it does not work at first")
        took = []

        def recovers(what, began):
            wait_until(f"{what} to recover", works)
            took.append(f"{what}: works again after {time.monotonic() - began:.1f} s")

        # The control plane: proxies go on without it, and take it back.
        held = net.pid(esp.place.workload)
        net.kill_up()
        expect(works(), "without the control plane, traffic stops")
        is_closed("without the control plane")
        # A sidecar that dies while nobody is there to start it again: closed.
        os.kill(held, signal.SIGKILL)
        wait_until("the sidecar to end", lambda: not is_alive(held))
        expect(is_refused(ask(esp)), "without its sidecar the HSM is reached")
        is_closed("without a sidecar")
        began = time.monotonic()
        net.start_mesh()
        recovers("sidecar and control plane", began)
        # The gateway: killed, started again by the supervisor.
        began = time.monotonic()
        net.kill(gateway)
        is_closed("without the gateway")
        recovers("gateway", began)
        # Its link.
        net["gateway"].unplug()
        expect(is_refused(ask(esp)), "without the gateway's link the HSM is reached")
        is_closed("without the gateway's link")
        began = time.monotonic()
        net["gateway"].plug()
        recovers("the gateway's link", began)
        came = [line for line in net["api"].seen() if " from " in line]
        expect(not came, f"the API was reached: {came}")
        return took


def the_prober_finds_no_way_out_and_each_hole(options):
    """The prober finds no way out of a captured host behind the firewall, and each hole made on purpose."""
    with Topology(options.bin_dir) as net:
        esp, api, router = net["esp"], net["api"], net.router
        api.witness(443, 22, 25, 53, 80, 123, 853, 8080, 15443, 51820)
        esp.release()
        esp.capture("--closed")
        found = probe(net, "proxy-node/esp")
        expect(not found["open"], f"ways out: {found['open']}")
        expect(not api.seen(), f"the API saw {api.seen()}")
        notes = [f"{found['all']} ways tried in {found['took']:.1f} s, none open"]
        as_root = probe(net, "proxy-node/esp", "--user", "0")
        # Root of the namespace may write packets past its rules; the router refuses them.
        expect({way for way, _ in as_root["open"]} <= {"packet socket"}, f"as root: {as_root['open']}")
        expect(not api.seen(), f"the API saw {api.seen()}")
        for hole, open_it, close_it, ways in holes(net):
            open_it()
            found = {way for way, _ in probe(net, "proxy-node/esp")["open"]}
            expect(ways <= found, f"{hole}: found {found}, not {ways - found}")
            notes.append(f"{hole}: found {len(found)}, such as {', '.join(sorted(ways))}")
            close_it()
        notes.append(datagrams_need_no_answer(net))
        net.firewall()
        esp.capture("--closed")
        found = probe(net, "proxy-node/esp")
        expect(not found["open"] and not found["doubtful"], f"ways out, after all holes were closed: {found}")
        return notes


def datagrams_need_no_answer(net):
    """UDP that leaves is found where nobody answers: refused by the host outside, or in doubt when it is silent."""
    net.open_router()
    net["esp"].capture()
    net.stop("witness-api")
    ways = {"UDP over IPv4", "UDP over IPv6"}
    found = probe(net, "proxy-node/esp")
    expect(ways <= {way for way, _ in found["open"]}, f"refused outside: {found}")
    net["api"].do("nft", "-f", "-", text_in="table inet quiet { chain c { type filter hook input priority 0; "
                  "meta l4proto udp drop; } ; }")
    found = probe(net, "proxy-node/esp")
    expect(ways <= set(found["doubtful"]), f"silent outside: {found}")
    return f"UDP without an answer: {len(found['doubtful'])} ways in doubt"


# Who may call verify-metadata/signer, and whom it may call.
CALLERS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: callers, namespace: verify-metadata}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: billing}}
      podSelector: {matchLabels: {app: reports}}
    ports: [{port: 9000, endPort: 9001}]
  egress:
  - to: [{namespaceSelector: {matchLabels: {istio: system}}}]
"""


def a_hosts_own_firewall_obeys_network_policies(options):
    """Without a router's help, the firewall on two hosts lets in and out what NetworkPolicies say."""
    with Topology(options.bin_dir) as net:
        (net.manifests / "callers.yaml").write_text(CALLERS)
        net.open_router()
        for name in TALKERS:
            host = net[name]
            host.do(net.sluis, "capture", "firewall", "-f", net.manifests, host.place.workload, "--apply",
                    "--control", f"{net['control'].ip}:15012")
            expect(ask(host) == "HSM 2223: sign", f"{name} does not reach the HSM: {ask(host)}")
        net["api"].witness(443, 22, 25, 53, 80, 123, 853, 8080, 15443, 51820)
        found = probe(net, "proxy-node/esp")
        expect(not found["open"], f"ways out: {found['open']}")
        signer = net["signer"]
        signer.witness(9000, 9001, 9002)

        def call(name, port):
            # As the sidecar's group, so that the caller's sidecar has no say.
            return net[name].python(CLIENT, signer.ip, str(port), "x", group=1337)

        for port in (9000, 9001):
            expect(call("reports", port) == "witness: x", f"reports is refused port {port}: {call('reports', port)}")
        for name, port in (("reports", 9002), ("frontend", 9000), ("legacy", 9000), ("esp", 9000)):
            expect(is_refused(call(name, port)), f"{name} reaches port {port}")
        net.firewall()
        expect(is_refused(call("legacy", 9000)) and is_refused(call("reports", 9002)), "the router differs")
        expect(call("reports", 9000) == "witness: x", f"the router refuses reports: {call('reports', 9000)}")
        return []


LATE = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: late
  namespace: shop
  annotations:
    sluis.dev/run: sidecar
    sluis.dev/netns: /run/netns/%s
    %s
spec: {address: 10.0.0.1}
"""
# A connection that was there before capture: it says when it has ended.
EARLY = """
import socket
server = socket.create_server(("127.0.0.1", 7))
client, end = socket.create_connection(("127.0.0.1", 7), 20), server.accept()[0]
print("connected", flush=True)
try:
    client.recv(1)
except OSError as error:
    print("ended", flush=True)
"""


def what_started_before_capture_is_repaired(options):
    """A namespace without its rules, or with others, is found and captured; connections from before are ended."""
    sluis, name = options.bin_dir / "sluis", "sllate"

    def repair(*more, expected=0):
        done = subprocess.run([sluis, "capture", "repair", "-f", file, *more],
                              capture_output=True, text=True, check=False)
        expect(done.returncode == expected, f"repair: {done}")
        return done.stdout.rstrip().rpartition("\n")[2]

    tell("ip", "netns", "add", name)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "late.yaml"
        try:
            inside = ["ip", "netns", "exec", name]
            tell(*inside, "ip", "link", "set", "lo", "up")
            for mode in ("REDIRECT", "TPROXY"):
                file.write_text(LATE % (name, f"sidecar.istio.io/interceptionMode: {mode}"))
                for backend in ("nft", "iptables"):
                    how = ["--backend", backend]
                    early = subprocess.Popen([*inside, sys.executable, "-c", EARLY], stdout=subprocess.PIPE, text=True)
                    expect(early.stdout.readline() == "connected\n", "no connection at first")
                    expect("missing" in repair(*how, "--dry-run", expected=3), "it is not found")
                    done = repair(*how)
                    expect("missing" in done and "repaired" in done, f"first: {done}")
                    expect(early.stdout.readline() == "ended\n", "a connection from before goes on")
                    early.wait(10)
                    expect("right" in repair(*how), f"{mode} by {backend}, again: {repair(*how)}")
                    if backend == "nft":
                        tell(*inside, "nft", "flush chain inet sluis_capture nat_output")
                    else:
                        tell(*inside, "iptables", "-t", "nat", "-F", "SLUIS_OUTPUT")
                    done = repair(*how)
                    expect("differ" in done and "repaired" in done, f"{mode} by {backend}, changed: {done}")
                    expect("right" in repair(*how), f"{mode} by {backend}, at last: {repair(*how)}")
                    if mode == "TPROXY":
                        tell(*inside, "ip", "-4", "rule", "delete", "fwmark", "1337", "lookup", "133")
                        expect("differ" in repair(*how), "that packets do not find their way is not seen")
                    tell(str(sluis), "capture", "remove", "--netns", f"/run/netns/{name}")
            file.write_text(LATE % (name, "sidecar.istio.io/interceptionMode: NONE"))
            repair("--dry-run", expected=1)
        finally:
            remove(name)
    return []


class BySni(Topology):
    """Seed 001 with the gateway's port 15443, of its Helm values, and certificates in mounted files."""

    def __init__(self, programs):
        super().__init__(programs, manifests=BySni.texts)
        self.has_policies = True

    def texts(self):
        self.certs = self.dir / "certs"
        texts = hsm_manifests(self)
        for name, text in texts.items():
            text = re.sub(r"(number|port): (443|8443)\b", r"\1: 15443", text)
            text = text.replace("targetPort: 8443", "targetPort: 15443")
            texts[name] = text.replace("/etc/certs/", f"{self.certs}/")
        config = json.dumps(json.dumps({"proxyMetadata": {"OUTPUT_CERTS": str(self.certs)}}))
        gateway = next(place for place in self.places if place.run == "gateway")
        plain, told = self.entry(gateway), self.entry(gateway, [f"proxy.istio.io/config: {config}"])
        expect(plain in texts["workloads.yaml"], "the gateway's entry is not there")
        return texts | {"workloads.yaml": texts["workloads.yaml"].replace(plain, told)}


def the_hsm_is_reached_by_port_15443_with_files(options):
    """Seed 001 by the gateway's port 15443, with the certificates of its workload in files."""
    with BySni(options.bin_dir) as net:
        for name in TALKERS:
            for port in (2223, 2224, 2225):
                expect(ask(net[name], port) == f"HSM {port}: sign", f"{name} asks {port}: {ask(net[name], port)}")
        for name in OTHERS:
            expect(is_refused(ask(net[name])), f"{name} is answered")
        log = net.log("istio-system/egressgateway")
        expect(f"sni=cloudhsm-2223.tcp.svc tls=TLSv1.3" in log and f"local={net['gateway'].ip}:15443" in log, log)
        modes = {path.name: path.stat().st_mode & 0o777 for path in net.certs.glob("*.pem")}
        expect(modes == dict.fromkeys(("cert-chain.pem", "key.pem", "root-cert.pem"), 0o600), f"files: {modes}")
        told = subprocess.run(["openssl", "verify", "-untrusted", net.certs / "cert-chain.pem", "-CAfile",
                               net.certs / "root-cert.pem", net.certs / "cert-chain.pem"],
                              capture_output=True, text=True, check=False)
        expect(told.returncode == 0, f"openssl: {told}")
        return []


def real_envoys_carry_the_hsm_too(options):
    """Seed 001 with real Envoys in their namespaces: the gateway, and one of the sidecars."""
    places = [dataclasses.replace(place, proxy="envoy") if place.name in ("gateway", "signer") else place
              for place in PLACES]
    with Topology(options.bin_dir, places=places, manifests=hsm_manifests) as net:
        for name in TALKERS:
            for port in (2223, 2224, 2225):
                expect(ask(net[name], port) == f"HSM {port}: sign", f"{name} asks {port}: {ask(net[name], port)}")
        for name in OTHERS:
            expect(is_refused(ask(net[name])), f"{name} is answered")
        log = (net.dir / "hsm.log").read_text()
        came = {line.split()[-1] for line in log.splitlines() if "connection from" in line}
        expect(came == {net["gateway"].ip}, f"the HSM saw {came}")
        return only_the_gateway_leaves(net)


def holes(net):
    """Each hole: its name, how it is opened and closed, and ways that must be found."""
    esp, api, router = net["esp"], net["api"], net.router

    def metadata(verb):
        router.do("ip", "address", verb, "169.254.169.254/32", "dev", "lo")

    def no_capture():
        net.open_router()
        esp.release()

    def capture():
        net.firewall()
        esp.capture("--closed")

    def excluded(*options):
        return lambda: (net.open_router(), esp.capture("--closed", "--annotation", *options))

    annotation = "traffic.sidecar.istio.io/"
    yield ("no capture and no firewall", no_capture, capture,
           {"TCP over IPv4", "TCP over IPv6", "TCP over IPv4 from an IPv6 socket", "UDP over IPv4", "UDP over IPv6",
            "DNS of a foreign server over UDP", "DNS of a foreign server over TCP", "TCP over IPv4, other port"})
    yield ("capture as Istio has it, which lets UDP out",
           lambda: (net.open_router(), esp.capture()), capture, {"UDP over IPv4", "UDP over IPv6"})
    yield ("an excluded port", excluded(f"{annotation}excludeOutboundPorts=22"), capture,
           {"TCP over IPv4, other port", "TCP over IPv6, other port"})
    yield ("an excluded range", excluded(f"{annotation}excludeOutboundIPRanges={api.ip}/32"), capture,
           {"TCP over IPv4", "UDP over IPv4"})

    def serve_metadata():
        metadata("add")
        router.start("witness-router", sys.executable, HERE / "witness.py", "80")
        log = net.dir / "witness-router.log"
        net.wait("the metadata server", lambda: log.exists() and "ready" in log.read_text())
        esp.capture("--closed", "--annotation", f"{annotation}excludeOutboundIPRanges=169.254.169.254/32")

    def end_metadata():
        net.stop("witness-router")
        metadata("del")
        capture()

    yield "the machine's metadata", serve_metadata, end_metadata, {"machine's metadata"}

    def serve_admin():
        esp.start("admin", sys.executable, "-m", "http.server", "15000", "--bind", "127.0.0.1")
        wait_until("the administration", lambda: esp.python(
            "import socket; socket.create_connection(('127.0.0.1', 15000), 5); print('ok')") == "ok")

    yield ("the sidecar's administration", serve_admin, lambda: net.stop("admin"), {"sidecar's administration"})


def probe(net, workload, *more):
    """What the prober finds: how many ways, those that are open with what was seen, and how long it took."""
    api = net["api"]
    began = time.monotonic()
    done = net.run([net.sluis, "probe", workload, "--outside", api.ip, "--outside", api.ip6,
                    "--control", net["control"].ip, "-o", "json", *more])
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Failed(f"probe: {done.stderr or done.stdout}") from None
    is_open = [(one["way"], one["detail"]) for one in found if one["is_open"]]
    expect(done.returncode == (3 if is_open else 0), f"the probe ended with {done.returncode}")
    doubtful = [one["way"] for one in found if one["is_doubtful"]]
    return {"all": len(found), "open": is_open, "doubtful": doubtful, "took": time.monotonic() - began}


def the_cni_plugin_captures_a_pod_as_it_is_made(options):
    """The CNI plugin: VERSION, ADD, CHECK and DEL of version 1.0.0, chained; closed where it cannot know."""
    name, before = "slcni", {"cniVersion": "1.0.0", "interfaces": [], "ips": []}
    annotations = {"sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/excludeOutboundPorts": "3306"}

    def call(command, expected=0, told=annotations, netns=f"/run/netns/{name}", **more):
        document = {"cniVersion": "1.0.0", "name": "pods", "type": "sluis-cni", "prevResult": before, **more}
        if told is not None:
            document["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": told}
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_NETNS": netns,
                       "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_ARGS": "K8S_POD_NAMESPACE=shop"}
        done = subprocess.run([options.bin_dir / "sluis-cni"], input=json.dumps(document), env=environment,
                              capture_output=True, text=True, check=False)
        expect(done.returncode == expected, f"{command}: {done}")
        return json.loads(done.stdout) if done.stdout else None

    def rules():
        return tell("ip", "netns", "exec", name, "nft", "list", "ruleset")

    tell("ip", "netns", "add", name)
    try:
        expect("1.0.0" in call("VERSION")["supportedVersions"], "1.0.0 is not spoken")
        expect(call("ADD", told={}) == before and not rules(), "a pod without a sidecar is captured")
        expect(call("CHECK", 1)["code"] == 101, "CHECK misses nothing")
        for _ in range(2):
            expect(call("ADD") == before, "the result of the plugin before is not handed on")
            expect("tcp dport 3306 return" in rules(), f"not as the annotations say: {rules()}")
        call("CHECK")
        tell("ip", "netns", "exec", name, "nft", "flush chain inet sluis_capture nat_output")
        expect(call("CHECK", 1)["code"] == 102, "CHECK does not see that rules are gone")
        other = annotations | {"traffic.sidecar.istio.io/excludeOutboundPorts": "5432"}
        call("ADD")
        expect(call("CHECK", 1, told=other)["code"] == 102, "CHECK does not see that rules are of before")
        for _ in range(2):
            call("DEL")
            expect(not rules(), f"left: {rules()}")
        expect("captureAll" in call("ADD", 1, told=None)["msg"], "a pod of which nothing is known starts")
        call("ADD", told=None, captureAll=True)
        expect(call("ADD", 1, cniVersion="9.9.9")["code"] == 1, "version 9.9.9 is taken")
        expect(call("ADD", 1, prevResult=None)["code"] == 7, "it is not chained, and works")
    finally:
        remove(name)
    call("DEL")
    return []


ALL = [
    what_started_before_capture_is_repaired,
    the_hsm_is_reached_by_port_15443_with_files,
    real_envoys_carry_the_hsm_too,
    the_cni_plugin_captures_a_pod_as_it_is_made,
    capture_replaces_its_rules_and_no_others,
    the_hsm_is_reached_through_the_gateway_alone,
    each_piece_may_stop_and_nothing_gets_out,
    the_prober_finds_no_way_out_and_each_hole,
    a_hosts_own_firewall_obeys_network_policies,
    many_namespaces_are_captured_and_released,
]
