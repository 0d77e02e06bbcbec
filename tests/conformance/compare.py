"""Whether two engines did the same: results brought into one form, and what differs in them.

In:    what the client saw, what the service saw (it says so in its answer), the access log.
Out:   the differences of a case, each in a line.
Never: compares what no two runs have in common: dates, ids, durations, addresses of the client.
"""

import base64
import collections
import json

# Values that no two runs have in common; that there is one is compared.
VOLATILE = {"date", "x-request-id", "x-envoy-upstream-service-time", "x-forwarded-for",
            "x-envoy-expected-rq-timeout-ms", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled",
            "traceparent"}
SLOW = 0.25  # seconds: from here on an answer was delayed
SHARE_TOLERANCE = 0.12  # of all requests: how far shares may be apart


def fields(pairs):
    """Header fields, in an order of their own: proxies may order different names as they like."""
    found = [(name.lower(), "*" if name.lower() in VOLATILE else value) for name, value in pairs]
    # Its options have no case (RFC 9110 section 7.6.1).
    found = [(name, value.lower() if name == "connection" else value) for name, value in found]
    return sorted(found)


def head(lines):
    """A request head as the service saw it."""
    first, pairs = lines[0], []
    rest = lines
    if not first.startswith(":"):
        pairs.append((":request", first))
        rest = lines[1:]
    for line in rest:
        name, _, value = line[1:].partition(":") if line.startswith(":") else line.partition(":")
        pairs.append(((":" if line.startswith(":") else "") + name, value.strip()))
    return fields(pairs)


def normal(result):
    """One result as what is compared."""
    form = {key: result[key] for key in ("status", "version", "name", "late", "reset", "goaway",
                                         "until_close", "alpn")
            if key in result and result[key] is not None}
    # How a connection is refused or ended (an alert, FIN or RST) is a matter of timing and taste.
    if any(result.get(key) for key in ("closed", "broken", "handshake", "connect")):
        return {"ended": True}
    # So is whether a refused request of HTTP/2 ends its stream or its whole connection.
    if "status" not in form and ("reset" in form or "goaway" in form):
        return {"ended": True}
    if "fields" in result:
        form["fields"] = fields(result["fields"])
    if result.get("trailers"):
        form["trailers"] = fields(result["trailers"])
    if result.get("interims"):
        form["interims"] = [[status, fields(pairs)] for status, pairs in result["interims"]]
    if result.get("took", 0) >= SLOW:
        form["slow"] = True
    if "body" in result:
        body = base64.b64decode(result["body"])
        seen = told(body)
        if seen is None:
            form["body"] = body.decode("latin-1") if len(body) < 2000 else f"{len(body)} bytes"
        else:
            # Its length follows from what it tells.
            form["fields"] = [pair for pair in form.get("fields", []) if pair[0] != "content-length"]
            form["upstream"] = seen["upstream"]
            form["protocol"] = seen["protocol"]
            form["tries"] = seen["tries"]
            form["content"] = seen["body"]
            form["request-trailers"] = sorted(seen["trailers"])
            form["head"] = head(seen["head"])
    return form


def told(body):
    """What the service said it received; `None` when the answer is not its own."""
    if body[:1] == b"\0":  # a message of gRPC
        body = body[5:]
    if not body.startswith(b'{"upstream"'):
        return None
    return json.loads(body)


def differences(case, results, logs):
    """What two engines did differently; `results` and `logs` by engine, the real Envoy first."""
    (one, first), (other, second) = results.items()
    if case.compare == "share":
        return shares(first, second)
    found = []
    for number, (left, right) in enumerate(zip(first, second)):
        left, right = normal(left), normal(right)
        for key in sorted(left.keys() | right.keys()):
            if key not in case.apart and left.get(key) != right.get(key):
                where = f"#{number + 1} " if case.repeat > 1 else ""
                found.append(f"{where}{key}: {difference(left.get(key), right.get(key), one, other)}")
    if case.kind != "tcp" and case.repeat == 1:
        found += logged(case, *(logs[engine].get(case.id, []) for engine in (one, other)), one, other)
    return found


def difference(left, right, one, other):
    if isinstance(left, list) and isinstance(right, list):
        only = [entry for entry in left if entry not in right]
        more = [entry for entry in right if entry not in left]
        if only or more:
            return f"only {one} {json.dumps(only)}; only {other} {json.dumps(more)}"
    return f"{one} {json.dumps(left)}; {other} {json.dumps(right)}"


def logged(case, left, right, one, other):
    """What the access logs of the first hop say."""
    found = []
    for key in ("status", "flags", "cluster", "route", "details", "protocol"):
        a, b = ([entry(record, key) for record in records] for records in (left, right))
        if key not in case.apart and sorted(a) != sorted(b):
            found.append(f"log {key}: {one} {a}; {other} {b}")
    return found


def entry(record, key):
    """A value of a record; flags come in the order in which they were raised."""
    value = str(record.get(key))
    return ",".join(sorted(value.split(","))) if key == "flags" else value


def shares(first, second):
    counts = []
    for results in (first, second):
        forms = [normal(result) for result in results]
        counts.append(collections.Counter(form.get("upstream", form.get("status")) for form in forms))
    total = len(first)
    found = []
    for key in sorted(counts[0].keys() | counts[1].keys(), key=str):
        left, right = counts[0][key] / total, counts[1][key] / total
        if abs(left - right) > SHARE_TOLERANCE or (left == 0) != (right == 0):
            found.append(f"share of {key}: {left:.2f} and {right:.2f}")
    return found
