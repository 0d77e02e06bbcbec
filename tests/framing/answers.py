"""The corpus of responses: what an origin sends, well or badly.

In:    nothing.
Out:   `Answer`s; `content` is what may be shown to the client, `is_whole` whether it is all there.
Never: has a right status for what is refused: a 5xx, or an end of the connection, is always right.
"""

import dataclasses

JUNK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Junk: yes\r\n\r\njunk!!"


@dataclasses.dataclass(frozen=True)
class Answer:
    """`later` follows a moment behind `first`; then the connection may close."""

    name: str
    first: bytes
    later: bytes = b""
    closes: bool = False
    method: bytes = b"GET"


def ok(fields=b"", body=b"", status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\n" + fields + (b"\r\n" if fields else b"") + b"\r\n" + body


HELLO = b"5\r\nhello\r\n0\r\n\r\n"
TE = b"Transfer-Encoding: chunked"


def corpus():
    made = [
        Answer("plain", ok(b"Content-Length: 5", b"hello")), Answer("chunks", ok(TE, HELLO)),
        Answer("until close", ok(b"", b"hello"), closes=True), Answer("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", closes=True),
        Answer("HTTP/1.0 with length", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", closes=True),
        Answer("HTTP/1.0 with chunks", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO, closes=True),
        Answer("length and coding", ok(b"Content-Length: 5\r\n" + TE, HELLO)), Answer("coding and length", ok(TE + b"\r\nContent-Length: 15", HELLO)),
        Answer("two codings", ok(TE + b"\r\n" + TE, HELLO)), Answer("gzip, chunked", ok(b"Transfer-Encoding: gzip, chunked", HELLO)),
        Answer("identity", ok(b"Transfer-Encoding: identity", b"hello"), closes=True),
        Answer("chunked, identity", ok(b"Transfer-Encoding: chunked, identity", HELLO), closes=True),
        Answer("spaced coding", ok(b"Transfer-Encoding : chunked", HELLO), closes=True), Answer("xchunked", ok(b"Transfer-Encoding: xchunked", HELLO), closes=True),
        Answer("folded coding", ok(b"Transfer-Encoding:\r\n chunked", HELLO), closes=True),
        Answer("close, keeps open", ok(b"Connection: close\r\nContent-Length: 5", b"hello")),
        Answer("204 with length", ok(b"Content-Length: 5", b"hello", b"204 No Content")), Answer("204 with chunks", ok(TE, HELLO, b"204 No Content")),
        Answer("204 with a body", ok(b"", JUNK, b"204 No Content")), Answer("204 with zero length", ok(b"Content-Length: 0", b"", b"204 No Content")),
        Answer("304 with length", ok(b"Content-Length: 5", b"", b"304 Not Modified")), Answer("304 with a body", ok(b"Content-Length: 5", b"hello", b"304 Not Modified")),
        Answer("304 with another answer", ok(b"", JUNK, b"304 Not Modified")), Answer("205 with a body", ok(b"Content-Length: 5", b"hello", b"205 Reset Content")),
        Answer("100 first", ok(b"", b"", b"100 Continue") + ok(b"Content-Length: 5", b"hello")),
        Answer("103 first", ok(b"Link: </a>", b"", b"103 Early Hints") + ok(b"Content-Length: 5", b"hello")),
        Answer("100 with length", ok(b"Content-Length: 5", b"hello", b"100 Continue") + ok(b"Content-Length: 5", b"hello")),
        Answer("103 with chunks", ok(TE, HELLO, b"103 Early Hints") + ok(b"Content-Length: 5", b"hello")),
        Answer("ten interim", ok(b"", b"", b"103 Early Hints") * 10 + ok(b"Content-Length: 5", b"hello")),
        Answer("a thousand interim", ok(b"", b"", b"100 Continue") * 1000 + ok(b"Content-Length: 5", b"hello")),
        Answer("101 unasked", ok(b"Connection: upgrade\r\nUpgrade: websocket", JUNK, b"101 Switching Protocols")),
        Answer("another answer behind", ok(b"Content-Length: 5", b"hello" + JUNK)), Answer("another answer later", ok(b"Content-Length: 5", b"hello"), JUNK),
        Answer("another behind chunks", ok(TE, HELLO + JUNK)), Answer("another behind chunks, later", ok(TE, HELLO), JUNK),
        Answer("half an answer behind", ok(b"Content-Length: 5", b"hello" + JUNK[:20])), Answer("half an answer later", ok(b"Content-Length: 5", b"hello"), JUNK[:20]),
        Answer("line ends behind", ok(b"Content-Length: 5", b"hello\r\n\r\n")), Answer("longer than its length", ok(b"Content-Length: 3", b"hello")),
        Answer("no length, another behind", ok(b"", JUNK), closes=True), Answer("zero, another behind", ok(b"Content-Length: 0", JUNK)),
        Answer("ends early", ok(b"Content-Length: 10", b"hello"), closes=True), Answer("ends in a chunk", ok(TE, b"a\r\nhello"), closes=True),
        Answer("ends before the last chunk", ok(TE, b"5\r\nhello\r\n"), closes=True), Answer("ends in the last chunk", ok(TE, b"5\r\nhello\r\n0\r\n"), closes=True),
        Answer("ends in the head", b"HTTP/1.1 200 OK\r\nContent-Le", closes=True), Answer("nothing", b"", closes=True),
        Answer("ends in a trailer", ok(TE, b"5\r\nhello\r\n0\r\nX: y"), closes=True),
        Answer("not HTTP", b"SSH-2.0-OpenSSH_9\r\n", closes=True), Answer("HTTP/0.9", b"hello", closes=True), Answer("HTTP/2", b"HTTP/2 200 OK\r\n\r\n", closes=True),
        Answer("status 99", ok(b"Content-Length: 5", b"hello", b"99 Low")), Answer("status 600", ok(b"Content-Length: 5", b"hello", b"600 High")),
        Answer("status 2000", ok(b"Content-Length: 5", b"hello", b"2000 Long")), Answer("status +20", ok(b"Content-Length: 5", b"hello", b"+20 Plus")),
        Answer("no reason", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"), Answer("NUL in the reason", ok(b"Content-Length: 5", b"hello", b"200 O\x00K")),
        Answer("CR in the reason", ok(b"Content-Length: 5", b"hello", b"200 O\rK")), Answer("folded line", ok(b"X: y\r\n z\r\nContent-Length: 5", b"hello")),
        Answer("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", closes=True), Answer("LF in a value", ok(b"X: y\nZ: w\r\nContent-Length: 5", b"hello")),
        Answer("CR in a value", ok(b"X: y\rZ: w\r\nContent-Length: 5", b"hello")), Answer("NUL in a value", ok(b"X: \x00\r\nContent-Length: 5", b"hello")),
        Answer("no colon", ok(b"X\r\nContent-Length: 5", b"hello")), Answer("underscored length", ok(b"Content_Length: 3\r\nContent-Length: 5", b"hello")),
        Answer("empty line first", b"\r\n" + ok(b"Content-Length: 5", b"hello")),
        Answer("trailers", ok(TE, b"5\r\nhello\r\n0\r\nX-T: v\r\n\r\n")), Answer("trailer of framing", ok(TE, b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n")),
        Answer("chunk extension", ok(TE, b"5;a=b\r\nhello\r\n0\r\n\r\n")), Answer("LF in an extension", ok(TE, b"5;a\nhello\r\n0\r\n\r\n"), closes=True),
        Answer("bare LF in chunks", ok(TE, b"5\nhello\n0\n\n"), closes=True), Answer("chunk of 2^64", ok(TE, b"10000000000000000\r\n\r\n"), closes=True),
        Answer("chunk of letters", ok(TE, b"xyz\r\nhello\r\n0\r\n\r\n"), closes=True), Answer("chunk too long", ok(TE, b"5\r\nhelloo\r\n0\r\n\r\n"), closes=True),
        Answer("connection names length", ok(b"Connection: content-length\r\nContent-Length: 5", b"hello")),
        Answer("head with length", ok(b"Content-Length: 5"), method=b"HEAD"), Answer("head with chunks", ok(TE), method=b"HEAD"),
        Answer("head with a body", ok(b"Content-Length: 5", b"hello"), method=b"HEAD"), Answer("head with another answer", ok(b"Content-Length: 5", JUNK), method=b"HEAD"),
        Answer("head, a body of chunks", ok(TE, HELLO), method=b"HEAD"), Answer("head with both", ok(TE + b"\r\nContent-Length: 5"), method=b"HEAD"),
    ]
    for value in [b"05", b"+5", b"-5", b"5,5", b"5, 5", b"5, 6", b"5 5", b"0x5", b"", b"five", b"18446744073709551621", b"9223372036854775808", b"5\x00"]:
        made.append(Answer("length " + repr(value)[2:-1], ok(b"Content-Length: " + value, b"hello"), closes=True))
    for first, second in [(b"5", b"5"), (b"5", b"6"), (b"6", b"5"), (b"0", b"5")]:
        fields = b"Content-Length: " + first + b"\r\ncontent-length: " + second
        made.append(Answer(f"lengths {first.decode()} and {second.decode()}", ok(fields, b"hello"), closes=True))
    return made
