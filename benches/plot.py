#!/usr/bin/env python3
"""Draws benches/history.csv: our CPU time divided by each peer's, run after run, as an SVG."""

import csv
import math
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
HISTORY = HERE / "history.csv"
PICTURE = HERE.parent / "docs/performance-history.svg"
PEERS = {"of_envoy": "of Envoy's", "of_haproxy": "of HAProxy's", "of_nginx": "of nginx's"}
COLOURS = {"a": "#1f77b4", "b": "#ff7f0e", "d": "#2ca02c", "f": "#d62728", "g3": "#9467bd", "h2": "#8c564b",
           "i1": "#e377c2", "k2": "#7f7f7f"}
WIDTH, HEIGHT, LEFT, TOP, GAP, FOOT = 900, 220, 60, 46, 34, 70
LEAST, MOST = 0.1, 2.0  # of the axis, which is logarithmic
TICKS = (0.1, 0.2, 0.5, 1, 2)


def runs():
    """Each run's date and commit, with its ratios by peer and scenario."""
    found = {}
    with open(HISTORY, newline="") as file:
        for row in csv.DictReader(file):
            # A run of the same commit on the same day comes in the place of the one before.
            at = found.setdefault((row["date"], row["commit"]), {})
            for peer in PEERS:
                if row["scenario"] in COLOURS and row[peer]:
                    at[peer, row["scenario"]] = float(row[peer])
    return found


def place(value, top):
    """How far down a ratio is drawn."""
    share = math.log(min(max(value, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return top + HEIGHT * (1 - share)


def text(x, y, what, more=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{what}</text>'


def panel(peer, title, top, found):
    out = [text(LEFT, top - 8, f"CPU time, ours {title}", 'font-weight="bold"')]
    for tick in TICKS:
        y = place(tick, top)
        out += [f'<line x1="{LEFT}" x2="{WIDTH - 70}" y1="{y:.1f}" y2="{y:.1f}" stroke="{"#888" if tick == 1 else "#ddd"}"/>',
                text(LEFT - 8, y + 4, f"{tick:g}", 'text-anchor="end"')]
    step = (WIDTH - 70 - LEFT) / max(1, len(found) - 1)
    ends = []
    for letter, colour in COLOURS.items():
        dots = [(LEFT + number * step, place(run[peer, letter], top)) for number, run in enumerate(found.values()) if (peer, letter) in run]
        if not dots:
            continue
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in dots]
        ends.append((dots[-1][1], letter, colour))
    below = -math.inf
    for y, letter, colour in sorted(ends):
        below = max(y, below + 11)  # names do not lie on one another
        out.append(text(WIDTH - 62, below + 4, letter, f'fill="{colour}"'))
    return out


def main():
    if not HISTORY.exists():
        sys.exit("no runs yet: make bench or make bench-quick")
    found = runs()
    total = TOP + len(PEERS) * (HEIGHT + GAP) + FOOT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for number, (peer, title) in enumerate(PEERS.items()):
        out += panel(peer, title, TOP + number * (HEIGHT + GAP), found)
    step = (WIDTH - 70 - LEFT) / max(1, len(found) - 1)
    bottom = TOP + len(PEERS) * (HEIGHT + GAP) - GAP + 12
    every = max(1, len(found) // 20)
    for number, (date, commit) in enumerate(found):
        if number % every == 0:
            x = LEFT + number * step
            out.append(text(x, bottom, f"{date[5:]} {commit}", f'text-anchor="end" transform="rotate(-40 {x:.0f} {bottom})"'))
    PICTURE.write_text("\n".join([*out, "</svg>"]) + "\n")
    print(f"{PICTURE.relative_to(HERE.parent)}: {len(found)} runs")


if __name__ == "__main__":
    main()
