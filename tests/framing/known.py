"""Differences that are meant, each with its reason; an entry that no longer differs ends the run with 1."""

# (case, what it was compared with): reason
REQUESTS = {
    ("mutation 100 of target http://a.test?x", "envoy"):
        "Envoy answers 404 to a target without a path; we write the slash, and refuse the second empty line behind the head",
}
ANSWERS = {}
