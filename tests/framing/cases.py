"""The corpus: requests that two readers could frame in two ways, and plain ones between them.

In:    nothing; and the corpora of the fuzz targets.
Out:   `Case`s: bytes, and whether the client ends its side behind them.
Never: says who is right: that is what the comparison finds.
"""

import dataclasses
import pathlib
import random
import re

SEED = 9112  # of the mutations
MUTATIONS = 160
FROM_FUZZERS = 80
CORPUS = pathlib.Path(__file__).resolve().parent.parent.parent / "fuzz/corpus"
END = b"GET /end HTTP/1.1\r\nHost: end.test\r\nConnection: close\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Case:
    """`END` follows the bytes, unless the client ends its side."""

    name: str
    sent: bytes
    ends: bool = False

    @property
    def wire(self):
        return self.sent if self.ends else self.sent + END


def post(fields, body=b"", line=b"POST /p HTTP/1.1", host=b"Host: a.test\r\n"):
    return line + b"\r\n" + host + fields + (b"\r\n" if fields else b"") + b"\r\n" + body


HELLO = b"5\r\nhello\r\n0\r\n\r\n"
INNER = b"GET /inner HTTP/1.1\r\nHost: a.test\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def lengths():
    values = [b"5", b"05", b"0000000005", b"+5", b"-5", b"-0", b"0x5", b"5.0", b"5,5", b"5, 5", b"5, 6", b"6,5", b"5 5", b"5;",
              b"5\t", b"\t5", b"  5  ", b"", b" ", b"five", b"0", b"00", b"1e1", b"5\x0b", b"\x0c5", b"5\x00", b"\xb25", b"5_0",
              b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"18446744073709551621",
              b"99999999999999999999999999", b"4294967301", b"\"5\"", b"5\r", b"0b101", b"0o5", b"%35"]
    for value in values:
        yield "length " + repr(value)[2:-1], post(b"Content-Length: " + value, b"hello")
    for first, second in [(b"5", b"5"), (b"5", b"6"), (b"6", b"5"), (b"0", b"5"), (b"5", b"0"), (b"", b"5"), (b"5", b"")]:
        fields = b"Content-Length: " + first + b"\r\nX: y\r\ncontent-length: " + second
        yield f"lengths {first.decode()} and {second.decode()}", post(fields, b"hello")
    for name in [b"Content-Length ", b"Content-Length\t", b" Content-Length", b"\tContent-Length", b"Content-Length\x0b",
                 b"Content-Length\x00", b"Content_Length", b"content-LENGTH", b"Content-Length\xa0", b"\x0bContent-Length",
                 b"Content\x00-Length", b"Content-Length:", b"Content -Length", b"Content-Length\r"]:
        yield "length's name " + repr(name)[2:-1], post(name + b": 38", INNER)
    yield "length of GET", post(b"Content-Length: 5", b"hello", b"GET /g HTTP/1.1")
    yield "length of HEAD", post(b"Content-Length: 5", b"hello", b"HEAD /h HTTP/1.1")
    yield "length of DELETE", post(b"Content-Length: 5", b"hello", b"DELETE /d HTTP/1.1")
    yield "length of TRACE", post(b"Content-Length: 5", b"hello", b"TRACE /t HTTP/1.1")
    yield "length of OPTIONS *", post(b"Content-Length: 5", b"hello", b"OPTIONS * HTTP/1.1")
    yield "no length of POST", post(b"", b"hello")
    yield "no length of GET, a request behind", post(b"", INNER, b"GET /g HTTP/1.1")


