# Needs Python 3.11 or newer and make; everything else goes into .venv, in pinned versions.
#   make demo    a real workflow, killed twice and finished    make test    the tests, in a minute or two
#   make docs    the guide and the reference as HTML
#   make binary  dist/rides and dist/ingestd: two examples and their command line, each in one file
#   make check   all that CI runs, the tests that take minutes among it
# Another interpreter: make test PYTHON=python3.12 (after make clean)

PYTHON ?= python3
PY := .venv/bin/python
INSTALL := $(PY) -m pip install -qq --no-compile --disable-pip-version-check --constraint .constraints.txt

# Images of containers often set it. Each child process, of which the tests have hundreds, would compile all that it
# imports anew: a second of work in place of a tenth.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types types-of-mypy types-of-pyright check format cover bench bench-peers crash soak mutants docs
.PHONY: test-lowest binary clean
.DELETE_ON_ERROR:

demo: .venv/.run-stamp
	$(PY) examples/census.py

# Tests that take minutes have a folder and a target of their own: make test-crash, test-binary, test-bench. Those among
# the others that take long are marked: make test-long. `make test` runs the rest; `make check` runs all.
LONG := tests/crash tests/binary tests/bench tests/browser tests/html tests/temporal tests/agents
# Tests that tell coverage nothing new: they work through tables and examples, most of them in child processes.
# Measured, they would take three times as long.
UNMEASURED := tests/examples tests/test_docs.py tests/test_production.py tests/core/test_hostile_exceptions.py \
	tests/shell/test_hostile_exceptions.py
# Three workers for two cores: much of the time is spent waiting for child processes.
PYTEST := -m pytest --numprocesses 3 --dist worksteal

test: .venv/.test-stamp
	$(PY) $(PYTEST) -m "not long" $(LONG:%=--ignore=%)

# The tests among the others that take long: crashes at every point, servers, programs, tables in full.
# In reverse, since the longest are in tests/testing: begun last, they would be waited for alone.
test-long: .venv/.test-stamp
	$(PY) $(PYTEST) -m long --timeout 240 $$(grep --recursive --files-with-matches --include 'test_*.py' 'pytest\.mark\.long' tests | sort -r)

test-%: .venv/.test-stamp
	$(PY) $(PYTEST) tests/$*

test-binary: .venv/.test-stamp .venv/.binary-stamp  # each worker would build the programs anew
	$(PY) -m pytest tests/binary

# Looked at by the system's Chromium. It is installed where that takes no password; else the tests say what is missing.
test-browser: .venv/.browser-stamp
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
		{ apt-get install -qq --yes --no-install-recommends chromium || \
		{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium; }; } >/dev/null
	$(PY) -m pytest tests/browser

# On a real Temporal server, a program from the package index; types as well, since its SDK has them.
test-temporal: .venv/.temporal-stamp
	$(PY) -m mypy durable/temporal/*.py durable/temporal/*/*.py examples/scale_out/[a-z]*.py tests/typing/cluster.py
	$(PY) -m pyright --pythonpath $(PY) --project tests/typing/temporal.json
	DURABLE_TEMPORAL=1 $(PY) -m pytest tests/temporal

# Recipes for other frameworks of agents, with the real packages and models that need no network.
test-agents: .venv/.agents-stamp
	$(PY) -m mypy examples/agent/with_*.py
	DURABLE_AGENTS=1 $(PY) -m pytest tests/agents

cover: .venv/.test-stamp  # `make test`, measured: it takes half as long again, which CI has no time for
	$(PY) -m coverage erase && $(PY) -m coverage run $(PYTEST) $(LONG:%=--ignore=%) $(UNMEASURED:%=--ignore=%)
	$(PY) $(PYTEST) $(UNMEASURED)
	$(PY) -m coverage combine --quiet && $(PY) -m coverage html --quiet --fail-under=0
	$(PY) -m coverage report && echo "open .coverage-html/index.html"

# The oldest versions that pyproject.toml allows, in an environment of their own. Not in `make check`: CI has no time.
LOWEST := tests/core tests/contract tests/shell tests/telemetry tests/test_supply.py
test-lowest: .venv-lowest/.stamp
	.venv-lowest/bin/python -m pytest --numprocesses 3 --dist worksteal $(LOWEST)

