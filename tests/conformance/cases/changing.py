"""What is changed on the way: headers, paths, hosts; redirects and direct answers."""

from corpus import ALPHA, BETA, USUAL, Cases, Feature, service_entry

HOST = "change.test"
MANIFESTS = service_entry(HOST, {ALPHA: {}}) + service_entry("other.test", {BETA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: change, namespace: apps}
spec:
  hosts: [change.test]
  http:
  - name: headers
    match: [{uri: {prefix: /headers}}]
    headers:
      request: {set: {x-set: by-route, x-kept: "%REQ(x-in)%"}, add: {x-add: by-route}, remove: [x-gone]}
      response: {set: {x-res-set: by-route}, add: {x-res-add: by-route}, remove: [x-res-gone]}
    route:
    - destination: {host: change.test}
      headers:
        request: {set: {x-dest: by-destination}, add: {x-add: by-destination}, remove: [x-gone-too]}
        response: {add: {x-res-add: by-destination}, set: {x-res-dest: "yes"}}
  - name: host-set
    match: [{uri: {prefix: /host}}]
    headers: {request: {set: {host: set.example}}}
    route: [{destination: {host: change.test}}]
  - name: rewrite-prefix
    match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /new/}
    route: [{destination: {host: change.test}}]
  - name: rewrite-prefix-bare
    match: [{uri: {prefix: /bare}}]
    rewrite: {uri: /}
    route: [{destination: {host: change.test}}]
  - name: rewrite-exact
    match: [{uri: {exact: /whole}}]
    rewrite: {uri: /replaced}
    route: [{destination: {host: change.test}}]
  - name: rewrite-regex
    match: [{uri: {prefix: /users/}}]
    rewrite: {uriRegexRewrite: {match: "^/users/([^/]+)(/.*)?$", rewrite: '/u\\2/by/\\1'}}
    route: [{destination: {host: change.test}}]
  - name: rewrite-authority
    match: [{uri: {prefix: /authority}}]
    rewrite: {authority: rewritten.example}
    route: [{destination: {host: change.test}}]
  - name: rewrite-both
    match: [{uri: {prefix: /both/}}]
    rewrite: {uri: /, authority: both.example}
    route: [{destination: {host: other.test}}]
  - name: redirect
    match: [{uri: {prefix: /moved}}]
    redirect: {uri: /here, authority: moved.example, redirectCode: 302}
  - name: redirect-port
    match: [{uri: {prefix: /port}}]
    redirect: {port: 8443, scheme: https}
  - name: redirect-derive
    match: [{uri: {prefix: /derive}}]
    redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}
  - name: redirect-default
    match: [{uri: {prefix: /plain}}]
    redirect: {authority: plain.example}
  - name: redirect-307
    match: [{uri: {exact: /temporary}}]
    redirect: {uri: /t, redirectCode: 307}
  - name: redirect-308
    match: [{uri: {prefix: /p308/}}]
    redirect: {uri: "%PREFIX()%", authority: p.example, redirectCode: 308}
  - name: direct
    match: [{uri: {prefix: /direct}}]
    directResponse: {status: 503, body: {string: "no service today"}}
    headers: {response: {set: {x-res-set: direct}}}
  - name: direct-empty
    match: [{uri: {prefix: /empty}}]
    directResponse: {status: 204}
  - name: direct-bytes
    match: [{uri: {prefix: /bytes}}]
    directResponse: {status: 200, body: {bytes: aGVsbG8=}}
  - route: [{destination: {host: change.test}}]
