# Everything is installed into .venv and nothing outside it. `make env PYTHON=python3.12` picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: env demo test coverage notebooks numbers test-adbd test-arm64 lint clean

env: $(STAMP)

# One call to pip for everything: torch, torchvision and litert-torch pin one another and have to be resolved together.
# The pip that came with an older Python (23.2 with 3.11) tries versions one by one for minutes: `make notebooks` took it
# over five, and takes pip 26 less than one.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "hwbench needs Python 3.10 or newer: make env PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version) and installing hwbench[dev] into it (some minutes, about 7 GB)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $(STAMP)
	@echo "Ready: $(BIN)/hwbench"

demo: env
	$(BIN)/hwbench demo

# make test ARGS="tests/test_target.py -x". Two files at a time: much of a test's time is a wait for a process that it
# started. The longest files start first (tests/conftest.py). JOBS=0 is one after another in one process, as a debugger
# wants it.
JOBS ?= 2
test: env
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Statements that the tests reach, workers in their own processes included; about half as long again as `make test`.
coverage: env
	@$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	@$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --ignore-errors --fail-under=90

# The adb road against Debian's own adbd, in a network of its own; says so and passes where adbd is not installed.
test-adbd: env
	$(BIN)/python contrib/test_adbd.py

# The ssh road into an arm64 Debian under emulation; root, and some minutes. ARGS="doctor profile" runs those parts only.
test-arm64: env
	$(BIN)/python contrib/test_arm64.py $(ARGS)

# The notebooks from nothing, some minutes each; they measure, so a quiet machine gives better figures.
notebooks: env
	@$(BIN)/python -m pip install -q -e '.[notebooks]'
	$(BIN)/jupyter execute notebooks/*.ipynb

# Every figure that is promised, with its bar: docs/numbers.json and docs/numbers.md. Hours, and nothing else may run.
# make numbers ONLY=lut,coverage: these parts. FRESH=1: also what has not changed. QUICK=1: 15 minutes, no verdict.
numbers: env
	$(BIN)/python -m benchmarks $(ONLY) $(if $(filter-out 0,$(QUICK)),--quick) $(if $(filter-out 0,$(FRESH)),--fresh)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Leaves the environment: rm -rf .venv takes that away too.
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis reports/demo
	find hwbench tests -name __pycache__ -type d -prune -exec rm -rf {} +
