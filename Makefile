# make demo: restore, train and test on embedded photos.  make demo-kd: the same for three teachers and their student.
# make lint: ruff, mypy, import-linter.  make test: the fast tests.  make test-all: all tests, with line coverage.
# make bench: compare this program with plain code in tables (docs/benchmarks.md), about 20 minutes.
# make audit: look up the installed packages in the list of known vulnerabilities (needs pip-audit and a network).
# make zoo NAME=aio HOURS=2: train a network of the zoo by zoo/aio/args.json (docs/zoo.md).
# make torture: kill trainings, read damaged files, long runs, about two hours.  Each target creates .venv if it does not exist.
PYTHON ?= python3
HOURS ?= 2
BIN := .venv/bin
# one process per core, at most four, because each needs about 1 GB for PyTorch
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo demo-kd zoo test test-all torture lint bench audit clean

demo: .venv/ready
	$(BIN)/python -m tool.demo

demo-kd: .venv/ready
	$(BIN)/python -m tool.demo_kd

zoo: .venv/ready
	$(BIN)/python -m tool.zoo train $(NAME) --hours $(HOURS)

test: .venv/ready-to-test
	$(PYTEST) -m "not slow"

test-all: .venv/ready-to-test
	$(PYTEST) --cov --cov-report term

torture: .venv/ready-to-test
	$(BIN)/python -m tests.torture
	for target in image weights state report; do $(BIN)/python -m tests.fuzz $$target --minutes 20 || exit 1; done
	$(BIN)/python -m tests.endurance epochs images bf16

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/python -m tool.bench --write

audit: .venv/ready
	$(BIN)/python -m tool.audit

.venv/ready: requirements.txt
	$(BIN)/python -c "" 2> /dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
