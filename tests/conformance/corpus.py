"""What a feature is: manifests, services behind the proxies, and cases; and how a case is compared.

A case is one request (or one connection of bytes), sent once or often. Its requests are written as
bytes, so that both engines get the same ones.
"""

import base64
import dataclasses
import json

USER_AGENT = "conformance"


@dataclasses.dataclass
class Feature:
    """One thing that is compared."""

    name: str
    manifests: str
    cases: list
    services: list
    gateway_ports: tuple = ()
    certificates: tuple = ()


@dataclasses.dataclass
class Case:
    id: str
    kind: str  # http1, http2 or tcp
    connect: str  # a name for the sidecar, "gateway" for the gateway
    port: int
    place: str = "sidecar"
    raw: bytes = b""
    method: str = "GET"
    fields: list = dataclasses.field(default_factory=list)
    trailers: list = dataclasses.field(default_factory=list)
    body: bytes = b""
    tls: dict = None
    repeat: int = 1
    # "each" compares result by result; "share" compares how often each service was chosen.
    compare: str = "each"
    # What is not compared: "fields", "head", "flags", "details", "took", …
    apart: tuple = ()

    def told(self, topology):
        """The case as the client reads it."""
        def here(text):
            return text.replace("{dir}", str(topology.dir)).replace("{net}", topology.net)

        tls = self.tls and {key: here(value) if isinstance(value, str) else value
                            for key, value in self.tls.items()}
        return {"id": self.id, "kind": self.kind, "connect": here(self.connect), "port": self.port,
                "raw": base64.b64encode(self.raw).decode(), "method": self.method,
                "fields": self.fields, "trailers": self.trailers, "tls": tls, "repeat": self.repeat,
                "body": base64.b64encode(self.body).decode()}


class Cases(list):
    """The cases of one feature, with short words for the usual ones."""

    def __init__(self, feature, host="", port=80, place="sidecar", tls=None, apart=()):
        super().__init__()
        self.feature, self.host, self.port, self.place, self.tls = feature, host, port, place, tls
        self.apart = apart

    def _id(self, name):
        made = f"{self.feature}/{name}"
        assert all(case.id != made for case in self), f"two cases are called {made}"
        return made

    def _add(self, name, host, more, **case):
        place = more.pop("place", self.place)
        connect = more.pop("connect", "gateway" if place == "gateway" else host)
        port = more.pop("port", self.port)
        tls = more.pop("tls", self.tls)
        apart = (*self.apart, *more.pop("apart", ()))
        self.append(Case(id=self._id(name), place=place, connect=connect, port=port, tls=tls,
                         apart=apart, **case, **more))

    def http1(self, name, path="/", method="GET", headers=(), body=None, do="", host=None,
              version="1.1", **more):
        """A request of HTTP/1.1 with the usual fields."""
        host = self.host if host is None else host
        lines = [f"{method} {path} HTTP/{version}"]
        lines += [f"Host: {more.pop('authority', host)}", f"User-Agent: {USER_AGENT}",
                  f"x-case: {self._id(name)}"]
        lines += [f"x-do: {do}"] if do else []
        lines += [f"{key}: {value}" for key, value in headers]
        if body is not None and not any(key.lower() == "transfer-encoding" for key, _ in headers):
            lines.append(f"Content-Length: {len(body)}")
        raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
        self._add(name, host, more, kind="http1", raw=raw, method=method)

    def raw(self, name, raw, host=None, method="GET", **more):
        """Bytes as they are; `{case}` stands for the case's id."""
        raw = raw.replace(b"{case}", self._id(name).encode())
        self._add(name, self.host if host is None else host, more, kind="http1", raw=raw,
                  method=method)

    def http2(self, name, path="/", method="GET", headers=(), body=b"", do="", host=None,
              trailers=(), scheme="http", **more):
        """A request of HTTP/2."""
        host = self.host if host is None else host
        fields = [(":method", method), (":scheme", scheme), (":authority", more.pop("authority", host)),
                  (":path", path), ("user-agent", USER_AGENT), ("x-case", self._id(name))]
        fields += [("x-do", do)] if do else []
        self._add(name, host, more, kind="http2", method=method, body=body,
                  fields=[*fields, *headers], trailers=list(trailers))

    def grpc(self, name, path="/echo.Echo/Say", headers=(), do="grpc=0", message=b"hello", **more):
        """A unary call of gRPC."""
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        headers = [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        self.http2(name, path=path, method="POST", headers=headers, body=framed, do=do, **more)

    def tcp(self, name, data=b"hello", host=None, **more):
        """Bytes there and back."""
        self._add(name, self.host if host is None else host, more, kind="tcp", raw=data)


def service_entry(host, endpoints, port=80, protocol="HTTP", name="", extra="", target=9000,
                  namespace="apps"):
    """A ServiceEntry with fixed endpoints: `{number: labels}`, the last byte of each address."""
    lines = [{"address": "{net}.%d" % number, "labels": labels, "ports": {protocol.lower(): target}}
             for number, labels in endpoints.items()]
    name = name or host.replace("*.", "any-").replace(".", "-")
    return f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: ["{host}"]
  ports: [{{number: {port}, name: {protocol.lower()}, protocol: {protocol}}}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: {json.dumps(lines)}
{extra}"""


def upstream(name, number, port=9000, kind="http", **more):
    """A service behind the proxies."""
    return {"name": name, "address": "{net}.%d" % number, "port": port, "kind": kind, **more}


# Names of the services that most features share, and the last bytes of their addresses.
ALPHA, BETA, GAMMA, DELTA = 21, 22, 23, 24
USUAL = [upstream("alpha", ALPHA), upstream("beta", BETA), upstream("gamma", GAMMA),
         upstream("delta", DELTA)]
