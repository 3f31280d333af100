# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
WORDS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:
	@echo "make demo          train, evaluate and sample a small model on this machine (5 minutes)"
	@echo "make demo WORDS='steps=100 run_dir=runs/short'   the same with other settings"
	@echo "make test          style, types and tests; make test SLOW=1 also the slow ones"
	@echo "make clean         remove the virtual environment and caches; runs/ stays"

$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(RUN) -m pip install --quiet -e '.[test]'
	@touch $@

demo: $(VENV)/.installed
	@$(RUN) -m tools.demo configs/demo.yaml $(WORDS)

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: lint
	$(RUN) -m pytest $(if $(SLOW),,-m "not slow") $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
