# `make demo` and `make test` do all the set-up they need; everything lands in .venv and .build.
.DEFAULT_GOAL := help
.PHONY: help demo fleet-demo test soak check docs bench format proto clean
MAKEFLAGS += --no-print-directory
BIN := .venv/bin

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml scripts/venv
	@scripts/venv

demo: .venv/installed  ## wire the example configuration up in namespaces of its own, prove traffic, show the picture
	@$(BIN)/vethctl demo

fleet-demo: .venv/installed  ## etcd, a container engine and an agent, all private: wire three containers, restart one
	@scripts/install etcd:etcd-server dockerd:docker.io busybox:busybox-static
	@PATH=$$PATH:/usr/sbin:/sbin $(BIN)/python examples/fleet/demo.py

test: .venv/installed  ## every test, in private namespaces, and the coverage of the core
	@scripts/test $(ARGS)

soak: .venv/installed  ## an agent with 500 interfaces, killed and meddled with, for SECONDS (600)
	@VETHLIB_SOAK=$(or $(SECONDS),600) $(BIN)/python -m pytest -q -s tests/live/test_agent_soak.py

check: .venv/installed  ## lint, format, types and import rules
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check . || { echo 'not formatted: make format'; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .build/imports.txt || { cat .build/imports.txt; exit 1; }
	@echo 'check: lint, format, types and import rules hold'

docs: .venv/installed  ## the documentation as HTML, with the reference, in .build/docs
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html -d .build/doctrees docs .build/docs
	@echo 'docs: .build/docs/index.html'

bench: .venv/installed  ## measure vethlib beside its peers and beside what the kernel costs
	@$(BIN)/python -m benchmarks $(ARGS)

format: .venv/installed  ## bring the code into shape
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

proto: .venv/installed  ## generate the code of the northbound model and of etcd's messages again
	@# An old protoc on purpose: its code runs on every protobuf that pyproject.toml admits.
	@test -x .build/proto/bin/python || python3 -m venv .build/proto
	@.build/proto/bin/pip install -qq grpcio-tools==1.71.2
	@.build/proto/bin/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--python_out=. --mypy_out=quiet:. vethlib/agent/northbound.proto vethlib/agent/stores/etcd/etcd.proto

clean:  ## remove all that was made
	@rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
