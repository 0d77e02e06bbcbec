#!/bin/sh
# setup.sh DIR: a CA (ca.pem) and the certificate of *.ibm.com (site.pem, site.key) in DIR.
set -eu
mkdir -p "$1" && cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=example CA" \
    -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=ibm.com" \
    -keyout site.key -out site.csr 2>/dev/null
echo "subjectAltName=DNS:*.ibm.com" >site.ext
openssl x509 -req -in site.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile site.ext \
    -out site.pem 2>/dev/null
