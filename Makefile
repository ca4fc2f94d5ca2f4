# The two commands for whoever has a clone: `make demo` and `make test`. Each is enough alone on a fresh machine
# that has Python 3.11 or newer; both share one virtual environment.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# One torch thread a process: two that share a busy core wait for each other.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
VALIDATION ?= .venv/validation

RELEASE_VENV := .venv-release
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' capgap/__init__.py)

.PHONY: demo test test-slow test-browser test-gpu test-real test-oracles validate validate-all check format dist release clean

demo: $(READY)
	$(BIN)/capgap demo

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/pytest -m slow

# Simulated coverage of the statistics: a seeded part in minutes, all of it overnight (resumable for the mixed model and recipes).
validate: $(READY)
	@mkdir -p $(VALIDATION)
	$(BIN)/python -m tests.stats.coverage 200
	$(BIN)/python -m tests.stats.seeds_coverage 200
	$(BIN)/python -m tests.stats.recipe_contrasts_coverage 100
	$(BIN)/python -m tests.stats.curves.coverage 20 inside
	$(BIN)/python -m tests.stats.curves.laws_coverage 10 $(VALIDATION)/laws-quick.csv "SD 0.1"
	$(BIN)/python -m tests.stats.mixed.coverage 20 $(VALIDATION)/mixed-quick.csv 180 12,24
	$(BIN)/python -m tests.stats.patterns.recovery 5
	$(BIN)/python -m tests.stats.flips_fdr 20

validate-all: $(READY)
	@mkdir -p $(VALIDATION)
	$(BIN)/python -m tests.stats.coverage 2000
	$(BIN)/python -m tests.stats.seeds_coverage 2000
	$(BIN)/python -m tests.stats.recipe_contrasts_coverage 2000 $(VALIDATION)/recipe-contrasts.csv
	$(BIN)/python -m tests.stats.curves.coverage 2000
	$(BIN)/python -m tests.stats.curves.laws_coverage 2000 $(VALIDATION)/laws.csv
	$(BIN)/python -m tests.stats.mixed.coverage 2000 $(VALIDATION)/mixed.csv
	$(BIN)/python -m tests.stats.mixed.margins_coverage 2000
	$(BIN)/python -m tests.stats.mixed.further_coverage 2000
	$(BIN)/python -m tests.stats.patterns.recovery 200
	$(BIN)/python -m tests.stats.flips_fdr 2000

test-browser: $(READY)
	$(BIN)/pytest -m browser

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

# CAPGAP_REAL_MODELS: a folder with SmolLM2-135M-Instruct and gemma-3-270m; CAPGAP_SHARED_DATA: benchmark items.
test-real: $(READY)
	$(BIN)/pytest -m real

# Whole fits of independent packages, in their own run: the dependency group `oracles`.
test-oracles: $(READY)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["oracles"])' \
	  | xargs $(BIN)/python -m pip install --quiet --disable-pip-version-check
	$(BIN)/pytest -m oracle

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The source archive and the wheel, and the wheel installed afresh with what it declares, tried outside the clone.
dist: $(READY)
	rm -rf dist $(RELEASE_VENV)
	$(BIN)/hatchling build
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock dist/*.whl
	$(RELEASE_VENV)/bin/python -m pip check --disable-pip-version-check
	cd $(RELEASE_VENV) && unset PYTHONPATH && bin/capgap --version && bin/capgap --help >/dev/null \
	  && bin/python -c 'import capgap, pathlib; assert pathlib.Path(capgap.__file__).with_name("py.typed").exists()' \
	  && bin/capgap battery check pocket >/dev/null && bin/capgap demo --out demo >/dev/null && test -s demo/report.html

# Tests, builds, tries and tags the version of capgap/__init__.py; uploading dist/ and pushing the tag are left to whoever may.
release:
	git diff --quiet HEAD || { echo 'There are changes that no commit holds.'; exit 2; }
	grep -q '^## $(VERSION) ' CHANGELOG.md || { echo 'CHANGELOG.md has no section "## $(VERSION) (DATE)".'; exit 2; }
	! git rev-parse -q --verify 'refs/tags/v$(VERSION)' || { echo 'v$(VERSION) is tagged already.'; exit 2; }
	$(MAKE) check test test-slow test-oracles dist
	git tag -a 'v$(VERSION)' -m 'capgap $(VERSION)'
	@echo 'Tagged v$(VERSION); dist/ holds what to upload.'

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

clean:
	rm -rf $(VENV) $(RELEASE_VENV) dist .pytest_cache .mypy_cache .ruff_cache
