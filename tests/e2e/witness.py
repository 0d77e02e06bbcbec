#!/usr/bin/env python3
"""A server that tells who came: `witness.py PORT...` on TCP and UDP, IPv4 and IPv6.

It prints `tcp PORT from ADDRESS`, `tcp PORT said TEXT` and answers each line with itself.
"""

import asyncio
import socket
import sys


def plain(address):
    return address.removeprefix("::ffff:")


def tell(*words):
    print(*words, flush=True)


async def serve(reader, writer):
    port = writer.get_extra_info("sockname")[1]
    tell("tcp", port, "from", plain(writer.get_extra_info("peername")[0]))
    try:
        while line := await reader.readline():
            tell("tcp", port, "said", line.decode(errors="replace").strip())
            writer.write(b"witness: " + line)
            await writer.drain()
    except (ConnectionError, ValueError):
        pass
    writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, port):
        self.port = port

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        tell("udp", self.port, "from", plain(peer[0]))
        self.transport.sendto(b"witness: " + data, peer)


async def main():
    loop = asyncio.get_running_loop()
    for port in map(int, sys.argv[1:]):
        await asyncio.start_server(serve, ["0.0.0.0", "::"], port)
        both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", port))
        await loop.create_datagram_endpoint(lambda p=port: Datagrams(p), sock=both)
    tell("ready")
    await asyncio.Event().wait()


asyncio.run(main())
