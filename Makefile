# Each target makes what it needs: on a new machine, python3, make and git are enough.
# `make help` prints what follows ## here: a line for each target and for each variable.

## PYTHON: makes the environments; python3 unless set
PYTHON ?= python3
## TEST_PROCESSES: how many processes share the tests; 3 unless set
# Tests wait for clusters half of the time, so there are more processes than a small machine has processors. One that
# has done its tests takes some of another's.
TEST_PROCESSES ?= 3
SHARED := --numprocesses=$(TEST_PROCESSES) --dist=worksteal
## DASKNN_DATA: a folder of data for benchmarks and notebooks; without it they fetch data or take a sample

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-min test-keras check browser lint types docs notebooks bench soak dist clean

help:  ## print this list
	@echo "make TARGET [VARIABLE=value]"
	@echo
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  %-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@awk -F '## |: ' '/^## [A-Z_]+: / {printf "  %-16s%s\n", $$2, $$3}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## train and evaluate on digits through `dask nn`, on a cluster on this machine
	$(BIN)/python examples/digits_to_parquet.py build/digits
	$(BIN)/dask nn train 'build/digits/train/*.parquet' --target digit --hidden 64 \
	    --epochs 12 --test 'build/digits/test/*.parquet' --output build/digits.safetensors
	$(BIN)/dask nn evaluate build/digits.safetensors 'build/digits/test/*.parquet' --target digit \
	    --metrics accuracy --threshold accuracy=0.9

test: $(VENV)/installed  ## all tests, warnings as errors
	$(BIN)/python -m pytest $(SHARED)

test-fast: $(VENV)/installed  ## the tests that start no cluster
	$(BIN)/python -m pytest $(SHARED) -m "not cluster"

lint: $(VENV)/installed  ## ruff (rules and format) and import-linter (the rule of imports)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed  ## mypy
	$(BIN)/mypy

notebooks: $(VENV)/installed  ## run every notebook
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=120 --timeout=300 --durations=0 notebooks

docs: $(VENV)/installed  ## the site, into build/docs; a warning fails it, as does a name that is missing
	$(BIN)/sphinx-build -q -E -W --keep-going docs build/docs

check: lint types docs test notebooks  ## lint, types, docs, test and notebooks: what CI runs

browser:  ## a Chromium for the tests of the dashboard's page, on Debian, as root
	command -v chromium || command -v google-chrome || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium)

test-min: .venv-min/installed  ## the tests with the oldest versions that pyproject.toml allows
	.venv-min/bin/python -m pytest $(SHARED)

.venv-min/installed: pyproject.toml tests/minimum.txt
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/pip install --quiet --editable '.[test]' --constraint tests/minimum.txt
	touch $@

test-keras: .venv-keras/installed  ## files and conversions, against Keras itself
	.venv-keras/bin/python -m pytest tests/with_keras/test_with_keras.py

.venv-keras/installed: pyproject.toml tests/with_keras/requirements.txt
	$(PYTHON) -m venv .venv-keras
	.venv-keras/bin/pip install --quiet --editable '.[keras]' -r tests/with_keras/requirements.txt
	touch $@

bench: .venv-bench/installed  ## ratios of speed and accuracy against scikit-learn, dask-ml, Keras, PyTorch, JAX, gradient boosting and pytabkit
	for script in benchmarks/bench_*.py; do \
	    echo; echo "$$script"; .venv-bench/bin/python $$script || exit 1; done

soak: $(VENV)/installed  ## ten minutes of training while workers are killed, then the same in peace
	$(BIN)/python benchmarks/soak.py

.venv-bench/installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --editable '.[dataframe]' -r benchmarks/requirements.txt
	touch $@

dist: $(VENV)/installed  ## wheel and sdist in build/dist; the wheel is tried in a fresh environment
	rm -rf build/dist build/wheel
	$(BIN)/python -m build --outdir build/dist
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet build/dist/*.whl
	cd build/wheel && bin/python -c \
	    'import dasknn; dasknn.MLPClassifier, dasknn.Sequential; print(dasknn.__file__, dasknn.__version__)'
	cd build/wheel && bin/dask nn --help

clean:  ## remove environments, builds and caches
	rm -rf $(VENV) .venv-min .venv-keras .venv-bench build .pytest_cache .mypy_cache .ruff_cache
