# One way in. `make help` lists the targets; each sets up what it needs, and does nothing twice.
PYTHON ?= python3
START := $(shell date +%s)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PARTS := pyproject.toml hatch_build.py constraints.txt agent/pyproject.toml shared/wavegate_shared/__init__.py \
    $(addprefix server/,pyproject.toml hatch_build.py package-lock.json wavegate_server/web/vendor.py)

.DEFAULT_GOAL := help
.PHONY: help demo test setup lint bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.run  ## run the whole life of a model version on 8 devices (DEMO_ARGS='--keep', '--json out.json')
	@$(BIN)/wavegate demo $(DEMO_ARGS)

test: setup  ## run the tests (the demo alone, then the rest in parallel), end to end on the embedded broker
	$(BIN)/python -m pytest -m "serial and not slow" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not serial and not slow and not mosquitto and not browser" $(PYTEST_ARGS)
	@echo "make test took $$(($$(date +%s) - $(START))) s"

setup: $(VENV)/.dev  ## install everything development needs into .venv

lint: $(VENV)/.dev  ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup $(if $(filter compress,$(NAME)),$(VENV)/.distil)  ## run one bench: make bench NAME=swap (BENCH_ARGS='--quick')
	@$(BIN)/python -m tests.bench $(NAME) --json $(BENCH_ARGS)

clean:  ## remove what setup made
	rm -rf $(VENV) server/node_modules server/wavegate_server/web/static/vendor .demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Wavegate needs Python 3.11 or newer; say which with make PYTHON=python3.12")'
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(PARTS) | $(BIN)/python
	@echo "installing what running needs ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(PARTS) | $(BIN)/python
	@echo "installing what development needs ..."
	@$(PIP) --editable '.[dev,compress]'
	@touch $@ $(VENV)/.run

$(VENV)/.distil: $(PARTS) | $(VENV)/.dev
	@echo "installing what pruning and distilling need ..."
	@$(PIP) --editable '.[dev,compress,distil]'
	@touch $@
