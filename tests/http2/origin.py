"""An origin of HTTP/2 that answers each path with the frames that a case gives for it.

In:    cases: by path, what is sent on a request's stream.
Out:   a port.
Never: corrects what it sends.
"""

import socket
import threading

import hpack
from frames import PREFACE, data, fields, head, raw
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, SettingsFrame

OK = [(":status", "200")]


class Evil:
    """Listens from the beginning; one thread for each connection."""

    def __init__(self, cases):
        self.cases, self.listener = cases, socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            self.answer(connection)
        except OSError:
            pass  # the proxy has closed
        finally:
            connection.close()

    def answer(self, connection):
        buffer, decoder = b"", hpack.Decoder()
        connection.sendall(SettingsFrame(0).serialize())
        while more := connection.recv(65536):
            buffer += more
            if buffer.startswith(PREFACE):
                buffer = buffer[len(PREFACE):]
            while len(buffer) >= 9 and not PREFACE.startswith(buffer[:9]):
                frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                if len(buffer) < 9 + length:
                    break
                frame.parse_body(memoryview(buffer[9:9 + length]))
                buffer = buffer[9 + length:]
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    connection.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
                if isinstance(frame, (HeadersFrame, ContinuationFrame)):
                    path = dict(decoder.decode(frame.data)).get(":path", "")
                    for piece in self.cases[path.removeprefix("/evil/")](frame.stream_id):
                        connection.sendall(piece)


def cleanly(stream):
    return [head(stream, [*OK, ("content-length", "4")], False) + data(stream, b"good", True)]


def answers(pairs, **options):
    return lambda stream: [head(stream, pairs, **options)]


def after(*frames):
    """A head, a piece of body, and then frames made for the stream."""
    return lambda stream: [head(stream, OK, False) + data(stream, b"body"), *(make(stream) for make in frames)]


def many(make, count):
    def pieces(stream):
        for _ in range(count // 500):
            yield make(stream) * 500
    return pieces


# What a malformed head must become, and what may become of a stream whose head was well.
NO_HEAD = {
    "no status": answers([("x-a", "b")]),
    "two statuses": answers([*OK, (":status", "204")]),
    "a path": answers([*OK, (":path", "/")]),
    "a late status": answers([("x-a", "b"), *OK]),
    "a status of letters": answers([(":status", "2xx")]),
    "a status of four digits": answers([(":status", "2000")]),
    "status 101": answers([(":status", "101")]),
    "an interim that ends": answers([(":status", "103")]),
    "upper case": answers([*OK, ("X-A", "b")]),
    "a line end": answers([*OK, ("x-a", "b\r\nset-cookie: c")]),
    "NUL": answers([*OK, ("x-a", "b\0")]),
    "connection": answers([*OK, ("connection", "close")]),
    "transfer-encoding": answers([*OK, ("transfer-encoding", "chunked")]),
    "a length and an end": answers([*OK, ("content-length", "5")]),
    "two lengths": answers([*OK, ("content-length", "5"), ("content-length", "6")], end=False),
    "a head too large": answers([*OK, *((f"x-{n}", "v" * 1000) for n in range(200))]),
    "data first": lambda stream: [data(stream, b"body", True)],
    "a block without sense": lambda stream: [head(stream, [], block=b"\x80")],
    "a reset": lambda stream: [raw(3, 0, stream, b"\0\0\0\2")],
    "a farewell": lambda stream: [raw(7, 0, 0, b"\0\0\0\0" + b"\0\0\0\1")],
    "a promise": lambda stream: [raw(5, 4, stream, b"\0\0\0\2" + fields(OK))],
    "a stream of its own": lambda stream: [head(2, OK)],
    "a frame too large": lambda stream: [raw(1, 4, stream, b"\0" * 20000)],
    "settings that are none": lambda stream: [raw(4, 0, 0, b"\0\4\xff\xff\xff\xff")],
    "windows that overflow": lambda stream: [raw(8, 0, 0, b"\x7f\xff\xff\xff")],
    "continuations without end": lambda stream: [raw(1, 0, stream, fields(OK)), *many(lambda s: raw(9, 0, s, b"\0\1a\1b"), 50_000)(stream)],
    "interims without end": many(lambda s: head(s, [(":status", "103")], False), 50_000),
    "settings without end": many(lambda s: raw(4, 0, 0, b""), 200_000),
    "pings without end": many(lambda s: raw(6, 0, 0, b"12345678"), 200_000),
}
NO_END = {
    "a body too short": lambda stream: [head(stream, [*OK, ("content-length", "9")], False) + data(stream, b"body", True)],
    "a body too long": lambda stream: [head(stream, [*OK, ("content-length", "3")], False) + data(stream, b"body", True)],
    "a pseudo-field in trailers": after(lambda stream: head(stream, [(":status", "200")])),
    "upper case in trailers": after(lambda stream: head(stream, [("X-A", "b")])),
    "trailers without end": after(lambda stream: head(stream, [("x-a", "b")], end=False)),
    "a reset later": after(lambda stream: raw(3, 0, stream, b"\0\0\0\2")),
    "empty data without end": after(lambda stream: data(stream, b"") * 50_000),
}
CASES = {name.replace(" ", "-"): case for name, case in {**NO_HEAD, **NO_END, "good": cleanly}.items()}
