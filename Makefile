# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
WORDS ?=
RANKS ?= 2

# The demo on other numbers of ranks of this machine, each in a run directory of its own.
LAYOUT_1 := parallel.data=1 run_dir=runs/demo-1
LAYOUT_2 :=
LAYOUT_4 := parallel.data=1 parallel.tensor=2 parallel.pipeline=2 parallel.micro_batch=8 \
            run_dir=runs/demo-4

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:
	@echo "make demo          train, evaluate and sample a small model on this machine (5 minutes)"
	@echo "make demo RANKS=4      the same on 4 ranks: tensor parallel 2 x pipeline 2"
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
	$(if $(filter 1 2 4,$(RANKS)),,$(error RANKS must be 1, 2 or 4))
	@$(RUN) -m tools.demo configs/demo.yaml $(LAYOUT_$(RANKS)) $(WORDS)

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: lint
	$(RUN) -m pytest $(if $(SLOW),,-m "not slow") $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
