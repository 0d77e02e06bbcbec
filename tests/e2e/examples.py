"""The other examples: each with our proxy, and with a real Envoy in its places."""

import sys

from demos import table
from mesh import EXAMPLE


def demo(options, example, *arguments):
    command = [sys.executable, EXAMPLE.parent / example / "demo.py", "--bin-dir", options.bin_dir]
    return table([*command, *arguments])


def tls_origination(options):
    """An application that says http is served over https, and the redirect is gone."""
    return demo(options, "tls-origination")


def tls_origination_by_envoy(options):
    """The same with a real Envoy beside the application."""
    return demo(options, "tls-origination", "--sidecar", "envoy")


def traffic_split(options):
    """Of 10,000 requests the gateway sends 80 % to one version and 20 % to the other."""
    return demo(options, "traffic-split")


def traffic_split_by_envoy(options):
    """The same with a real Envoy as the gateway."""
    return demo(options, "traffic-split", "--gateway", "envoy")


def egress_policy(options):
    """Each application reaches the hosts that policies give it, by two hands, and the logs tell the rule."""
    return demo(options, "egress-policy")


def egress_policy_by_envoy(options):
    """The same with real Envoys everywhere."""
    return demo(options, "egress-policy", "--sidecar", "envoy", "--gateway", "envoy")


def credential_grant(options):
    """A declared credential signs request and body, for the identity that it is granted to alone."""
    return demo(options, "credential-grant")


def hsm(options):
    """Raw TCP reaches the HSM through the gateway by mutual TLS, for labelled workloads only."""
    return demo(options, "hsm-egress")


def hsm_by_envoy(options):
    """The same with real Envoys everywhere."""
    return demo(options, "hsm-egress", "--sidecar", "envoy", "--gateway", "envoy")


def hsm_mixed(options):
    """The same with our sidecars and a real Envoy as the gateway."""
    return demo(options, "hsm-egress", "--gateway", "envoy")


ALL = [
    credential_grant,
    tls_origination, tls_origination_by_envoy, traffic_split, traffic_split_by_envoy, egress_policy,
    egress_policy_by_envoy, hsm, hsm_by_envoy, hsm_mixed,
]
