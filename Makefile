# `make demo`, `make test` and the rest set up their own .venv; they need python3 (3.11 or newer), pip and make.
PYTHON ?= python3
BIN := .venv/bin
PACKAGE := .venv/.package
READY := .venv/.ready
# An editable installation warns about folders named like the package, which the clone's is.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
# A process for each core, four at the most, each with torch on one thread; PYTEST_ARGS adds to it.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

.PHONY: demo docs test test-all lint dist wheel clean

demo: $(PACKAGE)
	$(BIN)/trt-cam localize trt_cam/assets/coffee.jpg --out demo.png
	@echo "The picture with the box is $(CURDIR)/demo.png"

docs: $(READY)
	$(PIP) --editable ".[docs]"
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "The site is $(CURDIR)/docs/_build/html/index.html"

test: lint
	$(PYTEST)

test-all: lint
	$(PIP) --editable ".[test,docs,notebooks,bench]"
	$(PYTEST) -m "slow or not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What is left of an earlier build would go into the wheel.
dist: $(READY)
	$(PIP) --editable ".[release]"
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --wheel

$(PACKAGE): pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable .
	touch $@

$(READY): $(PACKAGE)
	$(PIP) --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache demo.png \
		docs/_build docs/command-line.md docs/gallery.md docs/gallery docs/notebooks
