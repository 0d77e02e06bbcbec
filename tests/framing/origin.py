"""The service behind every lane: records exactly what arrives, and answers as told.

In:    connections of one lane's proxy.
Out:   `Origin.seen`: the requests, in the order in which their heads arrived.
Never: shares a lane between two cases at one time.
"""

import asyncio

from wire import HEAD_MAX, Request, body_of, head_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Next: yes\r\n\r\n%s"


class Origin:
    """One lane's origin. `script` maps a path to what is sent, for cases of responses."""

    def __init__(self, script):
        self.seen, self.script, self.address, self.server = [], script, None, None
        self.open = set()

    async def start(self, host):
        self.server = await asyncio.start_server(self.serve, host, 0, limit=HEAD_MAX)
        self.address = self.server.sockets[0].getsockname()[:2]

    def take(self):
        """What has been seen since the last time; connections of the last case are closed."""
        seen, self.seen = self.seen, []
        return seen

    async def serve(self, stream, out):
        try:
            while True:
                head, is_whole = await head_of(stream)
                if not is_whole:
                    if head:
                        self.seen.append(junk(head))
                    return
                request = Request(head)
                self.seen.append(request)
                if not await body_of(stream, request):
                    return
                if not await self.answer(request, out):
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            out.close()

    async def answer(self, request, out):
        """Whether the connection goes on."""
        if request.path.startswith(b"/next"):
            out.write(NEXT % (len(request.path), request.path))
        elif (answer := self.script.get(request.path)) is None:
            out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" if request.method == b"HEAD" else OK)
        else:
            out.write(answer.first)
            await out.drain()
            if answer.later:
                await asyncio.sleep(0.03)
                out.write(answer.later)
            if answer.closes:
                await out.drain()
                return False
        await out.drain()
        return True


def junk(head):
    """A head that never ended."""
    request = Request(b"- - HTTP/1.1\r\nhost: -\r\n\r\n")
    request.flaws.append(f"an unfinished head {head[:80]!r}")
    request.content = head
    return request
