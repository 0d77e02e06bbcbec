"""What happens when things fail: faults on purpose, retries, timeouts, CORS refusals, limits."""

from corpus import ALPHA, BETA, USUAL, Cases, Feature, service_entry
from cases.choosing import rule

FAULTS = service_entry("fault.test", {ALPHA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fault, namespace: apps}
spec:
  hosts: [fault.test]
  http:
  - match: [{uri: {prefix: /abort}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: fault.test}}]
  - match: [{uri: {prefix: /half}}]
    fault: {abort: {httpStatus: 500, percentage: {value: 50}}}
    route: [{destination: {host: fault.test}}]
  - match: [{uri: {prefix: /never}}]
    fault: {abort: {httpStatus: 500, percentage: {value: 0}}}
    route: [{destination: {host: fault.test}}]
  - match: [{uri: {prefix: /delay}}]
    fault: {delay: {fixedDelay: 0.4s, percentage: {value: 100}}}
    route: [{destination: {host: fault.test}}]
  - match: [{uri: {prefix: /both}}]
    fault: {delay: {fixedDelay: 0.4s, percentage: {value: 100}}, abort: {httpStatus: 503, percentage: {value: 100}}}
    route: [{destination: {host: fault.test}}]
  - match: [{uri: {prefix: /grpc}}]
    fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    route: [{destination: {host: fault.test}}]
  - route: [{destination: {host: fault.test}}]
"""


def faults():
    case = Cases("faults", "fault.test")
    for path in ("/abort", "/never", "/delay", "/both", "/grpc", "/"):
        case.http1(path, path)
    case.http1("abort of a POST", "/abort", method="POST", body=b"hello")
    case.http1("share /half", "/half", repeat=300, compare="share")
    return case


RETRIES = service_entry("retry.test", {ALPHA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: retry, namespace: apps}
spec:
  hosts: [retry.test]
  http:
  - match: [{uri: {prefix: /5xx}}]
    retries: {attempts: 2, retryOn: 5xx, perTryTimeout: 2s}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /codes}}]
    retries: {attempts: 3, retryOn: "gateway-error,409,connect-failure"}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /4xx}}]
    retries: {attempts: 1, retryOn: retriable-4xx}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /reset}}]
    retries: {attempts: 2, retryOn: reset}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /before}}]
    retries: {attempts: 2, retryOn: reset-before-request}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /none}}]
    retries: {attempts: 0}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /slow}}]
    retries: {attempts: 1, retryOn: 5xx, perTryTimeout: 0.3s}
    route: [{destination: {host: retry.test}}]
  - match: [{uri: {prefix: /timeout}}]
    timeout: 0.4s
    route: [{destination: {host: retry.test}}]
  - route: [{destination: {host: retry.test}}]
"""


def retries():
    case = Cases("retries", "retry.test")
    for path in ("/5xx", "/codes", "/4xx", "/none", "/default", "/reset"):
        for failure in ("fail=1:503", "fail=2:503", "fail=5:503", "fail=1:500", "fail=1:409", "fail=4:409", "fail=1:429",
                        "fail=1:close", "fail=4:close"):
            case.http1(f"{path} {failure}", path, do=failure)
    for path in ("/5xx", "/codes", "/before", "/reset"):
        case.http1(f"POST {path}", path, method="POST", body=b"hello", do="fail=1:503")
        case.http1(f"POST closed {path}", path, method="POST", body=b"hello", do="fail=1:close")
    case.http1("large POST", "/5xx", method="POST", body=b"x" * 500_000, do="fail=1:503")
    case.http1("per try", "/slow", do="delay=1")
    case.http1("timeout", "/timeout", do="delay=1")
    case.http1("timeout not reached", "/timeout", do="delay=0.05")
    case.http1("timeout of a POST", "/timeout", method="POST", body=b"hello", do="delay=1")
    case.http1("no limit", "/nolimit", do="delay=0.5")  # as without `timeout`
    return case


CORS = service_entry("cors.test", {ALPHA: {}}) + """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cors, namespace: apps}
spec:
  hosts: [cors.test]
  http:
  - match: [{uri: {prefix: /strict}}]
    corsPolicy:
      allowOrigins: [{exact: "https://good.example"}, {prefix: "https://dev."}, {regex: "https://[a-z]+\\\\.corp\\\\.example"}]
      allowMethods: [GET, POST]
      allowHeaders: [x-one, x-two]
      exposeHeaders: [x-out]
      maxAge: 24h
      allowCredentials: true
    route: [{destination: {host: cors.test}}]
  - match: [{uri: {prefix: /ignore}}]
    corsPolicy: {allowOrigins: [{exact: "https://good.example"}], unmatchedPreflights: IGNORE}
    route: [{destination: {host: cors.test}}]
  - match: [{uri: {prefix: /any}}]
    corsPolicy: {allowOrigins: [{exact: "*"}]}
    route: [{destination: {host: cors.test}}]
  - route: [{destination: {host: cors.test}}]
"""


def cors():
    case = Cases("cors", "cors.test")
    for path in ("/strict", "/ignore", "/any", "/none"):
        for origin in ("https://good.example", "https://bad.example", "https://dev.x", "https://a.corp.example", ""):
            fields = [("Origin", origin)] if origin else []
            case.http1(f"GET {path} {origin or 'no origin'}", path, headers=fields)
            case.http1(f"preflight {path} {origin or 'no origin'}", path, method="OPTIONS",
                       headers=[*fields, ("Access-Control-Request-Method", "POST")])
    case.http1("OPTIONS that is no preflight", "/strict", method="OPTIONS", headers=[("Origin", "https://good.example")])
    return case


LIMITS = (service_entry("limit.test", {ALPHA: {}}) + rule("limit.test", "{connectionPool: {http: {http1MaxPendingRequests: 1, "
          "maxRequestsPerConnection: 1}, tcp: {maxConnections: 1}}}")
          + service_entry("gone.test", {ALPHA: {}}, target=9009)
          + service_entry("eject.test", {ALPHA: {}, BETA: {}}) + rule("eject.test", "{outlierDetection: {consecutive5xxErrors: 2, "
          "interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 100}, loadBalancer: {simple: ROUND_ROBIN}}"))


def limits():
    case = Cases("limits", "limit.test")
    case.http1("one at a time", "/", repeat=5, compare="share")
    case.http1("nobody listens", "/", host="gone.test")
    case.http1("nobody listens, POST", "/", host="gone.test", method="POST", body=b"x")
    return case


FEATURES = [Feature("faults", FAULTS, faults(), USUAL), Feature("retries", RETRIES, retries(), USUAL),
            Feature("cors", CORS, cors(), USUAL), Feature("limits", LIMITS, limits(), USUAL)]
