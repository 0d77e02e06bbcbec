#!/usr/bin/env python3
"""Attacks on sluis-proxy by HTTP/2, one by one, from a client that writes its frames by hand.

`attacks.py --bin-dir DIR [--only NAME]` prints each attack as a sentence with `ok` or `FAILED`. After
each, a connection that was open before and a new one must be served, and the proxy must not have
held more than a bound. Exits 1 when one failed.
"""

import argparse
import inspect
import pathlib
import sys
import tempfile
import time
import traceback

import answers
import floods
import malformed
from frames import GET, Client, head
from place import Place

# What an attack may make the proxy hold for its duration, beyond what it held before. The largest
# rightful part is a hundred streams whose answers wait for a window.
HELD_KIB_MAX = 48 * 1024


class Bystander:
    """A connection that was there before the attack."""

    def __init__(self, place):
        self.client, self.stream = Client(place.plain), 1

    def is_served(self):
        self.client.send(head(self.stream, GET))
        outcome = self.client.outcome(self.stream)
        self.stream += 2
        return outcome


def watched(place, attack):
    """Runs one attack; says what is wrong, or nothing."""
    bystander = Bystander(place)
    faults = []
    if bystander.is_served() != 200:
        faults.append("the proxy does not serve before the attack")
    before = place.begin_peak()
    try:
        faults += attack(place) or []
    except Exception:
        faults.append(traceback.format_exc())
    held = place.peak_kib() - before
    if held > HELD_KIB_MAX:
        faults.append(f"the proxy held {held} KiB more than before")
    if (outcome := bystander.is_served()) != 200:
        faults.append(f"a connection from before meets {outcome}")
    if (outcome := Bystander(place).is_served()) != 200:
        faults.append(f"a new connection meets {outcome}")
    if place.proxy.poll() is not None:
        faults.append(f"the proxy ended with {place.proxy.returncode}")
    if "panicked" in place.log.read_text(errors="replace"):
        faults.append("the proxy panicked")
    return faults, held


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", metavar="NAME")
    options = parser.parse_args()
    attacks = [one for module in (malformed, floods, answers) for name, one in inspect.getmembers(module, inspect.isfunction)
               if name.startswith("attack_") and options.only in name]
    failed = 0
    with tempfile.TemporaryDirectory() as name, Place(options.bin_dir.resolve(), name) as place:
        for attack in attacks:
            began = time.monotonic()
            faults, held = watched(place, attack)
            failed += bool(faults)
            print(f"{'FAILED' if faults else 'ok    '} {time.monotonic() - began:5.1f} s {held:6} KiB  "
                  f"{inspect.getdoc(attack).splitlines()[0]} ({attack.__name__})")
            for line in (line for fault in faults for line in fault.splitlines()):
                print(f"                           {line}")
            sys.stdout.flush()
    print(f"{len(attacks) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not attacks else 0)


if __name__ == "__main__":
    main()
