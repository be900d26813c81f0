# make demo | test | test-gpu | seeded-bugs | lint | docs | pictures | clean. The first run makes .venv and fills it; later
# runs only do what changed. Another interpreter: make PYTHON=python3.13 test. Arguments for pytest: make test ARGS="-k
# losses -x"; in one process: WORKERS=0.

PYTHON ?= python3
ARGS ?=
WORKERS ?= auto
BIN = .venv/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
INPUTS = pyproject.toml setup.py constraints.txt

help:
	@echo "make demo   train a small distilled network and draw it (runs/demo)"
	@echo "make test   run the tests and the examples in docstrings and documentation"
	@echo "make test-gpu     run the tests that need a CUDA device"
	@echo "make seeded-bugs  plant bugs in a copy, one at a time, and show that the tests catch each (minutes)"
	@echo "make lint   check style, types and the direction of imports"
	@echo "make docs   build the documentation (docs/_build/html/index.html); make pictures draws its pictures anew"
	@echo "make clean  remove .venv, runs and everything that was built"

demo: .venv/.demo
	@$(BIN)/python .ci/check_machine.py compiler-note dot-note
	@echo "demo: running examples/digits.py, results in runs/demo"
	@$(BIN)/python examples/digits.py runs/demo

test: compiler .venv/.test
	@echo "test: running pytest on $(WORKERS) cores"
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)
	@$(if $(ARGS),,$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile docs)  # each page in one process, in order

test-gpu: compiler .venv/.test
	@echo "test-gpu: running pytest -m gpu tests/gpu"
	@$(BIN)/python -m pytest -m gpu tests/gpu $(ARGS)

seeded-bugs: .venv/.test
	@echo "seeded-bugs: planting bugs in a copy of the checkout"
	@$(BIN)/python tests/seeded_bugs.py $(ARGS)

lint: .venv/.lint
	@echo "lint: ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "lint: ruff format --check"
	@$(BIN)/ruff format --check --quiet .
	@echo "lint: mypy (strict)"
	@$(BIN)/mypy
	@echo "lint: import contracts"
	@$(BIN)/lint-imports --no-logo

docs: .venv/.docs
	@echo "docs: sphinx-build, results in docs/_build/html"
	@$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html

pictures: .venv/.docs
	@echo "pictures: drawing docs/images"
	@$(BIN)/python docs/pictures.py

clean:
	@echo "clean: removing .venv, runs, caches and build results"
	@rm -rf .venv runs build dist fxkd.egg-info docs/_build .coverage htmlcov
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Asked before anything large is fetched.
compiler: .venv/.made
	@$(BIN)/python .ci/check_machine.py compiler dot-note

# The stamps: one file per set of packages, made again when a file that names packages changes.
.venv/.made:
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON); install Python 3.11 or newer (on Debian or Ubuntu: apt install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) .ci/check_machine.py venv
	@echo "setup: making .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.base: .venv/.made $(INPUTS)
	@echo "setup: installing setuptools, then fxkd with PyTorch (minutes, the first time)"
	@$(PIP) "setuptools>=77"
	@$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.demo: .venv/.base
	@echo "setup: installing what the demo needs"
	@$(PIP) --no-build-isolation -e ".[demo,draw]"
	@touch $@

# torchvision comes first and alone: timm asks for it, and its own requirements would choose another PyTorch.
.venv/.test: .venv/.base
	@echo "setup: installing what the tests need"
	@$(PIP) --no-deps torchvision
	@$(PIP) --no-build-isolation -e ".[test]"
	@touch $@

.venv/.lint: .venv/.base
	@echo "setup: installing what the checks need"
	@$(PIP) --no-build-isolation -e ".[dev]"
	@touch $@

.venv/.docs: .venv/.base
	@echo "setup: installing what the documentation needs"
	@$(PIP) --no-build-isolation -e ".[docs]"
	@touch $@

.PHONY: help demo test test-gpu seeded-bugs lint docs pictures clean compiler
