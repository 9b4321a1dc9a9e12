# Everything from a fresh clone: `make quickstart` ends with a model that talks, `make test` with a green suite.
# The environment is made once; it is made again only when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: quickstart test crash-test compat-test lint benchmark install clean

quickstart: $(STAMP)
	$(VENV)/bin/tinygpt quickstart

test: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest

# hundreds of killed, interrupted and damaged runs, about fifteen minutes; TINYGPT_CRASH_SEED chooses other moments
crash-test: $(STAMP)
	TINYGPT_CRASH=full $(VENV)/bin/python -m pytest --dist load tests/crash

# vLLM, llama.cpp and others, in environments under ~/.cache/tinygpt-compat (4 GB) that the first run makes
compat-test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 0 tests/compat

lint: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

benchmark: $(STAMP)
	$(VENV)/bin/python benchmarks/time_to_loss.py

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
