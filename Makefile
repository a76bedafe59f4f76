# Fresh machine: `make demo` or `make test`. Needs Python 3.11, a C++ compiler and a package index.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One stamp per kind of build: asking for another kind builds again.
HOROVOD_READY := $(VENV)/.horovod-$(or $(HOROVOD_GPU_OPERATIONS),cpu)
DEMO_DIR ?= demo
WORKERS ?= $(shell nproc)

.DEFAULT_GOAL := help
.PHONY: help setup horovod demo test test-slow lint types fmt bench docs config-check clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: $(READY)  ## Create .venv with the tested pins

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	touch $@

horovod: $(HOROVOD_READY)  ## Build Horovod into .venv, about 5 CPU minutes; HOROVOD_* variables are passed on

$(HOROVOD_READY): $(READY) requirements-horovod.txt scripts/build_horovod.sh
	scripts/build_horovod.sh $(VENV)
	rm -f $(VENV)/.horovod-*
	touch $@

demo: $(READY)  ## Simulate, build, train, evaluate, plot and export, 4 to 15 minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" WORKERS=$(WORKERS) scripts/demo.sh $(DEMO_DIR)

test: lint types config-check horovod  ## All checks and tests but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: horovod  ## The slow tests
	$(BIN)/python -m pytest -m slow

lint: $(READY)  ## ruff, the import layers, declared dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry mlpf

types: $(READY)  ## mypy
	$(BIN)/mypy

config-check: $(READY)  ## Validate every shipped configuration
	$(BIN)/mlpf config check parameters/*.yaml

fmt: $(READY)  ## Format and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Throughput of every stage, speed and memory of the models, engine, searches
	$(BIN)/python scripts/bench.py
	$(BIN)/python scripts/bench_models.py
	$(BIN)/python scripts/bench_engine.py
	$(BIN)/python scripts/bench_hypertune.py --only idle --only start

docs: $(READY)  ## Rebuild the generated pages in docs/
	$(BIN)/python scripts/generate_docs.py

clean:  ## Remove what the targets made, but not .venv
	rm -rf $(DEMO_DIR) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
