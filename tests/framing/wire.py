"""Messages as they are on the wire, read by the letter of RFC 9112, with a list of what is wrong with them.

In:    a stream of one side of a connection.
Out:   `Message`s, filled while they arrive, so that unfinished ones are seen too.
Never: refuses what can be read at all: a flaw is noted, and whoever asked decides.
"""

import asyncio
import re

HEAD_MAX = 1 << 20
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e]*)?")
TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")


class Message:
    """One message; `flaws` says where a strict sender would not have written it so."""

    def __init__(self, head):
        self.head = head
        self.flaws = []
        self.content = b""
        self.is_complete = False
        lines = head[:-4].split(b"\r\n")
        self.start = lines[0]
        if b"\n" in head.replace(b"\r\n", b"") or b"\r" in head.replace(b"\r\n", b""):
            self.flaws.append("bare CR or LF in the head")
        self.fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not TOKEN.fullmatch(name):
                self.flaws.append(f"field name {name!r}")
            value = value.strip(b" \t")
            if not VALUE.fullmatch(value):
                self.flaws.append(f"value {value!r}")
            self.fields.append((name.strip().lower(), value))

    def all(self, name):
        return [value for known, value in self.fields if known == name]

    def declared(self):
        """`chunked`, a length, or None; two sayings are a flaw."""
        lengths, codings = self.all(b"content-length"), self.all(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            self.flaws.append(f"framed more than once: {lengths + codings}")
        for value in lengths:
            if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", value):
                self.flaws.append(f"length {value!r}")
        for value in codings:
            if value.lower() != b"chunked":
                self.flaws.append(f"coding {value!r}")
        if codings:
            return "chunked"
        if lengths:
            digits = re.match(rb"[0-9]+", lengths[-1])
            return int(digits[0]) if digits else 0
        return None


class Request(Message):
    """A request: method, path (without scheme and authority), host."""

    def __init__(self, head):
        super().__init__(head)
        parts = self.start.split(b" ")
        if len(parts) != 3 or not TOKEN.fullmatch(parts[0]) or not TARGET.fullmatch(parts[1]) \
                or parts[2] != b"HTTP/1.1":
            self.flaws.append(f"request line {self.start!r}")
        self.method, self.target = parts[0], parts[1] if len(parts) > 1 else b""
        self.path = re.sub(rb"^https?://[^/?]*", b"", self.target, flags=re.I) or b"/"
        if self.path.startswith(b"?"):
            self.path = b"/" + self.path
        hosts = self.all(b"host")
        if len(hosts) != 1:
            self.flaws.append(f"{len(hosts)} Host fields")
        self.host = re.sub(rb":[0-9]*$", b"", hosts[0].lower()) if hosts else b""
        self.framing = self.declared() or 0

    def __repr__(self):
        text = lambda value: value.decode("latin-1")
        end = "" if self.is_complete else "..."
        return f"{text(self.method)} {text(self.path)} @{text(self.host)} [{text(self.content)!r}{end}]"


class Response(Message):
    """A response to a request of `method`."""

    def __init__(self, head, method):
        super().__init__(head)
        found = re.match(rb"HTTP/1\.1 ([1-5][0-9][0-9])(?: |$)", self.start)
        if not found:
            self.flaws.append(f"status line {self.start!r}")
        number = re.search(rb" ([0-9]+)", self.start)
        self.status = int(number[1]) if number else 0
        declared = self.declared()
        bodiless = self.status < 200 or self.status in (204, 304) or method == b"HEAD"
        if (self.status < 200 or self.status == 204) and declared is not None:
            self.flaws.append(f"{self.status} with a framing field")
        self.is_interim = self.status < 200 and self.status != 101
        self.framing = 0 if bodiless else "close" if declared is None else declared

    def __repr__(self):
        end = "" if self.is_complete else "..."
        return f"{self.status} [{self.content[:60].decode('latin-1')!r}{end}]"


async def head_of(stream):
    """The bytes of one head; b"" at the end of the stream; what is left when it ends inside a head."""
    try:
        return await stream.readuntil(b"\r\n\r\n"), True
    except asyncio.IncompleteReadError as end:
        return end.partial, False
    except (ConnectionError, asyncio.LimitOverrunError):
        return b"", False


async def body_of(stream, message):
    """Reads the body into the message; returns whether the message is complete."""
    try:
        if message.framing == "chunked":
            await chunks_of(stream, message)
        elif message.framing == "close":
            while piece := await stream.read(1 << 16):
                message.content += piece
        else:
            left = message.framing
            while left:
                piece = await stream.read(min(left, 1 << 16))
                if not piece:
                    return False
                message.content += piece
                left -= len(piece)
        message.is_complete = True
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, Unreadable):
        pass
    return message.is_complete


class Unreadable(Exception):
    """Chunks that cannot be read at all."""


async def chunks_of(stream, message):
    while True:
        line = (await stream.readuntil(b"\n"))
        found = CHUNK_LINE.fullmatch(line[:-2])
        if not found or not line.endswith(b"\r\n"):
            message.flaws.append(f"chunk line {line!r}")
            raise Unreadable
        left = int(found[1], 16)
        if not left:
            break
        while left:
            piece = await stream.read(min(left, 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", None)
            message.content += piece
            left -= len(piece)
        end = await stream.readexactly(2)
        if end != b"\r\n":
            message.flaws.append(f"chunk end {end!r}")
            raise Unreadable
    while (line := await stream.readuntil(b"\n")) != b"\r\n":
        name, colon, _ = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name) or not line.endswith(b"\r\n"):
            message.flaws.append(f"trailer {line!r}")
