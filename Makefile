# Everything here needs python3 (3.11 or later) and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The official clients have dependencies of their own.
CLIENTS ?= .venv-clients
CLIENTS_NPM ?= .clients-npm

.PHONY: run test test-clients check style types property bench bench-quick clean

run: $(VENV)/ready          ## a working front door with an example bot behind it
	@exec $(BIN)/relay serve --demo

test: $(VENV)/ready         ## the whole test suite, under five minutes on two cores
	$(BIN)/python -m pytest -q

test-clients: $(VENV)/ready $(CLIENTS)/ready $(CLIENTS_NPM)/ready  ## the official clients, unmodified
	CLIENTS_VENV=$(CLIENTS) CLIENTS_NPM=$(CLIENTS_NPM) $(BIN)/python -m pytest -q tests/clients

check: style types          ## style and types

style: $(VENV)/ready
	$(BIN)/ruff check relay tests bench examples
	$(BIN)/ruff format --check relay tests bench examples

types: $(VENV)/ready
	$(BIN)/mypy

property: $(VENV)/ready     ## the property tests with the deep profile
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -q tests/property

bench: $(VENV)/bench        ## measure this machine, about two hours; see bench/README.md
	$(BIN)/python -m bench run

bench-quick: $(VENV)/bench  ## two scenarios in short rounds, under three minutes
	$(BIN)/python -m bench run --quick

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("relay needs Python 3.11 or later, found " + sys.version.split()[0] + "; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "making $(VENV) (once, about half a minute)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $@

# The bench runs without its extra, with fewer targets and no plots.
$(VENV)/bench: $(VENV)/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' \
	  && touch $@ || echo "the extra 'bench' is not installed: no plots, no Python peers"

$(CLIENTS)/ready: tests/clients/requirements.txt
	@test -x $(CLIENTS)/bin/python || { echo "making $(CLIENTS) (once)"; $(PYTHON) -m venv $(CLIENTS); }
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(CLIENTS_NPM)/ready: tests/clients/package.json
	@command -v npm >/dev/null || { echo "the JavaScript clients need Node.js 20 or later, with npm"; exit 1; }
	@mkdir -p $(CLIENTS_NPM) && cp $< $(CLIENTS_NPM)/package.json && echo "filling $(CLIENTS_NPM) (once)"
	@npm install --prefix $(CLIENTS_NPM) --loglevel=error --no-audit --no-fund --no-package-lock --ignore-scripts
	@touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(CLIENTS_NPM) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
