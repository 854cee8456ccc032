#!/usr/bin/env bash
# Every check and every test, in the order that fails soonest. Prints how long each part took.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

part() {
    local name=$1 from=$SECONDS
    shift
    echo "== $name"
    "$@" || { echo "== $name FAILED after $((SECONDS - from)) s" >&2; exit 1; }
    echo "== $name: $((SECONDS - from)) s"
}

docs() { RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --quiet --locked --workspace --no-deps --document-private-items; }

part "format" cargo fmt --all --check
part "format of the fuzz targets" cargo fmt --manifest-path fuzz/Cargo.toml --check
part "licences, bans, sources" cargo deny --log-level error check bans licenses sources
part "lints" cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
part "documentation" docs
part "Signal's Node library" tests/interop/setup.sh
# Binaries and tests in one go, so that both share their dependencies; the scenarios start this very binary.
part "build" cargo build --quiet --locked --workspace --all-targets
export CAUSEWAY_BIN="$PWD/target/debug/causeway"
# For the test of upgrades (docs/upgrades.md). It shares most of what the build before has made.
earlier() {
    local built result=0
    built=$(tools/earlier.sh) || result=$?
    case $result in
        0) export CAUSEWAY_EARLIER_BIN=$PWD/$built ;;
        3)
            echo "NOTE: without the earlier version, the test of upgrades replaces the present one by itself: it shows less" >&2
            export CAUSEWAY_EARLIER_BIN=$CAUSEWAY_BIN
            ;;
        *) return "$result" ;;
    esac
}
# Causeway's own crates once more, with optimisation; what they depend on is there (tests/costs/optimised.toml).
build_costs() { cargo build --quiet --locked --workspace --bin causeway-costs --config tests/costs/optimised.toml; }
part "build of the core paths, optimised" build_costs
part "costs of the core paths" target/debug/causeway-costs check
part "build of the earlier version" earlier
part "deployment files" .tools/python/bin/python tools/policy/main.py "$CAUSEWAY_BIN"
part "deployment files: what is wrong is found" .tools/python/bin/python -m unittest discover -q -s tools/policy
part "dashboards, alerts, runbooks" .tools/python/bin/python tools/observe/main.py check target/debug
part "dashboards, alerts, runbooks: what is wrong is found" .tools/python/bin/python -m unittest discover -q -s tools/observe
part "deployment of docker-compose.yml, as processes; its Prometheus asked" .tools/python/bin/python tools/policy/locally.py
part "tests" cargo nextest run --locked --workspace --no-fail-fast
# A build without bugs on purpose refuses to be asked for one.
refuses_planted_bugs() {
    local said
    if said=$(CAUSEWAY_PLANTED_BUG=dedup-off "$CAUSEWAY_BIN" check-config --data target/planted-refused 2>&1); then
        return 1
    fi
    [[ $said == *CAUSEWAY_PLANTED_BUG* ]]
}
# Real processes under load and faults, for a little more than two minutes; `make faults` is the long one.
ledger() { target/debug/causeway-faults run --quiet --sdk-accounts 4 --drain 60 --out target/faults "$@"; }
part "no bugs on purpose" refuses_planted_bugs
part "ledger test, scaled" ledger --variant scaled --seed 1 --minutes 1.1 --rate 60 --accounts 40 --pace 4
part "ledger test, one process" ledger --variant one --minutes 0.4 --rate 80 --accounts 40 --pace 3
part "simulation of delivery" target/debug/causeway-simulation run --seeds 200
part "fuzz targets, 5 s each" fuzz/run 5
echo "all checks passed in $SECONDS s"
