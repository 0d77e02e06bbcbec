"""Certificates of a minute are renewed, again and again, while requests flow."""

import json
import time

from mesh import GATEWAY, Mesh, NOTEBOOK, expect, wait_until

LIFE = 60  # seconds
RENEWALS = 2  # to be seen for each proxy; at half life each
LONG = 180  # seconds under load with --long
LATE = 30  # seconds that a renewal may be later than half life, on a busy machine


def renewed(options):
    """Certificates that live a minute are renewed under load, and no request fails."""
    with Mesh(options.bin_dir, up=("--certificate-life", f"{LIFE}s")) as mesh:
        seen = {GATEWAY: [], NOTEBOOK: []}
        pids, began = mesh.pids(), time.monotonic()
        until = began + (LONG if options.long else 0)

        def look():
            """Notes each serial number that a proxy holds."""
            for workload, serials in seen.items():
                serial = next(secret["serial"] for secret in mesh.show("secrets", workload)["secrets"]
                              if secret["name"] == "default")
                if serial not in serials:
                    serials.append(serial)
            enough = all(len(serials) > RENEWALS for serials in seen.values())
            if not enough or time.monotonic() < until:
                time.sleep(1)  # a look starts two processes: the load has the machine
                return False
            return True

        with mesh.load() as load:
            wait_until(f"{RENEWALS} renewals of each: {seen}", look, max(LONG, RENEWALS * LIFE / 2) + LATE)
            load.wait_for_good(20, time.monotonic())
        expect(mesh.pids() == pids, "a proxy was started anew")
        expect(mesh.in_sync(), "a proxy is not in sync")
        lasted = time.monotonic() - began
        issued = [json.loads(line) for line in (mesh.state / "ca/issued.jsonl").read_text().splitlines()]
        known = {one["serial"] for one in issued}
        expect(all(set(serials) <= known for serials in seen.values()), "a serial that the CA does not know")
        counts = ", ".join(f"{workload} {len(serials) - 1}" for workload, serials in seen.items())
        return [f"{lasted:.0f} s: {load.expect_no_failure(500)}", f"renewals seen: {counts}"]


ALL = [renewed]
