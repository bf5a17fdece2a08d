# On a fresh machine `make demo` and `make test` each do everything, installation included.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint coverage

demo: $(READY)
	run=$$($(BIN)/nasbench-at train --config demo.yaml | tee >(cat >&2) | tail -n 1) && \
	$(BIN)/nasbench-at evaluate $$run --aa-samples 100

test: $(READY)
	$(BIN)/pytest

coverage: $(READY)
	$(BIN)/pytest -m "not gpu and not network" --cov

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