"""


def cases():
    case = Cases("changing", HOST)
    case.http1("headers", "/headers", headers=[("x-in", "in"), ("x-gone", "1"), ("x-gone-too", "2"), ("x-set", "client")],
               do="header=x-res-gone:1;header=x-res-set:upstream;header=x-res-add:upstream")
    case.http1("headers on nothing", "/headers")
    case.http1("headers that repeat", "/headers", headers=[("x-gone", "1"), ("X-Gone", "2"), ("x-add", "client")])
    case.http1("host set", "/host")
    for path in ("/old/", "/old/a/b", "/old/a?q=1", "/old", "/bare", "/bare/x", "/barex", "/bare?q", "/whole", "/whole?q=1",
                 "/users/ada", "/users/ada/x/y", "/users/ada?q=1", "/authority/x", "/both/x", "/both/", "/users/", "/old/%2F/x"):
        case.http1(f"rewrite {path}", path)
    for path in ("/moved", "/moved/x?y=1", "/port", "/port/a?b", "/derive", "/plain/x?y", "/temporary", "/temporary?q=1",
                 "/p308/x/y?z", "/p308/"):
        case.http1(f"redirect {path}", path)
    case.http1("redirect of a port in the host", "/derive", authority="change.test:80")
    case.http1("redirect POST", "/moved", method="POST", body=b"x=1")
    for path in ("/direct", "/empty", "/bytes"):
        case.http1(f"direct {path}", path)
        case.http1(f"direct HEAD {path}", path, method="HEAD")
    case.http1("direct POST", "/direct", method="POST", body=b"x" * 1000)
    return case


PLAIN = service_entry("plain.test", {ALPHA: {}})


def plain():
    """What a proxy adds and removes by itself."""
    case = Cases("forwarding", "plain.test")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"):
        body = b"hello" if method in ("POST", "PUT", "PATCH") else None
        case.http1(f"method {method}", "/m", method=method, body=body)
    for status in (200, 201, 204, 206, 299, 301, 304, 400, 401, 404, 418, 429, 500, 503, 599):
        case.http1(f"status {status}", "/s", do=f"status={status}")
    fields = {
        "x-forwarded-for": [("x-forwarded-for", "1.2.3.4")], "x-forwarded-proto": [("x-forwarded-proto", "https")],
        "x-request-id": [("x-request-id", "given-by-client")],
        "x-envoy internal": [("x-envoy-internal", "true"), ("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-max-retries", "9")],
        "x-envoy-retry-on": [("x-envoy-retry-on", "5xx")], "x-envoy-expected": [("x-envoy-expected-rq-timeout-ms", "5")],
        "x-envoy-decorator": [("x-envoy-decorator-operation", "evil")], "x-envoy-peer": [("x-envoy-peer-metadata", "a"), ("x-envoy-peer-metadata-id", "b")],
        "x-envoy-original": [("x-envoy-original-path", "/p"), ("x-envoy-original-host", "h")],
        "x-envoy-attempt": [("x-envoy-attempt-count", "7")], "x-envoy-other": [("x-envoy-custom", "1")],
        "hop by hop": [("Connection", "x-hop"), ("x-hop", "1"), ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "close")],
        "te": [("TE", "trailers")], "te gzip": [("TE", "gzip")], "upgrade without connection": [("Upgrade", "websocket")],
        "proxy-authorization": [("Proxy-Authorization", "Basic eA==")], "via": [("Via", "1.1 other")],
        "forwarded": [("Forwarded", "for=1.2.3.4")], "server": [("Server", "mine")], "xfcc": [("x-forwarded-client-cert", "By=spiffe://x")],
        "duplicates": [("x-two", "1"), ("x-two", "2"), ("X-Two", "3")], "empty value": [("x-empty", "")],
        "cookies": [("Cookie", "a=1"), ("Cookie", "b=2")], "accept-encoding": [("Accept-Encoding", "gzip, br")],
        "user agent absent": [], "non ascii": [("x-latin", "caf\xe9")], "tab inside": [("x-tab", "a\tb")],
        "range": [("Range", "bytes=0-1")], "underscore": [("x_under_score", "1")], "long value": [("x-long", "v" * 8000)],
    }
    for name, pairs in fields.items():
        case.http1(f"field {name}", "/f", headers=pairs)
    case.http1("fields of the answer", "/a", do="header=server:upstream;header=x-envoy-upstream-service-time:5;header=connection:x-hop;"
               "header=x-hop:1;header=date:Mon, 01 Jan 2024 00:00:00 GMT;header=set-cookie:a=1;header=set-cookie:b=2")
    case.http1("chunked answer", "/c", do="chunked")
    case.http1("answer until close", "/c", do="until-close")
    case.http1("answer with trailers", "/c", do="trailer=x-t:1")
    case.http1("large answer", "/l", do="length=1000000")
    case.http1("large request", "/l", method="POST", body=b"z" * 1_000_000)
    case.http1("HEAD with length", "/l", method="HEAD", do="length=12345")
    case.http1("chunked request", "/c", method="POST", headers=[("Transfer-Encoding", "chunked")], body=b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n")
    case.http1("chunked request with trailers", "/c", method="POST", headers=[("Transfer-Encoding", "chunked"), ("Trailer", "x-t")],
               body=b"5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n")
    case.http1("expect continue", "/e", method="POST", headers=[("Expect", "100-continue")], body=b"hello")
    case.http1("early hints", "/e", do="interim=103")
    case.http1("connection close", "/k", headers=[("Connection", "close")])
    case.http1("HTTP/1.0", "/v", version="1.0")
    case.http1("HTTP/1.0 keep-alive", "/v", version="1.0", headers=[("Connection", "keep-alive")])
    case.http1("absolute form", "http://plain.test/abs?x=1")
    case.http1("absolute form of another host", "http://unknown.test/abs", authority="plain.test")
    case.http1("upstream closes", "/x", do="close")
    case.http1("upstream closes on POST", "/x", method="POST", body=b"x", do="close")
    return case


FEATURES = [Feature("changing", MANIFESTS, cases(), USUAL), Feature("forwarding", PLAIN, plain(), USUAL)]
