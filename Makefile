# The one task list, for people and for CI. `make help` prints it.
PYTHON ?= python3.11
PIP_ARGS ?=
VENV := .venv
READY := $(VENV)/.ready
# Stage commands in dvc.yaml say `python`; it has to be this environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo run repro test test-slow test-services test-cluster browser chaos lint format bench constraints ui clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; name another Python 3.11 with PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_ARGS) --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY) ## create .venv with the exact versions of constraints.txt

demo: setup ## run the whole pipeline on the embedded data set
	python -m flows.retrain

run: demo ## the same, on whatever params.yaml says

repro: setup ## the same stages through DVC alone, one after another
	dvc repro

test: setup ## lint, types and all quick tests
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

browser: ## install Chromium, in which tests open the report (Debian, as root)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

test-slow: setup ## the tests on real data sets (minutes)
	python -m pytest -m slow

test-cluster: setup ## the tests on a Ray cluster of two nodes on this machine (minutes)
	pip install $(PIP_ARGS) --quiet --constraint constraints.txt --editable '.[cluster,test-services]'
	python -m pytest -m slow tests/cluster

test-services: setup ## the tests with PostgreSQL and S3 (minutes; installs them: Debian, as root)
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql >/dev/null; }
	$(VENV)/bin/python -m pip install $(PIP_ARGS) --quiet --constraint constraints.txt --editable '.[test-services]'
	OMP_NUM_THREADS=1 python -m pytest -m services

chaos: setup ## kill, fill and damage runs of the pipeline at N seeded moments (N=20; SEED= and ONLY= repeat one)
	python -m tests.chaos -n $(or $(N),20) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)')

lint: setup ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: setup ## rewrite the code in the house's style
	ruff check --fix .
	ruff format .

bench: setup ## print three of the benchmark tables, which need no data
	python benchmarks/training.py
	python benchmarks/prepare.py
	python benchmarks/extractors.py --data digits

ui: setup ## MLflow's pages on http://127.0.0.1:5000
	@uri="$$(python -m pipeline where tracking)"; case "$$uri" in http*) echo "MLflow's pages are at $$uri";; \
	*) MLFLOW_BACKEND_STORE_URI="$$uri" mlflow ui --host 127.0.0.1;; esac

constraints: setup ## write constraints.txt anew from .venv
	{ sed -n 1p constraints.txt; $(VENV)/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.new && mv constraints.new constraints.txt

clean: ## remove what runs wrote into the clone, but not DVC's cache nor the registry (mlflow.db, mlartifacts)
	rm -rf data/raw data/prepared data/reference models evaluation report registration.json .checkpoints .warm
