"""The workload of the inbound scenario: on every port it answers whatever it is asked, and says what it saw.

`inbound_app.py CERTIFICATE KEY TLS_PORT UNIX_PATH PORT…` prints `ready` once it listens. HTTP/1 and
HTTP/2 are answered with JSON, other bytes with `tcp:PORT:` and themselves; on TLS_PORT it terminates
TLS itself.
"""

import json
import pathlib
import re
import socket
import ssl
import sys
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHOD = re.compile(rb"(GET|POST) ")
SETTINGS, ACK = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
WITHIN = 10  # seconds: for a peer that stops in the middle


def frame(kind, flags, stream, body):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def frames(read):
    """Frames of HTTP/2, one after the other: kind, flags, stream, body."""
    while True:
        head = read(9)
        if len(head) < 9:
            return
        yield head[3], head[4], int.from_bytes(head[5:9], "big"), read(int.from_bytes(head[:3], "big"))


def http1(stream, file, first, seen):
    head = first + file.readline()
    fields = {}
    while (line := file.readline()).strip():
        name, _, value = line.decode().partition(":")
        fields[name.lower()] = value.strip()
    seen |= {"spoken": "http1", "line": head.decode().strip(), "fields": fields}
    body = json.dumps(seen).encode()
    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
                   b"content-length: %d\r\n\r\n%s" % (len(body), body))


def http2(stream, file, first, seen):
    file.read(len(PREFACE) - len(first))
    stream.sendall(SETTINGS)
    for kind, flags, number, _ in frames(file.read):
        if kind == 4 and not flags & 1:
            stream.sendall(ACK)
        if kind in (0, 1) and flags & 1:
            body = json.dumps(seen | {"spoken": "http2"}).encode()
            # `:status: 200` is entry 8 of the static table.
            stream.sendall(frame(1, 4, number, b"\x88") + frame(0, 1, number, body))


def serve(stream, name, context=None):
    try:
        stream.settimeout(WITHIN)
        seen = {"port": name, "peer": stream.getpeername()[0] if isinstance(name, int) else ""}
        if context:
            stream = context.wrap_socket(stream, server_side=True)
        with stream, stream.makefile("rb") as file:
            first = file.read(4)
            if METHOD.match(first):
                http1(stream, file, first, seen)
            elif first == PREFACE[:4]:
                http2(stream, file, first, seen)
            elif first:
                stream.sendall(f"tcp:{name}:".encode() + first + file.readline())
    except (OSError, ssl.SSLError, ValueError):
        stream.close()


def listen(listener, name, context=None):
    def accept():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=serve, args=(stream, name, context), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def main():
    certificate, key, tls_port, path, *ports = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for port in map(int, [tls_port, *ports]):
        listener = socket.create_server(("0.0.0.0", port), backlog=64)
        listen(listener, port, context if port == int(tls_port) else None)
    pathlib.Path(path).unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen(64)
    listen(unix, "unix")
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
