# Every target does its own set-up: a fresh machine with python3 (>= 3.10) and make is enough.
VENV ?= .venv
PYTHON ?= python3
RUN ?= runs/quickstart
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes would compile all of hwnas again

.PHONY: quickstart test pytest test-full mutants lint docs docs-install bench clean

quickstart: $(STAMP)
	$(BIN)/hwnas run quickstart --run $(RUN)

test: $(STAMP)
	$(MAKE) -j 2 lint pytest

pytest: $(STAMP)
	$(BIN)/python -m pytest -m "not full" -n 2 --dist loadfile --no-loadscope-reorder

test-full: $(STAMP) lint
	-$(BIN)/python -m pip install --quiet --no-deps "ofa==0.1.0.post202307202001"
	$(BIN)/python -m pytest
	$(BIN)/python tests/mutants.py

mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs-install: $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[docs]"

docs: docs-install
	$(BIN)/python docs/make_configuration.py
	$(BIN)/python docs/make_figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open build/site/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/supernet_step.py

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -e ".[dev]"
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null  # as pip would, on one core
	touch $(STAMP)

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
