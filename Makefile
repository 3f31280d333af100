# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
WORDS ?=
RANKS ?= 2
OBJECTIVE ?= mdlm

# The demo on other numbers of ranks of this machine, each in a run directory of its own.
LAYOUT_1 := parallel.data=1
LAYOUT_2 :=
LAYOUT_4 := parallel.data=1 parallel.tensor=2 parallel.pipeline=2 parallel.micro_batch=8

CONFIG_mdlm := configs/demo.yaml
CONFIG_genie := configs/genie/demo.yaml
RUN_mdlm_1 := run_dir=runs/demo-1
RUN_mdlm_4 := run_dir=runs/demo-4
RUN_genie_1 := run_dir=runs/demo-genie-1
RUN_genie_4 := run_dir=runs/demo-genie-4

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:
	@echo "make demo          train, evaluate and sample a small model on this machine (minutes)"
	@echo "make demo OBJECTIVE=genie      the same with GENIE in the place of MDLM"
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
	$(if $(CONFIG_$(OBJECTIVE)),,$(error OBJECTIVE must be mdlm or genie))
	@$(RUN) -m tools.demo $(CONFIG_$(OBJECTIVE)) $(LAYOUT_$(RANKS)) \
	    $(RUN_$(OBJECTIVE)_$(RANKS)) $(WORDS)

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Two processes share the tests (tests/conftest.py says how). Of the slow ones, those that time or
# signal something run afterwards, one after the other, with the machine to themselves.
TWO := -n 2 --dist loadscope --no-loadscope-reorder

test: lint
	$(RUN) -m pytest $(TWO) -m "not slow" $(ARGS)
	$(if $(SLOW),$(RUN) -m pytest $(TWO) -m "slow and not alone" $(ARGS))
	$(if $(SLOW),$(RUN) -m pytest -m alone $(ARGS))

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
