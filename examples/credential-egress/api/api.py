"""The external data API: it believes nobody. It stands for a system that others run.

It asks for two sets of credentials on every request (standard library only):
- who the user is: `Authorization: Bearer JWT` (HS256), not expired;
- which system asks: `X-Authorization: Version=V1, Credential=KEY, Signature=HEX`, an HMAC-SHA256
  over `method\\nhost\\npath\\ndate` with the secret of that key, where `X-Date` is the date, within
  five seconds of now, and no signature is taken twice.

Where there is a `Content-Digest` (RFC 9530), it must be that of the body, and it is a fifth line of
what is signed; with `--signed-bodies` a request without it is refused.

Without user or system: 401; with a wrong one: 403; each with the reason. One JSON line on standard
output for each request says who asked for what and what was decided; never a secret or a signature.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import pathlib
import re
import ssl
import threading
import time
import urllib.parse

DATE_SECONDS_MAX = 5  # how far X-Date may be from now
BODY_BYTES_MAX = 64 * 1024  # no query is longer
IDLE_SECONDS_MAX = 30  # how long a connection may say nothing
SIGNED = re.compile(r"Version=V1, Credential=([A-Za-z0-9]+), Signature=([0-9a-f]{64})")
DATE = "%Y%m%dT%H%M%SZ"


class Refused(Exception):
    """Why a request is not answered."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Gate:
    """Decides who may ask."""

    def __init__(self, directory, signed_bodies=False):
        self.signed_bodies = signed_bodies
        self.jwt_key = (directory / "jwt-key").read_bytes()
        self.secrets = json.loads((directory / "clients.json").read_text())
        self.seen = {}  # signature -> when it may be forgotten
        self.lock = threading.Lock()

    def user(self, headers):
        """The user that the token proves."""
        value = single(headers, "Authorization") or ""
        scheme, _, token = value.partition(" ")
        if scheme != "Bearer" or not token:
            raise Refused(401, "no user: Authorization is missing")
        try:
            text, _, signature = token.rpartition(".")
            head, claims = (json.loads(decode(part)) for part in text.split("."))
            given = decode(signature)
        except ValueError:
            raise Refused(401, "no user: the token is no JWT") from None
        if not isinstance(head, dict) or not isinstance(claims, dict):
            raise Refused(401, "no user: the token is no JWT")
        if head.get("alg") != "HS256":
            raise Refused(401, "no user: the token is not signed with HS256")
        if not hmac.compare_digest(given, hmac.digest(self.jwt_key, text.encode(), hashlib.sha256)):
            raise Refused(401, "no user: the token's signature is wrong")
        if claims.get("exp", 0) <= time.time():
            raise Refused(401, "no user: the token has expired")
        return claims["sub"]

    def system(self, method, path, headers, body):
        """The system whose key signed this very request."""
        value, date = single(headers, "X-Authorization"), single(headers, "X-Date")
        if value is None or date is None:
            raise Refused(401, "no system: X-Authorization or X-Date is missing")
        match = SIGNED.fullmatch(value)
        if match is None:
            raise Refused(401, "no system: X-Authorization is malformed")
        key, given = match.groups()
        if key not in self.secrets:
            raise Refused(403, "the access key is unknown")
        lines = [method, single(headers, "Host") or "", path, date]
        text = "\n".join(lines + self.digest(headers, body))
        wanted = hmac.new(self.secrets[key].encode(), text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(given, wanted):
            raise Refused(403, "the signature is wrong")
        self.once(given, date)
        return key

    def digest(self, headers, body):
        """The digest of the body, where the request says one: a line of what is signed."""
        given = single(headers, "Content-Digest")
        if given is None:
            if self.signed_bodies:
                raise Refused(401, "no system: Content-Digest is missing")
            return []
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if given != f"sha-256=:{digest}:":
            raise Refused(403, "the body is not the one that was digested")
        return [given]

    def once(self, signature, date):
        """Takes a signature if it is fresh and new."""
        now = time.time()
        try:
            made = datetime.datetime.strptime(date, DATE).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            raise Refused(403, "X-Date is malformed") from None
        if abs(made.timestamp() - now) > DATE_SECONDS_MAX:
            raise Refused(403, f"X-Date is more than {DATE_SECONDS_MAX} seconds from now")
        with self.lock:
            self.seen = {old: end for old, end in self.seen.items() if end > now}
            if signature in self.seen:
                raise Refused(403, "the signature has been used before")
            self.seen[signature] = now + 2 * DATE_SECONDS_MAX


def single(headers, name):
    """The header's only value: two would let two readers see two requests."""
    values = headers.get_all(name, [])
    if len(values) > 1:
        raise Refused(401, f"{name} is there more than once")
    return values[0] if values else None


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "data-api"
    sys_version = ""
    timeout = IDLE_SECONDS_MAX
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

    def do_POST(self):
        record = {"method": self.command, "path": self.path, "from": self.client_address[0]}
        try:
            body = self.body()
            query = self.query(body)
            record["user"] = self.server.gate.user(self.headers)
            record["system"] = self.server.gate.system(
                self.command, self.path, self.headers, body)
            record["signed_body"] = "Content-Digest" in self.headers
            record["query"] = query
            status, answer = 200, {"data": {"datasets": DATASETS, "asked_by": record["user"]}}
            self.server.keep(self)
        except Refused as refused:
            status, answer = refused.status, {"errors": [{"message": str(refused)}]}
            record["reason"] = str(refused)
        record |= {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "status": status}
        print(json.dumps(record), flush=True)
        self.answer(status, answer)

    def do_GET(self):
        self.answer(405, {"errors": [{"message": "only POST is answered"}]})

    def body(self):
        """All of it."""
        length = int(self.headers.get("Content-Length") or 0)
        if "Transfer-Encoding" in self.headers or not 0 < length <= BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(400, f"the body must have a length of 1 to {BODY_BYTES_MAX} bytes")
        return self.rfile.read(length)

    def query(self, body):
        """The query, from a form or from JSON."""
        body = body.decode("utf-8", "replace")
        if self.headers.get("Content-Type", "").startswith("application/json"):
            try:
                return str(json.loads(body)["query"])
            except (ValueError, TypeError, KeyError):
                raise Refused(400, "the body is no JSON object with a query") from None
        return urllib.parse.parse_qs(body).get("query", [""])[0]

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The JSON lines say it all."""


DATASETS = [{"name": "incidents", "rows": 184_203}, {"name": "licence-plates", "rows": 9_301_442}]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, directory, record, signed_bodies):
        super().__init__(address, Handler)
        self.gate = Gate(directory, signed_bodies)
        self.record = record
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "tls.crt", directory / "tls.key")

    def finish_request(self, request, client_address):
        """The handshake, in the connection's own thread: a slow client stops nobody else."""
        request.settimeout(IDLE_SECONDS_MAX)
        try:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError as error:
            print(json.dumps({"from": client_address[0], "reason": str(error)}), flush=True)

    def keep(self, request):
        """With --record: keeps the last accepted request, as one who listens at the API could."""
        if self.record:
            kept = {"path": request.path, "headers": request.headers.items()}
            self.record.write_text(json.dumps(kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="its keys (setup.sh)")
    parser.add_argument("--address", default="127.0.0.9")
    parser.add_argument("--port", type=int, default=9443)
    parser.add_argument("--record", type=pathlib.Path, help="keep the last accepted request here")
    parser.add_argument("--signed-bodies", action="store_true", help="refuse a body without digest")
    options = parser.parse_args()
    server = Server((options.address, options.port), options.dir, options.record,
                    options.signed_bodies)
    server.serve_forever()
