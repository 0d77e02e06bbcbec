"""The demo's table: with our proxy and with real Envoy in each place, and as an ordinary user."""

import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile

from mesh import EXAMPLE, expect

TABLE_WITHIN = 300  # seconds
ORDINARY = "nobody"  # every system has this user, and it owns nothing


def demo(options, sidecar, gateway):
    command = [sys.executable, EXAMPLE / "demo.py", "--bin-dir", options.bin_dir,
               "--sidecar", sidecar, "--gateway", gateway]
    return table(command)


def table(command, **more):
    """Runs the demo; gives its table when all was well."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=TABLE_WITHIN, **more)
    told = result.stdout + result.stderr
    expect(result.returncode == 0, f"demo.py ended with {result.returncode}\n{told[-4000:]}")
    _, found, rows = result.stdout.partition("sidecar: ")
    expect(found and "\nok " in rows, f"no table:\n{told[-4000:]}")
    return [found + rows.rstrip()]


def our_proxies(options):
    """The demo's table holds with our proxies."""
    return demo(options, "sluis", "sluis")


def envoy_as_gateway(options):
    """The demo's table holds with a real Envoy as the gateway."""
    return demo(options, "sluis", "envoy")


def envoy_as_sidecar(options):
    """The demo's table holds with a real Envoy as the sidecar."""
    return demo(options, "envoy", "sluis")


def envoy_in_both_places(options):
    """The demo's table holds with a real Envoy in both places."""
    return demo(options, "envoy", "envoy")


def ordinary_user(options):
    """The demo's table holds for an ordinary user, without root."""
    if os.getuid() != 0:
        return ["all scenarios of this run belong to an ordinary user already"]
    user = pwd.getpwnam(ORDINARY)
    with tempfile.TemporaryDirectory(prefix="sluis-user-") as name:
        home = pathlib.Path(name)
        # The checkout may lie where others cannot look.
        for program in ("sluis", "sluis-proxy"):
            shutil.copy(options.bin_dir / program, home / program)
        shutil.copytree(EXAMPLE.parent, home / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        temporary = home / "tmp"
        temporary.mkdir()
        os.chown(temporary, user.pw_uid, user.pw_gid)
        home.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "HOME": str(temporary), "TMPDIR": str(temporary),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["/usr/bin/python3", home / "examples/credential-egress/demo.py", "--bin-dir", home]
        return table(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], env=environment,
                     cwd=temporary)


ALL = [our_proxies, envoy_as_gateway, envoy_as_sidecar, envoy_in_both_places, ordinary_user]