def codings():
    values = [b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked", b"chunked ", b"chunked\t", b"xchunked", b"chunked;q=1",
              b"chunked,", b",chunked", b", chunked", b"chunked, chunked", b"identity", b"identity, chunked", b"chunked, identity",
              b"gzip, chunked", b"chunked, gzip", b"gzip", b"deflate", b"", b"\"chunked\"", b"'chunked'", b"chun\x6bed\x00",
              b"chunke", b"cHuNkEd", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\r", b"chu nked", b"[chunked]",
              b"chunked foo", b"foo chunked", b"\xa0chunked", b"chunked\xff", b"nothing", b"chunked\\", b"trailers, chunked",
              b"chunked;a=\"b\"", b"\xef\xbb\xbfchunked"]
    for value in values:
        yield "coding " + repr(value)[2:-1], post(b"Transfer-Encoding: " + value, HELLO)
    for value in values:
        fields = b"Content-Length: 15\r\nTransfer-Encoding: " + value
        yield "length and coding " + repr(value)[2:-1], post(fields, HELLO)
    for value in values[:20]:
        fields = b"Transfer-Encoding:" + value + b"\r\nContent-Length: 4"
        yield "coding, then short length, " + repr(value)[2:-1], post(fields, HELLO)
    for name in [b"Transfer-Encoding ", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer_Encoding", b"transfer-ENCODING",
                 b"Transfer-Encoding\x00", b"Transfer-Encoding\x0b", b"Transfer\xadEncoding", b"X\nTransfer-Encoding",
                 b"X: y\rTransfer-Encoding", b"X: y\nTransfer-Encoding", b"X: \nTransfer-Encoding", b"Transfer-Encoding\t",
                 b"Transfer Encoding", b"\"Transfer-Encoding\"", b"Transfer-Encoding\r\n", b"X\x00: y\r\nTransfer-Encoding"]:
        yield "coding's name " + repr(name)[2:-1], post(name + b": chunked", HELLO)
        yield "length and coding's name " + repr(name)[2:-1], post(b"Content-Length: 15\r\n" + name + b": chunked", HELLO)
    yield "two codings", post(CHUNKED + b"\r\n" + CHUNKED, HELLO)
    yield "identity, then chunked", post(b"Transfer-Encoding: identity\r\n" + CHUNKED, HELLO)
    yield "chunked, then identity", post(CHUNKED + b"\r\nTransfer-Encoding: identity", HELLO)
    yield "folded coding", post(b"Transfer-Encoding:\r\n chunked", HELLO)
    yield "folded coding, length", post(b"Content-Length: 15\r\nTransfer-Encoding:\r\n\tchunked", HELLO)
    yield "coding in a folded line", post(b"X: y\r\n Transfer-Encoding: chunked", HELLO)
    yield "coding of GET", post(CHUNKED, HELLO, b"GET /g HTTP/1.1")
    yield "coding in HTTP/1.0", post(CHUNKED, HELLO, b"POST /old HTTP/1.0")
    yield "coding in HTTP/1.0, kept alive", post(CHUNKED + b"\r\nConnection: keep-alive", HELLO, b"POST /old HTTP/1.0")
    yield "coding and length in HTTP/1.0", post(CHUNKED + b"\r\nContent-Length: 15", HELLO, b"POST /old HTTP/1.0")


