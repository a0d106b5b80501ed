# The same words on the desk and in CI. Each sets up what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PEERS := $(VENV)/peers
CONSTRAINTS := constraints.txt

.PHONY: install check test test-browser demo bench docs quick-start lock clean

install: $(READY)

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade "$$(grep '^pip==' $(CONSTRAINTS))"
	$(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS) --group dev --editable .
	touch $@

$(PEERS): $(READY) # what is measured against
	$(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS) --group bench
	touch $@

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-browser: $(READY) # a part of `make test`, which skips it where no Chromium can be had; here that is a failure
	SIMMIM_NEEDS_BROWSER=1 $(BIN)/python -m pytest tests/report/test_page_in_browser.py

demo: $(READY)
	$(BIN)/simmim demo

bench: $(PEERS) # takes about half an hour; `python -m benchmarks --only steps` is one part of it
	$(BIN)/python -m benchmarks

docs: $(READY) # the site, in build/site; look at it with: python3 -m http.server --directory build/site
	$(BIN)/python docs/build.py --site

quick-start: $(READY) # the commands of docs/start.md typed into a fresh environment; takes minutes
	$(BIN)/python tests/documentation/quick_start.py

lock: # newest versions that pyproject.toml allows; names and versions only
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade pip
	build/lock/bin/python -m pip install --quiet --group dev .
	build/lock/bin/python -m pip freeze --all --exclude simmim --exclude setuptools > $(CONSTRAINTS)

clean:
	rm -rf $(VENV) build runs
