VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.mmpt-installed
VIEW := build/view

.DEFAULT_GOAL := help
.PHONY: help install format check test bench quickstart

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv and install mmpt into it, with the versions of constraints.txt

$(INSTALLED): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,plots]"
	touch $@

format: $(INSTALLED) ## format the code and fix what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(INSTALLED) ## formatting, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	rm -rf $(VIEW) && mkdir -p $(VIEW)
	cp -r mmpt setup.py $(wildcard benchmarks demo) $(VIEW)/
	cp -r configuration modeling_mmpt processing $(VIEW)/mmpt/
	$(BIN)/pyright --pythonpath $(BIN)/python

test: $(INSTALLED) ## the test suite: CPU, no network
	$(BIN)/python -m pytest

bench: $(INSTALLED) ## the benchmarks, which write JSON below runs/benchmarks
	$(BIN)/python -m benchmarks.step

quickstart: $(INSTALLED) ## pre-train a tiny model on generated scenes; nothing is downloaded for it
	$(BIN)/mmpt pretrain recipes/tiny.yaml
