"""Too much of what HTTP/2 allows. Each must end in the connection's end, or cost the proxy nothing."""

import time

from frames import GET, POST, Client, data, head, raw, reset, window

CALM = {"goaway ENHANCE_YOUR_CALM", "closed"}
SETTINGS, PING, PRIORITY, CONTINUATION, UNKNOWN = 4, 6, 2, 9, 0x42
FRAMES = 50_000
AT_ONCE = 500


def pieces(frame, count=FRAMES):
    """A frame many times, as few writes."""
    for _ in range(count // AT_ONCE):
        yield frame * AT_ONCE


def ended(client, how, allowed=CALM):
    """That the connection has ended in one of these ways."""
    end = client.end(5)
    return [] if end in allowed else [f"the flood was {how}, the connection is {end}"]


def bounded(client, how, within=20):
    """That it has ended so, or that the proxy answers on it as if nothing were."""
    if how == "blocked" or client.end(0) in CALM:
        return []
    client.send(head(1, GET))
    outcome = client.outcome(1, within)
    return [] if outcome == 200 or outcome in CALM else [f"the flood was {how}, then {outcome}"]


def attack_rapid_reset(place):
    """Streams that are opened and reset at once (CVE-2023-44487)"""
    before = place.origin.requests

    def streams():
        for first in range(1, 2 * 40_000, 2 * AT_ONCE):
            yield b"".join(head(stream, GET) + reset(stream) for stream in range(first, first + 2 * AT_ONCE, 2))

    with Client(place.plain) as client:
        faults = ended(client, client.flood(streams()))
    if (seen := place.origin.requests - before) > 4000:
        faults.append(f"the origin saw {seen} requests")
    return faults


def attack_streams_that_the_proxy_must_reset(place):
    """Streams on which the client breaks a rule, so that the proxy resets them (CVE-2025-8671)"""
    before = place.origin.requests

    def streams():
        for first in range(1, 2 * 40_000, 2 * AT_ONCE):
            yield b"".join(head(stream, POST, False) + window(stream, 0) for stream in range(first, first + 2 * AT_ONCE, 2))

    with Client(place.plain) as client:
        faults = ended(client, client.flood(streams()), CALM | {"goaway PROTOCOL_ERROR"})
    if (seen := place.origin.requests - before) > 4000:
        faults.append(f"the origin saw {seen} requests")
    return faults


def attack_more_streams_than_allowed(place):
    """Streams beyond the limit are refused, those within it wait"""
    with Client(place.plain) as client:
        client.send(b"".join(head(stream, POST, False) for stream in range(1, 2 * 1500, 2)))
        last = 2 * 1500 - 1
        outcome = client.outcome(last)
        return [] if outcome in {"reset REFUSED_STREAM", *CALM, "goaway PROTOCOL_ERROR"} else [str(outcome)]


def attack_continuations_without_end(place):
    """A head in pieces that never ends (CVE-2024-27316)"""
    begun = raw(1, 1, 1, head(1, GET)[9:])
    faults = []
    for what, payload in (("empty", b""), ("small", b"\0\1a\1b"), ("full", (b"\0\1a\x7f\x81\x7d" + b"v" * 16128).ljust(16384, b"\x82"))):
        with Client(place.plain) as client:
            client.send(begun)
            how = client.flood(pieces(raw(CONTINUATION, 0, 1, payload), 20_000 if what == "full" else FRAMES))
            end = ended(client, how, CALM | {"goaway PROTOCOL_ERROR", "goaway COMPRESSION_ERROR"})
            faults += [f"{what}: {one}" for one in end]
    return faults


def attack_settings_without_end(place):
    """SETTINGS, of which each wants an answer, read and unread (CVE-2019-9515)"""
    return both(place, raw(SETTINGS, 0, 0, b""))


def attack_settings_that_change(place):
    """SETTINGS that change the table's size and the window each time"""
    change = raw(SETTINGS, 0, 0, b"\0\1\0\0\0\0" + b"\0\4\0\0\0\0") + raw(SETTINGS, 0, 0, b"\0\1\0\0\x10\0" + b"\0\4\0\0\xff\xff")
    return both(place, change)


def attack_pings_without_end(place):
    """PINGs, read and unread (CVE-2019-9512)"""
    return both(place, raw(PING, 0, 0, b"12345678"))


def both(place, frame):
    faults = []
    for reads in (True, False):
        with Client(place.plain, receive_bytes=None if reads else 4096) as client:
            how = client.flood(pieces(frame), reads)
            # What is not read waits in the kernel, and then at the proxy: its memory is the measure.
            faults += bounded(client, how) if reads else []
    return faults


def attack_priorities_and_unknown_frames(place):
    """PRIORITY and frames of unknown kinds without end (CVE-2019-9513)"""
    faults = []
    for frame in (raw(PRIORITY, 0, 1, b"\0\0\0\0\x10"), raw(UNKNOWN, 0, 0, b""), raw(UNKNOWN, 0, 0, b"x" * 100)):
        with Client(place.plain) as client:
            faults += bounded(client, client.flood(pieces(frame)))
    return faults


def attack_empty_data(place):
    """DATA that holds nothing and ends nothing (CVE-2019-9518)"""
    with Client(place.plain) as client:
        client.send(head(1, POST, False))
        return ended(client, client.flood(pieces(data(1, b""))))


def attack_data_that_is_all_padding(place):
    """DATA that holds nothing but padding"""
    frame = raw(0, 8, 1, b"\xff" + b"\0" * 255)
    with Client(place.plain) as client:
        client.send(head(1, POST, False))
        how = client.flood(pieces(frame, 20_000))
        return ended(client, how, CALM | {"goaway FLOW_CONTROL_ERROR"}) if how != "sent" else []


def attack_windows_by_single_octets(place):
    """A window that opens by one octet at a time (CVE-2019-9511)"""
    with Client(place.plain, {4: 0}) as client:
        client.send(head(1, [*GET[:-1], (":path", "/large")]))
        how = client.flood(pieces(window(1, 1) + window(0, 1), 20_000))
        return bounded_stream(client, how)


def bounded_stream(client, how):
    end = client.end(0)
    if how == "closed" and end not in CALM | {"goaway FLOW_CONTROL_ERROR"}:
        return [f"the connection is {end}"]


def attack_windows_that_overflow(place):
    """Windows beyond 2^31 - 1"""
    faults = []
    with Client(place.plain) as client:
        client.send(window(0, 0x7FFFFFFF))
        faults += ended(client, "sent", {"goaway FLOW_CONTROL_ERROR"})
    with Client(place.plain, {4: 0}) as client:
        client.send(head(1, [*GET[:-1], (":path", "/large")]))
        client.send(window(1, 0x7FFFFFFF) + window(1, 0x7FFFFFFF))
        client.until(lambda: [frame for frame in client.frames if type(frame).__name__ == "RstStreamFrame"])
        codes = [frame.error_code for frame in client.frames if type(frame).__name__ == "RstStreamFrame"]
        if codes != [3] and client.end(0) != "goaway FLOW_CONTROL_ERROR":
            faults.append(f"a stream's window: {codes}, {client.end(0)}")
    return faults


def attack_closed_windows(place):
    """A hundred streams that ask for a MiB each and give no window (CVE-2019-9517)"""
    with Client(place.plain, {4: 0}) as client:
        large = [*GET[:-1], (":path", "/large")]
        client.send(b"".join(head(stream, large) for stream in range(1, 200, 2)))
        answered = lambda: sum(type(frame).__name__ == "HeadersFrame" for frame in client.frames) >= 100
        if not client.until(answered, 20):
            return [f"{sum(type(frame).__name__ == 'HeadersFrame' for frame in client.frames)} of 100 were answered"]


def attack_answers_that_nobody_reads(place):
    """Five thousand requests whose answers stay in the socket"""
    def requests():
        for first in range(1, 2 * 5000, 2 * 50):
            yield b"".join(head(stream, GET) for stream in range(first, first + 100, 2))

    with Client(place.plain, {4: 1 << 20}, receive_bytes=4096) as client:
        client.flood(requests(), reads=False, within=5)
        time.sleep(0.5)


def attack_connections_that_say_nothing(place):
    """Two hundred connections that stop within their first frame"""
    clients = [Client(place.plain) for _ in range(200)]
    for client in clients:
        client.send(b"\0\x40\0\1\4\0\0\0\1" + b"\0" * 100)
    with Client(place.plain) as client:
        client.send(head(1, GET))
        outcome = client.outcome(1)
    for client in clients:
        client.socket.close()
    return [] if outcome == 200 else [f"a request beside them meets {outcome}"]
