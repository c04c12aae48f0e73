# `make demo` and `make test` need nothing but Python 3.11 or later: they build .venv first, once.
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
PYTEST := $(VENV)/bin/python -m pytest
RUN_TESTS := OMP_NUM_THREADS=1 $(PYTEST) -n 2
# Bytecode is compiled when a module is first imported: pip would compile all of them, one after another.
PIP    := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
SYSTEM := $(VENV)/bin/python tests/support/system_parts.py
# Written last, so that an interrupted installation is done again.
READY  := $(VENV)/ready
DEMO   := $(VENV)/demo-ready

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install system demo test test-all test-fast test-random test-min test-default-torch test-gpu \
  test-monailabel coverage lint types bench bench-gpu bench-docs pictures clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "make PYTHON=python3.12 TARGET chooses the interpreter of a new $(VENV)"

install: $(READY)  ## make the environment alone

demo: $(or $(wildcard $(READY)),$(DEMO))  ## segment phantoms and a brain template with the shipped bundles (3 min and 1.5 GB the first time)
	@echo "== Demo =="
	@$(VENV)/bin/unetfamily demo

system: $(READY)  ## install the Chromium and the display that tests use; not as root: name the system packages
	@$(SYSTEM)

test: $(READY) system  ## run the test suite without the exhaustive tables (10 min; 2.4 GB with the environment)
	@echo "== Tests and doctests =="
	@$(RUN_TESTS) -m "not exhaustive"

test-all: $(READY) system  ## run the whole test suite: about twice as long
	@echo "== All tests and doctests =="
	@$(RUN_TESTS)

test-fast: $(READY) system  ## run the tests that are not marked slow
	@echo "== Fast tests and doctests =="
	@$(RUN_TESTS) -m "not slow and not exhaustive"

test-random: $(READY) system  ## run make test-all in random order three times at once, so that each run is under load
	@echo "== All tests and doctests, three runs at once in random order =="
	@$(VENV)/bin/python .ci/test_random.py

test-min: $(READY) system  ## run test-fast on the lowest and on the newest versions, in environments of their own (12 GB)
	@$(VENV)/bin/python .ci/test_versions.py

test-default-torch: $(READY) system  ## test bundles, commands and napari on the wheels that pip brings users (7 GB)
	@$(VENV)/bin/python .ci/test_default_torch.py

coverage: $(READY) system  ## make test with coverage: fails below 95 % of the package, 85 % of the plugin
	@echo "== Tests and doctests, counted =="
	@$(RUN_TESTS) -m "not exhaustive" --cov --cov-report=
	@$(VENV)/bin/coverage report --skip-covered --include='monai_unetfamily/*' --fail-under=95
	@$(VENV)/bin/coverage report --skip-covered --include='napari_plugin/*' --fail-under=85

test-gpu: $(READY)  ## run the tests that need a CUDA device
	@echo "== Tests that need a CUDA device =="
	@found=$$($(PYTEST) -m gpu --collect-only -q) || [ $$? -eq 5 ] || { echo "$$found"; exit 1; }; \
	count=$$(grep -c :: <<< "$$found"); \
	if ! $(VENV)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	  echo "no CUDA device here: the $$count tests marked gpu did not run"; \
	elif [ "$$count" -eq 0 ]; then echo "no test is marked gpu"; \
	else $(PYTEST) -m gpu; fi

test-monailabel: $(READY)  ## run MONAI Label's server with our bundles, in an environment of its own (8 GB)
	@$(VENV)/bin/python .ci/test_monailabel.py

lint: $(READY)  ## check style and format
	@echo "== Style (ruff) =="
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

types: $(READY)  ## check types
	@echo "== Types (mypy) =="
	@$(VENV)/bin/mypy

bench: $(READY)  ## measure time and memory against peers: an hour, alone on the machine; QUICK=1: 5 minutes
	@$(VENV)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ONLY)

bench-gpu: $(READY)  ## run the tests marked gpu, then measure on a CUDA device; QUICK=1: smaller, for a trial
	@$(VENV)/bin/python -m benchmarks.gpu $(if $(QUICK),--quick) $(ONLY)

bench-docs: $(READY)  ## show what make bench measured in docs/performance.md and the README
	@$(VENV)/bin/python -m benchmarks.publish

pictures: $(READY)  ## draw the floors anew, and the pictures of docs/napari.md in a session with the widget
	@$(SYSTEM) --required display
	@$(VENV)/bin/python -m tools.draw_architecture
	@$(VENV)/bin/python -m tools.draw_napari

clean:  ## remove what make made: .venv, caches, build leftovers, demo_output
	rm -rf $(VENV) .venv-lowest .venv-newest .venv-default-torch .venv-monailabel .coverage build dist demo_output \
	  *.egg-info .pytest_cache .mypy_cache .ruff_cache

define MAKE_VENV
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing);" \
	    "Python 3.11 or later is needed: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
	    echo "$(PYTHON) lacks the venv module: install the system package $$package, then run make again" >&2; exit 1; }; \
	  echo "== Installing $$package =="; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$$package" >/dev/null; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  echo "== Making $(VENV) =="; $(PYTHON) -m venv --clear $(VENV); }
endef

$(DEMO): pyproject.toml constraints.txt
	$(MAKE_VENV)
	@echo "== Installing what the demo needs into $(VENV) (about 1.5 GB with a CPU build of torch, once) =="
	@$(PIP) -e '.[demo]'
	@touch $@

$(READY): pyproject.toml constraints.txt
	$(MAKE_VENV)
	@echo "== Installing into $(VENV) (about 2.4 GB with a CPU build of torch, once) =="
	@rm -f $(READY) $(DEMO)
	@$(PIP) -e '.[test]'
	@touch $(DEMO) $@
