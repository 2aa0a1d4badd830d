# Needs Python 3.11 or 3.12 and make; everything else comes from the package index into this folder.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
STACK ?= local
BIN := .venv/bin
UV := .tools/uv/bin/uv
CODE := components rayline_cli policy tests benchmarks tools __main__.py

# A stack on this machine needs Ray and vLLM beside it, a deployment needs Pulumi alone.
RUNTIME := $(if $(shell grep -Els '^[^\#]*mode["'\'']?:[[:space:]]*["'\'']?local' stacks/Pulumi.$(STACK).yaml),all,base)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  STACK=name picks a stack (default local): $(patsubst stacks/Pulumi.%.yaml,%,$(wildcard stacks/*.yaml))"

.PHONY: up
up: $(BIN)/.installed-$(RUNTIME) ## Bring a stack up: an answering endpoint here, or `pulumi up` of STACK
	@$(BIN)/rayline up --stack $(STACK)

.PHONY: down
down: $(BIN)/.installed-$(RUNTIME) ## Stop it, or destroy STACK
	@$(BIN)/rayline down --stack $(STACK)

.PHONY: status
status: $(BIN)/.installed-$(RUNTIME) ## Replicas, HAProxy and address of what runs here
	@$(BIN)/rayline status --stack $(STACK)

.PHONY: verify
verify: $(BIN)/.installed-$(RUNTIME) ## Look at what runs: is each switch of STACK on, by its effect
	@$(BIN)/rayline verify --stack $(STACK)

.PHONY: plan
plan: $(BIN)/.installed-base ## What STACK would create, and what it costs
	@$(BIN)/rayline plan --stack $(STACK)

.PHONY: render
render: $(BIN)/.installed-base ## Write manifests/ for every stack
	@$(BIN)/rayline render

.PHONY: docs
docs: $(BIN)/.installed-all ## Write the generated parts of docs/
	@$(BIN)/rayline docs

.PHONY: site
site: $(BIN)/.installed-all ## Build the documentation site into .site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "open .site/index.html"

.PHONY: forecast
forecast: .tools/forecast/.installed ## Install NVIDIA's aiconfigurator beside .venv, for `rayline advise` and `rayline plan`

.PHONY: bench
bench: $(BIN)/.installed-all ## Measure the kit against the upstream sample and plain vLLM on this machine, ten minutes
	@$(BIN)/rayline bench --stack $(STACK)

.PHONY: test
test: $(BIN)/.installed-all ## All tests that this machine can run; skipped ones say why
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --durations 20 --quick

.PHONY: test-full
test-full: $(BIN)/.installed-all .tools/checkov/.installed ## The same with the tests of several minutes each
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --durations 20 -m "not suite"

.PHONY: suites
suites: $(BIN)/.installed-all .tools/suites/.installed ## Clients and suites that others wrote, against the kit and plain vLLM
	@$(BIN)/python -m pytest --durations 20 -m suite

.PHONY: rehearse
rehearse: $(BIN)/.installed-all ## Deploy and destroy STACK with a real Pulumi engine and stand-ins for the clouds
	@$(BIN)/python -m tests.engine.rehearse $(STACK)

.PHONY: check
check: $(BIN)/.installed-all ## Format, lint, types and words; generated files are current
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/basedpyright --level error
	@$(BIN)/rayline render --check
	@$(BIN)/rayline docs --check

.PHONY: format
format: $(BIN)/.installed-all ## Format the code and mend what the linter can
	@$(BIN)/ruff format -q $(CODE)
	@$(BIN)/ruff check -q --fix $(CODE)

.PHONY: lock
lock: $(UV) ## Resolve requirements/ anew from the pyproject.toml files
	@$(UV) pip compile -q pyproject.toml benchmarks/pyproject.toml --all-extras $(LOCK) -o requirements/all.txt
	@$(UV) pip compile -q pyproject.toml -c requirements/all.txt $(LOCK) -o requirements/base.txt
	@echo 'uv==0.13.8' | $(UV) pip compile -q - $(LOCK) -o requirements/uv.txt
	@echo 'aiconfigurator==0.12.0' | $(UV) pip compile -q - $(LOCK) -o requirements/forecast.txt
	@echo 'checkov==3.3.30' | $(UV) pip compile -q - $(LOCK) -o requirements/checkov.txt
	@printf '%s\n' langchain-openai==1.7.4 litellm==1.110.2 llm-comply==0.5.0 schemathesis==4.32.5 | $(UV) pip compile -q - $(LOCK) -o requirements/suites.txt
LOCK := --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --no-header

.PHONY: clean
clean: ## Remove the environment and the tools (not running services: `make down` first)
	@rm -rf .venv .tools .site .pytest_cache .ruff_cache

# --- set-up -----------------------------------------------------------------------------------------------------------

$(UV): requirements/uv.txt
	@echo "installing uv into .tools"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	@$(PYTHON) -m venv --clear .tools/uv
	@.tools/uv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# Programs in environments of their own, because a deployment needs none of them: forecast has 550 MB of tables and their readers.
.tools/%/.installed: requirements/%.txt | $(UV)
	@echo "installing requirements/$*.txt into .tools/$*"
	@$(UV) venv -q --clear --python $(PYTHON) .tools/$*
	@$(UV) pip install -q --python .tools/$*/bin/python --require-hashes -r requirements/$*.txt
	@touch $@

# pip inside the environment: Pulumi's toolchain asks it for the list of packages
$(BIN)/python: | $(UV)
	@$(UV) venv -q --seed --python $(PYTHON) .venv

# What is installed from this repository: the product, and beside it the laboratory and the tools.
PROJECTS-base := components .
PROJECTS-all := components . benchmarks tools
PROJECTS := $(PROJECTS-all)

# --link-mode copy would double the disk; hard links keep a second clone cheap
$(BIN)/.installed-base $(BIN)/.installed-all: $(BIN)/.installed-%: requirements/%.txt $(PROJECTS:%=%/pyproject.toml) components/rayline/__init__.py | $(UV) $(BIN)/python
	@echo "installing requirements/$*.txt into .venv"
	@$(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements/$*.txt
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ,$(PROJECTS-$*))
	@# Where PYTHONDONTWRITEBYTECODE is set, each command would compile Pulumi's SDKs anew and take twice the time.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/rayline plan >/dev/null 2>&1 || true
	@touch $@
