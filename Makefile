# Every way to run and check Adlatus. `make help` lists the targets.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
SETUP_LOG := $(VENV)/setup.log
COMPILE := $(CURDIR)/$(BIN)/pip-compile -q --strip-extras --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup models sandbox dev run check test nightly chaos mutations conformance fmt lint types imports audit migrate revision bench \
	requirements docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: $(VENV)/.run-ready ## create the virtual environment and install what `make run` needs

models: setup ## fetch the local embedding model, unless it is there
	@$(BIN)/adlatus models fetch || echo "Going on without it: texts are found by their words only." >&2

sandbox: setup ## prepare what model-written code runs in, unless it is there
	@$(BIN)/adlatus sandbox prepare || echo "Going on without it: the code interpreter is refused." >&2

run: setup models sandbox ## set everything up and serve on http://127.0.0.1:8000
	@exec $(BIN)/adlatus serve

dev: $(VENV)/.dev-ready ## also install what development needs

check: dev lint types imports ## before each commit: format, lint, types, imports, fast tests
	@$(BIN)/pytest -q -m "not slow and not nightly" --ignore tests/faults

test: dev models sandbox lint types imports ## everything but the nightly variants
	@$(BIN)/pytest -m "not nightly" -n $(WORKERS) --max-worker-restart 0

nightly: dev ## the long variants too
	@$(BIN)/pytest --timeout 3600

chaos: dev sandbox ## kill, stop and restart processes and the database hundreds of times under load
	@$(BIN)/pytest -s tests/faults/test_chaos.py -m nightly --timeout 3600

mutations: dev ## show which contract test catches which wrong shape
	@$(BIN)/pytest -q -s tests/contract/test_mutations.py -m nightly --timeout 1800

fmt: dev ## format and sort imports
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lint: dev ## formatting and lint rules
	@$(BIN)/ruff format -q --check . && $(BIN)/ruff check -q .

types: dev ## mypy --strict
	@$(BIN)/mypy --no-error-summary

imports: dev ## imports point down
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

audit: setup ## ask the network for known vulnerabilities of the pinned packages
	@$(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q --disable-pip-version-check pip-audit
	@$(VENV)/audit/bin/pip-audit --no-deps --disable-pip -r requirements-dev.txt

migrate: setup ## bring the database of ADLATUS_DATABASE_URL, or the embedded one, to this version's schema
	@$(BIN)/adlatus migrate

revision: dev ## draft a migration: make revision m="what changes"
	@$(BIN)/python migrations/new_revision.py $(m)

conformance: dev ## run the contract tests and write their table into docs/compatibility.md
	@$(BIN)/pytest -q -m "not nightly" --write-conformance tests/contract

bench: dev ## measure against the floors, print ratios, write bench-results.json
	@$(BIN)/python -m bench

docs: dev ## draw from the code what the documentation says of it
	@$(BIN)/python -m docs.generate

requirements: dev ## compile the pinned requirements from pyproject.toml
	@for args in "--extra local --extra otel -o requirements.txt" "--extra local --extra otel --extra dev -c requirements.txt -o requirements-dev.txt"; do \
		$(COMPILE) $$args pyproject.toml || exit 1; \
	done
	@cd docker/sandbox && $(COMPILE) requirements.in

clean: ## remove what the targets above have made in this folder
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Adlatus needs Python 3.11 or newer as $(PYTHON). On Debian: apt install python3 python3-venv, or make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python cannot make virtual environments. On Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: requirements.txt pyproject.toml | $(VENV)/bin/pip
	@echo "Installing the requirements (once)"
	@{ $(BIN)/pip install --disable-pip-version-check -r requirements.txt && \
		$(BIN)/pip install --disable-pip-version-check --no-deps -e . ; } > $(SETUP_LOG) 2>&1 || { tail -20 $(SETUP_LOG) >&2; exit 1; }
	@touch $@

$(VENV)/.dev-ready: requirements-dev.txt $(VENV)/.run-ready
	@echo "Installing the development requirements (once)"
	@$(BIN)/pip install --disable-pip-version-check -r requirements-dev.txt > $(SETUP_LOG) 2>&1 || { tail -20 $(SETUP_LOG) >&2; exit 1; }
	@touch $@
