# Everything here needs python3 (3.11 or later) and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The official clients have dependencies of their own.
CLIENTS ?= .venv-clients
CLIENTS_NPM ?= .clients-npm
# What a message passes on its way through a pump: `make compiled` makes C of it, with mypyc.
COMPILED_VENV ?= .venv-compiled
COMPILED := relay/protocol/frame_headers.py relay/protocol/frames.py relay/protocol/lifecycle.py relay/pump/poller.py \
	relay/pump/scratch.py relay/pump/sums.py relay/pump/end.py relay/pump/transfer.py \
	relay/pump/tunnel.py relay/pump/turns.py relay/pump/sockets.py relay/pump/pump.py

define CAN_COMPILE
import os, shutil, sys, sysconfig
cc = (os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc').split()[0]
if not shutil.which(cc):
    sys.exit(f'a compiled pump needs a C compiler; there is no {cc}')
if not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
    sys.exit('a compiled pump needs the header files of Python; some systems have a package for them, like python3-dev')
endef
export CAN_COMPILE

define SETUP
from mypyc.build import mypycify
from setuptools import setup
setup(ext_modules=mypycify('$(COMPILED)'.split(), group_name='relay'))
endef
export SETUP

.PHONY: run test test-clients test-live test-packaging test-peers attach compiled test-compiled check style types property \
	bench bench-core bench-quick clean

run: $(VENV)/ready          ## a working front door with an example bot behind it
	@exec $(BIN)/relay serve --demo

test: $(VENV)/ready         ## the whole test suite, under five minutes on two cores
	$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

test-clients: $(VENV)/ready $(CLIENTS)/ready $(CLIENTS_NPM)/ready  ## the official clients, unmodified
	CLIENTS_VENV=$(CLIENTS) CLIENTS_NPM=$(CLIENTS_NPM) $(BIN)/python -m pytest -q tests/clients

test-peers: $(VENV)/ready   ## bad requests beside nginx and HAProxy; TLS ended in front
	$(BIN)/python -m pytest -q tests/peers

test-packaging: $(VENV)/ready  ## the wheel in a fresh environment, units, container file, manifests
	$(BIN)/python -m pytest -q tests/packaging

attach: $(VENV)/ready       ## how long a caller waits for a warm bot; on a machine without other work
	$(BIN)/python -m tests.helpers.attach

test-live: $(VENV)/ready    ## many calls while bots and processes die, or somebody floods; some ten minutes
	$(BIN)/python -m pytest -q tests/live

compiled: $(VENV)/ready     ## a wheel with a compiled pump in build/compiled; needs a C compiler
	@$(BIN)/python -c "$$CAN_COMPILE"
	@rm -rf build/compiled && mkdir -p build/compiled/source/examples
	@cp -R relay setup.cfg README.md LICENSE build/compiled/source
	@cp examples/*.py build/compiled/source/examples
	@sed 's/^requires = .*/requires = ["setuptools>=77", "mypy>=1.13", "msgspec>=0.19"]/' pyproject.toml > build/compiled/source/pyproject.toml
	@echo "$$SETUP" > build/compiled/source/setup.py
	@echo "compiling (about a minute)"
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w build/compiled build/compiled/source
	@echo "made $$(ls build/compiled/*.whl)"

# Away from the source tree, so that nothing there is imported instead.
test-compiled: compiled     ## the tests of the pump, with the compiled one
	@test -x $(COMPILED_VENV)/bin/python || { echo "making $(COMPILED_VENV) (once)"; $(BIN)/python -m venv $(COMPILED_VENV); }
	@wheel=$$(ls build/compiled/*.whl) && pip="$(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check" && \
		$$pip "relay[test] @ file://$(CURDIR)/$$wheel" && $$pip --force-reinstall --no-deps $$wheel
	@rm -rf build/tested && mkdir -p build/tested && cp -R tests pyproject.toml build/tested
	cd build/tested && COMPILED="$(COMPILED)" $(abspath $(COMPILED_VENV))/bin/python -m pytest -q tests/compiled tests/unit/pump \
		tests/property/test_frames.py tests/property/test_tunnel_states.py tests/property/test_pump.py tests/property/test_moving.py \
		tests/integration/test_pump_process.py

check: style types          ## style and types

style: $(VENV)/ready
	$(BIN)/ruff check relay tests bench examples
	$(BIN)/ruff format --check relay tests bench examples

types: $(VENV)/ready
	$(BIN)/mypy

property: $(VENV)/ready     ## the property tests with the deep profile
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -q tests/property

bench: $(VENV)/bench        ## measure this machine, under an hour; see bench/README.md
	$(BIN)/python -m bench run

bench-core: $(VENV)/bench   ## what the floors need, some twelve minutes
	$(BIN)/python -m bench run --core

bench-quick: $(VENV)/bench  ## two scenarios in three rounds, under three minutes
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
	rm -rf $(VENV) $(CLIENTS) $(CLIENTS_NPM) $(COMPILED_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
