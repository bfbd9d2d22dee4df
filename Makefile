# One environment, .venv, made on first need with the versions in constraints.txt; every target sets itself up.
#   PYTHON=python3.12 make setup       another interpreter, 3.11 or newer
#   make quickstart ARGS='--seed 1'    arguments for the command
#   make test ARGS='-k replay'         arguments for pytest
PYTHON ?= python3
ARGS ?=
# Arguments for pip: a machine that needs a certain build of torch names its wheel directory here or in pip.conf.
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# -qq shows errors only.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq $(PIP_ARGS) -c constraints.txt
# One torch thread per process: parallelism comes from processes, and results do not depend on the machine.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow check format bench docs wheel clean

help:
	@echo 'make setup        create or update .venv (needs Python 3.11 or newer)'
	@echo 'make quickstart   SFT, rollouts, TraceRL, evaluation and a report on a tiny model; arguments in ARGS'
	@echo 'make test         the tests that take seconds'
	@echo 'make test-slow    the tests that take minutes'
	@echo 'make check        style, types, layers, size budgets'
	@echo 'make format       rewrite the code in house style'
	@echo 'make bench        methods and speed, over three seeds'
	@echo 'make docs         build the documentation into site/'
	@echo 'make wheel        build dist/'
	@echo 'make clean        remove what was built (neither .venv nor runs)'

setup: $(VENV)/.installed

# The stamp is written last, so an interrupted installation is taken up again and a finished one costs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' on this machine; set PYTHON to a Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: revelm needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); set PYTHON, e.g. make setup PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo 'installing the pinned versions into $(VENV), a minute or two'
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[dev,docs]'
	@touch $@

quickstart: setup
	$(BIN)/revelm quickstart --out runs/quickstart --resume $(ARGS)

test: setup
	$(PYTEST) -n 2 -m 'not slow and not gpu' $(ARGS)

test-slow: setup
	$(PYTEST) -n 2 --dist loadgroup -m 'slow and not gpu' $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) tests/unit/test_budgets.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.run $(ARGS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: setup
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard src tests benchmarks examples) -type d -name __pycache__ -prune -exec rm -rf {} +
