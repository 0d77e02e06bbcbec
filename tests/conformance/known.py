"""Differences from a real Envoy that are meant: a pattern of case ids, and why.

The reason is for the reader of the table; ARCHITECTURE.md tells the larger ones at length.
"""

STALE = ("a kept connection that closes before anything came back is replaced once for an idempotent "
         "request (RFC 9110 section 9.2.2), whatever the policy says of retries, and does not count as a try")
STRICT = "an ambiguous or malformed target or host is refused with 400 before a route is looked for"
OLD = "a request of HTTP/1.0 that is turned away is logged like every other"
ASKED = "the service is asked without Envoy's own x-envoy-internal and x-envoy-expected-rq-timeout-ms, which it echoes here"
TLS = "the same refusal; the log words the reason as our TLS library does"

DIFFERENT = {
    "retries/*:close": STALE,
    "http2/http1 HEAD to two.test": "no transfer-encoding for a body that is never sent",
    "http2/2 with scheme https to two.test": "the scheme is that of the connection, not what a client says",
    "http2/2 bad host besides": "a Host that contradicts :authority is refused (RFC 9113 section 8.3.1)",
    "http2/2 path '/a#b'": "a fragment is no part of :path (RFC 9113 section 8.3.1)",
    "matching/path /exact#frag": STRICT,
    "forwarding/absolute form of another host": STRICT,
    "hosts/authority one.wild.test:": STRICT,
    "hosts/authority empty": STRICT,
    "forwarding/field hop by hop": "Proxy-Connection is dropped, not obeyed (RFC 9112 appendix C.2.2)",
    "forwarding/fields of the answer": "what Connection names in an answer is for one hop (RFC 9110 section 7.6.1)",
    "forwarding/chunked request with trailers": "Trailer does not announce trailers that are dropped",
    "forwarding/expect continue": "100 is omitted when the body has come already (RFC 9110 section 10.1.1)",
    "forwarding/HTTP/1.0": OLD,
    "forwarding/HTTP/1.0 keep-alive": OLD,
    "upgrades/websocket": "a client that closes its upgraded connection has ended it in order: no DC in the log",
    "upgrades/websocket in capitals": "as above",
    "upgrades/websocket refused": "the connection of a refused upgrade can be used again",
    "gateway-policies/denied /asked*": ASKED,
    "gateway-policies/redirected /asked*": ASKED,
    "tls/originated origin-wrong": TLS,
    "tls/originated origin-stranger": TLS,
}
