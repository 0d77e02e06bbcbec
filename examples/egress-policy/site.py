#!/usr/bin/env python3
"""What lies outside: TLS for *.ibm.com on port 8443, a database as far as a network sees one on 27017.

`site.py ADDRESS CERTIFICATE KEY` answers each line, and prints who came.
"""

import asyncio
import ssl
import sys


def serve(what):
    async def answer(reader, writer):
        print(f"{what} connection from {writer.get_extra_info('peername')[0]}", flush=True)
        try:
            while line := await reader.readline():
                print(f"{what} {line.decode(errors='replace').strip()}", flush=True)
                writer.write(f"{what}: ".encode() + line)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        writer.close()
    return answer


async def main(address, certificate, key):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    await asyncio.start_server(serve("ibm"), address, 8443, ssl=tls)
    await asyncio.start_server(serve("mongo"), address, 27017)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
