#!/usr/bin/env python3
"""Sends one corpus of bytes through sluis-proxy, nginx, HAProxy, Envoy and hyper, and compares what arrives behind each.

In:    the programs; those that are missing are left out, and named.
Out:   a table; exit code 1 when sluis-proxy lets through what another frames otherwise.
Never: leaves a process behind.
"""

import argparse
import asyncio
import collections
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

import answers
import cases
import hops
import judge
import known
import wire
from origin import Origin

LANES = 12
ENDS_WITHIN = 15  # seconds for one case
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ENGINES = ("sluis", "nginx", "haproxy", "envoy", "hyper")


class Route:
    """A way from client to origin: its lanes' fronts, and the origins behind."""

    def __init__(self, name, in_pieces=False):
        self.name, self.in_pieces = name, in_pieces
        self.fronts, self.origins = [], []


async def main(options):
    began = time.monotonic()
    present = [name for name in ENGINES if getattr(options, "sluis_proxy" if name == "sluis" else name)]
    for name in set(ENGINES) - set(present):
        print(f"left out: {name}, which is not here")
    requests = [case for case in cases.corpus() if options.only in case.name]
    told = [answer for answer in answers.corpus() if options.only in answer.name]
    script = {b"/answer/%d" % number: answer for number, answer in enumerate(told)}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="framing-"))
    running = []
    try:
        routes = await build(present, script, folder, options, running)
        arrived = await asyncio.gather(*(send_all(route, requests) for route in routes))
        arrived = dict(zip((route.name for route in routes), arrived))
        shown = [route for route in routes if ">" not in route.name and not route.in_pieces]
        got = dict(zip((route.name for route in shown),
                       await asyncio.gather(*(ask_all(route, told) for route in shown))))
    finally:
        for hop in running:
            hop.stop()
        shutil.rmtree(folder)
    bad = compare(requests, told, arrived, got, options)
    table(requests, told, arrived, got)
    print(f"{len(requests)} requests, {len(told)} responses, {time.monotonic() - began:.0f} s; {bad} unexplained")
    return 1 if bad else 0


async def build(present, script, folder, options, running):
    """Starts origins and proxies; every lane has an address of its own, so that no port is taken."""
    net = f"127.{20 + os.getpid() % 200}"
    lanes = collections.defaultdict(list)
    count = 0

    async def lead(route, engine, backs=None):
        nonlocal count
        count += 1
        for number in range(LANES):
            front = (f"{net}.{count}.{number + 1}", hops.PORT)
            if backs is None:
                origin = Origin(script)
                await origin.start(f"127.{(20 + os.getpid() % 200)}.200.{number + 1}")
                route.origins.append(origin)
                back = origin.address
            else:
                back = backs[number]
            route.fronts.append(front)
            lanes[engine].append((front, back))

    routes = []
    for engine in present:
        route = Route(engine)
        await lead(route, engine)
        routes.append(route)
    pieces = Route("sluis in pieces", in_pieces=True)
    await lead(pieces, "sluis")
    routes.append(pieces)
    for engine in present[1:]:
        route = Route(f"sluis > {engine}")
        await lead(route, engine)
        behind, route.fronts = route.fronts, []
        await lead(route, "sluis", behind)
        routes.append(route)
    for engine in present:
        running.append(hops.Hop(engine, lanes[engine], folder, options))
    for hop in running:
        hop.wait()
    return routes


# -- requests


async def send_all(route, corpus):
    """What arrived behind the route, and what the client got, by case."""
    queue, found = collections.deque(enumerate(corpus)), {}

    async def lane(front, origin):
        while queue:
            number, case = queue.popleft()
            origin.take()
            chance = random.Random(number) if route.in_pieces else None
            got = await asyncio.wait_for(send(front, case, chance), ENDS_WITHIN)
            await asyncio.sleep(0.02)  # what was sent on is in the origin's socket by now
            found[case.name] = (origin.take(), got)

    await asyncio.gather(*(lane(*pair) for pair in zip(route.fronts, route.origins)))
    return found


async def send(front, case, chance):
    stream, out = await asyncio.open_connection(*front)
    got = b""
    try:
        for piece in cut(case.wire, chance):
            out.write(piece)
            await out.drain()
            if chance:
                await asyncio.sleep(0.002)
        if case.ends:
            out.write_eof()
        while piece := await stream.read(1 << 16):
            got += piece
    except ConnectionError:
        pass
    finally:
        out.close()
    return got


def cut(data, chance):
    if chance is None:
        return [data]
    places = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randint(1, 6)))})
    return [data[start:end] for start, end in zip(places, places[1:])]


# -- responses


async def ask_all(route, corpus):
    queue, found = collections.deque(enumerate(corpus)), {}

    async def lane(front, origin):
        while queue:
            number, answer = queue.popleft()
            found[answer.name] = await asyncio.wait_for(ask(front, number, answer), ENDS_WITHIN)
            origin.take()

    await asyncio.gather(*(lane(*pair) for pair in zip(route.fronts, route.origins)))
    return found