def chunks():
    bodies = {
        "plain": HELLO, "two": b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "upper": b"A\r\n0123456789\r\n0\r\n\r\n", "none": b"0\r\n\r\n",
        "leading zeros": b"0005\r\nhello\r\n0\r\n\r\n", "seventeen zeros": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        "many zeros at the end": b"5\r\nhello\r\n0000000\r\n\r\n", "0x": b"0x5\r\nhello\r\n0\r\n\r\n", "plus": b"+5\r\nhello\r\n0\r\n\r\n",
        "minus": b"-5\r\nhello\r\n0\r\n\r\n", "huge": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "wraps": b"10000000000000005\r\nhello\r\n0\r\n\r\n", "2^64-1": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "2^63": b"8000000000000000\r\nhello\r\n0\r\n\r\n", "2^32+5": b"100000005\r\nhello\r\n0\r\n\r\n",
        "bare LF behind the size": b"5\nhello\r\n0\r\n\r\n", "bare LF behind data": b"5\r\nhello\n0\r\n\r\n",
        "bare LFs": b"5\nhello\n0\n\n", "bare CR behind the size": b"5\rhello\r\n0\r\n\r\n", "nothing behind data": b"5\r\nhello0\r\n\r\n",
        "two bytes behind data": b"5\r\nhelloXX0\r\n\r\n", "bare LF at the end": b"5\r\nhello\r\n0\r\n\n", "LF end": b"5\r\nhello\r\n0\n\r\n",
        "space before": b" 5\r\nhello\r\n0\r\n\r\n", "space behind": b"5 \r\nhello\r\n0\r\n\r\n", "tab behind": b"5\t\r\nhello\r\n0\r\n\r\n",
        "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n", "quoted extension": b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        "extension at the end": b"5\r\nhello\r\n0;a\r\n\r\n", "empty extension": b"5;\r\nhello\r\n0\r\n\r\n",
        "spaced extension": b"5 ; a = b\r\nhello\r\n0\r\n\r\n", "LF in the extension": b"5;a\nhello\r\n0\r\n\r\n",
        "CR in the extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n", "NUL in the extension": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
        "quoted LF": b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", "quoted CRLF": b"5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\n", "obs-text in the extension": b"5;\xe9\r\nhello\r\n0\r\n\r\n",
        "long extension": b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n", "very long extension": b"5;" + b"x" * 20000 + b"\r\nhello\r\n0\r\n\r\n",
        "LF, then a request": b"2;\nxx\r\n3b\r\n0\r\n\r\nGET /inner HTTP/1.1\r\nHost: a.test\r\nX: 0123\r\n0\r\n\r\n",
        "empty size": b"\r\nhello\r\n0\r\n\r\n", "no size": b"hello\r\n0\r\n\r\n", "size of letters": b"xyz\r\nhello\r\n0\r\n\r\n",
        "underscore": b"1_0\r\nhello\r\n0\r\n\r\n", "trailing garbage": b"5g\r\nhello\r\n0\r\n\r\n", "NUL behind": b"5\x00\r\nhello\r\n0\r\n\r\n",
        "trailer": b"5\r\nhello\r\n0\r\nX-T: v\r\n\r\n", "trailers": b"0\r\nX-T: v\r\nX-U: w\r\n\r\n",
        "trailer Content-Length": b"0\r\nContent-Length: 30\r\n\r\n", "trailer Transfer-Encoding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "trailer Host": b"0\r\nHost: b.test\r\n\r\n", "folded trailer": b"0\r\nX: y\r\n z\r\n\r\n", "trailer without colon": b"0\r\nX\r\n\r\n",
        "trailer with bare LF": b"0\r\nX: y\n\r\n", "trailer with a space": b"0\r\nX : y\r\n\r\n", "trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
        "trailer like a request": b"0\r\nGET /inner HTTP/1.1\r\nHost: a.test\r\n\r\n", "bare LF before trailer": b"0\nX: y\r\n\r\n",
        "CR before the end": b"0\r\n\r\r\n", "CRLF missing": b"5\r\nhello\r\n0\r\n", "a request in the data": b"26\r\n" + INNER + b"\r\n0\r\n\r\n",
    }
    for name, body in bodies.items():
        yield "chunks: " + name, post(CHUNKED, body)


