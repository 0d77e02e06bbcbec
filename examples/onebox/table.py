"""What a demo prints: what was tried, what was seen, whether it was good."""

import argparse
import dataclasses
import pathlib
import sys

from .scene import SceneError


@dataclasses.dataclass
class Row:
    """One line of the table."""

    tried: str
    is_good: bool
    seen: str


def one_line(text, width=110):
    """A text on one line, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[:width - 3] + "..."


def main(description, demonstrate, **more):
    """The command line of a demo: runs `demonstrate(options)`, which gives rows, and shows them."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/release",
                        help="where sluis and sluis-proxy are [%(default)s]")
    parser.add_argument("--sidecar", choices=["sluis", "envoy"], default="sluis")
    parser.add_argument("--gateway", choices=["sluis", "envoy"], default="sluis")
    parser.add_argument("--keep", action="store_true", help="do not delete the directory")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    options = parser.parse_args()
    try:
        rows = demonstrate(options)
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
