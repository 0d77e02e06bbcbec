#!/usr/bin/env python3
"""Checks that the judge can find what it looks for: each rule has a case that breaks it."""

import judge
from wire import Request, Response

HEAD = b"%s HTTP/1.1\r\nHost: a.test%s\r\n\r\n"


def request(line=b"POST /p", content=b"", fields=b"", is_complete=True):
    made = Request(HEAD % (line, fields))
    made.content, made.is_complete = content, is_complete
    return made


def response(status=b"200 OK", content=b"", fields=b"", is_complete=True):
    made = Response(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n", b"GET")
    made.content, made.is_complete = content, is_complete
    return made


def main():
    end, hello = request(b"GET /end"), request(content=b"hello")
    inner = request(b"GET /inner")
    for what, ours, theirs, differs in [
        ("the same", [hello, end], [hello, end], False),
        ("refused by one", [hello, end], [hello], False),
        ("answered by one itself", [hello, end], [end], False),
        ("another body", [hello, end], [request(content=b"hell"), end], True),
        ("a request of the body", [hello, inner, end], [request(content=b"helloGET"), end], True),
        ("the end in the body", [hello, end], [request(content=b"helloGET /end")], True),
        ("a start of the same", [request(content=b"he", is_complete=False)], [hello, end], False),
        ("a start of another", [request(content=b"hx", is_complete=False)], [hello, end], True),
        ("another path", [request(b"POST /q"), end], [hello, end], True),
    ]:
        assert bool(judge.unlike(ours, theirs)) == differs, what
        assert bool(judge.unlike(theirs, ours)) == differs, what
    one = ([end], b"HTTP/1.1 404 N\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert judge.count_unlike(one, ([inner, end], one[1] + b"HTTP/1.1 200 OK\r\n\r\n"))
    assert not judge.count_unlike(one, one)
    for fields in [b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"\r\nContent-Length: 05", b"\r\nContent-Length: 5\r\nContent-Length: 5",
                   b"\r\nTransfer-Encoding: gzip", b"\r\nX : y", b"\r\n folded", b"\r\nX: \x00", b"\r\nX: y\nZ: w", b"\r\nHost: b"]:
        assert judge.ambiguous([request(fields=fields)]), fields
    assert not judge.ambiguous([request(fields=b"\r\nContent-Length: 5")])
    fine = response(content=b"/next", fields=b"X-Next: yes\r\nContent-Length: 5\r\n")
    assert not judge.responses(([response(fields=b"Content-Length: 0\r\n")], [fine], b""), b"/next")
    assert judge.responses(([], [response(content=b"junk!!", fields=b"Content-Length: 6\r\n")], b""), b"/next")
    assert judge.responses(([], [fine], b"more"), b"/next")
    assert judge.responses(([response(b"204 No Content", fields=b"Content-Length: 5\r\n")], [fine], b""), b"/next")
    whole, part = response(content=b"hello"), response(content=b"hel", is_complete=False)
    assert judge.unlike_answer(([whole], [], b""), ([part], [], b"")), "an answer that ended early is shown as whole"
    assert not judge.unlike_answer(([part], [], b""), ([whole], [], b""))
    print("the judge finds what it looks for")


if __name__ == "__main__":
    main()
