#!/usr/bin/env python3
"""The same requests through `sluis-proxy` and through a real Envoy, fed by one control plane.

`run.py --bin-dir DIR [--only FEATURE] [--keep] [--details]` prints how many cases of each feature
agree, and what differs in the others. A difference that is meant is listed with its reason in
`known.py`. Exits 1 when a difference is not listed, or when a listed one is gone.
"""

import argparse
import fnmatch
import importlib
import pathlib
import pkgutil
import sys
import tempfile

import cases
import compare
import known
from topology import ENGINES, Topology


def features(only):
    """The features, each from its module below `cases`."""
    found = []
    for module in sorted(pkgutil.iter_modules(cases.__path__), key=lambda one: one.name):
        if module.name != "__init__":
            found += importlib.import_module(f"cases.{module.name}").FEATURES
    return [feature for feature in found if not only or any(word in feature.name for word in only)]


def reason(case):
    return next((why for pattern, why in known.DIFFERENT.items() if fnmatch.fnmatch(case.id, pattern)), "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/debug")
    parser.add_argument("--only", metavar="FEATURE", action="append", help="features with this in their names")
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    options = parser.parse_args()
    wanted = features(options.only)
    if not wanted:
        sys.exit(f"no feature has one of {options.only} in its name")
    with Topology(options.bin_dir.resolve(), wanted, options.keep) as topology:
        results = {}
        for engine in ENGINES:
            topology.step(f"send every request through {engine}")
            results[engine] = topology.run_engine(engine, sys.executable)
        logs = topology.records()
    sys.exit(tell(wanted, results, logs))


def tell(wanted, results, logs):
    """Prints the table and what differs; gives the exit code."""
    total = alike = requests = 0
    bad, meant, gone = [], [], []
    print(f"\n{'feature':28} {'cases':>6} {'alike':>6} {'meant':>6} {'differ':>6}")
    for feature in wanted:
        counts = [0, 0, 0]
        for case in feature.cases:
            found = compare.differences(case, {engine: results[engine][case.id] for engine in ENGINES}, logs)
            why = reason(case)
            requests += case.repeat
            if not found:
                counts[0] += 1
                gone += [case] if why and case.id in known.DIFFERENT else []
            else:
                counts[1 if why else 2] += 1
                (meant if why else bad).append((case, found, why))
        total, alike = total + len(feature.cases), alike + counts[0]
        print(f"{feature.name:28} {len(feature.cases):6} {counts[0]:6} {counts[1]:6} {counts[2]:6}")
    print(f"{'all':28} {total:6} {alike:6} {len(meant):6} {len(bad):6}   ({requests} requests each)\n")
    for case, found, why in meant:
        print(f"meant   {case.id}: {why}")
    for case in gone:
        print(f"GONE    {case.id}: the difference is listed in known.py, and there is none")
    for case, found, _ in bad:
        print(f"DIFFERS {case.id}")
        for line in found:
            print(f"          {line[:600]}")
    return 1 if bad or gone else 0


if __name__ == "__main__":
    # Temporary paths must be short: a Unix socket's has at most 107 bytes.
    if len(tempfile.gettempdir()) > 40:
        tempfile.tempdir = "/tmp"
    main()