async def ask(front, number, answer):
    """The responses to the case, those to the request behind it, and what is left."""
    stream, out = await asyncio.open_connection(*front, limit=wire.HEAD_MAX)
    line = b"%s /answer/%d HTTP/1.1\r\nHost: a.test\r\n\r\n" % (answer.method, number)
    first, left = await exchange(stream, out, line, answer.method)
    if answer.later:
        await asyncio.sleep(0.1)
    last = first[-1] if first else None
    if left or last is None or not last.is_complete or last.status == 101 or last.framing == "close" \
            or b"close" in last.all(b"connection"):
        out.close()
        stream, out = await asyncio.open_connection(*front, limit=wire.HEAD_MAX)
    line = b"GET /next/%d HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" % number
    behind, rest = await exchange(stream, out, line, b"GET")
    if not rest and behind:
        try:
            rest = await stream.read()
        except ConnectionError:
            rest = b""
    out.close()
    return first, behind, left + rest


async def exchange(stream, out, line, method):
    """One request; its responses, interim ones first, and bytes that were no head."""
    seen = []
    try:
        out.write(line)
        await out.drain()
    except ConnectionError:
        pass
    while True:
        head, is_whole = await wire.head_of(stream)
        if not is_whole:
            return seen, head
        response = wire.Response(head, method)
        seen.append(response)
        if not await wire.body_of(stream, response) or not response.is_interim:
            return seen, b""


# -- what is said of it


def compare(requests, told, arrived, got, options):
    used, bad = set(), 0

    def report(table, case, other, what):
        nonlocal bad
        used.add((case, other))
        if (case, other) in table:
            return
        bad += 1
        print(f"DIFFERS {case} ({other}): {what}")

    for case in requests:
        ours = arrived["sluis"][case.name][0]
        for name, found in arrived.items():
            theirs = found[case.name][0]
            if name.startswith("sluis") and ">" not in name:
                for what in judge.ambiguous(theirs):
                    report(known.REQUESTS, case.name, "sent on", what)
            what = judge.unlike(ours, theirs) or judge.count_unlike(arrived["sluis"][case.name], found[case.name])
            if what:
                report(known.REQUESTS, case.name, name, what)
        pieces = arrived["sluis in pieces"][case.name][0]
        if [m.is_complete for m in pieces if m.is_complete] != [m.is_complete for m in ours if m.is_complete]:
            report(known.REQUESTS, case.name, "sluis in pieces", f"{ours} and {pieces}")
        if options.matrix:
            print(case.name, *(f"\n    {name:16} {verdict(found[case.name])}" for name, found in arrived.items()))
    for number, answer in enumerate(told):
        ours = got["sluis"][answer.name]
        for what in judge.responses(ours, b"/next/%d" % number):
            report(known.ANSWERS, answer.name, "sent on", what)
        for name, found in got.items():
            if name != "sluis" and (what := judge.unlike_answer(ours, found[answer.name])):
                report(known.ANSWERS, answer.name, name, what)
        if options.matrix:
            print("answer", answer.name, *(f"\n    {name:16} {found[answer.name]}" for name, found in got.items()))
    for entry in [*known.REQUESTS, *known.ANSWERS]:
        if entry not in used and not options.only and entry[1].split(" > ")[-1] in (*arrived, "sent on"):
            bad += 1
            print(f"STALE {entry}: it no longer differs")
    return bad


def verdict(found):
    messages, got = found
    return messages, [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", got)]


def table(requests, told, arrived, got):
    print("| behind | all arrived | some | nothing | framed otherwise than by sluis-proxy | sent on with a flaw |")
    print("|---|---|---|---|---|---|")
    for name, found in arrived.items():
        count = collections.Counter()
        for case in requests:
            messages = found[case.name][0]
            whole = [message for message in messages if message.is_complete]
            is_all = whole and whole[-1].path == b"/end"
            count["all" if is_all else "some" if messages else "nothing"] += 1
            count["unlike"] += bool(judge.unlike(arrived["sluis"][case.name][0], messages)
                                    or judge.count_unlike(arrived["sluis"][case.name], found[case.name]))
            count["flaw"] += bool(judge.ambiguous(messages))
        print(f"| {name} | {count['all']} | {count['some']} | {count['nothing']} | {count['unlike']} | {count['flaw']} |")
    print("| responses through | passed | refused | passed, with a flaw | the next request got another's bytes |")
    print("|---|---|---|---|---|")
    for name, found in got.items():
        count = collections.Counter()
        for number, answer in enumerate(told):
            first, behind, rest = found[answer.name]
            final = [response for response in first if not response.is_interim]
            is_passed = bool(final) and final[-1].status < 500
            count["passed" if is_passed else "refused"] += 1
            count["flaw"] += is_passed and bool(judge.ambiguous(first))
            count["mixed"] += any("request behind" in what or "another response" in what
                                  for what in judge.responses(found[answer.name], b"/next/%d" % number))
        print(f"| {name} | {count['passed']} | {count['refused']} | {count['flaw']} | {count['mixed']} |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sluis", required=True)
    parser.add_argument("--sluis-proxy", required=True)
    parser.add_argument("--hyper", help="crates/http1/examples/hyper_hop.rs, built")
    find = lambda name: shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    parser.add_argument("--nginx", default=find("nginx"))
    parser.add_argument("--haproxy", default=find("haproxy"))
    default = os.environ.get("ENVOY_BIN", str(ROOT / "target/envoy/bin/envoy"))
    parser.add_argument("--envoy", default=default if os.access(default, os.X_OK) else None)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--matrix", action="store_true", help="print what every proxy made of every case")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
