# The two commands that matter: `make demo` and `make test`. Everything else is for those who change the code.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
NAME ?=

.PHONY: setup demo test check bench prove clean

setup: $(READY)

$(READY): constraints.txt pyproject.toml $(wildcard common/*.c common/*.h)
	@test -n "$(PYTHON)" || { echo "error: no python3 here; install Python 3.11, with venv and pip"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[simulation,dev]"
	@touch $(READY)

demo: $(READY)
	@test -e runs/phantoms/truth.csv || $(RUN) -m simulation phantom runs/phantoms --preset lymphus --seed 0 --extra-centers 2
	$(RUN) -m simulation compare configs/experiments/demo.toml --out runs/demo

test: $(READY)
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not prove"

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(READY)
	$(RUN) -m tests.benchmarks $(NAME)

prove: $(READY)
	$(RUN) -m tests.prove $(NAME)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
