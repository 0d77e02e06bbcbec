#!/usr/bin/env python3
"""A site on the internet: TLS on one port, and it tells who came and what they said.

`site.py NAME CERTIFICATE KEY PORT` prints `from ADDRESS sni NAME` and answers each line with its name.
"""

import asyncio
import ssl
import sys


async def serve(reader, writer):
    peer = writer.get_extra_info("peername")[0].removeprefix("::ffff:")
    print("from", peer, "sni", writer.get_extra_info("ssl_object").asked, flush=True)
    try:
        while line := await reader.readline():
            print("said", line.decode(errors="replace").strip(), flush=True)
            writer.write(f"{sys.argv[1]}: ".encode() + line)
            await writer.drain()
    except (ConnectionError, ssl.SSLError, ValueError):
        pass
    writer.close()


def remember(stream, name, _):
    stream.asked = name


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[2:4])
    context.sni_callback = remember
    await asyncio.start_server(serve, ["0.0.0.0", "::"], int(sys.argv[4]), ssl=context)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
