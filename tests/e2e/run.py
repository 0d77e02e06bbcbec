#!/usr/bin/env python3
"""The scenario end to end: with our proxy and with real Envoy, edited, killed, renewed, commanded.

`run.py --bin-dir DIR [--only NAME] [--long]` runs every scenario against the programs in DIR and
prints each as a sentence with `ok` or `FAILED` and how long it took; then one line, `N passed,
N failed`. Exits 1 when one failed. Needs no root; what only root can try is left out otherwise.
Two scenarios run at a time: the renewal of certificates, which is mostly waiting, and then the other examples and what workloads receive, beside the rest; as root, those of several hosts beside both.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import threading
import time
import traceback

import attacks
import audits
import checks
import clients
import commands
import credentials_envoy
import demos
import disclosure
import edits
import examples
import hosts
import identities
import inbound
import judges
import kills
import pods
import renewals
import rotating_credentials
from mesh import Failed
from stage.scene import SceneError

# Each line of scenarios runs in order; the lines beside each other.
LINES = [
    [*demos.ALL, *identities.ALL, *disclosure.ALL, *audits.ALL, *edits.ALL, *kills.ALL, *commands.ALL,
     *clients.ALL, *checks.ALL],
    [*renewals.ALL, *examples.ALL, *inbound.ALL, *judges.ALL, *rotating_credentials.ALL,
     *credentials_envoy.ALL],
    [*hosts.ALL, *pods.ALL, *attacks.ALL] if os.geteuid() == 0 else [],
]


class Report:
    """What is printed, one scenario at a time, and counted."""

    def __init__(self):
        self.lock, self.passed, self.failed = threading.Lock(), 0, 0

    def run(self, scenario, options):
        began = time.monotonic()
        try:
            notes, fault = scenario(options) or [], ""
        except (Failed, SceneError) as error:
            notes, fault = [], str(error) or "(no reason)"
        except Exception:
            notes, fault = [], traceback.format_exc()
        self.tell(scenario, time.monotonic() - began, notes, fault)

    def tell(self, scenario, seconds, notes, fault):
        sentence = scenario.__doc__.splitlines()[0].rstrip(".")
        with self.lock:
            self.passed += not fault
            self.failed += bool(fault)
            print(f"{'FAILED' if fault else 'ok    '} {seconds:6.1f} s  {sentence} ({scenario.__name__})")
            for line in (line for note in [*notes, fault] for line in note.splitlines()):
                print(f"                  {line}")
            sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/debug",
                        help="where sluis and sluis-proxy are [%(default)s]")
    parser.add_argument("--only", metavar="NAME", help="the scenarios with this in their names")
    parser.add_argument("--long", action="store_true",
                        help="renew certificates for three minutes, as long as makes six of them")
    options = parser.parse_args()
    options.bin_dir = options.bin_dir.resolve()
    lines = [[one for one in line if (options.only or "") in one.__name__] for line in LINES]
    if not any(lines):
        sys.exit(f"no scenario has {options.only!r} in its name")
    report = Report()

    def run_line(line):
        for scenario in line:
            report.run(scenario, options)

    threads = [threading.Thread(target=run_line, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    # Temporary paths must be short: a Unix socket's has at most 107 bytes.
    if len(tempfile.gettempdir()) > 40:
        tempfile.tempdir = "/tmp"
    main()
