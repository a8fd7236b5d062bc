# The repository's commands. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
# What is checked; a folder that is not there yet is left out.
CHECKED = $(wildcard meshd meshctl tests scripts bench)

.PHONY: help
help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: setup
setup:  ## make .venv and .parts/bin (PYTHON=python3.12 chooses the interpreter)
	@scripts/setup.sh
	@$(BIN)/python -m scripts.parts

.PHONY: demo
demo: setup  ## three nodes on this machine; FILE=path pins that file, KEEP=1 leaves them running
	@# make passes FILE and KEEP on in the environment; a file's name may hold quotes, so no shell sees it
	@$(BIN)/python -m scripts.demo

.PHONY: demo-stop
demo-stop:  ## stop the nodes that KEEP=1 left running, and remove what they keep
	@$(BIN)/python -m scripts.demo --stop

.PHONY: test
test: lint  ## lint, then run the tests (ARGS='-k pin' chooses some)
	@$(BIN)/pytest -n auto $(ARGS)

# What needs neither engines nor a mesh, and says within two minutes whether a change may be sound.
UNITS = tests/unit tests/mesh_room tests/supervise tests/journal tests/operations
QUICK = $(UNITS) tests/pins tests/faults tests/docs/test_architecture.py tests/docs/test_pages.py

.PHONY: check
check: lint  ## lint, then the tests that need no engines (about two minutes)
	@$(BIN)/pytest -n auto $(QUICK) $(ARGS)

.PHONY: test-newest
test-newest: setup  ## the tests that need no engines, on the newest Python of this machine (3.13 or newer)
	@scripts/newest.sh $(UNITS) $(ARGS)

.PHONY: audit
audit: setup  ## look for advisories about the locked packages (ARGS=--offline asks the file alone)
	@$(BIN)/python -m scripts.audit $(ARGS)

.PHONY: advisories
advisories: setup  ## write requirements/advisories.json anew from OSV, or from its export (FROM=all.zip)
	@$(BIN)/python -m scripts.osv $(if $(FROM),--from "$$FROM")

.PHONY: lint
lint: setup  ## check style, types and the direction of imports
	@# side by side, each to its end, so that one look shows all that is wrong
	@$(MAKE) --no-print-directory -j -k --output-sync=target lint-style lint-format lint-types lint-imports

.PHONY: lint-style lint-format lint-types lint-imports
lint-style:
	@$(BIN)/ruff check $(CHECKED)
lint-format:
	@$(BIN)/ruff format --check $(CHECKED)
lint-types:
	@$(BIN)/mypy $(CHECKED)
lint-imports:
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: setup  ## format the code and sort its imports
	@$(BIN)/ruff check --fix-only --quiet $(CHECKED)
	@$(BIN)/ruff format $(CHECKED)

.PHONY: bench
bench: setup  ## measure speed and memory
	@$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: setup  ## write docs/reference/ anew from the code
	@$(BIN)/python -m scripts.reference

.PHONY: deb
deb: setup  ## build the Debian package into dist/ (ARCH=arm64 for another machine)
	@$(BIN)/python -m scripts.deb $(if $(ARCH),--arch $(ARCH))

.PHONY: system-test
system-test: setup  ## install the package on a Debian that boots, and drive it there (as root)
	@$(BIN)/pytest -n auto tests/system $(ARGS)

.PHONY: lock
lock:  ## write requirements/ anew after a change of pyproject.toml (UPGRADE=1 takes the newest of everything)
	@python3 -m scripts.lock $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## remove what was made here; built programs stay in the user's cache
	@rm -rf .venv .venv-newest .parts .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