def heads():
    line = b"GET /g HTTP/1.1"
    for name, fields in {
        "bare LF": b"X: y\nZ: w", "bare CR": b"X: y\rZ: w", "NUL": b"X: \x00", "fold": b"X: y\r\n z", "fold with tab": b"X: y\r\n\tz",
        "space before colon": b"X : y", "tab before colon": b"X\t: y", "no colon": b"X", "no name": b": y", "no value": b"X:",
        "control byte": b"X: \x01", "DEL": b"X: \x7f", "obs-text": b"X: \xe9", "vertical tab": b"X: \x0b", "CR CR LF": b"X: y\r",
        "LF CR": b"X: y\n\rZ: w", "parenthesis": b"X(y): z", "quoted name": b"\"X\": y", "name with slash": b"X/Y: z", "underscore": b"X_Y: z",
        "long value": b"X: " + b"y" * 7000, "many fields": b"\r\n".join(b"X%d: y" % n for n in range(90)),
        "too many fields": b"\r\n".join(b"X%d: y" % n for n in range(300)), "empty line within": b"X: y\r\n\nZ: w",
    }.items():
        yield "field: " + name, post(fields, b"", line)
    for name, first in {
        "bare LF": b"GET /g HTTP/1.1\nHost: a.test\n\n", "all LF": b"GET /g HTTP/1.1\nHost: a.test\nContent-Length: 0\n\n",
        "LF at the end": b"GET /g HTTP/1.1\r\nHost: a.test\r\n\n", "CR at the end": b"GET /g HTTP/1.1\r\nHost: a.test\r\n\r",
        "folded first field": b"GET /g HTTP/1.1\r\n Host: a.test\r\n\r\n", "space first": b"GET /g HTTP/1.1\r\n X: y\r\nHost: a.test\r\n\r\n",
        "empty line before": b"\r\nGET /g HTTP/1.1\r\nHost: a.test\r\n\r\n", "two empty lines before": b"\r\n\r\nGET /g HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "LF before": b"\nGET /g HTTP/1.1\r\nHost: a.test\r\n\r\n", "space before": b" GET /g HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "two empty lines between": b"GET /g HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n\r\nGET /h HTTP/1.1\r\nHost: a.test\r\n\r\n",
    }.items():
        yield "head: " + name, first
    for first in [b"GET  /g HTTP/1.1", b"GET /g  HTTP/1.1", b"GET /g HTTP/1.1 ", b"GET\t/g HTTP/1.1", b"GET /g\tHTTP/1.1", b"GET /g h HTTP/1.1",
                  b"get /g HTTP/1.1", b"GeT /g HTTP/1.1", b"G\x00T /g HTTP/1.1", b"GET /g\x00 HTTP/1.1", b"GET /g HTTP/1.2", b"GET /g HTTP/2.0",
                  b"GET /g HTTP/1.01", b"GET /g HTTP/01.1", b"GET /g HTTP/1", b"GET /g HTTP/11", b"GET /g http/1.1", b"GET /g HTTP/1.1\x0b",
                  b"GET /g HTTP/0.9", b"GET /g", b"GET", b"GET g HTTP/1.1", b"GET  HTTP/1.1", b"GET /g#f HTTP/1.1", b"GET /g?a=b#c HTTP/1.1",
                  b"GET /\xe9 HTTP/1.1", b"GET /%00 HTTP/1.1", b"GET /%0d%0aX:%20y HTTP/1.1", b"GET /a/../b HTTP/1.1", b"GET //a HTTP/1.1",
                  b"GET /\\a HTTP/1.1", b"GET /\"a\" HTTP/1.1", b"GET /<a> HTTP/1.1", b"GET /a|b HTTP/1.1", b"GET /\x7f HTTP/1.1", b"G(T /g HTTP/1.1",
                  b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"OPTIONS *x HTTP/1.1", b"FOO /g HTTP/1.1", b"PRI * HTTP/2.0", b"TRACE /g HTTP/1.1"]:
        yield "line " + repr(first)[2:-1], post(b"", b"", first)


