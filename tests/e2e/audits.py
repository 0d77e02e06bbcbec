"""The audit log of a gateway: whole, signed, sealed after a kill, and changed by nobody unseen."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess

from disclosure_world import World, all_kinds
from mesh import GATEWAY, expect, wait_until

NOTHING_BEFORE = "0" * 64
PURPOSE = b"sluis audit checkpoint v1\n"
EXIT_BROKEN, EXIT_UNMATCHED = 79, 3


def a_gateway_records_each_use_of_a_credential(options):
    """One line for each use and refusal, chained and signed; edits, kills and cut ends are seen."""
    with World(options.bin_dir, [kind for kind in all_kinds() if kind.name == "header"]) as world:
        log = world.state / "audit" / f"{GATEWAY}.jsonl"
        wait_until("the first use", lambda: world.ask("/header") == 200)
        for _ in range(20):
            expect(world.ask("/header?user=anna&token=s3cret") == 200, "a use failed")
        expect(world.ask("/elsewhere") == 403, "a request without a grant was not refused")
        wait_until("the records", lambda: len(uses(log)) >= 22)
        told = [one for one in uses(log) if one["verdict"] == "injected"][-1]
        expect(told["who"]["principal"].endswith("/ns/team-a/sa/notebook"), told)
        expect(told["what"]["path"] == "/header?user&token" and told["what"]["request_id"], told)
        expect(told["credential"]["name"] == "egress/header" and told["grant"], told)
        expect(told["destination"]["verified"] == "kinds.data.local", told)
        denied = [one for one in uses(log) if one["verdict"] == "denied"]
        expect(len(denied) == 1 and denied[0]["result"]["status"] == 403, denied)
        notes = [f"{len(uses(log))} records"]
        notes += verified(world, log)
        notes += reconciled(world)
        notes += killed(world, log)
        notes += edited(world, log)
        notes += events(world)
        return notes


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def uses(log):
    return [line for line in lines(log) if line["kind"] == "use"]


def audit(world, *arguments):
    return world.run([world.sluis, "audit", *arguments])


def verified(world, log):
    """Our verifier says yes; and so does one in other words, with OpenSSL."""
    wait_until("a checkpoint", lambda: any(line["kind"] == "checkpoint" for line in lines(log)), within=20)
    done = audit(world, "verify")
    expect(done.returncode == 0 and "whole" in done.stdout, done.stdout + done.stderr)
    last, signed = NOTHING_BEFORE, 0
    for number, text in enumerate(log.read_bytes().splitlines(), 1):
        line = json.loads(text)
        expect((line["seq"], line["prev"]) == (number, last), f"line {number} does not follow")
        last = hashlib.sha256(text).hexdigest()
        if line["kind"] == "checkpoint":
            check_signature(world, text, line)
            signed += 1
    return [f"chain followed in Python, {signed} signatures checked by OpenSSL"]


def check_signature(world, text, line):
    place = world.dir / "signed"
    place.mkdir(exist_ok=True)
    (place / "leaf.der").write_bytes(base64.b64decode(line["chain"][0]))
    (place / "signature").write_bytes(base64.b64decode(line["signature"]))
    (place / "statement").write_bytes(PURPOSE + re.sub(rb',"signature":"[^"]*"}$', b"}", text))
    key = subprocess.run(["openssl", "x509", "-inform", "der", "-in", place / "leaf.der", "-noout", "-pubkey"],
                         capture_output=True, check=True).stdout
    (place / "key").write_bytes(key)
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", place / "key", "-signature",
                           place / "signature", place / "statement"], capture_output=True, check=False)
    expect(done.returncode == 0, f"OpenSSL: {done.stdout}{done.stderr}")


def reconciled(world):
    """Sidecar and gateway tell the same; a line that the sidecar's log lacks is named."""
    done = wait_until("both sides to have logged", lambda: (lambda one: one if one.returncode == 0 else None)(
        audit(world, "reconcile")))
    log = world.state / "workloads/team-a/notebook/proxy.log"
    text = log.read_text()
    kept = [line for line in text.splitlines(True) if "/header?user" in line and line.startswith("[20")]
    log.write_text(text.replace(kept[0], ""))
    found = audit(world, "reconcile")
    expect(found.returncode == EXIT_UNMATCHED and "unsent" in found.stdout, found.stdout + found.stderr)
    log.write_text(text)
    return [done.stdout.strip().splitlines()[-1]]


def killed(world, log):
    """kill -9: the log goes on, and says so."""
    pid = world.gateway_pid()
    before = len(lines(log))
    os.kill(pid, signal.SIGKILL)
    wait_until("another gateway", lambda: world.proxy(GATEWAY).get("pid") not in (None, pid))
    wait_until("a use after the kill", lambda: world.ask("/header") == 200)
    wait_until("its record", lambda: any(line["kind"] == "restart" for line in lines(log)[before:]))
    done = audit(world, "verify")
    expect(done.returncode == 0 and "did not end in order" in done.stdout, done.stdout + done.stderr)
    return ["a kill is sealed by a restart"]


