# On a fresh machine `make demo` and `make test` each do everything, installation included.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Tests compute with one thread each; a file's tests share what they trained.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

# The Python of `make gpu`; `make gpu PYTHON_GPU=python3` installs nothing.
PYTHON_GPU ?= $(BIN)/python

.PHONY: demo test slow lint coverage gpu docs

demo: $(READY)
	$(BIN)/nasbench-at study run block-ensemble --config demo.yaml --methods at --seeds 0 1 \
	  --name demo --workers 2
	$(BIN)/nasbench-at query runs/studies/demo --summary
	$(BIN)/nasbench-at report runs/studies/demo --title "A DS-Net, its weights and its blocks"

test: $(READY)
	$(PYTEST)

slow: $(READY)
	$(PYTEST) -m "(slow or postgres) and not gpu and not network"

coverage: export PYTEST_ADDOPTS := --cov --cov-append --cov-report=
coverage: $(READY)
	$(BIN)/coverage erase
	$(MAKE) test slow
	$(BIN)/coverage report

# At most 8 minutes on one GPU; writes gpu.md.
gpu: $(if $(filter $(BIN)/python,$(PYTHON_GPU)),$(READY))
	$(PYTHON_GPU) -m benchmarks.gpu_check --out gpu.md

# Needs no network; a warning is an error. Opens from disk: site/index.html.
docs: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs site
	$(BIN)/nasbench-at report digits --title "NASBench-AT-digits" --out site/report.html

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
