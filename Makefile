# Every verb makes its own environment: nothing has to be installed or activated first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format docs bench clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## Compare shared models with single-task ones on built-in data, and write a report
	$(BIN)/polyrank demo --out runs/demo --resume

test: $(READY) ## Run the tests (minutes)
	$(BIN)/pytest -m 'not slow' -n 2 --dist loadfile

test-slow: $(READY) ## Run the long tests too
	$(BIN)/pytest

lint: $(READY) ## Check style, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code in its one format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation into site/
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(READY) ## Measure what the documentation quotes (long); results go to benchmarks/results/
	$(BIN)/python benchmarks/run.py

clean: ## Remove the environment, demo runs and built documentation
	rm -rf $(VENV) runs site
