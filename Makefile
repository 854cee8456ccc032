# `make demo` and `make test` are all that a newcomer needs; each installs what is missing.
.PHONY: demo demo-compose run test faults planted bench bench-peers costs fmt build setup help
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## build everything and watch two people on two messengers talk
	@tools/setup.sh build
	@echo "building (the first time takes some minutes) ..."
	@cargo build --locked -p causeway -p causewayctl -p causeway-sandbox -p causeway-demo
	@target/debug/causeway-demo

demo-compose: ## the same story on many services, with Docker Compose (see docs/compose.md)
	@tools/demo-compose

run: ## leave a system running and print how to chat with it from two terminals
	@tools/setup.sh build
	@echo "building (the first time takes some minutes) ..."
	@cargo build --locked -p causeway -p causewayctl -p causeway-sandbox -p causeway-demo
	@target/debug/causeway-demo --stay

test: ## every check and every test
	@tools/setup.sh test
	@tools/check.sh

# Minutes of load and faults on many processes, on one and over a Redis Cluster, messages and files a second, and seconds
# between faults.
# STRICT=1 asserts what a busy machine may miss, too.
VARIANT ?= scaled-standby-sentinel
MINUTES ?= 22
MINUTES_ONE ?= 6
MINUTES_CLUSTER ?= 4
RATE ?= 800
RATE_ONE ?= 1200
PACE ?= 1.1
MEDIA ?= 1
STRICT ?=

faults: ## the long ledger test: load, hundreds of faults, and a report (VARIANT, MINUTES, RATE, PACE, SEED, ...)
	@tools/setup.sh test
	@echo "building with optimisation (the first time takes some minutes) ..."
	@cargo build --locked --release -p causeway -p causeway-faults
	@target/release/causeway-faults run --variant $(VARIANT) --minutes $(MINUTES) --rate $(RATE) --pace $(PACE) \
		--media $(MEDIA) $(if $(STRICT),--strict) $(if $(SEED),--seed $(SEED))
	@target/release/causeway-faults run --variant one --minutes $(MINUTES_ONE) --rate $(RATE_ONE) --pace $(PACE) \
		--media $(MEDIA) $(if $(STRICT),--strict) $(if $(SEED),--seed $(SEED))
	@target/release/causeway-faults run --variant scaled-standby-cluster --minutes $(MINUTES_CLUSTER) --rate $(RATE) \
		--pace $(PACE) --media $(MEDIA) $(if $(STRICT),--strict) $(if $(SEED),--seed $(SEED))

planted: ## plant bugs in the servers, see each found, and keep the table in target/faults/planted.md (BUGS=a,b: only these)
	@tools/setup.sh test
	@cargo build --locked -p causeway -p causeway-simulation \
		--features causeway/planted-bugs,causeway-simulation/planted-bugs
	@mkdir -p target/planted && cp target/debug/causeway target/debug/causeway-simulation target/planted/
	@cargo build --locked -p causeway -p causeway-simulation -p causeway-faults
	@target/debug/causeway-faults planted --binary target/planted/causeway \
		--simulation target/planted/causeway-simulation $(if $(BUGS),--bugs $(BUGS)) \
		--minutes 1.5 --rate 150 --accounts 40 --sdk-accounts 4 --pace 2 --drain 60 --quiet

bench: ## measure what it costs, in less than ten minutes, and write the tables of docs/performance.md (see there)
	@tools/setup.sh test
	@echo "building with optimisation (the first time takes some minutes) ..."
	@cargo build --locked --release -p causeway -p causeway-bench
	@mkdir -p target/bench
	@target/release/causeway-bench standard --json target/bench/report.json --document docs/performance.md

bench-peers: ## measure the same work on Causeway, ejabberd and mosquitto (which it installs), and show the ratios
	@tools/setup.sh test
	@tools/setup.sh peers
	@echo "building with optimisation (the first time takes some minutes) ..."
	@cargo build --locked --release -p causeway -p causeway-bench
	@mkdir -p target/bench
	@target/release/causeway-bench peers --json target/bench/peers.json --document docs/performance.md

# Only these, by their names in tests/costs/figures.toml.
PATHS ?=

costs: ## count what the core paths cost (RECORD=1: and put it on record; PROFILE=path: see where; docs/costs.md)
	@tools/setup.sh test
	@cargo build --quiet --locked --workspace --bin causeway-costs --config tests/costs/optimised.toml
	@target/debug/causeway-costs $(if $(PROFILE),profile $(PROFILE),$(if $(RECORD),record,check) $(PATHS))

build: ## build all binaries in the profile of the tests
	@tools/setup.sh build
	@cargo build --locked --workspace

fmt: ## format the code
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml
