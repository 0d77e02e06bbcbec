#!/usr/bin/env python3
"""Runs the credential-injecting egress gateway on this machine and shows what happens.

Needs no root. Starts the API and `sluis up` in a fresh directory below the temporary one, runs the
client in its jail and outside it, tries what an attacker would, prints a table, stops everything
and exits 0 if all happened as it must. `--sidecar envoy` and `--gateway envoy` put a real Envoy in
that place, told what to do by the same control plane.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stage import checks  # noqa: E402
from stage.scene import Scene, SceneError  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/release",
                        help="where sluis and sluis-proxy are [%(default)s]")
    parser.add_argument("--sidecar", choices=["sluis", "envoy"], default="sluis")
    parser.add_argument("--gateway", choices=["sluis", "envoy"], default="sluis")
    parser.add_argument("--keep", action="store_true", help="do not delete the directory")
    options = parser.parse_args()
    try:
        with Scene(options.bin_dir, options.sidecar, options.gateway, options.keep) as scene:
            rows = checks.run(scene)
        rows.append(checks.nothing_left(scene))
    except SceneError as error:
        sys.exit(f"demo: {error}")
    show(rows, options)
    if not all(row.is_good for row in rows):
        sys.exit("demo: not all happened as it must")


def show(rows, options):
    print(f"\nsidecar: {options.sidecar}   gateway: {options.gateway}\n")
    width = max(len(row.tried) for row in rows)
    for row in rows:
        first, *rest = row.seen.splitlines() or [""]
        print(f"{'ok ' if row.is_good else 'BAD'}  {row.tried:{width}}  {first}")
        for line in rest:
            print(f"     {'':{width}}  {line}")
    print()


if __name__ == "__main__":
    main()
