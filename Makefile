# Everything runs in .venv, which is built on first use. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built

SPACE ?= lenet-fashion-mnist
SAMPLES ?=
ARGS ?=
FAULTS ?=
PARTS ?=
FUZZ ?=
CONSTRAINTS ?=
PYTEST_ARGS ?= -m "not slow"

.DEFAULT_GOAL := help
.PHONY: help env constraints sweep test lint format types bench methods-table proof proof-full gallery keys-table faults fuzz clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20
	@echo
	@echo '  make sweep SPACE=digits-quick           another search space'
	@echo '  make sweep SAMPLES=200 ARGS="--seed 1"  more options: $(BIN)/sweep run --help'
	@echo '  make test PYTEST_ARGS=                  the slow tests too'
	@echo '  make proof PARTS="paper cost"            some parts of docs/proof.md'
	@echo '  make env CONSTRAINTS=constraints.txt    exactly the versions that CI installs'

env: $(STAMP)  ## build the environment in .venv

constraints: $(STAMP)  ## write what is installed in .venv to constraints.txt
	@{ echo '# What CI installs: one environment in which everything passes (Python 3.11). Renew it with `make constraints`.'; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable; } > constraints.txt

sweep: $(STAMP)  ## compress LeNet in many ways, and get the accuracy-versus-size front
	@$(BIN)/sweep run $(SPACE) $(if $(SAMPLES),--samples $(SAMPLES)) $(ARGS)

test: $(STAMP)  ## run the tests but the slow ones
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)  ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)  ## format, and repair what can be repaired
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP)  ## check the types
	@$(BIN)/mypy

bench: $(STAMP)  ## run the benchmarks; each prints ratios against its own reference
	@bad=0; for file in benchmarks/[!_]*.py; do \
	  echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || bad=1; \
	done; exit $$bad

methods-table: $(STAMP)  ## measure every method on two networks, and write the tables of docs/methods.md (half an hour)
	@$(BIN)/python -m benchmarks._methods_table --write

proof: $(STAMP)  ## measure this against peers, the paper and its reviewers' questions, and write docs/proof.md (20 minutes)
	@$(BIN)/python -m benchmarks.proof $(PARTS)

proof-full: $(STAMP)  ## the same on more networks and all test images, with training (an hour or two)
	@$(BIN)/python -m benchmarks.proof --full $(PARTS)

gallery: $(STAMP)  ## take the pictures of README and docs/ from a real sweep (needs Chromium)
	$(PYTHON) -m benchmarks.gallery

keys-table: $(STAMP)  ## write the table of every key of a search space into docs/own-network.md
	@$(BIN)/python -m search_spaces.table --write

faults: $(STAMP)  ## kill workers, nodes, drivers and servers of real sweeps, and count what is left (an hour or two)
	@$(BIN)/python -m benchmarks.faults --write docs/reliability.md $(FAULTS)

fuzz: $(STAMP)  ## random networks and damaged files against their oracles; FUZZ="--networks 1000 --seed 7" for more
	@$(BIN)/python -m tests.fuzz --files $(FUZZ)

clean:  ## remove the environment and every cache, but no results and no data
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first python that is new enough; PYTHON=… names another one.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@python=; for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: Python 3.11 or newer is needed and none was found; install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "make: $$python has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; \
	fi; \
	echo "building the environment in $(VENV) with $$($$python --version): once, some minutes, several gigabytes"; \
	[ -x $(BIN)/python ] || $$python -m venv $(VENV) || exit; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --progress-bar off $(addprefix -c ,$(CONSTRAINTS)) \
	  -e '.[dev]' || \
	  { echo "make: the packages could not be installed, see above; is there a network connection?" >&2; exit 1; }
	@touch $@
	@echo "the environment is ready"
