"""`sluis check`: the machine, a mesh that is well, and one that is not, one thing at a time."""

import json
import os
import signal

from clients_world import CLIENT, GATEWAY, World
from mesh import expect, wait_until

WELL, DOUBTFUL, WRONG = 0, 1, 2


def check(options):
    """`sluis check` finds a mesh well, finds each thing that is not, and no way out of the jail."""
    with World(options.bin_dir) as world:
        before = asked(world, "--pre", "--state-dir", world.dir / "none/state", codes=(WELL, DOUBTFUL))
        expect(list(before) == ["machine"] and "error" not in results(before["machine"]), f"{before}")
        absent = asked(world, "--state-dir", world.dir / "none", codes=(WRONG,))
        expect("sluis up" in absent["control plane"][0]["hint"], f"{absent}")
        found = asked(world, "--probe", codes=(WELL, DOUBTFUL))
        for name, checks in found.items():
            expect(name == "machine" or results(checks) == {"success"}, f"{name}: {checks}")
        expect(list(found) == ["machine", "control plane", "certificate authority", "proxies", "capture", "ways out"],
               f"{list(found)}")
        told = world.run([world.sluis, "check"], LC_ALL="C.UTF-8").stdout
        expect(f"√ a command runs in the jail of {CLIENT}" in told and "Status check results are" in told, told)
        what_is_wrong(world)
        return [found["ways out"][0]["description"]]


def what_is_wrong(world):
    """Each thing is wrong, is told, and is mended again."""
    world.state.chmod(0o755)
    wrong(world, "machine", "chmod 700")
    world.state.chmod(0o700)

    log = world.state / "ca/issued.jsonl"
    text = log.read_text()
    log.write_text(text.replace("cluster.local", "cluster.other", 1))  # in its first line: the last vouches for itself
    wrong(world, "certificate authority", "sluis ca log")
    log.write_text(text)

    bad = world.manifests / "bad.yaml"
    bad.write_text("apiVersion: networking.istio.io/v1\nkind: Gatewey\nmetadata: {name: x}\n")
    wait_until("the fault", lambda: "Gatewey" in "".join(world.status()["faults"]))
    wrong(world, "control plane", "Gatewey")
    bad.unlink()
    wait_until("no fault", lambda: not world.errors(world.status()))

    stopped = next(proxy["pid"] for proxy in world.status()["proxies"] if proxy["name"] == "client")
    os.kill(stopped, signal.SIGKILL)
    wait_until("the sidecar to be back", lambda: has_restarted(world, stopped) and world.in_sync())
    found = asked(world, codes=(DOUBTFUL,))
    expect(any("1 times" in (one["error"] or "") for one in found["proxies"]), f"{found}")
    expect(any(GATEWAY in one["description"] for one in found["proxies"]), f"{found}")


def has_restarted(world, stopped):
    """Whether the client's sidecar is another process than the one that was stopped."""
    client = next(proxy for proxy in world.status()["proxies"] if proxy["name"] == "client")
    return client["restarts"] and client["pid"] not in (None, stopped)


def wrong(world, category, told):
    found = asked(world, codes=(WRONG,))
    expect("error" in results(found[category]), f"{category}: {found[category]}")
    expect(told in json.dumps(found[category]), f"{told}: {found[category]}")


def asked(world, *flags, codes):
    done = world.run([world.sluis, "check", "-o", "json", *flags])
    expect(done.returncode in codes, f"check {flags}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    told = json.loads(done.stdout)
    expect(told["success"] == (done.returncode != WRONG), f"{told}")
    return {one["categoryName"]: one["checks"] for one in told["categories"]}


def results(checks):
    return {one["result"] for one in checks}


ALL = [check]
