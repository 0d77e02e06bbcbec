#!/usr/bin/env python3
"""Speaks TLS to a gateway with a certificate and a key that need not belong together.

In:    an address, a server name, a chain and a key.
Out:   one line: what the other side sent, or how it refused.
Never: checks the other side; an impostor has no reason to.
"""

import argparse
import pathlib
import socket
import ssl

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.errors import TLSError

WITHIN = 10  # seconds


def speak(options):
    with socket.create_connection((options.host, options.port), WITHIN) as stream:
        connection = TLSConnection(stream)
        chain = key = None
        if options.chain:
            chain = X509CertChain()
            chain.parsePemList(pathlib.Path(options.chain).read_text())
            key = parsePEMKey(pathlib.Path(options.key).read_text(), private=True)
        settings = HandshakeSettings()
        # Certificates are sent as they are: the other side does not offer to read them compressed.
        settings.certificate_compression_send = settings.certificate_compression_receive = []
        connection.handshakeClientCert(chain, key, serverName=options.sni, settings=settings,
                                       alpn=[name.encode() for name in options.alpn])
        # A server of TLS 1.3 refuses a client's certificate after the client believes all is done.
        connection.sendall(hello(options.inner) if options.inner else options.send.encode() + b"\n")
        answer = connection.recv(4096)
        return f"answered: {bytes(answer)!r}" if answer else "closed without an answer"


def hello(name):
    """The first bytes of TLS for a name, which need not be the one outside."""
    context = ssl.create_default_context()
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--sni")
    parser.add_argument("--chain")
    parser.add_argument("--key")
    parser.add_argument("--alpn", nargs="*", default=["istio"])
    parser.add_argument("--send", default="ping")
    parser.add_argument("--inner", help="begin TLS inside, for this name")
    options = parser.parse_args()
    try:
        print(speak(options))
    except (TLSError, OSError) as error:
        print(f"refused: {type(error).__name__} {error}")


if __name__ == "__main__":
    main()
