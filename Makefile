# mxlet: each target does all its own set-up; `make help` lists them.
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint verilog bench mutants formal

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

$(STAMP): pyproject.toml setup.sh
	@sh setup.sh $(VENV)

setup: $(STAMP)  ## the environment alone (.venv, pinned dependencies)

demo: $(STAMP)  ## sentences through MiniLM on a co-simulated package; pictures in build/demo/
	@$(PY) -m host.cli run embed --package mtia450 --out build/demo

test: $(STAMP)  ## the whole test suite
	@$(PY) -m pytest -q -n 2 --dist worksteal

soak: $(STAMP)  ## the tests of blocks again and again with other random numbers, until one fails
	@while COCOTB_RANDOM_SEED=$$(date +%s) $(PY) -m pytest -q -n 2 -m "not system"; do :; done

lint: $(STAMP)  ## ruff, and Verilator and Icarus on the generated Verilog is `make verilog`
	@$(VENV)/bin/ruff check . && echo "lint: no findings"

verilog: $(STAMP)  ## Verilog of every chiplet in build/verilog/, checked by two simulators
	@$(PY) -m host.cli generate all -o build/verilog

bench: $(STAMP)  ## every measurement; results in benchmarks/*.json
	@$(PY) -m host.cli bench --all

mutants: $(STAMP)  ## changes the RTL in one place at a time; a test must fail each time
	@$(PY) -m testbenches.mutants.run

formal: $(STAMP)  ## proofs of the network by model checking; logs in build/formal
	@$(PY) -m testbenches.formal.run
