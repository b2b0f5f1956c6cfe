# SPDX-License-Identifier: MIT
# make demo    see it work: sets up .venv and build/ in this checkout
# make test    all tests that this machine can run
# make help    the other targets

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check -q

SOURCES := $(shell git ls-files sdk meson.build pyproject.toml 2>/dev/null || find sdk meson.build pyproject.toml -type f)

CORE       := $(wildcard sdk/core/src/*.c)
C_EXAMPLES := $(patsubst examples/c/%.c,build/examples/c/%,$(wildcard examples/c/*.c))

.DEFAULT_GOAL := help
.PHONY: help demo examples test test-deps lint bench fuzz soak clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.uoa ## who is the client? four families, real sockets, a private namespace
	@$(BIN)/uoa demo

examples: $(C_EXAMPLES) ## the examples in C, in build/examples/c, with libuoa linked in

test: $(VENV)/.tox ## the tox matrix, as far as this machine goes
	@.ci/test-deps --if-allowed
	@TOX_DISCOVER="$$(.ci/pythons)" $(BIN)/tox run

test-deps: ## install the distribution's packages that tests need (root)
	@.ci/test-deps --install

lint: $(VENV)/.tox ## formatting, types, and what compilers warn of
	@$(BIN)/tox run -e lint

bench: $(VENV)/.tox ## the figures of docs/performance.md, as JSON in build/bench.json
	@$(BIN)/tox run -e bench

fuzz: $(VENV)/.tox ## 10 million executions each of the fuzzer and of the comparison
	@UOA_FUZZ_CASES=10000000 UOA_FUZZ_EXAMPLES=20000 $(BIN)/tox run -e fuzz

soak: $(VENV)/.tox ## hostile traffic, ten minutes against an endpoint and as long against each adapter
	@UOA_SOAK_DATAGRAMS=30000000 UOA_SOAK_SECONDS=600 $(BIN)/tox run -e soak

clean: ## remove what the targets above have made
	rm -rf $(VENV) .tox build

build/examples/c/%: examples/c/%.c $(CORE) $(wildcard sdk/core/src/*.h sdk/core/include/uoa/*.h)
	@mkdir -p $(@D)
	@echo "building $@ ..."
	@$(CC) -std=c11 -D_DEFAULT_SOURCE -O2 -fno-strict-aliasing -Isdk/core/include -pthread -o $@ $< $(CORE)

$(VENV)/bin/python:
	@.ci/needs $(PYTHON)
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.uoa: $(VENV)/bin/python $(SOURCES)
	@echo "building uoa ..."
	@mkdir -p build/wheel
	@$(PIP) install --force-reinstall --no-deps --config-settings=build-dir=build/wheel .
	@$(PIP) install "cffi>=2.1,<3"
	@touch $@

$(VENV)/.tox: $(VENV)/bin/python
	@$(PIP) install "tox>=4.23,<5"
	@touch $@
