# Tandem's user interface. Every target is a thin line over `python -m models|serving|loadtest`; `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON     ?= $(shell command -v python3.11 || command -v python3)
EXPERIMENT ?= default
ENGINES    ?=
MODEL      ?=
DATASET    ?=
CHECKPOINT ?=
IMAGES     ?=
CLASSES    ?=
PRECISION  ?=
# Not taken from the environment, where these names mean other things.
INPUT      =
OUTPUT     =
PREPROCESSING =
ENCODING   ?=
SAVEDMODEL ?=
TORCHSCRIPT ?=
ONNX       ?=
RUN        ?= results/latest
AGAINST    ?=
TOLERANCE  ?= 1.05
P99_TOLERANCE ?=
TFSERVING  ?=
ARGS       ?=
OVERLAY    ?= local
COMPONENTS ?=
REGISTRY   ?=
MODEL_VERSION ?=
BACK       ?=

# A value as one word of a shell's, whatever is in it; ARGS is several on purpose.
q = '$(subst ','\'',$(1))'
# --FLAG VALUE, where there is a value.
flag = $(if $(2),--$(1) $(call q,$(2)))

# Read where servers are started, from any target.
export TFSERVING
# Python of its own settings alone; PYTHONPATH may name the user's own modules.
unexport PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONINSPECT PYTHONSTARTUP PYTHONWARNINGS PYTHONDEVMODE PYTHONIOENCODING PYTHONCASEOK PYTHONPLATLIBDIR
export PYTHONUTF8 := 1
PY        := .venv/bin/python
# Without what make tells the makes below it: tests call it, too.
PYTEST    := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL $(PY) -m pytest
INSTALLED := .venv/.installed-runtime
DEV       := .venv/.installed-dev
MLSERVER  := .venv-mlserver/.installed
# A .venv whose Python is gone, or is another one now, is made anew.
ifneq ($(wildcard $(INSTALLED)),)
ifneq ($(shell $(PY) -I -c 'import sys; print(sys.version_info[:2] == (3, 11))' 2>/dev/null),True)
$(shell rm -f $(INSTALLED) $(DEV))
endif
endif
RUNTIME   ?=
TARGETS   ?=
RATE      ?=
EFFECT    ?=
deployment := --overlay $(call q,$(OVERLAY)) --components $(call q,$(COMPONENTS)) $(call flag,engines,$(ENGINES)) --registry $(call q,$(REGISTRY)) $(call flag,model,$(MODEL)) $(call flag,model-version,$(MODEL_VERSION))
what := $(call flag,model,$(MODEL)) $(call flag,dataset,$(DATASET))
own  := $(call flag,checkpoint,$(CHECKPOINT)) $(call flag,images,$(IMAGES)) $(call flag,classes,$(CLASSES)) $(call flag,input,$(INPUT)) $(if $(PREPROCESSING),--preprocessing=$(call q,$(PREPROCESSING))) $(call flag,output,$(OUTPUT)) $(call flag,encoding,$(ENCODING)) $(call flag,savedmodel,$(SAVEDMODEL)) $(call flag,torchscript,$(TORCHSCRIPT)) $(call flag,onnx,$(ONNX))

.PHONY: help compare train export serve loadtest loadtest-worker report gate plan-run tensorflow-serving triton images pin-images push up down deploy deploy-plan rollout undeploy manifests schema test test-beside lint format bench-loadgen bench-aa bench-ab bench-restarts bench-crosscheck bench-embedded bench-drain bench-importer bench-decisions gpu-check dashboards dashboards-check watch clean distclean lock ci-tools packages locust collect screenshot

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: EXPERIMENT=default|thorough|smoke|batching|FILE.toml  ENGINES=torchserve,tensorflow-serving,triton  DATASET=fashion-mnist|cifar10|digits  MODEL=convnet|lenet|resnet20|resnet18|resnet50|mobilenet_v2|efficientnet_b0|densenet121|vgg11  CHECKPOINT=FILE  IMAGES=FOLDER  CLASSES=FILE  PREPROCESSING=0-1|imagenet|-1-1|none  ENCODING=none|jpeg|png  your own model (docs/models.md): MODEL=package.module:factory  PYTHONPATH=FOLDER  INPUT=224x224x3  OUTPUT=logits|probabilities  SAVEDMODEL=FOLDER  TORCHSCRIPT=FILE  ONNX=FILE  PRECISION=fp32|tf32|bf16|fp16  RUNTIME=process|container|kubernetes  TFSERVING=embedded|PROGRAM  TARGETS=FILE.toml  RUN=FOLDER  AGAINST=FOLDER  ARGS='--help'"

