# make demo: train, test and show the result, on embedded photos.  make demo-kd: the same for three teachers and their student.
# make lint: ruff, mypy, import-linter.  make test: the fast tests.  make test-all: every test, with the share of lines that they run.
# make torture: kills trainings at random moments, for ten minutes or more.  Each target sets up .venv where there is none.
PYTHON ?= python3
BIN := .venv/bin
# one process for each core, four at most (each holds PyTorch, about 1 GB)
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo demo-kd test test-all torture lint clean

demo: .venv/ready
	$(BIN)/python -m tool.demo

demo-kd: .venv/ready
	$(BIN)/python -m tool.demo_kd

test: .venv/ready-to-test
	$(PYTEST) -m "not slow"

test-all: .venv/ready-to-test
	$(PYTEST) --cov --cov-report term

torture: .venv/ready-to-test
	$(BIN)/python -m tests.torture

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready pyproject.toml
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
