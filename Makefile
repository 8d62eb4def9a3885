## make reproduce   set up, then the report's comparison and its page   (BUDGET=quick|hour|full DATA=... OUT=runs)
## make test        set up, then lint, types and tests
## make lint        set up, then lint and types alone
## make clean       remove the environment and every cache
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUDGET ?= quick
OUT ?= runs

.PHONY: reproduce test lint clean setup
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^## //p' Makefile

setup: $(VENV)/ready

# Made anew only when the requirements change.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'evonorm needs Python 3.11 or newer; try make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: setup
	$(BIN)/evonorm reproduce --budget $(BUDGET) --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
