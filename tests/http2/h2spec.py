#!/usr/bin/env python3
"""Has h2spec judge sluis-proxy as a server of HTTP/2, without and with TLS.

`h2spec.py --h2spec PATH --bin-dir DIR` runs all its cases, strict ones too. What fails must be in
`exceptions.py`, and everything in there must fail: else it exits 1 and says which.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from exceptions import MEANT
from place import Place

TIMEOUT = 2  # seconds that h2spec waits for an answer
WHOLE_WITHIN = 300  # seconds


def run(h2spec, port, tls, report):
    """The cases by name, each with why it failed, or nothing."""
    command = [h2spec, "--strict", "--host", "127.0.0.1", "--port", str(port), "--timeout", str(TIMEOUT),
               "--junit-report", report, *(["--tls", "--insecure"] if tls else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WHOLE_WITHIN)
    if not report.exists():
        sys.exit(f"h2spec wrote no report:\n{done.stdout}{done.stderr}")
    cases, counts = {}, {}
    for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            place = suite.get("package")
            counts[place] = counts.get(place, 0) + 1
            fault = next((child for child in case if child.tag in ("failure", "error")), None)
            why = None if fault is None else " ".join((fault.text or "").split())
            if why and is_closed(why):
                why = None
            cases[f"{place}/{counts[place]}"] = (case.get("classname"), why, case.find("skipped") is not None)
    return cases


def is_closed(why):
    """Whether the case wanted the connection closed and met a reset: what a kernel sends for a socket
    that is closed while something is unread. Later versions of h2spec take it as closed too."""
    return "Connection closed" in why and why.endswith("connection reset by peer")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--h2spec", type=pathlib.Path, required=True)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    options = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as name, Place(options.bin_dir.resolve(), name) as place:
        for words, port in (("h2c", place.plain), ("TLS", place.tls)):
            cases = run(options.h2spec.resolve(), port, words == "TLS", place.folder / f"{words}.xml")
            failed = {case: told for case, told in cases.items() if told[1] is not None}
            for case, (what, why, _) in failed.items():
                if case in MEANT:
                    continue
                faults += 1
                print(f"FAILED  {words} {case}: {what}\n        {why}")
            for case in sorted(MEANT.keys() - failed.keys()):
                faults += 1
                print(f"passes  {words} {case}, which exceptions.py says it does not")
            skipped = sum(told[2] for told in cases.values())
            print(f"{words}: {len(cases)} cases, {len(failed)} failed ({len(failed.keys() & MEANT.keys())} known), {skipped} skipped")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