def hosts():
    for host in [b"", b"a.test", b"A.TEST", b"a.test:80", b"a.test:", b"a.test:0", b"a.test:99999", b"a.test:x", b"a test", b"a.test/b", b"a@b.test",
                 b"a.test#b", b"a.test?b", b"[::1]", b"[::1]:80", b"[::1", b"a,b", b"a.test, b.test", b"\"a\"", b"a\\b", b"a..b", b".", b"%61.test",
                 b"a.test\x00", b"\xe9.test", b"a.test:80:80", b"127.0.0.1", b"0x7f.1", b"a_b.test", b"-a.test", b"a.test.", b"http://a.test"]:
        yield "host " + repr(host)[2:-1], post(b"", b"", b"GET /g HTTP/1.1", b"Host: " + host + b"\r\n")
    two = {"same": b"Host: a.test\r\nHost: a.test\r\n", "other": b"Host: a.test\r\nHost: b.test\r\n", "none": b"",
           "spaced": b"Host : a.test\r\n", "folded": b"Host:\r\n a.test\r\n", "underscored": b"Host: a.test\r\nHost_: b.test\r\n",
           "padded": b"Host: a.test\r\n Host: b.test\r\n", "NUL": b"Host: a.test\r\nHost\x00: b.test\r\n"}
    for name, fields in two.items():
        yield "hosts: " + name, post(b"", b"", b"GET /g HTTP/1.1", fields)
        yield "hosts of HTTP/1.0: " + name, post(b"", b"", b"GET /g HTTP/1.0", fields)
    for target in [b"http://a.test/g", b"http://b.test/g", b"http://a.test", b"http://a.test:80/g", b"http://a.test:81/g", b"HTTP://a.test/g",
                   b"https://a.test/g", b"ftp://a.test/g", b"http:///g", b"http:/g", b"http://u@a.test/g", b"http://a.test?x", b"http://a.test#x",
                   b"//a.test/g", b"a.test:80", b"http://a.test/g h", b"http://A.test/g", b"ws://a.test/g", b"http://a.test\\@b.test/g"]:
        yield "target " + repr(target)[2:-1], post(b"", b"", b"GET " + target + b" HTTP/1.1")
        if b"b.test" in target or target == b"http://a.test/g":
            yield "target without Host " + repr(target)[2:-1], post(b"", b"", b"GET " + target + b" HTTP/1.1", b"")


def connections():
    for value in [b"close", b"keep-alive", b"Keep-Alive, close", b"upgrade", b"x", b"Host", b"Content-Length", b"Transfer-Encoding", b"X-A, Host", b"close, Content-Length",
                  b"transfer-encoding, close", b"cookie", b":method", b"te", b"\"close\"", b"close;x", b",close", b"x-forwarded-for"]:
        fields = b"Connection: " + value + b"\r\nX-A: b\r\nContent-Length: 5"
        yield "connection " + repr(value)[2:-1], post(fields, b"hello")
        fields = b"Connection: " + value + b"\r\n" + CHUNKED
        yield "connection and chunks " + repr(value)[2:-1], post(fields, HELLO)
    old = b"POST /old HTTP/1.0"
    yield "HTTP/1.0, length", post(b"Content-Length: 5", b"hello", old)
    yield "HTTP/1.0, kept alive", post(b"Connection: keep-alive\r\nContent-Length: 5", b"hello", old)
    yield "HTTP/1.0, no length", post(b"", b"hello", old)
    yield "HTTP/1.0, kept alive, no length", post(b"Connection: keep-alive", INNER, b"GET /old HTTP/1.0")
    for value in [b"100-continue", b"100-Continue", b"x", b"100-continue, x", b""]:
        yield "expect " + repr(value)[2:-1], post(b"Expect: " + value + b"\r\nContent-Length: 5", b"hello")
        yield "expect and chunks " + repr(value)[2:-1], post(b"Expect: " + value + b"\r\n" + CHUNKED, HELLO)
        yield "expect without a body " + repr(value)[2:-1], post(b"Expect: " + value, b"")
    yield "upgrade", post(b"Connection: upgrade\r\nUpgrade: websocket", b"", b"GET /ws HTTP/1.1")
    yield "upgrade with a body", post(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5", b"hello")
    yield "upgrade to h2c", post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"", b"GET /h2c HTTP/1.1")
    yield "upgrade without connection", post(b"Upgrade: websocket", INNER, b"GET /ws HTTP/1.1")
    yield "connect", post(b"", INNER, b"CONNECT a.test:80 HTTP/1.1")
    yield "connect with a length", post(b"Content-Length: 5", b"hello", b"CONNECT a.test:80 HTTP/1.1")
    yield "connect with a path", post(b"", b"", b"CONNECT /a HTTP/1.1")
    yield "te: chunked", post(b"TE: chunked\r\nContent-Length: 5", b"hello")
    yield "keep-alive field", post(b"Keep-Alive: timeout=5\r\nContent-Length: 5", b"hello")
    yield "proxy-connection", post(b"Proxy-Connection: close\r\nContent-Length: 5", b"hello")
    one = post(b"Content-Length: 5", b"hello")
    yield "three in a row", one + post(CHUNKED, HELLO) + INNER
    yield "twenty in a row", INNER * 20
    yield "empty line between", one + b"\r\n" + INNER
    yield "garbage between", one + b"garbage\r\n\r\n" + INNER
    yield "length too short", post(b"Content-Length: 3", b"hello")
    yield "length over the next request", post(b"Content-Length: 43", b"hello" + INNER)
    yield "get with a request as its body", post(b"Content-Length: 38", INNER, b"GET /g HTTP/1.1")


