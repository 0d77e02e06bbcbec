"""What is a difference: the rules by which two proxies' readings of the same bytes are compared.

In:    what arrived behind sluis-proxy and behind another proxy; what a client got.
Out:   one line for each breach.
Never: minds what sluis-proxy refuses and another lets through.
"""

import re


def unlike(ours, theirs):
    """Where two readings part; None when they do not, as far as both go.

    Either may have answered requests itself: then the other's requests hold all of its own, in order.
    """
    fewer, more = sorted((ours, theirs), key=len)
    if follows(fewer, more):
        return None
    for number, (mine, other) in enumerate(zip(ours, theirs)):
        if not alike(mine, other):
            return f"request {number}: {mine} and {other}"
        if not mine.is_complete or not other.is_complete:
            return None
    return None


def count_unlike(ours, theirs):
    """Both got to the request at the end: then both answered as many requests before it."""
    counts = []
    for messages, got in (ours, theirs):
        if not messages or messages[-1].path != b"/end":
            return None
        counts.append(len(re.findall(rb"HTTP/1\.[01] [2-5][0-9]{2}", got)))
    return f"{counts[0]} answers and {counts[1]}" if counts[0] != counts[1] else None


def follows(fewer, more):
    """Whether each of `fewer` is in `more`, in order; nothing counts behind an unfinished one."""
    rest = iter(more)
    for message in fewer:
        if not any(alike(message, other) for other in rest):
            return False
        if not message.is_complete:
            break
    return True


def alike(mine, other):
    if (mine.method, mine.path) != (other.method, other.path):
        return False
    # A request of HTTP/1.0 may have no host; then each proxy names one of its own.
    hosts = {host(mine), host(other)} - {b"", b"old"}
    return len(hosts) <= 1 and fits(mine, other)


def host(message):
    """nginx leaves the root's dot out."""
    return message.host.removesuffix(b".")


def fits(mine, other):
    """The same content, or the start of it where the message is unfinished."""
    if mine.is_complete and other.is_complete:
        return mine.content == other.content
    short, long = sorted((mine, other), key=lambda message: len(message.content))
    return long.content.startswith(short.content) and not (short.is_complete and short is not long and
                                                           len(short.content) < len(long.content))


def ambiguous(messages):
    """What sluis-proxy may not send on: anything that a strict reader would mind."""
    return [f"{message}: {flaw}" for message in messages for flaw in message.flaws]


def responses(seen, path):
    """Breaches in what a client got: `seen` has the responses to a case, and to the request behind it."""
    first, behind, rest = seen
    found = ambiguous([*first, *behind])
    if rest:
        found.append(f"bytes behind the last response: {rest[:80]!r}")
    for response in [*first, *behind]:
        if response.all(b"x-junk"):
            found.append(f"another response's bytes: {response}")
    final = [response for response in behind if not response.is_interim]
    for response in final:
        if response.status < 500 and response.content != path:
            found.append(f"the request behind got {response}")
    return found


def unlike_answer(ours, theirs):
    """Where two clients were told different things of one response; refusals are not compared."""
    mine, other = (next((r for r in reversed(seen[0]) if not r.is_interim), None) for seen in (ours, theirs))
    if mine is None or other is None or mine.status >= 500 or other.status >= 500:
        return None
    if mine.status != other.status or not fits(mine, other) or mine.is_complete > other.is_complete:
        return f"{mine} and {other}"
    return None
