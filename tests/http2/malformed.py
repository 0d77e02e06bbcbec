"""Messages that HTTP/2 forbids. Each must cost its sender the stream, and nobody else anything."""

from frames import GET, POST, Client, data, fields, head

# What a malformed message may meet: RFC 9113 §8.1.1 asks for a stream error; a server may answer first.
MALFORMED = {"reset PROTOCOL_ERROR", 400}
CALM = "goaway ENHANCE_YOUR_CALM"


def refused(place, cases, allowed=MALFORMED, goes_on=True):
    """Sends each case on a connection of its own; where the connection goes on, it serves afterwards."""
    faults, before = [], place.origin.requests
    for what, octets in cases:
        with Client(place.plain) as client:
            client.send(octets)
            outcome = client.outcome(1)
            if outcome not in allowed:
                faults.append(f"{what}: {outcome}")
            elif goes_on:
                client.send(head(3, GET))
                if (outcome := client.outcome(3)) != 200:
                    faults.append(f"{what}: then {outcome}")
    served = sum(goes_on for _ in cases)
    if not faults and place.origin.requests - before != served:
        faults.append(f"the origin saw {place.origin.requests - before} requests, not {served}")
    return faults


def with_field(name, value=""):
    return head(1, [*GET, (name, value)])


def attack_names_that_no_field_has(place):
    """Names in upper case, with separators, empty"""
    names = ["X-Upper", "x-uppeR", "", "x y", "x:y", "x\ty", "x\0", "x\r\ny", "x\x7f", "x\xe9", "(x)"]
    return refused(place, [(repr(name), with_field(name, "v")) for name in names])


def attack_values_that_end_lines(place):
    """Values with line ends and NUL"""
    values = ["a\rb", "a\nb", "a\r\nhost: other", "a\0b", "\r", "\n"]
    cases = [(repr(value), with_field("x-a", value)) for value in values]
    for name in (":path", ":authority", ":method", ":scheme"):
        changed = [(one, value + "\r\nx: y" if one == name else value) for one, value in GET]
        cases.append((name, head(1, changed)))
    return refused(place, cases)


