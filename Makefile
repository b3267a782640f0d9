# Tandem's user interface. Every target is a thin line over `python -m models|serving|loadtest`; `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON     ?= $(shell command -v python3.11 || command -v python3)
EXPERIMENT ?= default
MODEL      ?=
DATASET    ?=
RUN        ?= results/latest
AGAINST    ?=
ARGS       ?=

PY      := .venv/bin/python
RUNTIME := .venv/.installed-runtime
DEV     := .venv/.installed-dev
what := $(if $(MODEL),--model $(MODEL)) $(if $(DATASET),--dataset $(DATASET))

.PHONY: help compare train export serve loadtest report test lint format bench-loadgen bench-embedded dashboards watch clean distclean lock ci-tools packages

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: EXPERIMENT=default|smoke|FILE.toml  DATASET=fashion-mnist|cifar10|digits  MODEL=convnet  RUN=FOLDER  ARGS='--help'"

compare: $(RUNTIME) packages ## train, export, prove, serve, load, report: the whole comparison
	@$(PY) -m loadtest compare --experiment $(EXPERIMENT) $(what) $(ARGS)

train: $(RUNTIME) packages ## train the model only
	@$(PY) -m models train $(what) $(ARGS)

export: $(RUNTIME) packages ## train if needed, export to both worlds, prove parity
	@$(PY) -m models export $(what) $(ARGS)

serve: $(RUNTIME) ## both servers up until Ctrl-C
	@$(PY) -m serving serve $(ARGS)

loadtest: $(RUNTIME) packages ## load the servers that `make serve` keeps up in another terminal
	@$(PY) -m loadtest run --experiment $(EXPERIMENT) $(ARGS)

report: $(RUNTIME) ## build a run's report again from its saved data (RUN=FOLDER), or compare it with AGAINST=FOLDER
	@$(PY) -m loadtest report $(RUN) $(if $(AGAINST),--against $(AGAINST)) $(ARGS)

test: $(DEV) packages lint ## lint and the whole test suite
	@$(PY) -m pytest $(ARGS)

lint: $(DEV) ## ruff, mypy, and Prometheus' own checks of its files
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m monitoring check

format: $(DEV) ## let ruff format and mend
	@$(PY) -m ruff check --quiet --fix .
	@$(PY) -m ruff format --quiet .

bench-loadgen: $(RUNTIME) ## the load generator against a trivial server, beside other tools
	@$(PY) -m loadtest bench-loadgen $(ARGS)

bench-embedded: $(RUNTIME) ## the embedded server on a core of its own, beside TensorFlow Serving's figures
	@$(PY) -m loadtest bench-embedded $(ARGS)

dashboards: $(DEV) ## write Grafana's dashboards again from the code in monitoring/grafana/
	@$(PY) -m monitoring.grafana

watch: $(RUNTIME) ## both servers' figures live, while a run is going or `make serve` is up
	@$(PY) -m monitoring.watch $(ARGS)

lock: $(DEV) ## compile the lock files from pyproject.toml
	@setup/lock

ci-tools: ## what the full test suite needs beyond the README's promise (root or password-less sudo)
	@setup/debian-packages --require prometheus prometheus-alertmanager dataset-fashion-mnist chromium chromium-driver wrk curl

clean: ## delete artifacts/ and results/
	@rm -rf artifacts results

distclean: clean ## delete .venv and caches as well
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

packages:
	@setup/debian-packages prometheus dataset-fashion-mnist

$(RUNTIME): requirements.lock
	@setup/venv $(PYTHON) $< $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@setup/venv $(PYTHON) $< $@
