"""Certificates that no mesh ever issued, made with openssl.

In:    a directory to work in.
Out:   for each forgery a chain and a key, as files.
Never: touches the mesh's own authority.
"""

import pathlib
import subprocess

SPIFFE = "URI:spiffe://{domain}/ns/{namespace}/sa/{account}"


def openssl(*arguments, directory):
    done = subprocess.run(["openssl", *map(str, arguments)], cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")


def key(path):
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path, directory=path.parent)


def authority(directory, name="forged-root"):
    """A root that calls itself as the mesh's does."""
    root = directory / f"{name}.pem"
    key(directory / f"{name}.key")
    openssl("req", "-x509", "-new", "-key", f"{name}.key", "-out", root.name, "-days", "30",
            "-subj", "/O=cluster.local", "-addext", "basicConstraints=critical,CA:true",
            "-addext", "keyUsage=critical,keyCertSign", directory=directory)
    return root


def leaf(directory, name, identity, signed_by=None, days=1):
    """A leaf for an identity (domain, namespace, account), self-signed where nobody signs.

    A negative number of days makes one that has ended."""
    san = SPIFFE.format(**dict(zip(("domain", "namespace", "account"), identity)))
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName=critical,{san}\nextendedKeyUsage=clientAuth,serverAuth\n"
                          "keyUsage=critical,digitalSignature\n")
    key(directory / f"{name}.key")
    openssl("req", "-new", "-key", f"{name}.key", "-subj", "/", "-out", f"{name}.csr", directory=directory)
    issuer = ["-CA", f"{signed_by}.pem", "-CAkey", f"{signed_by}.key", "-CAcreateserial"] if signed_by else [
        "-signkey", f"{name}.key"]
    openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", days, *issuer,
            "-extfile", extensions.name, directory=directory)
    return directory / f"{name}.pem", directory / f"{name}.key"


def request(directory, name, identity):
    """A signing request that asks for an identity."""
    san = SPIFFE.format(**dict(zip(("domain", "namespace", "account"), identity)))
    key(directory / f"{name}.key")
    openssl("req", "-new", "-key", f"{name}.key", "-subj", "/", "-addext", f"subjectAltName=critical,{san}",
            "-out", f"{name}.csr", directory=directory)
    return pathlib.Path(directory / f"{name}.csr")


def site(directory, name, host, signed_by):
    """A site's certificate and key."""
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{host}\n")
    key(directory / f"{name}.key")
    openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={host}", "-out", f"{name}.csr", directory=directory)
    openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "1", "-CA", f"{signed_by}.pem",
            "-CAkey", f"{signed_by}.key", "-CAcreateserial", "-extfile", extensions.name, directory=directory)
    return directory / f"{name}.pem", directory / f"{name}.key"
