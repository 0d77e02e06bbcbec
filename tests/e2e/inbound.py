"""What a workload receives goes through its sidecar, in every mode of mutual TLS."""

from machine import alone
from mesh import HERE


def modes_on_the_wire(options):
    """STRICT, PERMISSIVE and DISABLE hold on the wire, for our sidecar and a real Envoy on either side."""
    return alone(HERE / "inbound_world.py", "--bin-dir", options.bin_dir)


ALL = [modes_on_the_wire]
