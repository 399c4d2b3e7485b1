# Needs Python 3.11 or newer and make; everything else goes into .venv, in pinned versions.
#   make demo    a real workflow, killed twice and finished    make test    the test suite
#   make binary  dist/rides: examples/single_binary and its command line, in one file
# Another interpreter: make test PYTHON=python3.12 (after make clean)

PYTHON ?= python3
PY := .venv/bin/python
INSTALL := $(PY) -m pip install -qq --disable-pip-version-check --constraint .constraints.txt

.PHONY: demo test lint types check format cover bench bench-peers crash soak mutants binary clean
.DELETE_ON_ERROR:

demo: .venv/.run-stamp
	$(PY) examples/census.py

# In two halves side by side: this one waits for child processes most of the time. What it says comes at the end.
PROCESSES := tests/crash tests/examples
test: .venv/.test-stamp
	@$(PY) -m coverage erase
	@log=$$(mktemp); \
	$(PY) -m coverage run --parallel-mode -m pytest $(PROCESSES) > $$log 2>&1 & other=$$!; \
	$(PY) -m coverage run --parallel-mode -m pytest $(PROCESSES:%=--ignore=%); code=$$?; \
	wait $$other || code=$$?; cat $$log; rm -f $$log; exit $$code
	@$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

lint: .venv/.lint-stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/.lint-stamp
	$(PY) -m mypy && $(PY) -m pyright --pythonpath $(PY)
	$(PY) tests/typing/check_wrong.py
	$(PY) tests/typing/check_unions.py

check: lint types test  # exactly what CI runs

format: .venv/.lint-stamp
	$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

cover: test
	$(PY) -m coverage html --quiet && echo "open .coverage-html/index.html"

bench: .venv/.run-stamp
	$(PY) tests/bench/run.py

bench-peers: .venv/.run-stamp
	$(PY) tests/bench/peers/run.py

crash: .venv/.test-stamp
	$(PY) -m pytest tests/crash
	$(PY) tests/crash/soak.py --kills 50 --effects 20000 --minutes 3 --images 60 --every 60

soak: .venv/.test-stamp  # the same, longer; 20 minutes at most, and as long again for the simulations
	$(PY) tests/crash/soak.py --kills 1000 --effects 400000 --minutes 20 --images 600 --every 5
	DURABLE_SIMULATIONS=20 $(PY) -m pytest --timeout 1200 \
		tests/crash/test_simulation.py tests/crash/test_state_machine.py tests/examples/test_crashes.py

mutants: .venv/.test-stamp
	$(PY) tests/crash/mutants.py

binary: .venv/.binary-stamp
	$(PY) -m PyInstaller --onefile --noconfirm --log-level WARN --name rides --distpath dist --workpath build \
		--specpath build examples/single_binary/main.py && ls -sh dist/rides

clean:
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
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

.venv/.lint-stamp: .venv/.test-stamp
	$(INSTALL) --no-build-isolation -e '.[test,lint]' && touch $@
