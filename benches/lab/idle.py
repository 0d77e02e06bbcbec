"""Scenario e: what connections cost that say nothing: resident memory idle, with 1,000, with 10,000, and after them.

Each connection is opened, asks once and is answered, and then stays: what a proxy holds for it is what it
holds between requests. HTTP/2 is spoken over TLS, which every proxy can.
"""

import argparse
import gc
import os
import pathlib
import shutil
import socket
import ssl
import struct
import tempfile
import time
import types

from . import machine, stage
from .load import LoadFailed
from .shapes import NAME, Place, Shape, command

ROOM = 10_000  # that nginx and HAProxy are told to make
KINDS = {"http": Shape(connections=ROOM), "tls": Shape(front="tls", connections=ROOM), "h2": Shape(front="h2", connections=ROOM)}
COUNTS = (1_000, 10_000)
PEERS = ("sluis", "envoy", "haproxy", "nginx")
WAIT = 10  # seconds for one answer
SETTLE = 0.5  # seconds for what a proxy does once its clients are silent
GIVE_BACK = 5  # seconds after the last connection is gone

ASK = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n".encode()

# RFC 9113 §4.1: a frame's head is its length in 24 bits, type, flags, stream.
HEADERS, SETTINGS, PING = 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
# RFC 7541: GET, https and / of the static table, and the authority as a literal.
BLOCK = b"\x82\x87\x84\x41" + bytes([len(NAME)]) + NAME.encode()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


HELLO = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
         + frame(HEADERS, END_STREAM | END_HEADERS, 1, BLOCK))


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise LoadFailed(f"cut off after {data!r}")
        data += piece
    return data


def ask_http1(connection):
    """One request and its answer, whose length is given."""
    connection.sendall(ASK)
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(4096)
        if not piece:
            raise LoadFailed(f"cut off after {answer!r}")
        answer += piece
    head, body = answer.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadFailed(head.decode(errors="replace"))
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    exactly(connection, length - len(body))


def ask_http2(connection):
    """The preface, one request and its answer; settings are acknowledged."""
    connection.sendall(HELLO)
    while True:
        head = exactly(connection, 9)
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = exactly(connection, length)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            connection.sendall(frame(PING, ACK, 0, payload))
        elif stream == 1 and kind not in (0, HEADERS, 8):
            raise LoadFailed(f"frame {kind} on the stream: {payload!r}")
        elif stream == 1 and kind <= HEADERS and flags & END_STREAM:
            return


class Clients:
    """Connections that are kept open."""

    def __init__(self, kind, port, folder):
        self.kind, self.port, self.open = kind, port, []
        self.context = None
        if kind != "http":
            self.context = ssl.create_default_context(cafile=folder / "ca.pem")
            self.context.check_hostname = True
            if kind == "h2":
                self.context.set_alpn_protocols(["h2"])

    def grow(self, count):
        while len(self.open) < count:
            connection = socket.create_connection(("127.0.0.1", self.port), WAIT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                connection = self.context.wrap_socket(connection, server_hostname=NAME)
            self.open.append(connection)
            (ask_http2 if self.kind == "h2" else ask_http1)(connection)

    def close(self):
        for connection in self.open:
            connection.close()
        self.open.clear()
        gc.collect()


def measure(options, around, folder, peer, kind, counts=COUNTS):
    """Resident MiB of one proxy: idle, with each count, and after; None when it cannot do this kind."""
    shape = KINDS[kind]
    place = Place(machine.free_port(), around.port(shape.back), folder)
    line = command(peer, shape, place, options)
    if line is None:
        return None
    log = folder / "idle.log"
    process = machine.start(options.proxy_core, line, log)
    try:
        machine.wait(process, lambda: stage.listens(place.port), f"{peer} for {kind}", log)
        time.sleep(SETTLE)
        row = {"idle": machine.resident_mib(process.pid)}
        clients = Clients(kind, place.port, folder)
        for count in counts:
            clients.grow(count)
            time.sleep(SETTLE)
            row[count] = machine.resident_mib(process.pid)
        clients.close()
        time.sleep(GIVE_BACK)
        row["after"] = machine.resident_mib(process.pid)
        # Between the two counts: what the first connections bring with them is not theirs.
        row["bytes"] = (row[counts[-1]] - row[counts[0]]) * (1 << 20) / (counts[-1] - counts[0])
        return row
    finally:
        machine.stop(process)


def run(options, around, folder, peers=PEERS, kinds=tuple(KINDS), counts=COUNTS):
    """Measures and prints every kind for every peer. Gives the rows by (kind, peer)."""
    found = {}
    shown = "".join(f"{count:>9,}" for count in counts)
    print(f"{'e: silent':10} {'proxy':8} {'idle':>7}{shown} {'after':>8} MiB {'bytes each':>11} {'ours/it':>8}")
    for kind in kinds:
        for peer in peers:
            try:
                row = measure(options, around, folder, peer, kind, counts)
            except (LoadFailed, OSError) as error:
                print(f"{kind:10} {peer:8} failed: {str(error)[-200:]}", flush=True)
                continue
            if row is None:
                continue
            found[kind, peer] = row
            ours = found.get((kind, "sluis"))
            ratio = f"{ours['bytes'] / row['bytes']:8.2f}" if ours and row["bytes"] > 0 else f"{'-':>8}"
            cells = "".join(f"{row[count]:9.1f}" for count in counts)
            print(f"{kind:10} {peer:8} {row['idle']:7.1f}{cells} {row['after']:8.1f}     {row['bytes']:11.0f} {ratio}", flush=True)
    return found


def main():
    """This scenario alone: `python3 -m lab.idle` in benches/."""
    parser = argparse.ArgumentParser(description=__doc__)
    release = pathlib.Path(__file__).resolve().parents[2] / "target/release"
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--sluis", default=os.environ.get("SLUIS_BIN", release / "sluis"))
    parser.add_argument("--sluis-proxy", default=os.environ.get("SLUIS_PROXY_BIN", release / "sluis-proxy"))
    parser.add_argument("--envoy", default=os.environ.get("ENVOY_BIN", "envoy"))
    given = parser.parse_args()
    options = types.SimpleNamespace(
        proxy_core=0, client_core=1, nghttpd=None, sluis=given.sluis, sluis_proxy=given.sluis_proxy, envoy=given.envoy,
        nginx=shutil.which("nginx") or "/usr/sbin/nginx", haproxy=shutil.which("haproxy") or "/usr/sbin/haproxy")
    machine.raise_limits()
    os.sched_setaffinity(0, {options.client_core})
    with tempfile.TemporaryDirectory(prefix="sluis-idle-") as name:
        folder = pathlib.Path(name)
        around = stage.Stage(options, folder)
        try:
            run(options, around, folder, given.peers.split(","), given.kinds.split(","),
                tuple(map(int, given.counts.split(","))))
        finally:
            around.close()


if __name__ == "__main__":
    main()
