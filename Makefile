# Everything is run from here; each target makes what it needs. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# pytest rewrites 400 modules and keeps the result; told not to write bytecode, each of its processes does it again (5 s).
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test check fmt bench fast abuse slow bullmq installed mutants simulate chaos lock clean

help:  ## List the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## Make .venv with the pinned dependencies; every other target does it when needed.

demo: $(READY)  ## Play a week of cross-border traffic on this machine (ARGS="--once" to run to the end and exit).
	@$(BIN)/cartwake demo $(ARGS)

test: check fast abuse slow bullmq installed  ## Everything that CI runs.

check: $(READY)  ## Format, lint, types, and the arrows between the rooms.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three processes also where there are two cores: there is always one that waits for the database.
fast: $(READY)  ## The tests that take about a minute.
	$(BIN)/pytest -n 3 --dist worksteal -m "not slow and not thorough" $(ARGS)

abuse: $(READY)  ## The embedded PostgreSQL under force: kill -9, full and read-only disks; as root and as an ordinary user.
	$(BIN)/pytest -n 2 -m abuse $(ARGS)

slow: $(READY) .chromium .nginx  ## The rest of the tests: the thorough, whole deployments, a real browser.
	$(BIN)/pytest -m "(slow or thorough) and not abuse and not bullmq and not installed" $(ARGS)

bullmq: $(READY) .redis .node  ## The BullMQ trigger in real processes on a Valkey and on Debian's Redis, and beside Node's client.
	$(BIN)/pytest -m bullmq $(ARGS)

installed: $(READY) .machine  ## docs/install.md as it stands, on a booted Debian with systemd and in Docker's containers (root only).
	$(BIN)/pytest -m installed $(ARGS)

mutants: $(READY)  ## Break each guarded line in a copy of the source; some test must fail for each.
	cd tests && ../$(BIN)/python -m mutants $(ARGS)

simulate: $(READY)  ## Play a seeded story (SEED=7 STEPS=1000), or fresh ones until it is stopped.
	cd tests && ../$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS))

chaos: $(READY)  ## kill -9 of real processes under load, then an independent count (ARGS="--messages 20000 --kills 100").
	cd tests && ../$(BIN)/python -m chaos $(ARGS)

fmt: $(READY)  ## Format the code and mend what lint can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## Build the documentation as a site, into ./site.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build && echo "Read site/index.html."

bench: $(READY)  ## Measure, each against a naive reference in the same run.
	$(BIN)/python -m benchmarks $(ARGS)

COMPILE := $(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras \
  --no-emit-index-url --no-emit-find-links --no-emit-options --no-header
lock: $(READY)  ## Choose the newest dependencies again and write the lock files.
	$(COMPILE) --upgrade --extra dev -o requirements.lock pyproject.toml
	$(MAKE) deploy/requirements.lock deploy/build.lock

# What the image and an installed wheel need: the same versions, less the tools.
deploy/requirements.lock: requirements.lock
	$(COMPILE) --extra bullmq -c requirements.lock -o $@ pyproject.toml

deploy/build.lock: requirements.lock
	$(COMPILE) -c requirements.lock --only-build-deps --build-deps-for wheel -o $@ pyproject.toml

clean:  ## Remove the environment and everything generated; the data folder stays.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The browser tests drive the system's Chromium.
.PHONY: .chromium
.chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  echo "Installing Chromium for the browser tests (apt-get, once) ..."; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }

# The second trigger's tests drive Debian's Redis as well as the Valkey of a wheel, and the npm client.
.PHONY: .redis
.redis:
	@command -v redis-server >/dev/null || { \
	  echo "Installing Redis for the tests of the BullMQ trigger (apt-get, once) ..."; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	    apt-get install -y -qq --no-install-recommends redis-server >/dev/null; }

.PHONY: .node
.node: tests/node/node_modules/.package-lock.json
tests/node/node_modules/.package-lock.json: tests/node/package-lock.json
	@command -v npm >/dev/null || { \
	  echo "Installing Node for the tests of the BullMQ trigger (apt-get, once) ..."; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm >/dev/null; }
	@cd tests/node && npm ci --silent --ignore-scripts
	@touch $@
# The proxy's configuration is tested with a real nginx: unpacked, not installed, or it would start and take port 80.
.PHONY: .nginx
.nginx:
	@PATH="$$PATH:/usr/sbin:.tools/usr/sbin" command -v nginx >/dev/null || { \
	  echo "Fetching nginx for the tests of its configuration (apt-get, once) ..."; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && mkdir -p .tools && cd .tools && apt-get download -qq nginx && dpkg -x nginx_*.deb .; }

# A machine of its own to install on: made by mmdebstrap, booted by systemd-nspawn. Where that cannot be, its tests say so.
.PHONY: .machine
.machine:
	@command -v mmdebstrap >/dev/null && command -v systemd-nspawn >/dev/null || \
	  [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  echo "Installing what makes and boots a Debian for the tests of docs/install.md (apt-get, once) ..."; \
	  apt-get update -qq && env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	    apt-get install -y -qq --no-install-recommends mmdebstrap systemd-container >/dev/null; }

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Cartwake needs Python 3.11 or newer; set PYTHON=... to one."; exit 1; }
	@echo "Setting up .venv with the pinned dependencies (once; a minute or so) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
