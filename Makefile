# A plain `make` prints this help. PYTHON chooses the interpreter for the virtual environment.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
MINUTES ?= 10
SEED ?=
PYTEST_OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-oldest test-all tools check bench bench-full retrieval soak docs clean

help: ## print what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make the virtual environment and install everything for development

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "installing into $(VENV) (once; about 600 MB)"
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -e '.[dev]'
	@touch $(STAMP)

demo: setup ## carry the farming handbook through a whole migration, under live traffic
	@$(RUN)/shadow demo

test: setup ## run the tests (under 8 minutes)
	@$(RUN)/python -m pytest -m "not slow" -n 2 $(PYTEST_OPTIONS)

test-oldest: ## run the tests with the oldest versions of everything that pyproject.toml admits
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python \
		--resolution lowest-direct -e '.[dev]'
	@.venv-oldest/bin/python -m pytest -m "not slow" -n 2 $(PYTEST_OPTIONS)

test-all: setup tools ## run all tests, the long ones too
	@$(RUN)/python -m pytest -n 2 $(PYTEST_OPTIONS)

# The tests of the operators' page need a browser, those of the alerts need promtool. Without them these
# tests are skipped, and say what to install.
tools: ## install Debian's chromium and prometheus for test-all, where that may be done
	@{ command -v chromium || command -v google-chrome; } >/dev/null && command -v promtool >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium prometheus >/dev/null; } || \
		echo "no browser or no promtool: install them with  sudo apt-get install chromium prometheus"

check: setup ## lint, types and import contracts
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

bench: setup ## compare latencies of FAISS, PostgreSQL and the router, with recall beside each
	@$(RUN)/python -m benchmarks.run

bench-full: setup ## the same at every size
	@$(RUN)/python -m benchmarks.run --full

retrieval: setup ## recall@5 on the farming handbook, in every store and every phase
	@$(RUN)/python -m benchmarks.retrieval

soak: setup ## kill, crash and write for MINUTES (10), with SEED
	@$(RUN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

docs: setup ## write the generated pages and the commented configuration anew
	@$(RUN)/shadow settings --toml > config/shadow.toml
	@$(RUN)/shadow settings --markdown > docs/configuration.md
	@$(RUN)/python -m tests.commands_page > docs/commands.md
	@$(RUN)/farming-guide settings --toml > config/farming_guide.toml

clean: ## remove the virtual environment, caches and what the demo left
	@rm -rf $(VENV) .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks demo-output benchmarks/results
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