compare: $(INSTALLED) packages ## train, export, prove, serve, load, report: the whole comparison
	@$(PY) -m loadtest compare --experiment $(call q,$(EXPERIMENT)) $(what) $(own) $(call flag,engines,$(ENGINES)) $(if $(RUNTIME),--set $(call q,runtime=$(RUNTIME))) $(if $(PRECISION),--set $(call q,profile.precision=$(PRECISION))) $(if $(RATE),--set $(call q,ladder.rate=$(RATE))) $(ARGS)

train: $(INSTALLED) packages ## train the model only
	@$(PY) -m models train $(what) $(ARGS)

export: $(INSTALLED) packages ## train if needed, export to both worlds, prove parity
	@$(PY) -m models export $(what) $(own) $(call flag,precision,$(PRECISION)) $(ARGS)

serve: $(INSTALLED) ## both servers up until Ctrl-C
	@$(PY) -m serving serve $(ARGS)

tensorflow-serving: $(INSTALLED) ## fetch the official tensorflow_model_server, once (some 200 MB), as make compare does
	@$(PY) -m serving obtain $@ $(ARGS)

triton: $(INSTALLED) ## fetch the server of NVIDIA Triton, once (some 60 MB), as make compare ENGINES=...,triton does
	@$(PY) -m serving obtain $@ $(ARGS)

images: $(INSTALLED) ## build the container images of the newest bundle and print their sizes
	@$(PY) -m serving images $(call flag,model,$(MODEL)) $(call flag,registry,$(REGISTRY)) $(if $(filter push,$(MAKECMDGOALS)),--push) $(ARGS)

push: images ## `make images push REGISTRY=host/team`: build them, push them, print each one's digest and size
	@:

pin-images: $(INSTALLED) ## ask the registries for today's digests of all base images, and find tags that do not exist
	@$(PY) -m serving pin-images $(ARGS)
	@$(PY) -m serving.runtimes.kubernetes manifests

up: $(INSTALLED) ## the whole stack on Docker Compose: servers, Prometheus, Alertmanager, Grafana
	@$(PY) -m serving up $(call flag,model,$(MODEL)) $(ARGS)

down: $(INSTALLED) ## stop the stack; no container, network or volume stays
	@$(PY) -m serving down $(ARGS)

locust: $(INSTALLED) ## Locust's web page beside `make up`, for one server (STACK=pytorch|tensorflow)
	@$(PY) -m loadtest web $(call q,$(or $(STACK),pytorch)) $(call flag,model,$(MODEL)) $(ARGS)

loadtest: $(INSTALLED) packages ## load the servers of `make serve` in another terminal, or yours (TARGETS=endpoints.toml)
	@$(PY) -m loadtest run --experiment $(call q,$(EXPERIMENT)) $(call flag,targets,$(TARGETS)) $(ARGS)

loadtest-worker: $(INSTALLED) ## put load on servers for a run on another machine (MASTER=HOST)
	@$(if $(MASTER),$(PY) -m loadtest worker --master $(call q,$(MASTER)) $(ARGS),echo "error: MASTER is not given: make loadtest-worker MASTER=HOST, the machine that runs the experiment" >&2; exit 2)

report: $(INSTALLED) ## build a run's report again from its saved data (RUN=FOLDER), or compare it with AGAINST=FOLDER
	@$(PY) -m loadtest report $(call q,$(RUN)) $(call flag,against,$(AGAINST)) $(ARGS)

gate: $(INSTALLED) ## is a run (RUN=FOLDER) worse than AGAINST=FOLDER by more than TOLERANCE=1.05? For CI: docs/ci-gate.md
	@$(PY) -m loadtest gate $(call q,$(RUN)) $(call flag,against,$(AGAINST)) --tolerance $(call q,$(TOLERANCE)) $(call flag,p99-tolerance,$(P99_TOLERANCE)) $(ARGS)

plan-run: $(INSTALLED) ## what it takes to find a difference, before anything runs (EFFECT=1.1)
	@$(PY) -m loadtest plan-run --experiment $(call q,$(EXPERIMENT)) $(call flag,effect,$(EFFECT)) $(ARGS)

deploy: $(INSTALLED) ## both servers, load generator and monitoring on Kubernetes (OVERLAY=local|cpu|gpu REGISTRY=... COMPONENTS=... ENGINES=...)
	@$(PY) -m serving.runtimes.kubernetes deploy $(deployment) $(ARGS)

deploy-plan: $(INSTALLED) ## what make deploy would change; touches nothing
	@$(PY) -m serving.runtimes.kubernetes plan $(deployment) $(ARGS)

rollout: $(INSTALLED) ## bring both servers on Kubernetes to MODEL_VERSION=N, or BACK=1 to the version before
	@$(PY) -m serving.runtimes.kubernetes rollout $(call flag,model-version,$(MODEL_VERSION)) $(if $(BACK),--back) $(ARGS)

collect: $(INSTALLED) ## bring home what a run (RUN=FOLDER) measured on Kubernetes after its client was gone
	@$(PY) -m loadtest collect $(call q,$(RUN)) $(ARGS)

