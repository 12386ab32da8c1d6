# `make demo` and `make test` do all the set-up they need; everything lands in .venv and .build. With PYTHON=python3.13,
# say, any of these is done with that Python, in an environment of its own (.venv-3.13) that leaves .venv alone.
.DEFAULT_GOAL := help
.PHONY: help demo fleet-demo quick test kernels fuzz soak chaos check docs bench format proto clean
MAKEFLAGS += --no-print-directory
VENV := .venv$(if $(PYTHON),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))'))
BIN := $(VENV)/bin
export VENV PYTHON

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml scripts/venv
	@scripts/venv

demo: $(VENV)/installed  ## wire the example configuration up in namespaces of its own, prove traffic, show the picture
	@$(BIN)/vethctl demo

fleet-demo: $(VENV)/installed  ## etcd, a container engine and an agent, all private: wire three containers, restart one
	@scripts/install etcd:etcd-server dockerd:docker.io busybox:busybox-static
	@PATH=$$PATH:/usr/sbin:/sbin $(BIN)/python examples/fleet/demo.py

quick: $(VENV)/installed  ## the tests that need no privilege and take no minute
	@scripts/test --quick $(ARGS)

test: $(VENV)/installed  ## every test, in private namespaces, and the coverage of the core
	@scripts/test $(ARGS)

kernels: $(VENV)/installed  ## the tests on other kernels: VERSIONS='5.10 6.1' SUITES='demo live', ARGS='--help' for more
	@scripts/install-for-tests || echo 'some tests will fail' >&2
	@$(BIN)/python -m scripts.kernels --versions '$(VERSIONS)' --suites '$(SUITES)' $(ARGS)

soak: $(VENV)/installed  ## an agent with 500 interfaces, killed and meddled with, for SECONDS (600)
	@VETHLIB_SOAK=$(or $(SECONDS),600) $(BIN)/python -m pytest -q -s tests/live/test_agent_soak.py

fuzz: $(VENV)/installed  ## strange input for all that reads, for SECONDS (60); ARGS='--help' for more
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

chaos: $(VENV)/installed  ## honest tenants beside hostile ones, for SECONDS (600): what the honest ones notice of it
	@VETHLIB_CHAOS=$(or $(SECONDS),600) $(BIN)/python -m pytest -q -s tests/live/test_agent_chaos.py

check: $(VENV)/installed  ## lint, format, types (including all examples), import rules and wording
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check . || { echo 'not formatted: make format'; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .build/imports.txt || { cat .build/imports.txt; exit 1; }
	@$(BIN)/python -m tests.docs.typed
	@$(BIN)/python scripts/words
	@echo 'check: lint, format, types (including the examples in pages), import rules and wording hold'

docs: $(VENV)/installed  ## the documentation as HTML, with the reference, in .build/docs
	@$(BIN)/python docs/generate.py --check
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html -d .build/doctrees docs .build/docs
	@echo 'docs: .build/docs/index.html'

bench: $(VENV)/installed  ## measure vethlib beside its peers and beside what the kernel costs
	@$(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/installed  ## bring the code into shape
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

proto: $(VENV)/installed  ## generate the code of the northbound model and of etcd's messages again
	@# An old protoc on purpose: its code runs on every protobuf that pyproject.toml admits.
	@test -x .build/proto/bin/python || python3 -m venv .build/proto
	@.build/proto/bin/pip install -qq grpcio-tools==1.71.2
	@.build/proto/bin/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--python_out=. --mypy_out=quiet:. vethlib/agent/config/northbound.proto vethlib/agent/stores/etcd/etcd.proto

clean:  ## remove all that was made
	@rm -rf .venv .venv-* .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
