#!/usr/bin/env python3
"""The services behind the proxies: each tells in its answer what it received.

`upstreams.py FILE` reads a JSON list of `{name, address, port, kind}` and serves them all until its
standard input ends. Kinds: `http` (HTTP/1.1, or HTTP/2 when the client begins with its preface),
`tls` (the same behind TLS), `tcp` (says its name, then echoes).

A request tells what shall happen in its field `x-do`, directives separated by `;`:
`status=503`, `delay=0.2`, `close`, `header=Name:value`, `chunked`, `until-close`, `length=100000`,
`trailer=name:value`, `interim=103`, `fail=2:503` (the first two tries of this case), `fail=1:close`,
`grpc=0` (an answer of gRPC), `echo` (the body comes back as it came), `switch` (101, then echo).
"""

import asyncio
import hashlib
import json
import os
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES_MAX = 256 * 1024
TRIES = {}  # how often a case was tried, by case and service


def directives(fields):
    text = next((value for name, value in fields if name.lower() == "x-do"), "")
    found = []
    for part in filter(None, text.split(";")):
        key, _, value = part.partition("=")
        found.append((key.strip(), value))
    return found


class Plan:
    """What shall happen with one request."""

    def __init__(self, service, head, fields):
        self.all = directives(fields)
        one = dict(self.all)
        self.status = int(one.get("status", 200))
        self.delay = float(one.get("delay", 0))
        self.is_close = "close" in one
        self.headers = [tuple(value.split(":", 1)) for key, value in self.all if key == "header"]
        self.trailers = [tuple(value.split(":", 1)) for key, value in self.all if key == "trailer"]
        self.interims = [int(value) for key, value in self.all if key == "interim"]
        self.is_chunked = "chunked" in one or bool(self.trailers)
        self.is_until_close = "until-close" in one
        self.length = int(one["length"]) if "length" in one else None
        self.is_echo, self.is_switch = "echo" in one, "switch" in one
        self.grpc = one.get("grpc")
        self.one = one
        case = next((value for name, value in fields if name.lower() == "x-case"), "")
        TRIES[case] = self.tries = TRIES.get(case, 0) + 1
        if "fail" in one:
            count, _, how = one["fail"].partition(":")
            if self.tries <= int(count):
                if how == "close":
                    self.is_close = True
                else:
                    self.status = int(how)

    def body(self, service, protocol, head, content, trailers):
        if self.is_echo:
            return content
        if self.length is not None:
            return b"x" * self.length
        seen = {"upstream": service, "protocol": protocol, "head": head, "tries": self.tries,
                "body": {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()},
                "trailers": trailers}
        return json.dumps(seen).encode()


class Http1:
    def __init__(self, service, reader, writer):
        self.service, self.reader, self.writer = service, reader, writer

    async def serve(self, begun):
        buffer = begun
        while True:
            while b"\r\n\r\n" not in buffer:
                if len(buffer) > HEAD_BYTES_MAX:
                    return
                more = await self.reader.read(65536)
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
            plan = Plan(self.service, lines, fields)
            if any(name.lower() == "expect" for name, _ in fields):
                self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            content, trailers, buffer = await self.content(fields, buffer)
            if plan.delay:
                await asyncio.sleep(plan.delay)
            if plan.is_close:
                return
            if plan.is_switch:
                return await self.switch(fields, buffer)
            if not await self.answer(plan, lines, content, trailers):
                return

    async def content(self, fields, buffer):
        known = {name.lower(): value for name, value in fields}
        if "chunked" in known.get("transfer-encoding", "").lower():
            content = b""
            while True:
                line, buffer = await self.line(buffer)
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    break
                while len(buffer) < size + 2:
                    buffer += await self.more()
                content, buffer = content + buffer[:size], buffer[size + 2:]
            trailers = []
            while True:
                line, buffer = await self.line(buffer)
                if not line:
                    return content, trailers, buffer
                trailers.append(line.decode("latin-1"))
        length = int(known.get("content-length", 0))
        while len(buffer) < length:
            buffer += await self.more()
        return buffer[:length], [], buffer[length:]

    async def line(self, buffer):
        while b"\r\n" not in buffer:
            buffer += await self.more()
        line, _, rest = buffer.partition(b"\r\n")
        return line, rest

    async def more(self):
        more = await self.reader.read(65536)
        if not more:
            raise ConnectionError("ended inside a request")
        return more

    async def switch(self, fields, buffer):
        kind = next(value for name, value in fields if name.lower() == "upgrade")
        self.writer.write(f"HTTP/1.1 101 Switching Protocols\r\nupgrade: {kind}\r\n"
                          f"connection: Upgrade\r\nx-upstream: {self.service}\r\n\r\n".encode())
        self.writer.write(buffer)
        while more := await self.reader.read(65536):
            self.writer.write(more)
            await self.writer.drain()

    async def answer(self, plan, lines, content, trailers):
        method = lines[0].split(" ")[0]
        body = plan.body(self.service, "HTTP/1.1", lines, content, trailers)
        for status in plan.interims:
            self.writer.write(f"HTTP/1.1 {status} Interim\r\nlink: </style.css>\r\n\r\n".encode())
        fields = [("x-upstream", self.service), *plan.headers]
        has_body = method != "HEAD" and plan.status not in (204, 304)
        is_raw = has_body and plan.is_until_close
        if is_raw:
            fields.append(("connection", "close"))
        elif plan.is_chunked:
            fields.append(("transfer-encoding", "chunked"))
        elif plan.status != 204:
            fields.append(("content-length", str(len(body))))
        head = f"HTTP/1.1 {plan.status} Whatever\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields)
        self.writer.write(head.encode("latin-1") + b"\r\n")
        if has_body and plan.is_chunked and not is_raw:
            middle = len(body) // 2
            for part in filter(None, (body[:middle], body[middle:])):
                self.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            tail = "".join(f"{name}: {value}\r\n" for name, value in plan.trailers)
            self.writer.write(b"0\r\n" + tail.encode() + b"\r\n")
        elif has_body:
            self.writer.write(body)
        await self.writer.drain()
        return not is_raw


