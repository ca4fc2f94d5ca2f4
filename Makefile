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

.PHONY: demo test test-slow test-browser test-gpu test-real validate validate-all check format clean

demo: $(READY)
	$(BIN)/capgap demo

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/pytest -m slow

# Simulated coverage of the statistics: a seeded part in minutes, all of it overnight (resumable for the mixed model).
validate: $(READY)
	@mkdir -p $(VALIDATION)
	$(BIN)/python -m tests.stats.coverage 200
	$(BIN)/python -m tests.stats.seeds_coverage 200
	$(BIN)/python -m tests.stats.curves.coverage 20 inside
	$(BIN)/python -m tests.stats.mixed.coverage 20 $(VALIDATION)/mixed-quick.csv 180 12,24
	$(BIN)/python -m tests.stats.patterns.recovery 5
	$(BIN)/python -m tests.stats.flips_fdr 20

validate-all: $(READY)
	@mkdir -p $(VALIDATION)
	$(BIN)/python -m tests.stats.coverage 2000
	$(BIN)/python -m tests.stats.seeds_coverage 2000
	$(BIN)/python -m tests.stats.curves.coverage 2000
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

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
