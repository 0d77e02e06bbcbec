#!/bin/sh
# certificates.sh DIR NAME...: a root in DIR/tls/ca.pem, another nobody trusts in DIR/tls/other-ca.pem,
# and for each NAME a certificate DIR/tls/NAME.pem with its key DIR/tls/NAME.key.
set -eu
cd "$1" && mkdir -p tls && cd tls
shift
root() { # FILE NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$2" \
        -keyout "$1.key" -out "$1.pem" 2>/dev/null
}
root ca "conformance root"
root other-ca "another root"
leaf() { # CA NAME FILE
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
        -keyout "$3.key" -out "$3.csr" 2>/dev/null
    printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >"$3.ext"
    openssl x509 -req -in "$3.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 30 \
        -extfile "$3.ext" -out "$3.pem" 2>/dev/null
}
for name; do leaf ca "$name" "$name"; done
leaf other-ca stranger.test stranger
