#!/usr/bin/env python3
"""The name server of the internet, as far as the demo needs one.

`names.py NAME=ADDRESS...` answers A questions on port 53 of UDP, and prints each.
"""

import socket
import struct
import sys


def question(data):
    labels, at = [], 12
    while size := data[at]:
        labels.append(data[at + 1:at + 1 + size].decode(errors="replace"))
        at += 1 + size
    return ".".join(labels).lower(), struct.unpack("!H", data[at + 1:at + 3])[0], data[12:at + 5]


def main():
    known = dict(pair.split("=") for pair in sys.argv[1:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 53))
        print("ready", flush=True)
        while True:
            data, peer = server.recvfrom(4096)
            try:
                name, kind, asked = question(data)
            except (IndexError, struct.error):
                continue
            print("asked", name, "by", peer[0], flush=True)
            address = known.get(name)
            answer = b""
            if address and kind == 1:
                answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
            code = 0 if address else 3
            head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, bool(answer), 0, 0)
            server.sendto(head + asked + answer, peer)


main()
