#!/usr/bin/env python3
"""A stand-in for HashiCorp Vault, as far as secrets are read from it.

Written after the public API documentation (developer.hashicorp.com/vault/api-docs): KV version 2, transit
encryption, tokens, AppRole, Kubernetes logins, namespaces. It knows nothing of Sluis. Paths under
`/_test/` change the world: `down`, `up`, `revoke`, `expire`, `requests`; no client may use them.

    fake_vault.py [--port N] [--cert FILE --key FILE]     prints `listening PORT`
"""

import argparse
import base64
import datetime
import http.server
import json
import secrets
import ssl
import threading
import time

ROOT = "hvs.root"


class World:
    """What a server would keep in its storage."""

    def __init__(self):
        self.lock = threading.Lock()
        self.tokens = {ROOT: {"ends": None, "renewable": False, "namespace": None, "life": 0}}
        self.kv = {}
        self.roles = {}
        self.kubernetes = {}
        self.mounts = {"secret/": "kv", "transit/": "transit"}
        self.auths = {"token/": "token", "approle/": "approle", "kubernetes/": "kubernetes"}
        self.transit = {}
        self.life = 3600
        self.status = None
        self.requests = []

    def login(self, namespace):
        token = "hvs." + secrets.token_urlsafe(18)
        ends = time.time() + self.life if self.life else None
        self.tokens[token] = {"ends": ends, "renewable": True, "namespace": namespace, "life": self.life}
        return {"client_token": token, "accessor": secrets.token_hex(8), "policies": ["default"],
                "token_policies": ["default"], "metadata": {}, "lease_duration": self.life,
                "renewable": True, "entity_id": "", "token_type": "service", "orphan": True}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve("GET")

    def do_POST(self):
        self.serve("POST")

    do_PUT = do_POST

    def do_LIST(self):
        self.serve("LIST")

    def do_DELETE(self):
        self.serve("DELETE")

    def serve(self, method):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        body = json.loads(body) if body.strip() else {}
        path = self.path.split("?")[0]
        with self.world.lock:
            if path.startswith("/_test/"):
                return self.answer(200, self.control(path[7:], body))
            self.world.requests.append([method, path, self.headers.get("x-vault-namespace")])
            if self.world.status:
                return self.answer(self.world.status, {"errors": ["Vault is sealed"]})
            if not path.startswith("/v1/"):
                return self.answer(404, {"errors": []})
            status, answer = self.route(method, path[4:], body)
        self.answer(status, answer)

    def control(self, what, body):
        world = self.world
        if what == "down":
            world.status = body.get("status", 503)
        elif what == "up":
            world.status = None
        elif what == "revoke":
            world.tokens = {ROOT: world.tokens[ROOT]}
        elif what == "life":
            world.life = body["seconds"]
        elif what == "requests":
            return world.requests
        return {}

    def answer(self, status, value):
        text = json.dumps(value).encode() if value is not None else b""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("cache-control", "no-store")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def wrap(self, data=None, auth=None):
        return {"request_id": secrets.token_hex(16), "lease_id": "", "renewable": False,
                "lease_duration": 0, "data": data, "wrap_info": None, "warnings": None, "auth": auth,
                "mount_type": ""}

    def token(self):
        shown = self.headers.get("x-vault-token")
        bearer = self.headers.get("authorization", "")
        if not shown and bearer.startswith("Bearer "):
            shown = bearer[7:]
        known = self.world.tokens.get(shown)
        if not known or (known["ends"] and known["ends"] < time.time()):
            return None, None
        namespace = (self.headers.get("x-vault-namespace") or "").strip("/") or None
        if shown != ROOT and known["namespace"] != namespace:
            return None, None
        return shown, known

    def route(self, method, path, body):
        world = self.world
        namespace = (self.headers.get("x-vault-namespace") or "").strip("/") or None
        parts = path.split("/")
        if path == "sys/health":
            return 200, {"initialized": True, "sealed": False, "standby": False, "version": "1.17.0"}
        if parts[0] == "auth" and parts[-1] == "login":
            return self.login(parts, body, namespace)
        shown, known = self.token()
        if not shown:
            return 403, {"errors": ["permission denied"]}
        if path == "auth/token/lookup-self":
            ttl = max(0, int(known["ends"] - time.time())) if known["ends"] else 0
            return 200, self.wrap({"id": shown, "ttl": ttl, "renewable": known["renewable"],
                                   "creation_ttl": known["life"], "policies": ["root"], "path": "x",
                                   "num_uses": 0, "type": "service", "meta": None})
        if path == "auth/token/renew-self":
            if not known["renewable"]:
                return 400, {"errors": ["lease is not renewable"]}
            known["ends"] = time.time() + world.life
            return 200, self.wrap(auth={"client_token": shown, "lease_duration": world.life,
                                        "renewable": True, "accessor": "a", "policies": ["default"]})
        if path == "auth/token/create":
            auth = world.login(namespace)
            return 200, self.wrap(auth=auth)
        if parts[:2] == ["auth", "approle"] and parts[2] == "role":
            return self.approle(method, parts, body)
        if parts[0] == "auth" and len(parts) > 3 and parts[2] == "role":
            world.kubernetes[(parts[1], parts[3])] = body
            return 204, None
        if parts[0] == "transit":
            return self.encryption(parts, body)
        return self.secret(method, parts, body, namespace)

    def login(self, parts, body, namespace):
        world = self.world
        if parts[1] == "approle":
            for role in world.roles.values():
                if role["role_id"] == body.get("role_id") and body.get("secret_id") in role["ids"]:
                    return 200, self.wrap(auth=world.login(namespace))
            return 400, {"errors": ["invalid role or secret ID"]}
        known = world.kubernetes.get((parts[1], body.get("role")))
        if known is None:
            return 400, {"errors": [f'invalid role name "{body.get("role")}"']}
        if body.get("jwt") != known.get("test_jwt", body.get("jwt")):
            return 403, {"errors": ["permission denied"]}
        return 200, self.wrap(auth=world.login(namespace))

    def approle(self, method, parts, body):
        role = self.world.roles.setdefault(
            parts[3], {"role_id": "role-" + parts[3], "ids": set()})
        if len(parts) == 4:
            return 204, None
        if parts[4] == "role-id":
            if method != "GET":
                role["role_id"] = body["role_id"]
                return 204, None
            return 200, self.wrap({"role_id": role["role_id"]})
        if parts[4] == "secret-id":
            made = secrets.token_hex(16)
            role["ids"].add(made)
            return 200, self.wrap({"secret_id": made, "secret_id_accessor": "a",
                                   "secret_id_ttl": 0, "secret_id_num_uses": 0})
        return 404, {"errors": []}

    def encryption(self, parts, body):
        if parts[1] == "keys":
            self.world.transit.setdefault(parts[2], secrets.token_bytes(16))
            return 204, None
        key = self.world.transit.get(parts[2])
        if key is None:
            return 400, {"errors": ["encryption key not found"]}
        mix = lambda data: bytes(b ^ key[i % 16] for i, b in enumerate(data))
        if parts[1] == "encrypt":
            plain = base64.b64decode(body["plaintext"])
            text = "vault:v1:" + base64.b64encode(mix(plain)).decode()
            return 200, self.wrap({"ciphertext": text, "key_version": 1})
        if not body["ciphertext"].startswith("vault:v1:"):
            return 400, {"errors": ["invalid ciphertext: no prefix"]}
        plain = mix(base64.b64decode(body["ciphertext"][9:]))
        return 200, self.wrap({"plaintext": base64.b64encode(plain).decode()})

    def secret(self, method, parts, body, namespace):
        mount, what, path = parts[0], parts[1], "/".join(parts[2:])
        where = (namespace, mount, path)
        versions = self.world.kv.setdefault(where, []) if method != "GET" else self.world.kv.get(where)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        if what == "data" and method in ("POST", "PUT"):
            made = {"data": body["data"], "metadata": {
                "created_time": now, "custom_metadata": None, "deletion_time":
                (body.get("options") or {}).get("test_deletion_time", ""),
                "destroyed": False, "version": len(versions) + 1}}
            versions.append(made)
            return 200, self.wrap(made["metadata"])
        if what == "data" and method == "GET":
            if not versions:
                return 404, {"errors": []}
            latest = versions[-1]
            return (200 if latest["data"] is not None else 404), self.wrap(latest)
        if what == "data" and method == "DELETE":
            versions[-1] = {"data": None, "metadata": versions[-1]["metadata"] | {"deletion_time": now}}
            return 204, None
        if what == "metadata" and method == "GET":
            if not versions:
                return 404, {"errors": []}
            return 200, self.wrap({"current_version": len(versions), "oldest_version": 1, "versions": {
                str(v["metadata"]["version"]): v["metadata"] for v in versions}})
        return 404, {"errors": ["no handler for route"]}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--cert")
    arguments.add_argument("--key")
    options = arguments.parse_args()
    Handler.world = World()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"listening {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
