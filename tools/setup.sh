#!/usr/bin/env bash
# Installs what is missing: `tools/setup.sh build` for building and the demo, `tools/setup.sh test` for all checks as well,
# `tools/setup.sh peers` for comparing with other servers.
# Needs Rust (cargo) and, for what Debian packages, root or sudo. Does nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."
want=${1:-build}

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust (the toolchain in rust-toolchain.toml) and run this again" >&2
    exit 1
fi

packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need cc gcc
need g++ g++
need make make
need protoc protobuf-compiler # libsignal's build script runs it
if [ "$want" = test ]; then
    need python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
    need openssl openssl
    [ -x /usr/sbin/nginx ] || need nginx nginx-light # a TLS proxy; run by a test, never as a system service
    [ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || need ip iproute2
    need node nodejs
    need npm npm
    # Real stores for tests: they run from the installed programs, each in a folder of its own, never as system services.
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || need postgres postgresql
    need redis-server redis-server
    need promtool prometheus # promtool, and the server, which a test runs in a folder of its own
    need setpriv util-linux
    need kill procps
    need valgrind valgrind # counts instructions and allocations of the core paths
fi
if [ "$want" = peers ]; then
    # Servers to compare with: the load generator runs them in folders of their own, never as system services.
    [ -x /usr/sbin/ejabberdctl ] || need ejabberdctl ejabberd
    # What ejabberd speaks PostgreSQL with.
    compgen -G '/usr/lib/*/p1_pgsql-*' >/dev/null || compgen -G '/usr/lib/erlang/lib/p1_pgsql-*' >/dev/null || need p1_pgsql erlang-p1-pgsql
    [ -x /usr/sbin/mosquitto ] || need mosquitto mosquitto
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || need postgres postgresql
    need setpriv util-linux
    need kill procps
fi
if [ ${#packages[@]} -gt 0 ]; then
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: please install as root: ${packages[*]}" >&2; exit 1; }
        as_root=sudo
    fi
    echo "setup: installing ${packages[*]}"
    $as_root apt-get update -qq
    # Debian's packages start their servers as they are installed, unless this file says no. Left as it was afterwards.
    policy=/usr/sbin/policy-rc.d
    ours=no
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod +x $policy
        ours=yes
        trap '$as_root rm -f $policy' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    if [ $ours = yes ]; then
        # Nor are they to start with the machine.
        for service in postgresql redis-server nginx prometheus ejabberd mosquitto; do
            case " ${packages[*]} " in
                *" $service "* | *" $service-light "*) $as_root systemctl disable --quiet $service >/dev/null 2>&1 || true ;;
            esac
        done
        $as_root rm -f $policy
        trap - EXIT
    fi
fi

if [ "$want" = test ]; then
    # Python programs of the checks and tests, in a folder of their own.
    if ! cmp -s tools/policy/requirements.txt .tools/python/requirements.txt; then
        echo "setup: installing the Python programs of the checks"
        rm -rf .tools/python
        python3 -m venv .tools/python
        .tools/python/bin/pip install --quiet --disable-pip-version-check --no-deps -r tools/policy/requirements.txt
        cp tools/policy/requirements.txt .tools/python/
    fi
    # Tools of the checks, built once per machine. Debug builds: they are quick to build and fast enough.
    if ! cargo nextest --version >/dev/null 2>&1; then
        echo "setup: building cargo-nextest (some minutes, once)"
        cargo install cargo-nextest --version '^0.9.140' --locked --quiet --debug
    fi
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "setup: building cargo-deny (some minutes, once)"
        cargo install cargo-deny --version '^0.20' --locked --quiet --debug
    fi
fi
