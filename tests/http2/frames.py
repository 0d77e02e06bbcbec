"""A client that writes frames by hand, right or wrong, and reads what comes back.

In:    a port of the proxy, frames.
Out:   frames, and how the connection ended.
Never: corrects what a case writes, or judges it.
"""

import select
import socket
import ssl
import time

import hpack
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame,
                              SettingsFrame, WindowUpdateFrame)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER_WITHIN = 10  # seconds
FRAME_BYTES = 16384
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "http2.test"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
NAMES = {0: "NO_ERROR", 1: "PROTOCOL_ERROR", 2: "INTERNAL_ERROR", 3: "FLOW_CONTROL_ERROR", 5: "STREAM_CLOSED",
         6: "FRAME_SIZE_ERROR", 7: "REFUSED_STREAM", 8: "CANCEL", 9: "COMPRESSION_ERROR", 11: "ENHANCE_YOUR_CALM"}


def fields(pairs):
    """A field block without a table: names and values as they are."""
    out = bytearray()
    for name, value in pairs:
        out.append(0)
        for text in (name, value):
            octets = text.encode("latin-1")
            length = hpack.hpack.encode_integer(len(octets), 7)
            out += length + octets
    return bytes(out)


def head(stream, pairs, end=True, block=None):
    """HEADERS, and CONTINUATIONs where one frame is too small."""
    block = fields(pairs) if block is None else block
    pieces = [block[at:at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)] or [b""]
    out = b""
    for number, piece in enumerate(pieces):
        frame = ContinuationFrame(stream, piece) if number else HeadersFrame(stream, piece)
        if end and not number:
            frame.flags.add("END_STREAM")
        if number == len(pieces) - 1:
            frame.flags.add("END_HEADERS")
        out += frame.serialize()
    return out


def data(stream, octets, end=False):
    frame = DataFrame(stream, octets)
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


def reset(stream, code=8):
    return RstStreamFrame(stream, error_code=code).serialize()


def window(stream, by):
    return WindowUpdateFrame(stream, window_increment=by).serialize()


def raw(kind, flags, stream, payload):
    """Any frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Client:
    """One connection."""

    def __init__(self, port, settings=None, tls=False, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(ANSWER_WITHIN)
        self.socket.connect(("127.0.0.1", port))
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket)
        self.buffer, self.frames, self.decoder = b"", [], hpack.Decoder(1 << 24)
        self.goaway, self.is_closed = None, False
        self.send(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, octets):
        """False once the peer has closed."""
        try:
            self.socket.sendall(octets)
            return True
        except (ConnectionError, ssl.SSLError):
            self.is_closed = True
            return False

    def flood(self, pieces, reads=True, within=20):
        """Sends pieces until they, the time, or the peer's patience end: `sent`, `blocked`, `closed`."""
        until = time.monotonic() + within
        for piece in pieces:
            while piece:
                ready = select.select([self.socket] if reads else [], [self.socket], [], 2)
                if ready[0] and not self.receive():
                    return "closed"
                if ready[1]:
                    try:
                        piece = piece[self.socket.send(piece):]
                    except ConnectionError:
                        self.is_closed = True
                        return "closed"
                elif not ready[0] or time.monotonic() > until:
                    return "blocked"
        return "sent"

    def receive(self):
        """Takes what has come; False when nothing will come any more."""
        try:
            more = self.socket.recv(1 << 18)
        except TimeoutError:
            return True
        except (ConnectionError, ssl.SSLError):
            more = b""
        if not more:
            self.is_closed = True
            return False
        self.buffer += more
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
            if len(self.buffer) < 9 + length:
                break
            try:
                frame.parse_body(memoryview(self.buffer[9:9 + length]))
            except HyperframeError as error:
                raise AssertionError(f"the proxy sends a broken frame: {error}") from error
            self.buffer = self.buffer[9 + length:]
            self.frames.append(frame)
            if isinstance(frame, GoAwayFrame):
                self.goaway = frame
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]).serialize())
        return True

    def until(self, seen, within=ANSWER_WITHIN):
        """Reads until `seen` of the frames is true; None when it does not come to that."""
        until = time.monotonic() + within
        while True:
            if found := seen():
                return found
            left = until - time.monotonic()
            if self.is_closed or left <= 0:
                return None
            self.socket.settimeout(left)
            self.receive()
            self.socket.settimeout(ANSWER_WITHIN)

    def of(self, stream, kind):
        return [frame for frame in self.frames if frame.stream_id == stream and isinstance(frame, kind)]

    def outcome(self, stream, within=ANSWER_WITHIN):
        """What became of a stream: a status, `reset CODE`, `goaway CODE`, `closed`, or `nothing`."""
        ends = lambda: (self.of(stream, HeadersFrame) or self.of(stream, RstStreamFrame)
                        or (self.goaway and self.goaway.error_code and [self.goaway]))
        found = self.until(ends, within)
        if not found:
            return "closed" if self.is_closed else "nothing"
        if isinstance(found[0], GoAwayFrame):
            return f"goaway {NAMES[found[0].error_code]}"
        if isinstance(found[0], RstStreamFrame):
            return f"reset {NAMES[found[0].error_code]}"
        return int(dict(self.decoder.decode(found[0].data))[":status"])

    def end(self, within=ANSWER_WITHIN):
        """How the connection ended: `goaway CODE`, `closed` without a word, or `open`."""
        self.until(lambda: self.goaway and self.goaway.error_code, within)
        if self.goaway and self.goaway.error_code:
            return f"goaway {NAMES[self.goaway.error_code]}"
        return "closed" if self.is_closed else "open"
