# Two commands are the whole set-up: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
export UV_LINK_MODE ?= hardlink
# Without cached bytecode every process compiles torch anew, and there are many: thirty seconds each.
unexport PYTHONDONTWRITEBYTECODE

# The first Python of a supported version that really runs (a version manager's shim may exist and not run), and that
# can make environments (some systems package that apart).
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: help setup demo serve docs test screenshots coverage bench chaos integrations audit lint types format lock clean

help:  ## What there is to run
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: .venv/.installed  ## The environment in .venv

.venv/.installed: requirements/dev.txt requirements/uv.txt pyproject.toml clients/python/pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 found: install one, or run make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements/dev.txt requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e clients/python
	@touch $@

demo: setup  ## Start everything, find the wrong captions among 1,437 digits, show what was found
	@$(BIN)/python -m standalone.demo

serve: setup  ## Run the service on this machine until Ctrl-C (PORT=8000, ECIF_HOME=.ecif)
	@exec $(BIN)/python -m standalone serve --with-parent

docs: setup  ## The documentation as a site, in .site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test: lint  ## Every check there is (ARGS='-k name' for pytest)
	$(BIN)/pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

screenshots: setup  ## Draw docs/screenshots anew, by the tests of the explorer; needs a Chromium
	ECIF_SCREENSHOTS=docs/screenshots $(BIN)/pytest --quiet tests/service/test_explorer.py -k axe

coverage: setup  ## Which lines the tests reach (ARGS as for test); processes they start are not seen; a third longer than the tests
	$(BIN)/pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report term $(ARGS)

chaos: setup  ## 200 jobs while every part is killed and every link fails (ARGS='--seed 7'); nothing may be lost
	@exec $(BIN)/python -m benchmarks.chaos $(ARGS)

integrations: setup  ## The steps of docs/pipelines/, each run, killed and retried by its framework; needs a package index (ONLY=dagster for one)
	@exec $(BIN)/python -m integrations $(ONLY)

audit: setup  ## Known vulnerabilities in what requirements/*.txt pin (asks PyPI over the network)
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r requirements/dev.txt -r requirements/uv.txt

bench: setup  ## Measure what is claimed and write benchmarks/README.md; half an hour (SECTION=cost for one, PIECE=digits for a long one's)
	$(BIN)/python -m benchmarks $(SECTION) $(if $(PIECE),--piece $(PIECE))

lint: setup  ## The checks that run nothing: style, types, imports, container files
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	@$(MAKE) --no-print-directory types
	@echo $(BIN)/lint-imports; found=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$found"; exit 1; }
	@cd clients/python && found=$$(../../$(BIN)/lint-imports --no-logo 2>&1) || { echo "$$found"; exit 1; }
	$(BIN)/hadolint --config .hadolint.yaml Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions integrations/github/action.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows integrations/github/workflow.yml
	$(BIN)/yamllint --strict .

types: setup  ## Types of everything, tests too
	$(BIN)/mypy --no-error-summary

format: setup  ## Bring the code into the one style, and make the client's _sync of its _async
	$(BIN)/python clients/python/without_async.py
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

lock:  ## Resolve requirements/*.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml clients/python/pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra service -c requirements/dev.txt -o requirements/service.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header pyproject.toml --extra worker -c requirements/dev.txt -o requirements/worker.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header requirements/peers.in -o requirements/peers.txt
	echo uv | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header - -o requirements/uv.txt

clean:  ## Remove caches and builds; keeps .venv and the data in .ecif
	rm -rf .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .site dist
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
