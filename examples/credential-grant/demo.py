#!/usr/bin/env python3
"""Runs the egress gateway that adds a declared credential, for those to whom it is granted.

Needs no root. The API, its keys and the client are those of ../credential-egress; a Credential of a
dozen lines stands where that example has a script, and the body is signed too. Prints a table, stops
everything and exits 0 if all happened as it must.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ARTICLE = HERE.parent / "credential-egress"
sys.path[:0] = [str(HERE.parent), str(ARTICLE)]

from onebox import table  # noqa: E402
from onebox.table import Row, one_line  # noqa: E402
from stage.scene import EXAMPLE, NOTEBOOK, Scene, python  # noqa: E402

BATCH = "team-a/batch"
# What a client sends in the gateway's place: the first would be taken by a careless signer, the second
# would have the next hop drop what the gateway adds.
FORGED = """
import os, sys, urllib.request
headers = {"Authorization": "Bearer " + os.environ["USER_JWT"], "X_Authorization": "forged",
           "X-Authorization": "Version=V1, Credential=FORGED, Signature=" + 64 * "0",
           "X-Date": "20000101T000000Z", "Content-Digest": "sha-256=:AAAA:"}
request = urllib.request.Request("https://api.data.local/graphql?forged", b"query=x", headers)
with urllib.request.urlopen(request, timeout=10) as response:
    print(response.status, response.read().decode())
"""


class Granted(Scene):
    """The article's scene, with this folder's manifests."""

    api_options = ("--signed-bodies",)

    def __init__(self, programs, keep=False):
        super().__init__(programs, keep=keep)
        self.engines[BATCH] = "sluis"

    def write_manifests(self):
        for part in ("istio", "machine"):
            shutil.copytree(HERE / part, self.manifests / part)
        for path in self.manifests.glob("machine/*.yaml"):
            path.write_text(path.read_text().replace("127.0.0.", f"{self.net}."))

    def up_environment(self):
        return {}

    def credentials(self, *arguments):
        command = [self.sluis, "credentials", "--state-dir", self.dir / "state", *arguments]
        return subprocess.run(command, capture_output=True, text=True)


def said(result):
    return one_line(result.stdout + result.stderr)


def granted(scene):
    """The notebook asks the API."""
    result = scene.client()
    record = (scene.api_log() or [{}])[-1]
    is_good = (record.get("system") == scene.access_key and record.get("signed_body") is True
               and record.get("user") == "alice@example.org")
    seen = f"user {record.get('user')}, system {record.get('system')}, body signed " \
           f"{record.get('signed_body')}"
    return [Row("the notebook asks the API", result.stdout.startswith("200 "), said(result)),
            Row("the API verified user, system and body", is_good, seen)]


def forged(scene):
    """The notebook sends fields of the credential itself."""
    result = scene.exec(NOTEBOOK, python(), "-c", FORGED)
    return Row("what the client sends in its place is not sent on",
               result.stdout.startswith("200 "), said(result))


def not_granted(scene):
    """Others, and other requests."""
    asked = len(scene.api_log())
    other = scene.exec(BATCH, python(), EXAMPLE / "client.py")
    path = scene.client("https://api.data.local/admin")
    rows = [Row("another workload of the team", "403 " in other.stderr, said(other)),
            Row("another path", "403 " in path.stderr, said(path))]
    seen = len(scene.api_log()) - asked
    return [*rows, Row("neither reached the API", seen == 0, f"{seen} requests")]


def told(scene):
    """What `sluis credentials` says."""
    listed = scene.credentials("list")
    line = next((line for line in listed.stdout.splitlines() if "data-api" in line), listed.stderr)
    test = scene.credentials(
        "test", "egress/data-api", "--as", "cluster.local/ns/team-a/sa/batch", "--method", "POST",
        "--url", "https://api.data.local/graphql")
    text = listed.stdout + test.stdout + scene.credentials("describe", "egress/data-api").stdout
    is_silent = scene.secret.decode() not in text
    return [Row("sluis credentials list", "hmac" in line, line),
            Row("sluis credentials test, as batch", test.returncode == 65, said(test)),
            Row("no value is shown", is_silent, "none" if is_silent else "the secret key")]


def demonstrate(options):
    rows = []
    with Granted(options.bin_dir, options.keep) as scene:
        for attempt in (granted, forged, not_granted, told):
            scene.step(attempt.__doc__.splitlines()[0].rstrip("."))
            found = attempt(scene)
            rows.extend(found if isinstance(found, list) else [found])
    return rows


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
