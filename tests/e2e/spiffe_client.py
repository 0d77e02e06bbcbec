"""An application in a jail: asks py-spiffe for its certificate until that has been renewed; prints JSON.

`spiffe_client.py FOLDER`: FOLDER is that of another workload, of which nothing should be seen.
"""

import json
import os
import pathlib
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient

WITHIN = 60  # seconds


def pem(certificates):
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def main():
    client = WorkloadApiClient()  # where SPIFFE_ENDPOINT_SOCKET says
    first = client.fetch_x509_svid()
    seen, enough = {}, threading.Event()

    def take(context):
        svid = context.default_svid
        roots = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        seen[format(svid.leaf.serial_number, "x")] = (pem(svid.cert_chain), pem(roots.x509_authorities))
        if len(seen) > 1:
            enough.set()

    stream = client.stream_x509_contexts(on_success=take, on_error=lambda error: print(error, file=sys.stderr))
    enough.wait(WITHIN)
    stream.cancel()
    try:
        client.fetch_jwt_svid(audience={"test"})
        jwt = "issued"
    except Exception as error:
        jwt = f"{type(error).__name__}: {error}"
    other = pathlib.Path(sys.argv[1])
    print(json.dumps({
        "id": str(first.spiffe_id), "chain": len(first.cert_chain), "serials": list(seen),
        "chains": [chain for chain, _ in seen.values()], "roots": [roots for _, roots in seen.values()],
        "bundles": len(client.fetch_x509_bundles().bundles), "jwt": jwt,
        "other": os.listdir(other) if other.exists() else [],
    }))
    sys.stdout.flush()
    os._exit(0)  # the stream's thread may wait


if __name__ == "__main__":
    main()
