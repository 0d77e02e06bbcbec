"""What the demo tries, and what must come of it."""

import hashlib
import json
import os
import pathlib
import secrets
import ssl
import subprocess
import urllib.error
import urllib.request

from onebox.table import Row, one_line

from . import memory
from .scene import (API_PORT, COMMAND_WITHIN, EXAMPLE, GATEWAY, NOTEBOOK, SceneError,
                    descendants, python)


def run(scene):
    """Tries everything, in order."""
    tries = [signed, logged, outside, other_name, other_address, around_the_gateway, searches,
             files, replayed_and_tampered]
    rows = []
    for attempt in tries:
        scene.step(attempt.__doc__.splitlines()[0].rstrip("."))
        found = attempt(scene)
        rows.extend(found if isinstance(found, list) else [found])
    return rows


def said(result):
    """What a client printed, on one line."""
    return one_line(result.stdout + result.stderr)


def signed(scene):
    """The client asks the API, through the mesh."""
    result = scene.client()
    return Row("the client in its jail asks the API", result.stdout.startswith("200 "), said(result))


def logged(scene):
    """The API's own log tells who asked."""
    record = (scene.api_log() or [{"status": "nothing logged"}])[-1]
    is_good = (record["status"] == 200 and record.get("system") == scene.access_key
               and record.get("user") == "alice@example.org")
    seen = f"user {record.get('user')}, system {record.get('system')}, status {record['status']}"
    line = last_line(scene, GATEWAY, "/graphql")
    return [Row("the API's log: verified user and system", is_good, seen),
            Row("the gateway's log", " 200 " in line, line)]


# The same client, where api.data.local leads straight to the API: as if DNS knew, and port 443.
OUTSIDE = """
import runpy, socket, sys
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *rest, **more: real({address!r}, {port}, *rest, **more)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def outside(scene):
    """The same client asks the API outside the mesh."""
    script = OUTSIDE.format(address=scene.api_address, port=API_PORT)
    trust = str(scene.dir / "ca/api.crt")
    result = scene.run([python(), "-c", script, EXAMPLE / "client.py"], SSL_CERT_FILE=trust)
    return Row("the same client outside the mesh", result.stderr.startswith("401 "), said(result))


def other_name(scene):
    """The client asks a host that nobody allowed."""
    result = scene.client("https://other.data.local/graphql")
    is_good = result.returncode != 0 and "no answer: [Errno -2]" in result.stderr
    return Row("another host, by name", is_good, said(result))


CONNECT = """
import socket, ssl, sys
host, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    stream = socket.create_connection((host, port), 10)
    context = ssl.create_default_context(); context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.wrap_socket(stream, server_hostname=name)
    print("connected")
except OSError as error:
    print("refused:", error)
"""


def other_address(scene):
    """The client connects to an address that nobody allowed."""
    result = scene.in_jail(python(), "-c", CONNECT, "203.0.113.7", "443", "other.example")
    line = last_line(scene, NOTEBOOK, "203.0.113.7:443")
    is_good = result.stdout.startswith("refused:") and "BlackHoleCluster" in line
    return [Row("another host, by address", is_good, said(result)),
            Row("the sidecar's log: why", is_good, line)]


def around_the_gateway(scene):
    """The client tries to reach the API past the gateway."""
    result = scene.in_jail(
        python(), "-c", CONNECT, scene.api_address, str(API_PORT), "api.data.local")
    is_good = result.stdout.startswith("refused:")
    return Row("the API's own address, past the gateway", is_good, said(result))


def last_line(scene, workload, part):
    """The newest line of a proxy's log with this text; logs are written in batches."""
    found = []

    def is_there():
        found[:] = [line for line in scene.log(workload).splitlines() if part in line]
        return bool(found)

    try:
        scene.wait(f"{part} in the log of {workload}", is_there)
    except SceneError:
        return "(nothing)"
    return found[-1]


