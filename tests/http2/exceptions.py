"""Cases of h2spec that fail, each with the reason why that is meant."""

MEANT = {}
