# Two commands set everything up: `make sweep` runs the main job, `make test` the tests. Nothing is done twice.
SHELL := /bin/bash
PYTHON ?= python3
# Tests are shared out to as many processes, file by file.
WORKERS ?= 2
PYTEST := .venv/bin/pytest -n $(WORKERS) --dist loadfile
UV := $(shell command -v uv 2>/dev/null || echo .venv/bin/uv)
# The test set-up and the plain one differ by extras alone; whichever ran last serves both.
export UV_PROJECT_ENVIRONMENT := .venv
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test test-all torture style report site clean
sweep: .venv/.ready
	.venv/bin/lossbench sweep

test: .venv/.ready-test
	$(PYTEST)

# `make test` and what is slow by nature: killed sweeps, damaged files, a browser, notebooks, the wheel.
test-all: test
	$(PYTEST) -m "slow and not slurm"

style: .venv/.ready-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# As many kills and injuries as docs/torture.md tells of: about an hour.
torture: .venv/.ready-test
	LOSSBENCH_TORTURE=full .venv/bin/pytest -m slow -rP tests/torture

report: .venv/.ready
	.venv/bin/lossbench report

# The pages of docs/, the API from docstrings and the report, as a folder that any static host serves.
site: .venv/.ready
	$(UV) sync --quiet --inexact --extra docs
	.venv/bin/python -m sphinx --quiet -b html docs site

.venv/bin/uv:
	@command -v uv >/dev/null 2>&1 || { $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet uv; }

.venv/.ready: pyproject.toml
	@$(MAKE) --no-print-directory .venv/bin/uv
	$(UV) sync --quiet --inexact --no-default-groups
	@touch $@

.venv/.ready-test: pyproject.toml
	@$(MAKE) --no-print-directory .venv/bin/uv
	$(UV) sync --quiet --inexact --extra test --extra peers
	@touch $@ .venv/.ready

clean:
	rm -rf .venv build dist site docs/notebooks jupyter_execute .pytest_cache .hypothesis .ruff_cache
