# SPDX-License-Identifier: Apache-2.0
# Each target does all of its own set-up: a fresh clone needs make, a C compiler and a Python with headers.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter of .venv: the newest usable one, unless named here.
PYTHON ?=
DEMO_FLAGS ?=
BENCH_FLAGS ?=
CPYTHON_FLAGS ?=
SOAK_SECONDS ?= 3600
SOAK_FLAGS ?=
PYTEST_FLAGS ?=

sources := $(shell find src csrc benchmarks/dags -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml README.md
c_files = $(shell find csrc tests/c benchmarks -name '*.[ch]')
python_dirs = src tests benchmarks
in_venv = PATH="$(CURDIR)/.venv/bin:$$PATH"
# cython-lint calls pycodestyle by name, so these need their venv on PATH.
lint format: export PATH := $(CURDIR)/.venv-lint/bin:$(PATH)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12   use this interpreter (default: the newest usable from 3.10 up)"
	@echo "  DEMO_FLAGS= BENCH_FLAGS= CPYTHON_FLAGS= SOAK_FLAGS= PYTEST_FLAGS=   passed on"

# --- what people run

.PHONY: demo
demo: .venv/.lock-demo .venv/.installed ## Airflow's DAG processor over a DAG corpus, stock and with frostfork, in one table
	@$(in_venv) .venv/bin/frostfork demo $(DEMO_FLAGS)

.PHONY: test
test: .venv/.lock-test .venv/.installed ## Every Python test, Airflow and Celery included
	@tools/need-redis
	@$(in_venv) tools/test-halves .venv/bin/python $(PYTEST_FLAGS)

.PHONY: test-c
test-c: .venv/.interpreter ## The C tests, plain and under AddressSanitizer and UBSan
	@tools/test-c "$$(cat .venv/.interpreter)"

.PHONY: test-pythons
test-pythons: ## Unit and integration tests on the built wheel, for each Python that the machine has
	@tools/test-pythons $(PYTEST_FLAGS)

.PHONY: test-sid
test-sid: ## The same in a Debian sid folder with its newest Python (needs root; not part of CI)
	@tools/test-sid $(PYTEST_FLAGS)

.PHONY: test-cpython
test-cpython: ## CPython's own tests, test by test the same warmed, with our context and with our pool (not part of CI)
	@PYTHON=$(PYTHON) tools/test-cpython $(CPYTHON_FLAGS)

.PHONY: test-exit
test-exit: ## A warmed process and its children end without an invalid access: valgrind (not part of CI)
	@PYTHON=$(PYTHON) tools/test-exit

.PHONY: soak
soak: .venv/.lock-test .venv/.installed ## A pool in a storm for SOAK_SECONDS: nothing lost, wrong or left (not part of CI)
	@$(in_venv) .venv/bin/python -m tests.chaos.storm --seconds $(SOAK_SECONDS) $(SOAK_FLAGS)

.PHONY: bench
bench: .venv/.lock-demo .venv/.installed ## The benchmark suite: ratios measured side by side in one run
	@$(in_venv) .venv/bin/python benchmarks/run.py $(BENCH_FLAGS)

.PHONY: warmup-table
warmup-table: ## What a warmup gives on each Python that the machine has: the table in docs/warmup.md (not part of CI)
	@tools/warmup-table

.PHONY: lint
lint: .venv-lint/.lock-lint ## ruff, mypy --strict, clang-format, cython-lint: check only
	ruff check $(python_dirs)
	ruff format --check $(python_dirs)
	mypy
	clang-format --dry-run -Werror $(c_files)
	cython-lint src

.PHONY: format
format: .venv-lint/.lock-lint ## Put Python and C into shape
	ruff check --fix-only $(python_dirs)
	ruff format $(python_dirs)
	clang-format -i $(c_files)

.PHONY: update-locks
update-locks: .venv-tools/.lock-tools ## Renew locks/*.txt from locks/*.in
	@tools/update-locks .venv-tools/bin/uv

.PHONY: changelog
changelog: .venv-tools/.lock-tools ## Turn changes/ into an entry of CHANGELOG.md (for a release)
	.venv-tools/bin/towncrier build --yes --version "$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"

.PHONY: clean
clean: ## Remove everything that make made
	rm -rf build dist .venv .venv-lint .venv-tools .mypy_cache .pytest_cache .ruff_cache

# --- what they stand on

# make-venv touches the file only when it makes the venv anew; FORCE lets it look each time.
.venv/.interpreter .venv-lint/.interpreter .venv-tools/.interpreter: FORCE
	@tools/make-venv $(@D) $(PYTHON)

.PHONY: FORCE
FORCE:

# The test lock holds the demo lock's pins, so both may be in .venv.
.venv/.lock-% .venv-lint/.lock-% .venv-tools/.lock-%: locks/%.txt
	@tools/pip-lock $(@D) $*
	@touch $@

.venv/.lock-demo .venv/.lock-test: .venv/.interpreter
.venv-lint/.lock-lint: .venv-lint/.interpreter
.venv-tools/.lock-tools: .venv-tools/.interpreter

.venv/.installed: .venv/.interpreter $(sources) locks/build.txt
	@wheel=$$(tools/build-wheel "$$(cat .venv/.interpreter)"); \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$$wheel"
	@touch $@
