#!/bin/sh
# Makes the keys, certificates and passwords of a trial below a folder ($1), one folder for each of those who read them. What is
# there already stays. Needs causewayctl and openssl; as root, it gives the files to the users who run the containers.
set -eu
secrets=$1
deployment=messenger.example
umask 077
cd "$secrets"
mkdir -p edge routing key-directory media-relay postgres redis s3 front operator public root
if [ -e public/ready ]; then
    echo "prepare: everything is there"
    exit 0
fi

# What clients pin, and the edges' own key. In production the root is made and kept on another machine.
rm -f root/root.key edge/noise.key
causewayctl keys new-root root/root.key >/dev/null
noise=$(causewayctl keys new-noise edge/noise.key)
causewayctl keys certify --root-key-file root/root.key --deployment $deployment --noise-public "$noise" --days 90 \
    --out edge/certificate
cp root/root.key.pub public/root.key.pub

# Mutual TLS between the services: a certificate a role, for the names that are in the others' *_urls.
rm -rf root/tls && causewayctl keys new-tls-ca root/tls --trust-domain $deployment
certificate() { # role, folder, names
    role=$1 folder=$2
    shift 2
    rm -rf "$folder/tls"
    causewayctl keys new-tls-certificate --ca root/tls --trust-domain $deployment --role "$role" "$@" "$folder/tls"
}
certificate edge edge --name edge-1 --name edge-2
certificate routing routing --name routing-1 --name routing-2
certificate key-directory key-directory --name key-directory-1 --name key-directory-2
certificate media-relay media-relay --name media-relay-1
certificate operator-tool operator

# Passwords and tokens.
random() { openssl rand -hex 24 | tr -d '\n'; }
postgres=$(random) redis=$(random) token=$(random) id=$(random) key=$(random)
for reader in routing key-directory postgres; do printf %s "$postgres" >$reader/postgres.password; done
for reader in edge routing key-directory media-relay; do printf %s "$redis" >$reader/redis.password; done
for reader in key-directory operator; do printf %s "$token" >$reader/operator.token; done
openssl rand 32 >media-relay/ticket.key
printf %s "$id" >media-relay/s3.id
printf %s "$key" >media-relay/s3.secret
cat >redis/redis.conf <<CONF
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy noeviction
requirepass $redis
CONF
cat >s3/s3.json <<CONF
{"identities": [{"name": "causeway", "credentials": [{"accessKey": "$id", "secretKey": "$key"}],
  "actions": ["Read:causeway-media", "Write:causeway-media", "List:causeway-media", "Tagging:causeway-media"]}]}
CONF

# Public TLS, as an authority that clients trust would give it: for media, WebSocket and the stand-in providers.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=causeway trial" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout root/public-ca.key -out public/ca.crt 2>/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=messenger.example" \
    -CA public/ca.crt -CAkey root/public-ca.key -addext basicConstraints=critical,CA:FALSE \
    -addext subjectAltName=DNS:media.messenger.example,DNS:edge.messenger.example,DNS:home.example,DNS:birdy.example \
    -addext extendedKeyUsage=serverAuth -keyout front/tls.key -out front/tls.crt 2>/dev/null

chmod -R u=rwX,go= .
chmod -R go=rX public
if [ "$(id -u)" = 0 ]; then
    for reader in edge routing key-directory media-relay front operator s3; do chown -R 65532:65532 $reader; done
    chown -R 999:999 redis postgres
fi
touch public/ready
echo "prepare: made keys, certificates and passwords"
