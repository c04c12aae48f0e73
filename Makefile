# `make demo` and `make test` need nothing but Python 3.11 or later: they build .venv first, once.
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
PYTEST := $(VENV)/bin/python -m pytest
# As tests/browser.py looks for them.
BROWSERS := chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable chrome
# What Qt's window plugin links to, and a display with OpenGL; Debian's names.
QT_PLUGIN  := $(VENV)/lib/python3*/site-packages/PyQt6/Qt6/plugins/platforms/libqxcb.so
QT_DISPLAY := xvfb xauth libgl1-mesa-dri libegl1 libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 \
  libxcb-shape0 libxcb-image0 libxcb-render-util0 libxcb-xinerama0 libdbus-1-3 libfontconfig1 libglib2.0-0
# Written last, so that an interrupted installation is done again.
READY  := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help install browser display demo test test-fast test-min test-gpu test-monailabel coverage lint types bench \
  bench-docs pictures clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "make PYTHON=python3.12 TARGET chooses the interpreter of a new $(VENV)"

install: $(READY)  ## make the environment alone

demo: $(READY)  ## show the shipped bundles at work, on phantoms and on a brain template
	@echo "== Demo =="
	@$(VENV)/bin/unetfamily demo

browser:  ## make sure that a Chromium is there: the tests open the cohort's page in it
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
	  echo "no Chromium on this machine, which tests of the cohort's page need: install the system package chromium" \
	    "(or google-chrome), then run make again" >&2; exit 1; }; \
	echo "== Installing Chromium (about 100 MB, once) =="; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
	for package in chromium-headless-shell chromium; do \
	  apt-get install -qq -y --no-install-recommends $$package >/dev/null && exit 0; done; exit 1

display: $(READY)  ## make sure that napari's windows can open: the tests open them on a display of their own (Xvfb)
	@[ "$$(uname)" = Linux ] || exit 0; \
	command -v Xvfb >/dev/null && ! ldd $(QT_PLUGIN) | grep -q 'not found' && exit 0; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
	  echo "no Xvfb or Qt libraries on this machine, which tests of the napari plugin need: install the system packages" \
	    "$(QT_DISPLAY) (or your system's like), then run make again" >&2; exit 1; }; \
	echo "== Installing a display for tests (Xvfb, about 150 MB, once) =="; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
	apt-get install -qq -y --no-install-recommends $(QT_DISPLAY) >/dev/null

test: $(READY) browser display  ## run all tests and doctests
	@echo "== Tests and doctests =="
	@OMP_NUM_THREADS=1 $(PYTEST) -n 2

test-fast: $(READY) display  ## run the tests that are not marked slow
	@echo "== Fast tests and doctests =="
	@OMP_NUM_THREADS=1 $(PYTEST) -n 2 -m "not slow"

test-min: $(READY) display  ## run test-fast on the lowest and on the newest versions, in environments of their own (12 GB)
	@$(VENV)/bin/python .ci/test_versions.py

coverage: $(READY) browser display  ## run all tests and count: fails below 95 % of the package, 85 % of the plugin
	@echo "== Tests and doctests, counted =="
	@OMP_NUM_THREADS=1 $(PYTEST) -n 2 --cov --cov-report=
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
	@PYTHONPATH=tests $(VENV)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ONLY)

bench-docs: $(READY)  ## show what make bench measured in docs/performance.md and the README
	@PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.publish

pictures: $(READY) display  ## draw the floors anew, and the pictures of docs/napari.md in a session with the widget
	@PYTHONPATH=.:tests $(VENV)/bin/python docs/draw_floors.py
	@PYTHONPATH=. $(VENV)/bin/python docs/draw_napari.py

clean:  ## remove what make made: .venv, caches, build leftovers, demo_output
	rm -rf $(VENV) .venv-lowest .venv-newest .venv-monailabel .coverage build dist demo_output *.egg-info \
	  .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
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
	@echo "== Installing into $(VENV) (about 2.4 GB with a CPU build of torch, once) =="
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
