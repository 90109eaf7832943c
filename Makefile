# make demo: train, test and look, on embedded photos.  make demo-kd: the same for three teachers and their student.
# make test: the tests.  make torture: kills trainings at random moments, for ten minutes or more.  All set up .venv when there is none.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-kd test torture lint clean

demo: .venv/ready
	$(BIN)/python -m tool.demo

demo-kd: .venv/ready
	$(BIN)/python -m tool.demo_kd

test: .venv/ready-to-test
	$(BIN)/python -m pytest

torture: .venv/ready-to-test
	$(BIN)/python -m tests.torture

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
