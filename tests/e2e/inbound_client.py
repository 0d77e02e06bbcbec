"""Asks what the inbound scenario wants asked, from within one network namespace.

Standard input is a JSON list of `{kind, address, port, alpn?, fields?}`; standard output the list of
answers: `{"answer": …}` with what came back, or `{"refused": why}` when nothing did.
"""

import json
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

from inbound_app import ACK, PREFACE, SETTINGS, frame, frames

WITHIN = 8  # seconds; all of it takes some milliseconds


def literal(name, value):
    """A field that stays out of HPACK's table, without Huffman's code."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def http1(stream, one):
    fields = "".join(f"{name}: {value}\r\n" for name, value in one.get("fields", {}).items())
    stream.sendall(f"GET /inbound HTTP/1.1\r\nhost: {one['address']}\r\nconnection: close\r\n"
                   f"{fields}\r\n".encode())
    with stream.makefile("rb") as file:
        told = file.read()
    head, _, body = told.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionError("closed without an answer")
    if b" 200 " not in head.split(b"\r\n")[0]:
        return {"status": head.split(b"\r\n")[0].decode()}
    if b"transfer-encoding: chunked" in head.lower():
        body = body.split(b"\r\n", 1)[1].rsplit(b"\r\n0\r\n", 1)[0]
    return json.loads(body)


def http2(stream, one):
    fields = b"".join(literal(*pair) for pair in [
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/inbound"),
        (b":authority", one["address"].encode())])
    stream.sendall(PREFACE + SETTINGS + frame(1, 5, 1, fields))
    body = b""
    with stream.makefile("rb") as file:
        for kind, flags, number, data in frames(file.read):
            if kind == 4 and not flags & 1:
                stream.sendall(ACK)
            if kind == 3 or kind == 7:
                raise ConnectionError("stream reset" if kind == 3 else "GOAWAY")
            if kind == 0 and number == 1:
                body += data
            if kind in (0, 1) and flags & 1:
                return json.loads(body) if body.startswith(b"{") else {"status": body.decode()}
    raise ConnectionError("closed without an answer")


def tcp(stream, one):
    stream.sendall(b"\0ab bytes\n")
    if not (told := stream.recv(4096)):
        raise ConnectionError("closed without an answer")
    return {"spoken": "tcp", "told": told.decode("latin-1")}


def tls(stream, one):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if one.get("alpn"):
        context.set_alpn_protocols(one["alpn"])
    with context.wrap_socket(stream, server_hostname="whoever.example.com") as inside:
        return http1(inside, one) | {"version": inside.version()}


def ask(one):
    try:
        with socket.create_connection((one["address"], one["port"]), WITHIN) as stream:
            stream.settimeout(WITHIN)
            return {"answer": {"http1": http1, "http2": http2, "tcp": tcp, "tls": tls}[one["kind"]](stream, one)}
    except (OSError, ValueError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(list(pool.map(ask, json.load(sys.stdin)))))
