"""Which route claims a request: every form of match of a VirtualService."""

from corpus import ALPHA, BETA, GAMMA, USUAL, Cases, Feature, service_entry

HOST = "match.test"
MANIFESTS = service_entry(HOST, {ALPHA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: match, namespace: apps}
spec:
  hosts: [match.test]
  http:
  - name: exact
    match: [{uri: {exact: /exact}}]
    directResponse: {status: 210, body: {string: exact}}
  - name: prefix
    match: [{uri: {prefix: /prefix/}}]
    directResponse: {status: 211, body: {string: prefix}}
  - name: regex
    match: [{uri: {regex: "/re/[a-z]+/[0-9]{2,3}"}}]
    directResponse: {status: 212, body: {string: regex}}
  - name: ignore-case
    match: [{uri: {exact: /Case}, ignoreUriCase: true}, {uri: {prefix: /CasePrefix/}, ignoreUriCase: true}]
    directResponse: {status: 213, body: {string: ignored case}}
  - name: method
    match: [{uri: {prefix: /method}, method: {exact: PUT}}, {uri: {prefix: /method}, method: {regex: "PATCH|DELETE"}}]
    directResponse: {status: 214, body: {string: method}}
  - name: header-exact
    match: [{headers: {x-kind: {exact: one}}}]
    directResponse: {status: 215, body: {string: header exact}}
  - name: header-prefix
    match: [{headers: {x-kind: {prefix: two-}}}]
    directResponse: {status: 216, body: {string: header prefix}}
  - name: header-regex
    match: [{headers: {x-kind: {regex: "three[0-9]+"}}}]
    directResponse: {status: 217, body: {string: header regex}}
  - name: header-present
    match: [{headers: {x-present: {}}}]
    directResponse: {status: 218, body: {string: header present}}
  - name: two-headers
    match: [{headers: {x-a: {exact: "1"}, x-b: {exact: "2"}}}]
    directResponse: {status: 219, body: {string: two headers}}
  - name: without
    match: [{uri: {prefix: /without}, withoutHeaders: {x-no: {}}}, {uri: {prefix: /value-without}, withoutHeaders: {x-no: {exact: bad}}}]
    directResponse: {status: 220, body: {string: without}}
  - name: query-exact
    match: [{queryParams: {q: {exact: one}}}]
    directResponse: {status: 221, body: {string: query exact}}
  - name: query-regex
    match: [{queryParams: {q: {regex: "two[0-9]"}}}]
    directResponse: {status: 222, body: {string: query regex}}
  - name: query-prefix
    match: [{queryParams: {q: {prefix: three}}}]
    directResponse: {status: 223, body: {string: query prefix}}
  - name: authority
    match: [{uri: {prefix: /authority}, authority: {exact: "match.test:80"}}]
    directResponse: {status: 224, body: {string: authority}}
  - name: scheme
    match: [{uri: {prefix: /scheme}, scheme: {exact: http}}]
    directResponse: {status: 225, body: {string: scheme}}
  - name: port
    match: [{uri: {prefix: /port}, port: 80}]
    directResponse: {status: 226, body: {string: port}}
  - name: wrong-port
    match: [{uri: {prefix: /wrongport}, port: 81}]
    directResponse: {status: 227, body: {string: wrong port}}
  - name: source
    match: [{uri: {prefix: /source}, sourceLabels: {app: client}, sourceNamespace: apps}]
    directResponse: {status: 228, body: {string: source}}
  - name: not-source
    match: [{uri: {prefix: /nosource}, sourceLabels: {app: other}}]
    directResponse: {status: 229, body: {string: not source}}
  - name: mesh-gateway
    match: [{uri: {prefix: /mesh}, gateways: [mesh]}]
    directResponse: {status: 230, body: {string: mesh}}
  - name: either
    match: [{uri: {exact: /either/a}}, {uri: {exact: /either/b}, headers: {x-b: {exact: "2"}}}]
    directResponse: {status: 231, body: {string: either}}
  - name: cookie
    match: [{headers: {cookie: {regex: "^(.*?;)?(user=jason)(;.*)?$"}}}]
    directResponse: {status: 232, body: {string: cookie}}
  - name: rest
    directResponse: {status: 299, body: {string: rest}}
"""


def cases():
    case = Cases("matching", HOST)
    paths = ["/exact", "/exact/", "/exact?x=1", "/Exact", "/exact%2F", "/prefix/", "/prefix", "/prefix/a/b",
             "/prefixed", "/re/abc/12", "/re/abc/1", "/re/abc/1234", "/re/abc/123?y", "/re/ABC/12",
             "/case", "/CASE", "/Case/", "/caseprefix/x", "/CASEPREFIX/", "/port", "/wrongport", "/source",
             "/nosource", "/mesh", "/either/a", "/either/b", "/without", "/value-without", "/scheme", "/",
             "/a//b", "/prefix//a", "//prefix/a", "/./exact", "/x/../exact", "/%65xact", "/prefix/%2e%2e/exact",
             "/exact#frag", "/exact;p=1", "/ex%41ct", "/prefix/..;/x", "/*"]
    for path in paths:
        case.http1(f"path {path}", path)
    for method in ("PUT", "PATCH", "DELETE", "GET", "POST", "put", "OPTIONS"):
        case.http1(f"method {method}", "/method", method=method)
    headers = {
        "exact": [("x-kind", "one")], "exact in capitals": [("X-KIND", "one")],
        "value in capitals": [("x-kind", "ONE")], "spaces around": [("x-kind", "  one  ")],
        "prefix": [("x-kind", "two-2")], "prefix alone": [("x-kind", "two-")], "prefix missed": [("x-kind", "two")],
        "regex": [("x-kind", "three3")], "regex not whole": [("x-kind", "three3x")],
        "present": [("x-present", "yes")], "present and empty": [("x-present", "")],
        "both": [("x-a", "1"), ("x-b", "2")], "one of both": [("x-a", "1")],
        "twice the same": [("x-kind", "one"), ("x-kind", "one")],
        "twice, the first": [("x-kind", "one"), ("x-kind", "other")],
        "twice, the second": [("x-kind", "other"), ("x-kind", "one")],
        "prefix twice": [("x-kind", "two-1"), ("x-kind", "x")],
        "cookie": [("cookie", "a=b; user=jason")], "cookie first": [("cookie", "user=jason; c=d")],
        "cookie of another": [("cookie", "user=jason2")], "either b": [("x-b", "2")],
    }
    for name, fields in headers.items():
        case.http1(f"header {name}", "/either/b" if name == "either b" else "/h", headers=fields)
    case.http1("without but there", "/without", headers=[("x-no", "1")])
    case.http1("without value, other", "/value-without", headers=[("x-no", "good")])
    case.http1("without value, that one", "/value-without", headers=[("x-no", "bad")])
    for query in ("q=one", "q=ONE", "q=one&q=other", "q=other&q=one", "a=b&q=one", "q=two1", "q=two", "q=three",
                  "q=threeX", "q", "q=", "Q=one", "q=on%65", "x=q=one", "q=one;x=1"):
        case.http1(f"query {query}", f"/q?{query}")
    for authority in ("match.test", "match.test:80", "MATCH.test", "match.test:81", "match.test."):
        case.http1(f"authority {authority}", "/authority", authority=authority, connect=HOST)
    return case


VHOSTS = "".join(service_entry(host, {number: {}}, name=name) for host, number, name in (
    ("one.wild.test", ALPHA, "wild-one"), ("two.wild.test", BETA, "wild-two"),
    ("deep.two.wild.test", GAMMA, "wild-deep"))) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild, namespace: apps}
spec:
  hosts: ["*.wild.test"]
  http:
  - match: [{uri: {prefix: /any}}]
    directResponse: {status: 240, body: {string: any}}
  - route: [{destination: {host: one.wild.test}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild-two, namespace: apps}
spec:
  hosts: ["*.two.wild.test"]
  http:
  - match: [{uri: {prefix: /any}}]
    directResponse: {status: 241, body: {string: any of two}}
  - route: [{destination: {host: two.wild.test}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild-exact, namespace: apps}
spec:
  hosts: ["two.wild.test"]
  http:
  - directResponse: {status: 242, body: {string: exact host}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild-younger, namespace: apps}
spec:
  hosts: ["two.wild.test"]
  http:
  - directResponse: {status: 243, body: {string: the younger must lose}}
"""


def hosts():
    case = Cases("hosts", "one.wild.test")
    for host in ("one.wild.test", "two.wild.test", "deep.two.wild.test"):
        for path in ("/", "/any"):
            case.http1(f"{host}{path}", path, host=host)
    for authority in ("unknown.test", "ONE.wild.test", "one.wild.test:80", "one.wild.test:8080", "x.wild.test", "wild.test",
                      "1.2.3.4", "[::1]", "one.wild.test:", ""):
        case.http1(f"authority {authority or 'empty'}", "/any", authority=authority, connect="one.wild.test")
    return case


FEATURES = [Feature("matching", MANIFESTS, cases(), USUAL), Feature("hosts", VHOSTS, hosts(), USUAL)]
