#!/bin/sh
# Makes what the example needs in the given directory: keys, certificates, a user's token.
# Writes nothing anywhere else. Usage: setup.sh DIR
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
run=${1:?usage: setup.sh DIR}
mkdir -p "$run"
cd "$run"
mkdir -p ca egress-certs egress-secrets api client lua

# ca NAME: a certificate authority of its own.
ca() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -keyout "ca/$1.key" -out "ca/$1.crt" -subj "/CN=$1 CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
        2>/dev/null
}
# leaf CA DIR: a server certificate for api.data.local.
leaf() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout "$2/tls.key" -out "$2/tls.csr" -subj /CN=api.data.local 2>/dev/null
    printf 'subjectAltName=DNS:api.data.local\nextendedKeyUsage=serverAuth\n' >"$2/tls.ext"
    openssl x509 -req -in "$2/tls.csr" -CA "ca/$1.crt" -CAkey "ca/$1.key" -CAcreateserial \
        -days 30 -extfile "$2/tls.ext" -out "$2/tls.crt" 2>/dev/null
    rm "$2/tls.csr" "$2/tls.ext"
}

# The platform's CA signs what the gateway shows to clients; the API's own CA signs the API.
ca platform
ca api
leaf platform egress-certs
leaf api api

# What the gateway has: the API's CA to verify it by, and the platform's keys.
cp ca/api.crt egress-secrets/api-ca.crt
openssl rand -hex 32 | tr -d '\n' >egress-secrets/secret-key
printf 'PLATFORM%s' "$(openssl rand -hex 6)" >egress-secrets/access-key

# What the API has: the same keys, and the key of the identity provider.
printf '{"%s": "%s"}\n' "$(cat egress-secrets/access-key)" "$(cat egress-secrets/secret-key)" \
    >api/clients.json
openssl rand -hex 32 | tr -d '\n' >api/jwt-key

# What the client has: the platform's CA, as on any machine of the platform, and its user's token.
cp ca/platform.crt client/ca.crt
python3 "$here/api/make_jwt.py" --key api/jwt-key --subject alice@example.org >client/user.jwt

cp -R "$here/lua/." lua/
