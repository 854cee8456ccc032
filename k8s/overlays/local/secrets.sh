#!/bin/sh
# Makes the secrets of the local overlay in the namespace `causeway`, once. Needs kubectl, openssl and causewayctl.
set -eu
deployment=${1:-messenger.example}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
umask 077
cd "$folder"
causewayctl keys new-root root.key
noise=$(causewayctl keys new-noise noise.key)
causewayctl keys certify --root-key-file root.key --deployment "$deployment" --noise-public "$noise" --days 90 --out certificate
openssl rand -hex 24 | tr -d '\n' >operator.token
openssl rand 32 >ticket.key
openssl rand -hex 24 | tr -d '\n' >password
create() { kubectl --namespace causeway create secret generic "$@"; }
create causeway-edge-keys --from-file=noise.key --from-file=certificate
create causeway-operator --from-file=operator.token
create causeway-media --from-file=ticket.key
create causeway-redis --from-file=password
# What clients pin. In production the root's secret half is made and kept offline.
create causeway-root --from-file=root.key --from-file=root.key.pub
