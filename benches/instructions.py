#!/usr/bin/env python3
"""Counts the instructions of a request's work, and fails when one piece has grown.

Instructions are counted by valgrind, so that the figure does not depend on what else the machine
does. Each case runs twice, so and so many times, and the difference is divided: what starting costs
falls out. `instructions.json` holds what each case took; `--update` writes it anew, after a look at
why it has changed.
"""

import argparse
import asyncio
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

from lab import stage
from lab.machine import free_port, wait
from lab.shapes import Place, Shape, command

HERE = pathlib.Path(__file__).resolve().parent
KNOWN = HERE / "instructions.json"
PIECES = {"request": 2000, "response": 2000, "routes-10": 2000, "rules-20": 20000, "rules-1000": 20000}
TOLERANCE = 1.03  # of the codec
TABLE_TOLERANCE = 1.15  # of tables: the seeds of hash maps move them, and what compiling them took
WHOLE_TOLERANCE = 1.05  # of the whole proxy: how often it wakes is not always the same
REQUESTS = 1000
CONNECTIONS = 8
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nle\n"


def callgrind(line, log, out):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *map(str, line)]


def total(out):
    """All instructions of a finished run."""
    return int(re.search(r"^(?:summary|totals): (\d+)", pathlib.Path(out).read_text(), re.M)[1])


def piece(options, folder, case, times):
    """Instructions for one time of a piece."""
    def run(count):
        out = folder / "piece.out"
        subprocess.run(callgrind([options.pieces, case, count], None, out), check=True, capture_output=True)
        return total(out)
    return (run(2 * times) - run(times)) / times


async def origin(port):
    async def serve(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


def ask(port, count, token):
    """So many requests on a few connections, one after the other."""
    import socket
    head = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET /api/items?page=1 HTTP/1.1\r\nHost: bench.local\r\nAccept: */*\r\n{head}\r\n".encode()
    clients = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(CONNECTIONS)]
    for number in range(count):
        client, answer = clients[number % CONNECTIONS], b""
        client.sendall(request)
        while not answer.endswith(b"le\n"):
            more = client.recv(4096)
            if not more or (answer and not answer.startswith(b"HTTP/1.1 200")):
                sys.exit(f"not answered: {answer!r}")
            answer += more
    for client in clients:
        client.close()


def whole(options, folder, shape, token, next_port):
    """Instructions of the whole proxy for one request, system calls apart."""
    def run(count):
        place = Place(free_port(), next_port, folder, 0)
        out, log = folder / "whole.out", folder / "whole.log"
        with open(log, "wb") as said:
            process = subprocess.Popen(callgrind(command("sluis", shape, place, options), log, out), stdout=said, stderr=said)
        try:
            wait(process, lambda: stage.listens(place.port), "sluis-proxy under valgrind", log)
            ask(place.port, count, token)
        finally:
            process.terminate()
            process.wait(60)
        return total(out)
    return (run(2 * REQUESTS) - run(REQUESTS)) / REQUESTS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True, help="sluis-proxy and examples/instructions, optimised")
    parser.add_argument("--sluis", required=True, help="the command line, which compiles the bootstrap; any build")
    parser.add_argument("--update", action="store_true", help="write the figures anew")
    options = parser.parse_args()
    options.sluis_proxy, options.pieces = options.bin_dir / "sluis-proxy", options.bin_dir / "examples/instructions"
    found = {}
    with tempfile.TemporaryDirectory(prefix="sluis-count-") as folder:
        folder = pathlib.Path(folder)
        for case, times in PIECES.items():
            found[case] = piece(options, folder, case, times)
        port = free_port()
        threading.Thread(target=lambda: asyncio.run(origin(port)), daemon=True).start()
        keys, token = stage.key_and_token(folder)
        found["proxy"] = whole(options, folder, Shape(), "", port)
        found["proxy, log, 20 rules, token"] = whole(options, folder, Shape(log=True, rules=20, keys=keys), token, port)
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    grown = []
    print(f"{'instructions for':30} {'now':>10} {'known':>10} {'ratio':>7}")
    for case, now in found.items():
        before = known.get(case)
        ratio = now / before if before else float("nan")
        print(f"{case:30} {now:10.0f} {before or 0:10.0f} {ratio:7.3f}")
        kind = case.split("-")[0].split(",")[0]
        limit = {"proxy": WHOLE_TOLERANCE, "routes": TABLE_TOLERANCE, "rules": TABLE_TOLERANCE}.get(kind, TOLERANCE)
        if before is None or ratio > limit:
            grown.append(case)
    if options.update:
        KNOWN.write_text(json.dumps({case: round(now) for case, now in found.items()}, indent=1) + "\n")
    elif grown:
        sys.exit("more instructions than known: " + ", ".join(grown) +
                 "\nmake them fewer, or say why with: make instructions UPDATE=--update")


if __name__ == "__main__":
    main()