.venv-lowest/.stamp: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv .venv-lowest && $(PYTHON) tests/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install -qq --disable-pip-version-check --constraint .venv-lowest/lowest.txt \
		--editable '.[crypto,zstd,otel,prometheus,web,cron]' opentelemetry-sdk httpx pydantic sqlalchemy hatchling \
		pytest pytest-timeout pytest-xdist hypothesis sybil time-machine && touch $@

lint: .venv/.lint-stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/.lint-stamp  # each checker has a core; what is wrong on purpose is shown to both when their caches are made
	$(MAKE) --no-print-directory --jobs 2 --output-sync types-of-mypy types-of-pyright
	$(PY) tests/typing/check_wrong.py

types-of-mypy: .venv/.lint-stamp
	$(PY) -m mypy && $(PY) tests/typing/check_unions.py

types-of-pyright: .venv/.lint-stamp
	$(PY) -m pyright --pythonpath $(PY)

# Frozen programs and what a browser shows are tried by `make test-binary test-browser`: CI has no time for them.
check: lint types test test-long test-crash test-bench demo  # exactly what CI runs

format: .venv/.lint-stamp
	$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

bench: .venv/.run-stamp
	$(PY) tests/bench/run.py

bench-peers: .venv/.run-stamp
	$(PY) tests/bench/peers/run.py --uvloop

crash: test-crash
	$(PY) tests/crash/soak.py --kills 50 --effects 20000 --minutes 3 --images 60 --every 60
	$(PY) tests/crash/handovers.py --stops 200

soak: .venv/.test-stamp  # the same, longer; 20 minutes at most, and as long again for the simulations
	$(PY) tests/crash/soak.py --kills 1000 --effects 400000 --minutes 20 --images 600 --every 5
	DURABLE_SIMULATIONS=20 $(PY) -m pytest --timeout 1200 \
		tests/crash/test_simulation.py tests/crash/test_state_machine.py tests/crash/test_examples.py
	DURABLE_LONG=1 $(PY) -m pytest tests/shell/test_poison.py tests/shell/test_hostile_exceptions.py \
		tests/testing/test_crashes.py  # with all that the suite leaves out: seeds of killers, large errors, drawn faults

mutants: .venv/.test-stamp
	$(PY) tests/crash/mutants.py

docs: .venv/.docs-stamp  # .docs/README.html: the guide, and a reference from the docstrings; readable without a network
	$(PY) -m sphinx --quiet --fail-on-warning --keep-going -c .ci/docs . .docs && echo "open .docs/README.html"

test-html: .venv/.docs-stamp
	$(PY) -m pytest tests/html

binary: .venv/.binary-stamp
	$(PY) -m PyInstaller --onefile --noconfirm --log-level WARN --name rides --distpath dist --workpath build \
		--specpath build examples/single_binary/main.py && ls -sh dist/rides
	$(PY) -m PyInstaller --onefile --noconfirm --log-level WARN --name ingestd --distpath dist --workpath build \
		--specpath build examples/ingest/ingestd.py && ls -sh dist/ingestd

clean:
	rm -rf .venv .venv-lowest .docs .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# One environment, in layers; each stamp is renewed when the project or a pin changes. The build
# backend is installed first and used without isolation, because pip's isolated builds ignore pins.
.venv/.run-stamp: pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("durable needs Python 3.11 or newer, but $(PYTHON) is %d.%d. Try: make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv .venv
	$(INSTALL) hatchling editables && $(INSTALL) --no-build-isolation -e . && touch $@

.venv/.binary-stamp: .venv/.run-stamp
	$(INSTALL) --no-build-isolation -e '.[binary]' && touch $@

.venv/.test-stamp: .venv/.run-stamp
	$(INSTALL) --no-build-isolation -e '.[test]' && touch $@

.venv/.temporal-stamp: .venv/.lint-stamp
	$(INSTALL) --no-build-isolation -e '.[test,lint,test-temporal]' && touch $@

.venv/.agents-stamp: .venv/.lint-stamp
	$(INSTALL) --no-build-isolation -e '.[test,lint,test-agents]' && touch $@

.venv/.docs-stamp: .venv/.test-stamp
	$(INSTALL) --no-build-isolation -e '.[test,docs]' && touch $@

.venv/.browser-stamp: .venv/.test-stamp
	$(INSTALL) --no-build-isolation -e '.[test,browser]' && touch $@

.venv/.lint-stamp: .venv/.test-stamp
	$(INSTALL) --no-build-isolation -e '.[lint]' && touch $@
