"""The identity provider: prints a token that says who the user is (JWT, HS256, RFC 7519)."""

import argparse
import base64
import hashlib
import hmac
import json
import pathlib
import time


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make(key: bytes, subject: str, life: int) -> str:
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + life}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    text = ".".join(encode(json.dumps(part).encode()) for part in parts)
    return f"{text}.{encode(hmac.digest(key, text.encode(), hashlib.sha256))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", type=pathlib.Path, required=True, help="file with the key")
    parser.add_argument("--subject", required=True, help="who the user is")
    parser.add_argument("--life", type=int, default=8 * 3600, help="seconds until it expires")
    options = parser.parse_args()
    print(make(options.key.read_bytes(), options.subject, options.life), end="")
