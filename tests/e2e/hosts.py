"""Several hosts in network namespaces: capture, firewall, and no way around the gateway. Needs root."""

import subprocess
import time

from mesh import expect
from topology import namespaces, remove, tell

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


ALL = [many_namespaces_are_captured_and_released, capture_replaces_its_rules_and_no_others]
