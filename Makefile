# `make demo` and `make test` are all a fresh machine needs: Python 3.11+, make and a package index.
PYTHON ?= python3
BIN := .venv/bin

export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

.PHONY: demo test check clean

demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mlflow run . -e demo --env-manager local --experiment-name fsae_mlflow

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

clean:
	rm -rf .venv outputs mlruns mlflow.db
