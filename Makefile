VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.mmpt-installed
VIEW := build/view
PARALLEL := -n auto --dist loadscope
EXTRAS := chinese,demo,dev,docs,hdf5,lmdb,plots,retrieval,track
OLDEST_PYTHON ?= $(shell python3.10 -c "print('python3.10')" 2>/dev/null || echo $(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help install format check test test-all test-lowest test-newest suite fuzz kill chaos sharding bench docs dist release quickstart

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv and install mmpt into it, with the versions of constraints.txt

$(INSTALLED): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,plots]"
	touch $@

format: $(INSTALLED) ## format the code and fix what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(INSTALLED) ## formatting, lint, types of an installed layout, and which way imports go
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	rm -rf $(VIEW) && mkdir -p $(VIEW)
	cp -r mmpt setup.py $(wildcard benchmarks demo examples) $(VIEW)/
	cp -r configuration modeling_mmpt processing $(VIEW)/mmpt/
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_architecture.py

test: $(INSTALLED) ## the test suite: CPU, no network, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-all: $(INSTALLED) ## the test suite with the slow tests (tests/slow_tests.py); half an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m ''

test-lowest: ## the test suite on the lowest versions that setup.py allows, in .venv-lowest, on Python 3.10 if it is there
	test -x .venv-lowest/bin/python || $(OLDEST_PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python tests/runs/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install -c .venv-lowest/constraints.txt -e ".[$(EXTRAS)]"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest $(PARALLEL)

test-newest: ## the test suite on the newest versions that setup.py allows, in .venv-newest
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --upgrade --upgrade-strategy eager -e ".[$(EXTRAS)]"
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest $(PARALLEL)

suite: $(INSTALLED) ## fetch transformers' own tests once (make test then runs them too) and run them on every task model and the detector
	$(BIN)/python tests/transformers_suite/fetch.py
	OMP_NUM_THREADS=1 MMPT_TASK_SUITE=1 $(BIN)/python -m pytest $(PARALLEL) -q -rf tests/transformers_suite/test_task_suite.py tests/transformers_suite/test_detector_suite.py

fuzz: $(INSTALLED) ## 10,000 damaged feature files a reader, 2,000 annotation files a layout; an hour
	$(BIN)/python -m tests.fuzz.run

kill: $(INSTALLED) ## 100 imports and 100 extractions killed at random moments; minutes
	$(BIN)/python -m tests.runs.kill

sharding: $(INSTALLED) ## FSDP2 and DDP in two processes for every preset and task, against one process; minutes
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m torch.distributed.run --standalone --nproc_per_node 2 tests/runs/sharding.py --all

chaos: $(INSTALLED) ## runs killed in every phase, by one and two processes, and 1,000 flipped bytes of a checkpoint; half an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.runs.chaos

docs: $(INSTALLED) ## the documentation as a site, build/site; a broken link is an error
	$(BIN)/python -m pip install -q -e ".[docs]"
	rm -rf $(VIEW) && mkdir -p $(VIEW)
	cp -r mmpt $(VIEW)/
	cp -r configuration modeling_mmpt processing $(VIEW)/mmpt/
	$(BIN)/python docs/site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

bench: export OMP_NUM_THREADS := 1
bench: $(INSTALLED) ## every speed benchmark at its smallest, two minutes; at full size: python -m benchmarks NAME (docs/performance.md)
	for name in step memory levers loader collator trainer scaling; do $(BIN)/python -m benchmarks $$name --quick || exit 1; done
	$(BIN)/python -m benchmarks store --images 64 --rows 20000 --rounds 2

dist: ## build the source distribution and the wheel into dist/, and check them
	test -x .venv-build/bin/twine || ($(PYTHON) -m venv .venv-build && .venv-build/bin/python -m pip install build twine)
	rm -rf dist && .venv-build/bin/python -m build && .venv-build/bin/twine check --strict dist/*

release: ## make dist from a clean tree and tag the commit; nothing is uploaded
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' mmpt/__init__.py); \
	test -z "$$(git status --porcelain)" || { echo "the working tree has changes; commit them first" >&2; exit 1; }; \
	! git rev-parse -q --verify "refs/tags/v$$version" > /dev/null || { echo "tag v$$version exists; raise __version__" >&2; exit 1; }; \
	grep -q "^## $$version" CHANGELOG.md || { echo "CHANGELOG.md has no section $$version" >&2; exit 1; }; \
	$(MAKE) dist && git tag -a "v$$version" -m "mmpt $$version" && echo "tagged v$$version; dist/ is ready to upload"

quickstart: $(INSTALLED) ## pre-train a tiny model on generated scenes; nothing is downloaded for it
	$(BIN)/mmpt pretrain recipes/tiny.yaml --overwrite
