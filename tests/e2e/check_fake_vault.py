#!/usr/bin/env python3
"""Judges `fake_vault.py` by hvac, Vault's usual client for Python: what hvac can use speaks the API.

Prints one line and `N passed, 0 failed`. Without hvac it says so and exits 0.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

try:
    import hvac
except ImportError:
    print("fake_vault: hvac is not installed, not judged")
    sys.exit(0)

HERE = pathlib.Path(__file__).parent


def main():
    server = subprocess.Popen([sys.executable, HERE / "fake_vault.py"], stdout=subprocess.PIPE, text=True)
    passed = 0
    try:
        port = int(server.stdout.readline().split()[1])
        address = f"http://127.0.0.1:{port}"
        root = hvac.Client(address, token="hvs.root")
        assert root.is_authenticated(); passed += 1
        assert root.sys.read_health_status(method="GET")["initialized"]; passed += 1
        kv = root.secrets.kv.v2
        assert kv.create_or_update_secret("app/api", {"key": "one"})["data"]["version"] == 1; passed += 1
        assert kv.create_or_update_secret("app/api", {"key": "two"})["data"]["version"] == 2; passed += 1
        read = kv.read_secret_version("app/api", raise_on_deleted_version=True)["data"]
        assert read["data"] == {"key": "two"} and read["metadata"]["version"] == 2; passed += 1
        assert kv.read_secret_metadata("app/api")["data"]["current_version"] == 2; passed += 1
        try:
            kv.read_secret_version("absent", raise_on_deleted_version=True)
            raise AssertionError("an absent secret was read")
        except hvac.exceptions.InvalidPath:
            passed += 1
        root.auth.approle.create_or_update_approle("gate")
        role = root.auth.approle.read_role_id("gate")["data"]["role_id"]
        secret = root.auth.approle.generate_secret_id("gate")["data"]["secret_id"]
        client = hvac.Client(address)
        assert client.auth.approle.login(role, secret)["auth"]["lease_duration"] == 3600; passed += 1
        assert client.lookup_token()["data"]["renewable"]; passed += 1
        assert client.auth.token.renew_self()["auth"]["renewable"]; passed += 1
        try:
            hvac.Client(address).auth.approle.login(role, "wrong")
            raise AssertionError("a wrong secret id was taken")
        except hvac.exceptions.InvalidRequest:
            passed += 1
        root.auth.kubernetes.create_role("gate", "sa", "egress", policies=["default"])
        jwt = hvac.Client(address)
        assert jwt.auth.kubernetes.login("gate", "a.b.c")["auth"]["client_token"]; passed += 1
        root.secrets.transit.create_key("k")
        plain = base64.b64encode(b"deep").decode()
        sealed = root.secrets.transit.encrypt_data("k", plain)["data"]["ciphertext"]
        assert root.secrets.transit.decrypt_data("k", sealed)["data"]["plaintext"] == plain; passed += 1
        urllib.request.urlopen(f"{address}/_test/down", data=json.dumps({}).encode())
        try:
            kv.read_secret_version("app/api", raise_on_deleted_version=True)
            raise AssertionError("a sealed Vault answered")
        except hvac.exceptions.VaultDown:
            passed += 1
        try:
            hvac.Client(address, token="wrong").secrets.kv.v2.read_secret_version("app/api")
        except (hvac.exceptions.Forbidden, hvac.exceptions.VaultDown):
            passed += 1
        print("fake_vault: hvac reads, writes, logs in, renews, decrypts")
        print(f"{passed} passed, 0 failed")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    os.environ.pop("VAULT_TOKEN", None)
    main()
