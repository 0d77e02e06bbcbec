"""Answers of an origin that HTTP/2 forbids. None reaches the client as if it were whole."""

from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame
from frames import GET, Client, head
from origin import NO_END, NO_HEAD


def ask(place, name):
    """The status, and how the stream ended; what holds for a request that comes afterwards."""
    with Client(place.plain) as client:
        client.send(head(1, [*GET[:-1], (":path", "/evil/" + name.replace(" ", "-"))]))
        outcome = client.outcome(1)
        ends = lambda: [frame for frame in client.frames if frame.stream_id == 1 and (
            isinstance(frame, RstStreamFrame)
            or isinstance(frame, (DataFrame, HeadersFrame)) and "END_STREAM" in frame.flags)]
        end = client.until(ends)
        how = "no end" if not end else "reset" if isinstance(end[0], RstStreamFrame) else "whole"
        client.send(head(3, [*GET[:-1], (":path", "/evil/good")]))
        return outcome, how, client.outcome(3)


def attack_heads_that_are_none(place):
    """An origin whose responses have no head that can be forwarded"""
    return [f"{name}: {outcome}, {how}, then {then}" for name in NO_HEAD
            for outcome, how, then in [ask(place, name)] if outcome not in (502, 503) or then != 200]


def attack_bodies_that_do_not_end(place):
    """An origin whose responses begin well and break"""
    return [f"{name}: {outcome}, {how}, then {then}" for name in NO_END
            for outcome, how, then in [ask(place, name)]
            if (outcome not in (502, 503) and (outcome, how) != (200, "reset")) or then != 200]