undeploy: $(INSTALLED) ## remove all of it from Kubernetes
	@$(PY) -m serving.runtimes.kubernetes undeploy $(ARGS)

manifests: $(DEV) ## write the files in k8s/ that are rendered from the serving profile and from monitoring/
	@$(PY) -m serving.runtimes.kubernetes manifests

schema: $(INSTALLED) ## write docs/summary.schema.json from the records of the analysis
	@$(PY) -m loadtest schema $(ARGS)

test: $(DEV) packages ## lint and the whole test suite
	@$(MAKE) --no-print-directory -j2 lint test-beside
	@$(PYTEST) --part alone $(ARGS)

# What neither measures time nor needs the machine for itself: on two processes, and beside lint.
test-beside: $(DEV)
	@$(PYTEST) --part beside --numprocesses 2 --dist worksteal $(ARGS)

lint: $(DEV) ## ruff, mypy, and Prometheus' own checks of its files
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m monitoring check

format: $(DEV) ## let ruff format and mend
	@$(PY) -m ruff check --quiet --fix .
	@$(PY) -m ruff format --quiet .

bench-loadgen: $(INSTALLED) ## the load generator against a trivial server, beside other tools
	@$(PY) -m loadtest bench-loadgen $(ARGS)

bench-aa: $(INSTALLED) ## the same server against itself: no difference may be shown
	@$(PY) -m loadtest bench-aa $(ARGS)

bench-ab: $(INSTALLED) ## a server with 5 ms added to its handler: that must be found
	@$(PY) -m loadtest bench-ab $(ARGS)

bench-restarts: $(INSTALLED) packages ## how far starts of the same server lie apart: what every plan rests on
	@$(PY) -m loadtest bench-restarts $(ARGS)

bench-importer: $(INSTALLED) ## the imported SavedModel beside a twin written by hand in Keras, TorchScript beside eager
	@$(PY) -m models.importer_bench $(ARGS)

bench-crosscheck: $(DEV) ## the generator beside h2load, wrk and k6: do they measure the same?
	@$(PY) -m loadtest bench-crosscheck $(ARGS)

screenshot: $(DEV) ## docs/report.png: the verdict of a run's report (RUN=FOLDER)
	@$(PY) -m tests.loadtest.report.screenshot $(call q,$(RUN)) docs/report.png $(ARGS)

bench-embedded: $(INSTALLED) ## the embedded server on a core of its own, beside TensorFlow Serving's figures
	@$(PY) -m loadtest bench-embedded $(ARGS)

gpu-check: $(INSTALLED) ## on a machine with a GPU, 12 minutes, no network: do both servers compute on it, rightly and together?
	@$(PY) -m loadtest gpu-check $(ARGS)

bench-decisions: $(INSTALLED) ## how surely a run decides, on simulated servers whose truth is known
	@$(PY) -m loadtest bench-decisions $(ARGS)

bench-drain: $(INSTALLED) ## what clients lose when a server gets SIGTERM, and when it is replaced (ENGINES=...)
	@$(PY) -m loadtest bench-drain $(call flag,engines,$(ENGINES)) $(ARGS)

dashboards: $(DEV) ## write Grafana's dashboards again from the code in monitoring/grafana/
	@$(PY) -m monitoring.grafana

dashboards-check: $(INSTALLED) packages ## ask every query of every dashboard of a Prometheus beside both loaded servers
	@$(PY) -m loadtest dashboards-check $(call flag,engines,$(ENGINES)) $(ARGS)

watch: $(INSTALLED) ## both servers' figures live, while a run is going or `make serve` is up
	@$(PY) -m monitoring.watch $(ARGS)

lock: $(DEV) ## compile the lock files from pyproject.toml
	@setup/lock

ci-tools: $(INSTALLED) $(MLSERVER) ## what the full test suite needs beyond the README's promise (root or password-less sudo)
	@setup/debian-packages --require prometheus prometheus-alertmanager dataset-fashion-mnist chromium chromium-driver poppler-utils nghttp2-client wrk curl g++ docker.io docker-compose docker-registry iptables debootstrap nginx-light tinyproxy-bin
	@tests/docker/engine start
	@tests/docker/base-images
	@$(PY) -m serving obtain triton

clean: ## delete artifacts/ and results/
	@rm -rf artifacts results

distclean: clean ## delete .venv and caches as well
	@rm -rf .venv .venv-mlserver .mypy_cache .ruff_cache .pytest_cache .hypothesis

packages:
	@setup/debian-packages prometheus dataset-fashion-mnist

$(INSTALLED): requirements.lock
	@setup/venv $(call q,$(PYTHON)) $< $@

$(DEV): requirements-dev.lock $(INSTALLED)
	@setup/venv $(call q,$(PYTHON)) $< $@

$(MLSERVER): tests/mlserver/requirements.lock
	@setup/venv $(call q,$(PYTHON)) $< $@ .venv-mlserver
