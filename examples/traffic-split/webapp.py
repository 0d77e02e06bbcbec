#!/usr/bin/env python3
"""The web application: `webapp.py ADDRESS VERSION` says its version to whoever asks, on port 8080."""

import asyncio
import sys

ADDRESS, VERSION = sys.argv[1:]
BODY = f"version {VERSION}\n".encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main():
    await asyncio.start_server(serve, ADDRESS, 8080)
    await asyncio.Event().wait()


asyncio.run(main())
