# One command for everything; `make help` lists them. Needs Python 3.11 or newer with its venv module, and a package
# index (or a pip that is configured for another one). ARGS=… is handed on: `make test ARGS="-k books -x"`.

.PHONY: run smoke test test-real lint mutants campaign faults prop-sinks bench lock clean help
.PHONY: cluster cluster-down image demo-kubernetes demo-kubernetes-faults headline demo-delivery

BIN = .venv/bin
ARGS =
SECONDS = 120

# Only wheels, and only those whose hash the lock holds. Three settings of a user's pip would break a venv: off here.
PIP = PIP_CONSTRAINT=/dev/null PIP_REQUIRE_HASHES=0 $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-user
INSTALL = $(PIP) --require-hashes --no-deps --only-binary=:all:
EDITABLE = $(PIP) --no-deps --no-build-isolation --editable .
NO_INDEX = { echo >&2; \
	echo "make: the packages could not be installed; pip's own words are above." >&2; \
	echo "  No network? They come from a package index: set PIP_INDEX_URL or PIP_FIND_LINKS to one in reach." >&2; \
	exit 1; }

run: .venv/.stamp-run ## meter this machine in the foreground (Ctrl-C ends it); data in ./.run
	$(BIN)/metering-agent quickstart $(ARGS)

smoke: .venv/.stamp-run ## the same until the first record, then end
	$(BIN)/metering-agent quickstart --smoke $(ARGS)

test: .venv/.stamp-dev ## all tests that need neither root nor a server
	$(BIN)/python -m pytest -m "spec or not (real or fault)" $(ARGS)

test-real: .venv/.stamp-dev ## the others: real cgroups, kills, systemd, Prometheus, Kubernetes
	$(BIN)/python -m pytest -m "(real or fault) and not spec" $(ARGS)

lint: .venv/.stamp-dev ## style, types, and which module may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: .venv/.stamp-dev ## put known bugs in, and show which test catches each
	$(BIN)/python -m tests.mutants $(ARGS)

# Kubernetes is built once, in minutes. Several trees may have a cluster up at a time; each has its own.
cluster: .venv/.stamp-dev ## a real Kubernetes of one node (root); with ARGS: make cluster ARGS="kubectl get pods -A"
	$(BIN)/python -m tests.cluster $(or $(ARGS),up)

image: .venv/.stamp-dev ## the agent's image without Docker (root), into dist/
	$(BIN)/python -m tests.cluster image

cluster-down: .venv/.stamp-dev ## end it; nothing is left of it
	$(BIN)/python -m tests.cluster down

demo-kubernetes: .venv/.stamp-dev ## on that cluster, by the chart: pods of three customers and of nobody, and the books
	$(BIN)/python -m tests.cluster.demo

demo-kubernetes-faults: .venv/.stamp-dev ## what breaks on a node, and what the books miss then
	$(BIN)/python -m tests.cluster.faults

headline: .venv/.stamp-dev ## churn of short pods: the node's counter, our records, and what polling sees (SECONDS=120)
	$(BIN)/python -m tests.cluster.headline $(SECONDS)

campaign: .venv/.stamp-dev ## all kinds of faults, as root, in three quarters of an hour; writes docs/proof.md
	$(BIN)/python -m tests.campaign $(ARGS)

N = 30
SEED =
faults: .venv/.stamp-dev ## a sample of it in three minutes: N=30 trials, by SEED=
	$(BIN)/python -m tests.campaign --faults $(N) $(if $(SEED),--seed $(SEED)) $(ARGS)

SINK =
prop-sinks: .venv/.stamp-dev ## schedules of faults against one sink, or all: SINK=paigo N=500
	PROP_SINK=$(SINK) PROP_SINKS=$(N) $(BIN)/python -m pytest -q -s --no-header tests/sinks/test_property.py $(ARGS)

bench: .venv/.stamp-dev ## what it costs
	$(BIN)/python -m bench $(ARGS)

demo-delivery: .venv/.stamp-dev ## the agent against a billing system that loses answers: totals, explain, resolve, audit
	$(BIN)/python -m tests.upstream.demo

# Hashes for every platform and every Python that we support, and no address. ARGS=--upgrade takes newer versions.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links $(ARGS)

lock: .venv/.stamp-dev ## write the locks anew from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group build --constraints requirements.lock --output-file requirements-build.lock
	$(COMPILE) pyproject.toml --group dev --constraints requirements.lock --constraints requirements-build.lock \
		--output-file requirements-dev.lock

clean: ## remove what make made, the data of `make run` too
	rm -rf .venv .run dist ci-report.json .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name what; do printf '%-12s %s\n' "$$name" "$$what"; done

.venv/.stamp-run: requirements.lock requirements-build.lock pyproject.toml | .venv/bin/python
	@echo "installing what the agent needs into .venv"
	@$(INSTALL) -r requirements.lock -r requirements-build.lock && $(EDITABLE) || $(NO_INDEX)
	@touch $@

.venv/.stamp-dev: requirements-dev.lock pyproject.toml | .venv/bin/python
	@echo "installing what the agent and its tests need into .venv"
	@$(INSTALL) -r requirements-dev.lock && $(EDITABLE) || $(NO_INDEX)
	@touch .venv/.stamp-run $@

# The newest Python that is new enough and can make a venv; Debian keeps `ensurepip` in a package of its own.
.venv/bin/python:
	@old=; bare=; \
	for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
		"$$python" -c '' 2>/dev/null || continue; \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { old="$$old $$python"; continue; }; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { bare=$$python; continue; }; \
		"$$python" -m venv --clear .venv && exit 0; \
		rm -rf .venv; \
		exit 1; \
	done; \
	if [ -n "$$bare" ]; then \
		echo "make: $$bare cannot make a virtual environment: its module venv or ensurepip is missing." >&2; \
		echo "  On Debian and Ubuntu: apt install python3-venv" >&2; \
	else \
		echo "make: Python 3.11 or newer is needed and none is on the PATH$${old:+ (too old:$$old)}." >&2; \
		echo "  Install one (Debian 12: apt install python3 python3-venv), or name it: make run PYTHON=/path/to/python3" >&2; \
	fi; \
	exit 1
