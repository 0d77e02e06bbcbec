#!/usr/bin/env python3
"""Counts the instructions of a request's work, and fails when one piece has grown.

Instructions are counted by valgrind's callgrind, so that the figure does not depend on what else the
machine does. A piece (the codec, the router, the authorizer) is counted within one function, when its
tables are made and warm; the whole proxy while it answers requests, when its connections are open.
`instructions.json` holds what each case took; `--update` writes it anew, after a look at why it has
changed.
"""

import argparse
import asyncio
import json
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

from lab import stage
from lab.machine import ended, free_port, start, wait
from lab.shapes import Place, Shape, command

HERE = pathlib.Path(__file__).resolve().parent
KNOWN = HERE / "instructions.json"
# How often, and how much a case may grow. Of the codec nothing varies. Tables have hash maps, whose
# seeds are others each time: many tables and keys leave little of that. The whole proxy wakes now more
# often, now less.
PIECES = {"request": (500, 1.01), "response": (500, 1.01), "routes-10": (8000, 1.03), "routes-1000": (8000, 1.03),
          "rules-20": (8000, 1.03), "rules-1000": (8000, 1.03)}
WHOLE_TOLERANCE = 1.02
WARM = 200
REQUESTS = 1000
CONNECTIONS = 8
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nle\n"


def callgrind(line, out, *more):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *more, *map(str, line)]


def total(out):
    """All instructions that were counted in a finished run."""
    return max(map(int, re.findall(r"^(?:summary|totals): (\d+)", pathlib.Path(out).read_text(), re.M)))


def piece(options, folder, case, times):
    """Instructions for one time of a piece."""
    out = folder / "piece.out"
    line = callgrind([options.pieces, case, times], out, "--toggle-collect=*counted*")
    subprocess.run(line, check=True, capture_output=True)
    return total(out) / times


async def origin(port, pair=None):
    """Answers every request; by TLS where there is a certificate with its key."""
    async def serve(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
    tls = None
    if pair:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair)
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


def ask(clients, count, token):
    """So many requests on a few connections, one after the other."""
    head = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET /api/items?page=1 HTTP/1.1\r\nHost: bench.local\r\nAccept: */*\r\n{head}\r\n".encode()
    for number in range(count):
        client, answer = clients[number % CONNECTIONS], b""
        client.sendall(request)
        while not answer.endswith(b"le\n"):
            more = client.recv(4096)
            if not more or (answer and not answer.startswith(b"HTTP/1.1 200")):
                sys.exit(f"not answered: {answer!r}")
            answer += more


def asking(port, token):
    """What asks by HTTP/1.1, on connections that stay."""
    clients = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(CONNECTIONS)]
    return lambda count: ask(clients, count, token)


def asking_http2(port, body):
    """What asks by HTTP/2, one stream after the other; each call on a connection of its own."""
    def run(count):
        url = f"http://127.0.0.1:{port}/body/small"
        done = subprocess.run(["h2load", f"-n{count}", "-c1", "-m1", "-d", body, url], capture_output=True, text=True, timeout=120)
        if f"{count} succeeded" not in done.stdout:
            sys.exit(f"not answered: {done.stdout}{done.stderr}")
    return run


def whole(options, folder, shape, next_port, asks):
    """Instructions of the whole proxy for one request, system calls apart."""
    place = Place(free_port(), next_port, folder, 0)
    out, log = folder / "whole.out", folder / "whole.log"
    with open(log, "wb") as said:
        line = callgrind(command("sluis", shape, place, options), out, "--instr-atstart=no")
        process = subprocess.Popen(line, stdout=said, stderr=said)
    with ended(process):
        wait(process, lambda: stage.listens(place.port), "sluis-proxy under valgrind", log)
        run = asks(place.port)
        run(WARM)
        counting(process, "on")
        run(REQUESTS)
        counting(process, "off")
    return total(out) / REQUESTS


def counting(process, word):
    subprocess.run(["callgrind_control", "-i", word, str(process.pid)], check=True, capture_output=True, timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True, help="sluis-proxy and examples/instructions, optimised")
    parser.add_argument("--sluis", required=True, help="the command line, which compiles the bootstrap; any build")
    parser.add_argument("--update", action="store_true", help="write the figures anew")
    parser.add_argument("--only-print", action="store_true", help="never fail")
    options = parser.parse_args()
    options.sluis_proxy, options.pieces = options.bin_dir / "sluis-proxy", options.bin_dir / "examples/instructions"
    found = {}
    with tempfile.TemporaryDirectory(prefix="sluis-count-") as folder:
        folder = pathlib.Path(folder)
        for case, (times, _) in PIECES.items():
            found[case] = piece(options, folder, case, times)
        stage.certificates(folder)
        port, port_tls, port2 = free_port(), free_port(), free_port()
        for one in ((port,), (port_tls, folder / "both.pem")):
            threading.Thread(target=lambda of=one: asyncio.run(origin(*of)), daemon=True).start()
        keys, token = stage.key_and_token(folder)
        guarded = Shape(rules=20, keys=keys)
        found["proxy"] = whole(options, folder, Shape(), port, lambda at: asking(at, ""))
        found["proxy, 20 rules, token"] = whole(options, folder, guarded, port, lambda at: asking(at, token))
        found["proxy, log"] = whole(options, folder, Shape(log=True), port, lambda at: asking(at, ""))
        signed = Shape(signs=True, back="tls")
        found["proxy, signed, TLS begun"] = whole(options, folder, signed, port_tls, lambda at: asking(at, ""))
        body = folder / "body" / "small"
        body.parent.mkdir()
        body.write_bytes(b"x" * 46)
        http2 = start(0, ["nghttpd", "--no-tls", "-n1", "-d", folder, port2], folder / "origin.log")
        with ended(http2):
            wait(http2, lambda: stage.listens(port2), "nghttpd", folder / "origin.log")
            shape = Shape(front="h2c", back="h2c")
            found["proxy, HTTP/2"] = whole(options, folder, shape, port2, lambda at: asking_http2(at, body))
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    grown = []
    print(f"{'instructions for':30} {'now':>10} {'known':>10} {'ratio':>7}")
    for case, now in found.items():
        before = known.get(case)
        ratio = now / before if before else float("nan")
        print(f"{case:30} {now:10.0f} {before or 0:10.0f} {ratio:7.3f}")
        limit = PIECES[case][1] if case in PIECES else WHOLE_TOLERANCE
        if before is None or ratio > limit:
            grown.append(case)
    if options.update:
        KNOWN.write_text(json.dumps({case: round(now) for case, now in found.items()}, indent=1) + "\n")
    elif grown and not options.only_print:
        sys.exit("more instructions than known: " + ", ".join(grown) +
                 "\nmake them fewer, or say why with: make instructions UPDATE=--update")


if __name__ == "__main__":
    main()
