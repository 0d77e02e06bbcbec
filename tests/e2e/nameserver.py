#!/usr/bin/env python3
"""A name server outside the mesh, and a client: `nameserver.py serve ADDRESS`, `nameserver.py ask SERVER TYPE NAME [tcp]`.

The server answers by UDP and TCP what is listed below, and logs each name that it is asked for. The client
prints the code of the answer, then one line for each record; of HTTPS and SVCB the keys of the parameters.
"""

import ipaddress
import socket
import socketserver
import struct
import sys
import threading

TYPES = {"A": 1, "AAAA": 28, "SVCB": 64, "HTTPS": 65}
CODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
KEYS = {1: "alpn", 4: "ipv4hint", 5: "ech"}


def parameter(key, value):
    return struct.pack("!HH", key, len(value)) + value


SERVICE = struct.pack("!H", 1) + b"\0" + parameter(1, b"\x02h2") + parameter(4, bytes([203, 0, 113, 7])) \
    + parameter(5, b"a key to hide the server name by")
KNOWN = {
    ("public.test", "A"): ipaddress.ip_address("203.0.113.7").packed,
    ("public.test", "AAAA"): ipaddress.ip_address("2001:db8::7").packed,
    ("loopback.test", "A"): ipaddress.ip_address("127.0.0.1").packed,
    ("loopback.test", "AAAA"): ipaddress.ip_address("::ffff:127.0.0.1").packed,
    ("metadata.test", "A"): ipaddress.ip_address("169.254.169.254").packed,
    ("meshlike.test", "A"): ipaddress.ip_address("240.240.0.1").packed,
    ("hidden.test", "HTTPS"): SERVICE,
    ("hidden.test", "SVCB"): SERVICE,
}


def name_of(message, at):
    """The name at a place, and the place behind it. Only questions are read: they have no pointers."""
    labels = []
    while length := message[at]:
        labels.append(message[at + 1:at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), at + 1


def answer(query):
    name, at = name_of(query, 12)
    kind = struct.unpack_from("!H", query, at)[0]
    print("asked", name, flush=True)
    data = KNOWN.get((name, {number: text for text, number in TYPES.items()}.get(kind)))
    is_there = any(known == name for known, _ in KNOWN)
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data if data else b""
    flags = 0x8180 if is_there else 0x8183
    return query[:2] + struct.pack("!HHHHH", flags, 1, bool(data), 0, 0) + query[12:at + 4] + record


class Datagrams(socketserver.BaseRequestHandler):
    def handle(self):
        query, stream = self.request
        stream.sendto(answer(query), self.client_address)


class Stream(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(2):
            reply = answer(self.rfile.read(struct.unpack("!H", head)[0]))
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


def serve(address):
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    udp = socketserver.ThreadingUDPServer((address, 53), Datagrams)
    tcp = socketserver.ThreadingTCPServer((address, 53), Stream)
    threading.Thread(target=udp.serve_forever, daemon=True).start()
    print("ready", flush=True)
    tcp.serve_forever()


def ask(server, kind, name, transport="udp"):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM) as stream:
        stream.settimeout(5)
        stream.connect((server, 53))
        if transport == "tcp":
            stream.sendall(struct.pack("!H", len(query)) + query)
            file = stream.makefile("rb")
            reply = file.read(struct.unpack("!H", file.read(2))[0])
        else:
            stream.send(query)
            reply = stream.recv(4096)
    if reply[:2] != query[:2]:
        sys.exit("an answer to something else")
    print(CODES.get(reply[3] & 15, reply[3] & 15))
    at = len(query)
    for _ in range(struct.unpack_from("!H", reply, 6)[0]):
        at = at + 2 if reply[at] & 0xc0 else name_of(reply, at)[1]
        found, _, _, length = struct.unpack_from("!HHIH", reply, at)
        data = reply[at + 10:at + 10 + length]
        at += 10 + length
        print(ipaddress.ip_address(data) if found in (1, 28) else " ".join(parameters(data)))


def parameters(data):
    at = name_of(data, 2)[1]
    while at < len(data):
        key, length = struct.unpack_from("!HH", data, at)
        yield KEYS.get(key, str(key))
        at += 4 + length


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
