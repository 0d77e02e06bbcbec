#!/usr/bin/env python3
"""The client: sends the requests of a corpus, byte for byte as they are written there.

`client.py CORPUS ENGINE` reads a JSON file `{addresses: {place: address}, cases: [...]}` and prints
one JSON line for each case: what came back. It knows nothing of proxies; it runs in a workload's
jail, or beside a gateway.
"""

import base64
import concurrent.futures
import json
import re
import socket
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

ANSWER_WITHIN = 10  # seconds
BODY_BYTES_MAX = 4 * 1024 * 1024
AT_ONCE = 8


class Connection:
    """A connection, as the case wants it."""

    def __init__(self, case, addresses):
        host = addresses.get(case["connect"], case["connect"])
        self.socket = socket.create_connection((host, case["port"]), ANSWER_WITHIN)
        self.socket.settimeout(ANSWER_WITHIN)
        self.alpn = None
        if tls := case.get("tls"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(tls["roots"])
            context.check_hostname = False
            if tls.get("alpn"):
                context.set_alpn_protocols(tls["alpn"])
            if "certificate" in tls:
                context.load_cert_chain(tls["certificate"], tls["key"])
            if "max" in tls:
                context.maximum_version = getattr(ssl.TLSVersion, tls["max"])
            self.socket = context.wrap_socket(self.socket, server_hostname=tls.get("sni"))
            self.alpn = self.socket.selected_alpn_protocol()

    def close(self):
        self.socket.close()


def http1(case, connection):
    """Sends raw bytes; reads one response by its own framing."""
    connection.socket.sendall(base64.b64decode(case["raw"]))
    buffer, interims = b"", []
    while True:
        while b"\r\n\r\n" not in buffer:
            more = connection.socket.recv(65536)
            if not more:
                return {"closed": True, "partial": buffer.decode("latin-1"), "interims": interims}
            buffer += more
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = [[part.strip() for part in line.split(":", 1)] for line in lines[1:]]
        if 100 <= status < 200 and status != 101:
            interims.append([status, fields])
            continue
        break
    result = {"status": status, "version": lines[0].split(" ")[0], "fields": fields, "interims": interims}
    known = {name.lower(): value for name, value in fields}
    if status == 101:
        connection.socket.sendall(b"hello")
        while not buffer.endswith(b"hello"):
            more = connection.socket.recv(65536)
            if not more:
                break
            buffer += more
        return result | {"body": buffer}
    if case["method"] == "HEAD" or status in (204, 304):
        return result | {"body": b""}
    if case["method"] == "CONNECT" and status == 200:
        connection.socket.sendall(b"hello")
        return result | {"body": connection.socket.recv(65536)}
    reader = Reader(connection.socket, buffer)
    if "chunked" in known.get("transfer-encoding", "").lower():
        body, trailers = reader.chunked()
        return result | {"body": body, "trailers": trailers}
    if "content-length" in known:
        return result | {"body": reader.exactly(int(known["content-length"]))}
    return result | {"body": reader.rest(), "until_close": True}


class Reader:
    def __init__(self, sock, buffer):
        self.socket, self.buffer = sock, buffer

    def more(self):
        more = self.socket.recv(262144)
        if not more:
            raise ConnectionError("the answer ended too early")
        self.buffer += more

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def chunked(self):
        body = b""
        while size := int(self.line().split(b";")[0], 16):
            body += self.exactly(size)
            self.line()
        trailers = []
        while line := self.line():
            trailers.append([part.strip() for part in line.decode("latin-1").split(":", 1)])
        return body, trailers

    def rest(self):
        while more := self.socket.recv(262144):
            self.buffer += more
        return self.buffer


def http2(case, connection):
    """One stream on a connection of its own."""
    config = h2.config.H2Configuration(header_encoding="latin-1", validate_inbound_headers=False,
                                       validate_outbound_headers=False,
                                       normalize_outbound_headers=False)
    http = h2.connection.H2Connection(config)
    http.initiate_connection()
    body = base64.b64decode(case.get("body", ""))
    trailers = case.get("trailers")
    fields = [tuple(field) for field in case["fields"]]
    http.send_headers(1, fields, end_stream=not body and not trailers)
    connection.socket.sendall(http.data_to_send())
    result = {"interims": [], "fields": [], "trailers": []}
    received, is_over, has_sent = b"", False, not body and not trailers
    while not is_over:
        while body:
            room = min(http.local_flow_control_window(1), http.max_outbound_frame_size, len(body))
            if room <= 0:
                break
            http.send_data(1, body[:room])
            body = body[room:]
        if not body and not has_sent:
            has_sent = True
            if trailers:
                http.send_headers(1, [tuple(field) for field in trailers], end_stream=True)
            else:
                http.end_stream(1)
        connection.socket.sendall(http.data_to_send())
        data = connection.socket.recv(65536)
        if not data:
            return result | {"closed": True}
        for event in http.receive_data(data):
            if isinstance(event, h2.events.InformationalResponseReceived):
                pairs = [list(pair) for pair in event.headers]
                result["interims"].append([int(dict(event.headers)[":status"]),
                                           [pair for pair in pairs if pair[0] != ":status"]])
            elif isinstance(event, h2.events.ResponseReceived):
                result["status"] = int(dict(event.headers)[":status"])
                result["fields"] = [list(pair) for pair in event.headers if pair[0] != ":status"]
                result["version"] = "HTTP/2"
            elif isinstance(event, h2.events.DataReceived):
                received += event.data
                http.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived):
                result["trailers"] = [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.StreamReset):
                result["reset"], is_over = int(event.error_code), True
            elif isinstance(event, h2.events.ConnectionTerminated):
                result["goaway"], is_over = int(event.error_code), True
            elif isinstance(event, h2.events.StreamEnded):
                is_over = True
    return result | {"body": received}


def tcp(case, connection):
    """Sends bytes, reads until the answer is as long as expected or the other side ends."""
    data = base64.b64decode(case["raw"])
    connection.socket.sendall(data)
    received = b""
    try:
        while not received.endswith(data):
            more = connection.socket.recv(65536)
            if not more:
                return {"closed": True, "body": received}
            received += more
    except TimeoutError:
        return {"late": True, "body": received}
    return {"body": received}


KINDS = {"http1": http1, "http2": http2, "tcp": tcp}


def run(case, addresses):
    began = time.monotonic()
    try:
        connection = Connection(case, addresses)
    except ssl.SSLError as error:
        return {"handshake": re.sub(r"\W*\(_ssl.*", "", str(error.reason or error))}
    except (ConnectionError, TimeoutError) as error:
        return {"connect": type(error).__name__}
    except socket.gaierror as error:
        return {"name": error.errno}
    try:
        result = KINDS[case["kind"]](case, connection) | {"alpn": connection.alpn}
    except ssl.SSLError as error:
        result = {"handshake": str(error.reason)}
    except TimeoutError:
        result = {"late": True}
    except ConnectionError as error:
        result = {"broken": type(error).__name__}
    finally:
        connection.close()
    result["took"] = time.monotonic() - began
    if isinstance(result.get("body"), bytes):
        body = result["body"]
        result["body"] = base64.b64encode(body[:BODY_BYTES_MAX]).decode()
    return result


def main():
    with open(sys.argv[1]) as file:
        corpus = json.load(file)
    cases = corpus["cases"]

    def one(case):
        return case["id"], [run(case, corpus["addresses"]) for _ in range(case.get("repeat", 1))]

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for name, results in pool.map(one, cases):
            print(json.dumps({"id": name, "results": results}), flush=True)


if __name__ == "__main__":
    main()