def attack_fields_of_a_connection(place):
    """Fields that belong to a connection of HTTP/1.1"""
    cases = [("connection", "close"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
             ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"), ("te", "trailers, gzip")]
    return refused(place, [(f"{name}: {value}", with_field(name, value)) for name, value in cases])


def attack_pseudo_fields_out_of_place(place):
    """Pseudo-fields missing, twice, unknown, or behind others"""
    without = lambda name: [pair for pair in GET if pair[0] != name]
    cases = [
        ("no :method", without(":method")), ("no :scheme", without(":scheme")), ("no :path", without(":path")),
        ("two :method", [*GET, (":method", "GET")]), ("two :path", [*GET, (":path", "/other")]),
        ("two :authority", [*GET, (":authority", "other.test")]), ("two :scheme", [*GET, (":scheme", "https")]),
        ("a :path behind a field", [*without(":path"), ("x-a", "b"), (":path", "/")]),
        ("an unknown one", [*GET, (":other", "x")]), (":status in a request", [*GET, (":status", "200")]),
        ("an empty :path", [*without(":path"), (":path", "")]),
        ("a :path without a slash", [*without(":path"), (":path", "x")]),
        ("an empty :method", [*without(":method"), (":method", "")]),
        ("a :method with a space", [*without(":method"), (":method", "GET /admin")]),
        ("a :path with a space", [*without(":path"), (":path", "/ HTTP/1.1")]),
        (":authority with a user", [*without(":authority"), (":authority", "a@http2.test")]),
        ("a host that is another", [*GET, ("host", "other.test")]),
        ("no authority at all", without(":authority")),
    ]
    return refused(place, [(what, head(1, pairs)) for what, pairs in cases])


def attack_connect_that_is_odd(place):
    """CONNECT with a path, without an authority, or by a protocol that was not offered"""
    authority = (":authority", "http2.test:443")
    connect = (":method", "CONNECT")
    cases = [("with scheme and path", [connect, (":scheme", "http"), (":path", "/"), authority]),
             ("without authority", [connect]),
             ("an empty authority", [connect, (":authority", "")]),
             ("plain, without a route for it", [connect, authority]),
             ("extended, not offered", [connect, (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), authority]),
             (":protocol without CONNECT", [*GET, (":protocol", "websocket")])]
    return refused(place, [(what, head(1, pairs)) for what, pairs in cases],
                   MALFORMED | {403, 404, 405, 501, "reset REFUSED_STREAM"})


def attack_bodies_of_another_length(place):
    """Bodies shorter or longer than content-length, and lengths that are none"""
    def body(length, sent, ends=True):
        return head(1, [*POST, ("content-length", length)], False) + data(1, sent, ends)

    cases = [("shorter", body("5", b"four")), ("longer", body("3", b"four")), ("none", body("5", b"")),
             ("longer, not ended", body("3", b"four", False)),
             ("an ended head", head(1, [*POST, ("content-length", "5")])),
             ("two lengths", head(1, [*POST, ("content-length", "4"), ("content-length", "5")], False) + data(1, b"four", True)),
             ("a list", body("4, 4", b"four")), ("signed", body("+4", b"four")), ("negative", body("-1", b"")),
             ("hexadecimal", body("0x4", b"four")), ("huge", body("9" * 30, b"four")), ("empty", body("", b""))]
    faults = []
    for what, octets in cases:
        with Client(place.plain) as client:
            client.send(octets)
            if (outcome := client.outcome(1)) not in MALFORMED:
                faults.append(f"{what}: {outcome}")
            client.send(head(3, GET))
            if (outcome := client.outcome(3)) != 200:
                faults.append(f"{what}: then {outcome}")
    return faults


def attack_trailers_that_are_wrong(place):
    """Trailers with pseudo-fields, fields of framing, or without an end"""
    begun = head(1, POST, False) + data(1, b"body")
    cases = [("a pseudo-field", begun + head(1, [(":path", "/other")])),
             ("a status", begun + head(1, [(":status", "200")])),
             ("upper case", begun + head(1, [("X-A", "b")])),
             ("a connection field", begun + head(1, [("connection", "close")])),
             ("no end", begun + head(1, [("x-a", "b")], end=False))]
    faults = []
    for what, octets in cases:
        with Client(place.plain) as client:
            client.send(octets)
            if (outcome := client.outcome(1)) not in MALFORMED | {"goaway PROTOCOL_ERROR"}:
                faults.append(f"{what}: {outcome}")
    return faults


def attack_a_head_that_is_too_large(place):
    """A head over the limit loses its stream, and the connection goes on"""
    large = [*GET, *((f"x-{number}", "v" * 1000) for number in range(120))]
    many = [*GET, *((f"x-{number}", "v") for number in range(3000))]
    allowed = {431, "reset PROTOCOL_ERROR", "reset ENHANCE_YOUR_CALM", "reset REFUSED_STREAM"}
    return refused(place, [("120 KiB", head(1, large)), ("3,000 fields", head(1, many))], allowed)


def attack_field_blocks_that_are_broken(place):
    """Blocks that HPACK forbids end the connection"""
    blocks = {"index zero": b"\x80", "no such entry": b"\xff\x80\x01", "a size too large": b"\x3f\xff\xff\x7f",
              "a size behind a field": b"\x82\x20", "an integer without end": b"\xff" * 12,
              "Huffman's EOS": b"\x00\x84\xff\xff\xff\xff\x00", "a string that breaks off": b"\x00\x7f"}
    cases = [(what, head(1, [], block=block)) for what, block in blocks.items()]
    return refused(place, cases, {"goaway COMPRESSION_ERROR"}, False)


def attack_an_hpack_bomb(place):
    """A field of 4,000 octets, sent once and named 16,000 times"""
    block = fields(GET) + b"\x40\x01a" + b"\x7f\x81\x1e" + b"v" * 3968 + b"\xbe" * 12000
    with Client(place.plain) as client:
        client.send(head(1, [], block=block[:16384]))
        outcome = client.outcome(1)
    if outcome not in {431, CALM, "goaway COMPRESSION_ERROR", "goaway PROTOCOL_ERROR", "reset PROTOCOL_ERROR", "closed"}:
        return [str(outcome)]
