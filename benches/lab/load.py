"""Load: wrk for HTTP/1.1, h2load for HTTP/2, our own generator at a fixed rate."""

import functools
import json
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import time

from .machine import pinned

REPORT = pathlib.Path(__file__).resolve().parent / "report.lua"
HEADERS = ["Host: bench.local", "User-Agent: bench/1.0", "Accept: */*"]


class LoadFailed(RuntimeError):
    """The load was not answered as it must be."""


def checked(result, what):
    if result["errors"] or not result["requests"]:
        raise LoadFailed(f"{what}: {result['errors']} errors in {result['requests']} requests")
    return result


def wrk(core, url, connections, seconds, headers=(), method="GET", body=None, fresh=False):
    """As many requests as are answered. `fresh`: a new connection for each."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(REPORT)]
    for header in [*HEADERS, *headers, *(["Connection: close"] if fresh else [])]:
        command += ["-H", header]
    command += [url, "--", method, body or ""]
    done = subprocess.run(pinned(core, command), capture_output=True, text=True)
    if "RESULT " not in done.stdout:
        raise LoadFailed(done.stdout + done.stderr)
    return checked(json.loads(done.stdout.split("RESULT ", 1)[1].splitlines()[0]), url)


def h2load(core, url, connections, streams, seconds, headers=(), data=None):
    """The same over HTTP/2, with so many streams on each connection."""
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0"]
    for header in headers:
        command += ["-H", header]
    if data:
        command += ["-d", str(data)]
    done = subprocess.run(pinned(core, [*command, url]), capture_output=True, text=True)
    found = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if not found:
        raise LoadFailed(done.stdout + done.stderr)
    total, good, failed, errored = map(int, found.groups())
    other = re.search(r"status codes: (\d+) 2xx", done.stdout)
    bad = failed + errored + (max(0, total - int(other[1])) if other else total)
    data = re.search(r"traffic: \S+ \((\d+)\) total", done.stdout)
    result = {"requests": good, "errors": bad, "bytes": int(data[1]), "microseconds": seconds * 1e6}
    return checked(result, url)


def open_loop(core, program, url, connections, rate, seconds, headers=(), body=0, is_http2=False, may_fail=False):
    """Requests at a fixed rate, however slowly they are answered: latencies from when each was due.

    Where it may, it runs before all on its core but the origin (`paced`): so it is hardly late itself."""
    command = ["chrt", "-f", "10"] if may_run_first() else []
    command += [program, *(["--http2"] if is_http2 else []), "--body", str(body)]
    for header in headers:
        command += ["--header", header]
    done = subprocess.run(pinned(core, [*command, url, str(connections), str(rate), str(seconds)]), capture_output=True, text=True)
    if done.returncode:
        raise LoadFailed(done.stderr)
    result = json.loads(done.stdout)
    return result if may_fail else checked(result, url)


@functools.cache
def may_run_first():
    return subprocess.run(["chrt", "-f", "10", "true"], capture_output=True).returncode == 0 if shutil.which("chrt") else False


def handshakes(port, folder, seconds):
    """New connections of TLS 1.3 with a client certificate, one after the other, each with a request."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    request = b"GET / HTTP/1.1\r\nHost: bench.local\r\n\r\n"
    count, begin = 0, time.monotonic()
    while (took := time.monotonic() - begin) < seconds:
        with socket.create_connection(("127.0.0.1", port), 10) as tcp:
            with context.wrap_socket(tcp, server_hostname="bench.local") as tls:
                if tls.version() != "TLSv1.3" or tls.session_reused:
                    raise LoadFailed(f"not a full handshake of TLS 1.3: {tls.version()}")
                tls.sendall(request)
                answer = b""
                while not answer.endswith(b"hello"):
                    piece = tls.recv(4096)
                    if not piece:
                        raise LoadFailed(f"cut off: {answer!r}")
                    answer += piece
                # The client closes first: Envoy would wait a second for that.
        count += 1
    return {"requests": count, "errors": 0, "microseconds": took * 1e6}