def endings():
    yield "ends in the line", b"GET /g HT"
    yield "ends in the head", b"GET /g HTTP/1.1\r\nHost: a.test\r\n"
    yield "ends in a length", post(b"Content-Length: 10", b"hello")
    yield "ends in a size", post(CHUNKED, b"5")
    yield "ends in a chunk", post(CHUNKED, b"5\r\nhel")
    yield "ends before the last chunk", post(CHUNKED, b"5\r\nhello\r\n")
    yield "ends in the last chunk", post(CHUNKED, b"5\r\nhello\r\n0\r\n")
    yield "ends in a trailer", post(CHUNKED, b"0\r\nX: y\r\n")
    yield "ends behind a request", INNER
    yield "ends in the second head", INNER + b"GET /g HTTP/1.1\r\nHo"


def mutations(cases):
    """Small changes where framing is decided, always the same."""
    chance = random.Random(SEED)
    bases = [case for case in cases if len(case.sent) < 600]
    bits = [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\x0b", b";", b",", b"0", b"Content-Length: 3\r\n", CHUNKED + b"\r\n",
            b"Content-Length: 0\r\n", b"Host: b.test\r\n", b"\r\n\r\n", INNER, b"X: y\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n"]
    for number in range(MUTATIONS):
        base = chance.choice(bases)
        sent = base.sent
        for _ in range(chance.randint(1, 3)):
            places = [found.start() for found in re.finditer(rb"[\r\n: ;,0-9]", sent)] or [0]
            at = chance.choice(places)
            kind = chance.randrange(4)
            if kind == 0:
                sent = sent[:at] + chance.choice(bits) + sent[at:]
            elif kind == 1:
                sent = sent[:at] + sent[at + 1:]
            elif kind == 2:
                sent = sent[:at] + chance.choice(bits) + sent[at + 1:]
            else:
                lines = sent.split(b"\r\n")
                lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(lines))
                sent = b"\r\n".join(lines)
        yield f"mutation {number} of {base.name}", sent


def from_fuzzers():
    """Cases of the fuzz targets: those with names, and some of those that a run kept."""
    chance = random.Random(SEED)
    for target in ("request_head", "chunked"):
        files = sorted((CORPUS / target).iterdir()) if (CORPUS / target).is_dir() else []
        named = [path for path in files if not re.fullmatch(r"[0-9a-f]{40}", path.name)]
        found = [path for path in files if path not in named]
        for path in named + sorted(chance.sample(found, min(FROM_FUZZERS // 2, len(found)))):
            data = path.read_bytes()
            if 0 < len(data) < 16384:
                yield f"{target}/{path.name}", data if target == "request_head" else post(CHUNKED, data)


def corpus():
    cases = [Case(name, sent) for part in (lengths, codings, chunks, heads, hosts, connections) for name, sent in part()]
    cases += [Case(name, sent, True) for name, sent in endings()]
    cases += [Case(name, sent) for name, sent in mutations(cases)]
    cases += [Case(name, sent) for name, sent in from_fuzzers()]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases of one name"
    return cases
