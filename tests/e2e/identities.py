"""Who an HTTPS client is at the gateway: its bytes travel inside of the mesh's TLS."""

from mesh import Mesh, expect, wait_until

# What the main job's manifests need so that the gateway knows the workload behind an HTTPS client.
EDITS = {
    "istio/gateway.yaml": (
        "  namespace: egress\n",
        "  namespace: egress\n  annotations: {sluis.dev/inner-tls: accept}\n"),
    "istio/destination-rule-gateway.yaml": ("mode: SIMPLE", "mode: ISTIO_MUTUAL"),
}

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who, namespace: egress}
spec:
  selector: {matchLabels: {istio: egressgateway}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/team-a/sa/ACCOUNT]}}]
"""


def https_clients_have_an_identity(options):
    """An unmodified HTTPS client is known by its workload at the gateway, inside of the mesh's TLS."""
    with Mesh(options.bin_dir) as mesh:
        for name, (old, new) in EDITS.items():
            path = mesh.manifests / name
            text = path.read_text()
            expect(text.count(old) == 1, f"{name} of the example has changed")
            path.write_text(text.replace(old, new))
        policy = mesh.manifests / "istio/policy.yaml"

        def answers(account, what):
            policy.write_text(POLICY.replace("ACCOUNT", account))
            said = []

            def ask():
                done = mesh.client()
                said.append(done.stdout + done.stderr)
                return what in said[-1]

            try:
                wait_until(f"{what} for {account}", ask)
            except AssertionError as error:
                raise type(error)(f"{error}; last: {said[-1][-500:]}") from None

        answers("notebook", "200")
        answers("somebody-else", "403")
        answers("notebook", "200")
        expect(mesh.requests() >= 2, "the API has not seen the requests")
        return [f"{mesh.requests()} requests reached the API"]


ALL = [https_clients_have_an_identity]
