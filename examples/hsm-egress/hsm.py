#!/usr/bin/env python3
"""A hardware security module as far as a network sees one: raw TCP on ports 2223 to 2225.

`hsm.py ADDRESS` answers each line with its port and the line, and prints who came.
"""

import asyncio
import sys

PORTS = (2223, 2224, 2225)


async def serve(reader, writer):
    port = writer.get_extra_info("sockname")[1]
    print(f"{port} connection from {writer.get_extra_info('peername')[0]}", flush=True)
    try:
        while line := await reader.readline():
            print(f"{port} {line.decode(errors='replace').strip()}", flush=True)
            writer.write(f"HSM {port}: ".encode() + line)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def main():
    for port in PORTS:
        await asyncio.start_server(serve, sys.argv[1], port)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