# The client, which then waits: so that it can be looked into.
WAITING = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("waiting", flush=True)
sys.stdin.read()
"""


def searches(scene):
    """Its environment and memory are searched for the platform's keys, while it waits."""
    command = [scene.sluis, "exec", NOTEBOOK, "--", python(), "-c", WAITING, EXAMPLE / "client.py",
               "https://api.data.local/graphql?waiting"]
    with subprocess.Popen(command, cwd=scene.dir, env=scene.jail_environment(), text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            lines = [process.stdout.readline(), process.stdout.readline()]
            if lines[1] != "waiting\n":
                return Row("the client waits", False, " ".join(lines))
            client = next(pid for pid in reversed(descendants(process.pid))
                          if "python" in os.readlink(f"/proc/{pid}/exe"))
            return [environ(scene, client), in_memory(scene, client), in_gateway(scene)]
        finally:
            process.stdin.close()
            process.wait(COMMAND_WITHIN)


def needles(scene):
    return {**memory.forms(scene.secret), "access key": scene.access_key.encode()}


def environ(scene, client):
    """`/proc/PID/environ`, with the token as the proof that the search finds what is there."""
    text = pathlib.Path(f"/proc/{client}/environ").read_bytes()
    found = [name for name, needle in needles(scene).items() if needle in text]
    is_good = not found and scene.token.encode() in text
    seen = f"found: {', '.join(found)}" if found else "no key (the user's token is found)"
    return Row("/proc/PID/environ of the client", is_good, seen)


def in_memory(scene, client):
    """All memory of the client's python; again the token is the proof."""
    wanted = needles(scene) | {"token": scene.token.encode()}
    found, size = memory.search(client, wanted)
    keys = sorted(found - {"token"})
    seen = f"found: {', '.join(keys)}" if keys else "no key in any form"
    seen += f" in {size >> 20} MiB"
    seen += " (the user's token is found)" if "token" in found else " (nor the token!)"
    return Row("memory of the client's python", not keys and "token" in found, seen)


def in_gateway(scene):
    """The same search in the gateway: there the secret must be, or the search proves nothing."""
    try:
        found, _ = memory.search(scene.gateway_pid(), needles(scene))
    except PermissionError:
        return Row("memory of the gateway", True, "not readable, even for its own user")
    seen = f"found, as it must be: {', '.join(sorted(found))}" if found else "not found: why not?"
    return Row("memory of the gateway, by the same search", bool(found), seen)


def files(scene):
    """A program in the jail reads all files that it can, for the platform's secret."""
    canary = secrets.token_hex(32)
    (scene.dir / "client/canary").write_text(canary)

    def digest(text):
        return hashlib.sha256(text).hexdigest()

    result = scene.in_jail(
        python(), EXAMPLE / "search.py", str(scene.began - 1),
        f"secret={digest(scene.secret)}", f"canary={digest(canary.encode())}")
    tried = "a search of all files in the jail"
    if result.returncode:
        return Row(tried, False, said(result))
    report = json.loads(result.stdout)
    found, control = report["found"]["secret"], report["found"]["canary"]
    seen = f"found in {', '.join(found)}" if found else "no secret"
    seen += f" in {report['looked']} files and {report['processes']} processes"
    seen += f", {report['read']} read" + (" (a canary is found)" if control else " (nor a canary!)")
    return Row(tried, bool(control) and not found, seen)


def replayed_and_tampered(scene):
    """One who has seen a signed request sends it again, and changes it."""
    result = scene.client("https://api.data.local/graphql?seen")
    if result.returncode:
        return Row("a request to be replayed", False, said(result))
    kept = json.loads((scene.dir / "api/last-request.json").read_text())
    again = send(scene, kept["path"], kept["headers"])
    other = send(scene, kept["path"] + "&all=1", kept["headers"])
    return [
        Row("a signed request, sent again", again.startswith("403 ") and "used before" in again, again),
        Row("a signed request, changed", other.startswith("403 ") and "signature" in other, other),
    ]


def send(scene, path, headers):
    """Sends a request straight to the API, as one who has its bytes could."""
    kept = {name: value for name, value in headers
            if name.lower() not in ("content-length", "connection", "transfer-encoding")}
    request = urllib.request.Request(f"https://{scene.api_address}:{API_PORT}{path}", b"query=x", kept)
    context = ssl.create_default_context(cafile=scene.dir / "ca/api.crt")
    context.check_hostname = False  # the address stands for the name, as above
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=10) as response:
            return f"{response.status} {response.read().decode()}"
    except urllib.error.HTTPError as refused:
        return f"{refused.code} {refused.read().decode()}"


def nothing_left(scene):
    """After the end: no process that knows the directory."""
    left = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(scene.dir).encode() in command:
                left.append(command.replace(b"\0", b" ").decode(errors="replace").strip())
    return Row("processes left behind", not left, "\n".join(left) or "none")
