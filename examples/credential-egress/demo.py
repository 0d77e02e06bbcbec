#!/usr/bin/env python3
"""Runs the credential-injecting egress gateway on this machine and shows what happens.

Needs no root. Starts the API and `sluis up` in a fresh directory below the temporary one, runs the
client in its jail and outside it, tries what an attacker would, prints a table, stops everything
and exits 0 if all happened as it must. `--sidecar envoy` and `--gateway envoy` put a real Envoy in
that place, told what to do by the same control plane.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from onebox import table  # noqa: E402
from stage import checks  # noqa: E402
from stage.scene import Scene  # noqa: E402


def demonstrate(options):
    with Scene(options.bin_dir, options.sidecar, options.gateway, options.keep) as scene:
        rows = checks.run(scene)
    return [*rows, checks.nothing_left(scene)]


if __name__ == "__main__":
    table.main(__doc__, demonstrate)
