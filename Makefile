# The two commands are `make repro` and `make test`; `make help` lists the others.

SCALE ?= laptop
GRID ?=
DATA ?=
MIRROR ?=
STAGE ?=
ARGS ?=
PYTHON ?= python3.11

VENV := .venv
# Written last, so that an environment whose making was interrupted is made again.
STAMP := $(VENV)/.stamp

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The stages of DVC say `python`: it is the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONHOME

# Nobody is told that this runs.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export WANDB_ERROR_REPORTING := false
export WANDB_SILENT := true
export TOKENIZERS_PARALLELISM := false
# Threads that soon go to sleep when they wait: faster, and by far where the machine is shared.
export GOMP_SPINCOUNT := 20000
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## list the targets
	@echo "make TARGET [NAME=VALUE ...]"
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

.PHONY: env
env: $(STAMP)  ## make the environment .venv, if it is missing or out of date [PYTHON=python3.11]

$(STAMP): pyproject.toml requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "error: $(PYTHON) is not a working Python 3.11; install one, or name it: make env PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(VENV)/bin/python -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "installing requirements.lock into $(VENV)"
	@# By itself first: the build that the configured index offers, not one that another package asks for.
	@$(VENV)/bin/python -m pip install "$$(grep '^torch==' requirements.lock)"
	@$(VENV)/bin/python -m pip install --requirement requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

.PHONY: repro
repro: env  ## run the pipeline [SCALE=smoke|laptop|gpu|paper GRID=default|full DATA=world|real MIRROR=folder STAGE=name ARGS='seed=1 ...']
	@python -m palimpsest.pipeline.compose scale=$(SCALE) $(if $(GRID),grid=$(GRID)) $(if $(DATA),data=$(DATA)) $(if $(MIRROR),'data.mirror="$(MIRROR)"') $(ARGS)
	@dvc repro $(STAGE)
	@$(if $(filter laptop,$(SCALE)),python -m palimpsest.pipeline.readme)

.PHONY: tune
tune: env  ## search for the editors' settings on the dev split, after `make repro` [SCALE=... ARGS=...]
	@python -m palimpsest.pipeline.compose scale=$(SCALE) $(if $(DATA),data=$(DATA)) $(if $(MIRROR),'data.mirror="$(MIRROR)"') $(ARGS)
	@dvc repro tuning/dvc.yaml

.PHONY: test
test: env  ## lint, types, unit tests, and the whole pipeline at smoke scale in a temporary copy
	ruff check .
	ruff format --check .
	mypy
	python -m palimpsest.pipeline.clean --check
	@# A file's tests on one worker, which makes what they share once.
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: bench
bench: env  ## run the benchmarks, into results/metrics/bench.json
	python -m benchmarks
	python -m palimpsest.pipeline.readme

.PHONY: lab
lab: env  ## open JupyterLab on notebooks/
	PYTHONWARNINGS="ignore:IProgress not found" jupyter lab \
	  --ServerApp.root_dir="$(CURDIR)" --FileContentsManager.preferred_dir="$(CURDIR)/notebooks"

.PHONY: clean
clean:  ## remove caches and executed notebooks
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis results/notebooks results/*/notebooks
	find . -path ./$(VENV) -prune -o -path ./.git -prune -o \
	  \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
	@echo "left alone: data/, models/, results/, .dvc/cache/, wandb/ and $(VENV)/; dvc checkout brings the notebooks back"

.PHONY: lock
lock:  ## write requirements.lock anew from pyproject.toml [PYTHON=python3.11]
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	"$(PYTHON)" -m venv "$$folder"; \
	"$$folder/bin/python" -m pip install "$$(grep -oE 'torch==[0-9.]+' pyproject.toml)"; \
	"$$folder/bin/python" -m pip install --quiet --editable '.[dev]'; \
	"$$folder/bin/python" -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > "$$folder/lock"; \
	cp "$$folder/lock" requirements.lock