class Http2:
    def __init__(self, service, reader, writer):
        self.service, self.reader, self.writer = service, reader, writer
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1",
                                           validate_inbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.streams, self.tasks, self.room = {}, set(), asyncio.Event()

    async def serve(self, begun):
        self.h2.initiate_connection()
        # Extended CONNECT (RFC 8441), for protocols such as WebSocket.
        self.h2.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        data = begun
        while data:
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()
            data = await self.reader.read(65536)

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.streams[event.stream_id] = {"head": event.headers, "content": b"", "trailers": []}
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id]["content"] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.streams[event.stream_id]["trailers"] = [f"{n}: {v}" for n, v in event.headers]
        elif isinstance(event, h2.events.WindowUpdated):
            self.room.set()
        elif isinstance(event, h2.events.StreamEnded):
            task = asyncio.ensure_future(self.answer(event.stream_id))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def answer(self, stream):
        request = self.streams.pop(stream)
        fields = [(name, value) for name, value in request["head"]]
        head = [f"{name}: {value}" for name, value in fields]
        plan = Plan(self.service, head, fields)
        if plan.delay:
            await asyncio.sleep(plan.delay)
        try:
            if plan.is_close:
                self.h2.reset_stream(stream, error_code=7)  # REFUSED_STREAM
                return self.flush()
            body = plan.body(self.service, "HTTP/2", head, request["content"], request["trailers"])
            if dict(fields).get(":method") == "HEAD" or plan.status in (204, 304):
                body = b""
            trailers = list(plan.trailers)
            answer = [(":status", str(plan.status)), ("x-upstream", self.service), *plan.headers]
            if plan.grpc is not None:
                answer.append(("content-type", "application/grpc"))
                body = b"\0" + len(body).to_bytes(4, "big") + body
                trailers.append(("grpc-status", plan.grpc))
            for status in plan.interims:
                self.h2.send_headers(stream, [(":status", str(status)), ("link", "</style.css>")])
            self.h2.send_headers(stream, answer)
            await self.send(stream, body)
            if trailers:
                self.h2.send_headers(stream, trailers, end_stream=True)
            else:
                self.h2.end_stream(stream)
            self.flush()
        except h2.exceptions.ProtocolError:
            pass  # the client has gone

    async def send(self, stream, body):
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.room.clear()
                self.flush()
                await self.room.wait()
                continue
            self.h2.send_data(stream, body[:room])
            body = body[room:]


async def serve_http(service, reader, writer):
    try:
        begun = b""
        while len(begun) < len(PREFACE) and PREFACE.startswith(begun):
            more = await reader.read(65536)
            if not more:
                return
            begun += more
        kind = Http2 if begun.startswith(PREFACE) else Http1
        await kind(service, reader, writer).serve(begun)
    except (ConnectionError, asyncio.IncompleteReadError, h2.exceptions.ProtocolError):
        pass
    finally:
        writer.close()


async def serve_tcp(service, reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(f"[{service}]".encode() + data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def start(service):
    serve = serve_tcp if service["kind"] == "tcp" else serve_http
    context = None
    if service["kind"] == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(service["certificate"], service["key"])
        context.set_alpn_protocols(service.get("alpn", ["h2", "http/1.1"]))
        if "roots" in service:
            context.load_verify_locations(service["roots"])
            context.verify_mode = ssl.CERT_REQUIRED

    async def on_connection(reader, writer):
        await serve(service["name"], reader, writer)

    return await asyncio.start_server(on_connection, service["address"], service["port"], ssl=context)


async def main():
    with open(sys.argv[1]) as file:
        services = json.load(file)
    servers = [await start(service) for service in services]  # noqa: F841, kept alive
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # whoever is still connected has gone already


if __name__ == "__main__":
    asyncio.run(main())
