"""The attacks on egress control, tried one by one (root)."""

import subprocess
import sys

from mesh import EXAMPLE, Failed

WITHIN = 300  # seconds; it takes about half a minute on an idle machine


def attacks(options):
    """Every attack of the article is refused, and recorded: straight, past the sidecar, as another."""
    demo = EXAMPLE.parent / "egress-attacks/demo.py"
    done = subprocess.run([sys.executable, demo, "--bin-dir", options.bin_dir],
                          capture_output=True, text=True, timeout=WITHIN, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        bad = [line for number, line in enumerate(lines) if any("BAD" in one[:3] for one in lines[max(0, number - 2):number + 1])]
        raise Failed("\n".join(bad or lines[-20:]) + done.stderr[-3000:])
    return lines[-1:]


ALL = [attacks]
