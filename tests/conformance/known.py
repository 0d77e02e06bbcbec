"""Differences from a real Envoy that are meant: a pattern of case ids, and why.

The reason is for the reader of the table; ARCHITECTURE.md tells the larger ones at length.
"""

DIFFERENT = {
}
