# `make demo` and `make test` are all that a newcomer needs; each installs what is missing.
.PHONY: demo run test fmt build setup help
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## build everything and watch two people on two messengers talk
	@tools/setup.sh build
	@echo "building (the first time takes some minutes) ..."
	@cargo build --locked -p causeway -p causewayctl -p causeway-sandbox -p causeway-demo
	@target/debug/causeway-demo

run: ## leave a system running and print how to chat with it from two terminals
	@tools/setup.sh build
	@echo "building (the first time takes some minutes) ..."
	@cargo build --locked -p causeway -p causewayctl -p causeway-sandbox -p causeway-demo
	@target/debug/causeway-demo --stay

test: ## every check and every test
	@tools/setup.sh test
	@tools/check.sh

build: ## build all binaries in the profile of the tests
	@tools/setup.sh build
	@cargo build --locked --workspace

fmt: ## format the code
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml
