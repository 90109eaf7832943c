# make demo: train, test and look, on embedded photos.  make test: the tests.  Both set up .venv when there is none.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/python -m tool.demo

test: .venv/ready-to-test
	$(BIN)/python -m pytest

lint: .venv/ready-to-test
	$(BIN)/ruff check .

.venv/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready
	$(BIN)/pip install --quiet "pytest>=8" "ruff>=0.6"
	touch $@

clean:
	rm -rf .venv
