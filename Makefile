# Everything from a fresh clone, in any order: `make quickstart` ends with a model that talks, `make test` with a green suite,
# `make check` with clean style and types. The environment is made once, and brought up to date when pyproject.toml or
# constraints.txt change.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: quickstart test check crash-test compat-test lint benchmark install clean

# QUICK=1: every step of it with a model too small to learn much, under a minute, each time from the beginning
ifdef QUICK
SHORT := runs/quickstart-short
quickstart: $(STAMP)
	rm -rf $(SHORT)
	$(VENV)/bin/tinygpt quickstart --output_dir $(SHORT) --max_steps 50 --max_train_samples 1500 \
		--hidden_size 64 --num_hidden_layers 2 --num_attention_heads 1
else
quickstart: $(STAMP)
	$(VENV)/bin/tinygpt quickstart
endif

test: $(STAMP)
	$(VENV)/bin/python -m pytest

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# hundreds of killed, interrupted and damaged runs, about fifteen minutes; TINYGPT_CRASH_SEED chooses other moments
crash-test: $(STAMP)
	TINYGPT_CRASH=full $(VENV)/bin/python -m pytest --dist load tests/crash

# vLLM, llama.cpp and others, in environments under ~/.cache/tinygpt-compat (4 GB) that the first run makes
compat-test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 0 tests/compat

# what `make check` finds and ruff can fix
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
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
