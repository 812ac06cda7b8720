# What can be done here; `make` alone lists it.
# Started by root, what can hurt or mislead runs as the plain user limpet-test in a copy of the tree.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint format bench docs clean run-lint run-tests run-quick run-demo run-bench
AS_USER := scripts/as-plain-user $(MAKE) --no-print-directory

help: ## list what can be made
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: ## install what limpet needs from this machine (as root), or say what to ask for
	scripts/setup-system

demo: ## build an image with astropy in it and run a script with it
	@scripts/setup-system
	@$(AS_USER) run-demo

test: ## install what is missing, then lint and run every test
	scripts/setup-system --tests
	$(AS_USER) run-lint run-tests

quick: ## only the tests that start no outside programs
	$(AS_USER) run-quick

lint: ## ruff, mypy --strict, shellcheck
	$(AS_USER) run-lint

format: ## put the code into ruff's form
	venv=$$(scripts/make-venv dev); "$$venv/bin/ruff" check --fix .; "$$venv/bin/ruff" format .

bench: ## measure limpet against other ways to build such images
	scripts/setup-system --tests
	$(AS_USER) run-bench

docs: ## write the reference and the man pages, and build the documentation into site/
	venv=$$(scripts/make-venv dev docs); \
	"$$venv/bin/python" scripts/render_reference.py; \
	NO_MKDOCS_2_WARNING=1 "$$venv/bin/mkdocs" build --strict

clean: ## remove what was built here
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

run-lint:
	venv=$$(scripts/make-venv dev); \
	"$$venv/bin/ruff" check .; "$$venv/bin/ruff" format --check .; "$$venv/bin/mypy"
	if command -v shellcheck >/dev/null; then shellcheck scripts/setup-system scripts/as-plain-user \
		scripts/make-venv scripts/demo .ci/run; fi

run-tests:
	venv=$$(scripts/make-venv dev); \
	"$$venv/bin/python" -m pytest --numprocesses 2 --dist loadgroup --durations 15

run-quick:
	venv=$$(scripts/make-venv dev); "$$venv/bin/python" -m pytest -q -m "not real"

run-demo:
	@scripts/demo

run-bench:
	venv=$$(scripts/make-venv dev); "$$venv/bin/python" bench/build.py
