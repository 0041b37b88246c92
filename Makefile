# Every target installs what it needs first; `make PYTHON=python3.12 install` chooses another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two test workers, one thread each: more threads than cores nearly stall torch.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help install demo test test-slow test-data check lint types layers docs-check constraints clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv and install Bregma with all its parts, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' on the PATH. Bregma needs Python 3.11 or newer: make PYTHON=/path/to/python3 install" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Bregma needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: $(STAMP) ## train, evaluate and measure on simulated images; writes runs/demo/
	$(BIN)/bregma demo

test: $(STAMP) ## quick tests
	$(PYTEST) -m "not slow and not data"

test-slow: $(STAMP) ## tests that take long
	$(PYTEST) -m slow

test-data: $(STAMP) ## tests on real images (BREGMA_DATA names their folder)
	$(PYTEST) -m data

check: test lint types layers docs-check ## all that must pass before a change goes in

lint: $(STAMP) ## style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## static types
	$(BIN)/mypy

layers: $(STAMP) ## imports run downwards only
	$(BIN)/lint-imports

docs-check: $(STAMP) ## run the commands of README.md and docs/
	$(BIN)/python docs/check_commands.py

constraints: $(STAMP) ## pin the versions that are installed now
	@grep '^#' constraints.txt > constraints.new
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ' | sed -E 's/^(torch(vision)?==[^+]*)\+.*/\1/' >> constraints.new
	@mv constraints.new constraints.txt

clean: ## remove the environment and all caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
