# `make demo` and `make test` are each all that a fresh clone needs: they make .venv, install into it, and run.
PYTHON ?= python3
VENV   ?= .venv
# Processes that run tests side by side, of one thread each: half of the time of the suite is spent outside of kernels.
WORKERS ?= 2
# A pin, not a range: where only a CPU build of this version is at hand, anything looser fetches gigabytes of CUDA packages.
TORCH  ?= torch==2.13.0
BUILD  := setuptools>=77 wheel pybind11>=2.13 ninja>=1.11

PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check
# Modules are compiled when they are first imported, and kept: pip would compile 15,000 one after the other, minutes long.
INSTALL := $(PIP) install -q --no-compile
SOURCES := pyproject.toml setup.py $(wildcard csrc/*)

.PHONY: demo test full campaigns sanitize kernels browser axe lint bench predictions upstream upstream-parity manual docs-check setup clean

demo: $(VENV)/.base
	$(VENV)/bin/fastdd demo

# Bytecode is kept, whatever the environment says: else every process compiles torch, fastdd and the asserts of 280 files.
export PYTHONDONTWRITEBYTECODE :=

PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist worksteal

# FULL=1: also what the default suite has a part of only, in the same processes.
test: $(VENV)/.dev browser axe
	$(PYTEST) $(if $(FULL),-m "not slow and not campaigns")

# That alone.
full: $(VENV)/.dev
	$(PYTEST) -m full

# Hostile inputs, kills, odd shapes, by the thousand, and a table of how they ended: half an hour or so.
# FASTDD_CAMPAIGN_SECONDS bounds each test, FASTDD_CAMPAIGN_JSON names a file for the counts.
campaigns: $(VENV)/.dev
	$(PYTEST) -m campaigns tests/campaigns

# The ops' tests and hostile calls with the C++ kernels under AddressSanitizer and UBSan, which end a process at the first
# wrong address or number. The package is laid out in build/sanitized, which goes before the checkout (PYTHONSAFEPATH).
SANITIZED := build/sanitized
sanitize: $(VENV)/.dev
	FASTDD_SANITIZE=1 FASTDD_CUDA=0 FASTDD_BUILD_EXT=1 $(PY) setup.py -q build --build-lib $(SANITIZED)
	PYTHONSAFEPATH=1 PYTHONPATH=$(SANITIZED) OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		$(PY) -m pytest -q -n $(WORKERS) --dist worksteal tests/ops tests/campaigns/ops -m "not slow and not campaigns"

# The default suite begins with them too, and compiles what is not as committed; here all are compiled: minutes.
kernels: $(VENV)/.dev
	FASTDD_EVERY_KERNEL=1 $(PYTEST) -m kernels tests/kernels

# For the report page's own test, which is skipped without one.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "no Chromium: no test in a browser"

# What reads the report page as readers with other senses do, in that browser. AXE_CORE names another copy of axe.min.js.
axe:
	@[ -n "$$AXE_CORE" ] || [ -f .cache/axe/node_modules/axe-core/axe.min.js ] || { command -v npm >/dev/null && \
		npm install --silent --no-audit --no-fund --prefix .cache/axe axe-core@4 >/dev/null; } || \
		echo "no axe-core: the report page is not read by it"

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tools/lint_imports.py

bench: $(VENV)/.dev
	$(VENV)/bin/fastdd bench

# After a case or a step's launches have changed: both are counted here, and committed before they are measured on a GPU.
predictions: $(VENV)/.dev
	OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers $(PY) tests/device/test_steps.py
	OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers $(PY) tests/device/test_epochs.py
	$(VENV)/bin/fastdd bench --model h200 --case '*' --json bench/results/predicted-h200.json

# Published code, as it is and on fastdd: DIR holds checkouts (docs/develop/upstream.md), DATA mnist/ and cifar10/. OUT gets
# upstream.md and upstream.json; ARGS are the tool's own, such as --only MTT or --resume. upstream is for times, at settings
# of which most is the script's own work, 100 s a script; upstream-parity for what agrees, with the tests that compare.
upstream upstream-parity: OUT ?= upstream-out
upstream: $(VENV)/.dev
	@test -d "$(DIR)" -a -d "$(DATA)" || { echo "make upstream DIR=checkouts DATA=data"; exit 2; }
	$(PY) -u tools/upstream $(DIR) --data $(DATA) --out $(OUT) --larger --repeats 2 --each 100 --no-parity --no-profile $(ARGS)

upstream-parity: $(VENV)/.dev
	@test -d "$(DIR)" -a -d "$(DATA)" || { echo "make upstream-parity DIR=checkouts DATA=data"; exit 2; }
	$(PY) -u tools/upstream $(DIR) --data $(DATA) --out $(OUT) $(ARGS)
	FASTDD_UPSTREAM=$(abspath $(DIR)) FASTDD_TEST_DATA=$(abspath $(DATA)) $(PYTEST) -m "upstream and not full"

setup: $(VENV)/.dev

# Pages to be read offline; a broken link or an unknown name is an error (mkdocs.yml). The search needs a server:
# python -m http.server -d build/manual
manual: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo "build/manual/index.html"

docs-check: $(VENV)/.dev
	$(PY) -m pytest -q tests/test_docs.py

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "$(TORCH)" $(foreach p,$(BUILD),"$(p)")
	touch $@

$(VENV)/.base: $(VENV)/.torch $(SOURCES)
	$(INSTALL) --no-build-isolation -e .
	touch $@

# With what .base asks for, so that one installation does for both.
$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(INSTALL) --no-build-isolation -e ".[cpu,bench,docs,dev]"
	touch $(VENV)/.base $@

clean:
	rm -rf $(VENV) .cache build dist *.egg-info fastdd/_C*.so
