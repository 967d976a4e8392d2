# `make` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Three more than there are processors: many tests wait for something.
PROCESSES := $(shell echo $$(( $$(nproc 2>/dev/null || echo 1) + 3 )))

# Pytest rewrites each assert. Once, beside mypy, or each process does it anew.
COMPILING := PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help run demo wheel test torture simulate-seeds benchmark screenshots docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run .env  ## serve on http://localhost:3000, with SQLite and the settings of .env
	@$(BIN)/python -m receiver.welcome
	@$(BIN)/gunicorn wsgi:app

demo: $(VENV)/.run  ## a simulated ZimSend sends 50 SMS, and the receiver tells what became of them, also after an outage
	@$(BIN)/python -m receiver.demo

wheel: $(VENV)/bin/python  ## the package, as wheel and sdist, into dist/
	@$(BIN)/pip install --quiet --disable-pip-version-check "build>=1.2,<2"
	@$(BIN)/python -m build --outdir dist .

test: $(VENV)/.test  ## everything that must hold before a change lands
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(COMPILING) $(BIN)/python -m pytest --collect-only -qq >/dev/null & $(BIN)/mypy && wait
	@$(COMPILING) $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

torture: $(VENV)/.test  ## 1,000 kills under load, and other long runs
	@TORTURE=1 $(BIN)/python -m pytest tests/service/test_crash.py tests/store/test_expiry.py tests/service/test_machines.py

N ?= 20000
simulate-seeds: $(VENV)/.test  ## N=20000 simulated bad days; each must keep every promise
	@SEEDS=$(N) $(BIN)/python -m pytest tests/service/test_simulation.py -k promise

benchmark: $(VENV)/.test  ## how fast it receives; see benchmarks/
	@$(BIN)/python benchmarks/ingest.py

screenshots: $(VENV)/.test  ## pictures of the dashboard for docs/, with the system's Chromium
	@$(BIN)/python -m tests.web.dashboard.screenshots

docs: $(VENV)/.docs  ## the documents in a browser, on http://localhost:8000
	@$(BIN)/zensical serve --dev-addr localhost:8000

clean:  ## remove the virtual environment and the tools' caches; data and .env stay
	@rm -rf $(VENV) .site .pytest_cache .hypothesis .mypy_cache .ruff_cache

# Fresh random secrets, readable by nobody else. An existing file is never touched.
.env: | $(VENV)/.run
	@$(BIN)/python -m receiver.first_steps

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt install python3-venv"; exit 1; }

# The flask command reads .env before our code does: it would expand it, and fail at Latin-1 with a
# traceback. So in this environment it leaves the file to receiver/environment.py.
$(VENV)/.dotenv: $(VENV)/bin/python
	@$(BIN)/python -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'receiver_dotenv.pth').write_text('import os; os.environ.setdefault(\"FLASK_SKIP_DOTENV\", \"1\")\n')"
	@touch $@

$(VENV)/.run: $(VENV)/.dotenv requirements.txt $(wildcard requirements/*.txt)
	@echo "Installing requirements.txt into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python requirements-docs.txt
	@echo "Installing requirements-docs.txt into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

$(VENV)/.test: $(VENV)/.dotenv requirements.txt requirements-alerts.txt requirements-dev.txt $(wildcard requirements/*.txt)
	@echo "Installing requirements-dev.txt into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.run
