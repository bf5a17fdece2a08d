# On a fresh machine `make demo` and `make test` each do everything, installation included.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint coverage

demo: $(READY)
	$(BIN)/nasbench-at study run block-ensemble --config demo.yaml --ways at --seeds 0 1 \
	  --name demo --workers 2
	$(BIN)/nasbench-at report runs/studies/demo --title "A DS-Net, its weights and its blocks"

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