def edited(world, log):
    """Any edit of the running log is named with its line; an end that is cut off, against the proxy."""
    text = log.read_bytes()
    rows = text.splitlines(True)
    middle = len(rows) // 2
    edits = {
        "changed": text.replace(b"/header?user&token", b"/header?other&token", 1),
        "removed": b"".join(rows[:middle] + rows[middle + 1:]),
        "moved": b"".join([*rows[:middle], rows[middle + 1], rows[middle], *rows[middle + 2:]]),
        "put in": b"".join([*rows[:middle], rows[middle], *rows[middle:]]),
        "cut off": b"".join(rows[:middle]),
    }
    for what, changed in edits.items():
        copy = world.dir / "edited.jsonl"
        copy.write_bytes(changed)
        done = audit(world, "verify", "--open-end" if what != "cut off" else "-o", *([] if what != "cut off" else ["json"]),
                     "--file", str(copy), "--roots", str(world.state / "ca/root-cert.pem"))
        expect(done.returncode == EXIT_BROKEN, f"{what}: {done.stdout}{done.stderr}")
    log.write_bytes(b"".join(rows[:-1]))
    done = audit(world, "verify")
    log.write_bytes(text)
    expect(done.returncode == EXIT_BROKEN and "the end is missing" in done.stdout, done.stdout + done.stderr)
    other = audit(world, "verify", "--signer", "spiffe://cluster.local/ns/team-a/sa/notebook")
    expect(other.returncode == EXIT_BROKEN and "not by" in other.stdout, other.stdout)
    return [f"edits found: {', '.join(edits)}, a cut end of the running log, another signer"]


def events(world):
    """OCSF events pass the schema, where its package is installed (ocsf-json-schema)."""
    done = audit(world, "export")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expect(len(found) >= 22 and all(one["class_uid"] == 4002 for one in found), done.stdout[:500])
    try:
        import jsonschema
        from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
    except ImportError:
        return [f"{len(found)} OCSF events (their schema is not installed: not held to it)"]
    version, profiles = found[0]["metadata"]["version"], found[0]["metadata"]["profiles"]
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version)).get_class_schema("http_activity", profiles)
    validator = jsonschema.Draft202012Validator(schema)
    faults = [f"{list(fault.path)}: {fault.message[:200]}" for one in found for fault in validator.iter_errors(one)]
    expect(not faults, faults[:5])
    return [f"{len(found)} OCSF events, valid by the schema {version}"]


def what_cannot_be_recorded_is_not_done(options):
    """While the disk of the audit log is full credentials are not used; then they are, and the gap is told."""
    if os.geteuid() != 0:
        return ["only root can make a disk that is full"]
    with World(options.bin_dir, [kind for kind in all_kinds() if kind.name == "header"]) as world:
        wait_until("the first use", lambda: world.ask("/header") == 200)
        folder = world.state / "audit/egress"
        world.stop("up")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", folder], check=True)
        world.callback(subprocess.run, ["umount", "-l", folder], check=False)
        # The scene is ended from its end: the mesh before the disk.
        world.start_mesh()
        wait_until("a use on the small disk", lambda: world.ask("/header") == 200)
        expect(audit(world, "verify").returncode == 0, "the log of the small disk is not whole")
        filling = folder / "filling"
        with contextlib.suppress(OSError), filling.open("wb", 0) as file:
            while True:
                file.write(b"\0" * 4096)
        before = len(world.received())
        # What fits in the last page is still recorded.
        wait_until("a refusal", lambda: world.ask("/header") == 503)
        wait_until("the access log to say why", lambda: "audit_unavailable" in world.log(GATEWAY))
        sent = len(world.received())
        for _ in range(5):
            expect(world.ask("/header") == 503, "a use that cannot be recorded was not refused")
        expect(len(world.received()) == sent, "the API was asked all the same")
        filling.unlink()
        wait_until("a use after the disk has room", lambda: world.ask("/header") == 200)
        log = folder / "gateway.jsonl"
        gap = wait_until("the gap to be told", lambda: [line for line in lines(log) if line["kind"] == "gap"])
        done = audit(world, "verify")
        expect(done.returncode == 0, done.stdout + done.stderr)
        recorded = len([one for one in uses(log) if one["verdict"] == "injected"])
        return [f"{sent - before} uses until the disk was full, then refused; {gap[0]['lost']} told as lost, "
                f"{recorded} uses recorded, the log is whole"]


ALL = [a_gateway_records_each_use_of_a_credential, what_cannot_be_recorded_is_not_done]
