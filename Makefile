# Each target makes what it needs: on a new machine, python3, make and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-min test-keras check browser lint types docs notebooks bench soak clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## train and evaluate on digits through `dask nn`, on a cluster on this machine
	$(BIN)/python examples/digits_to_parquet.py build/digits
	$(BIN)/dask nn train 'build/digits/train/*.parquet' --target digit --hidden 64 \
	    --epochs 20 --batch-size 64 --test 'build/digits/test/*.parquet' \
	    --output build/digits.safetensors
	$(BIN)/dask nn evaluate build/digits.safetensors 'build/digits/test/*.parquet' --target digit \
	    --metrics accuracy --threshold accuracy=0.9

# Tests wait for clusters half of the time: two processes share them, file by file.
TEST_PROCESSES ?= 2

test: $(VENV)/installed  ## all tests, warnings as errors
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

notebooks: $(VENV)/installed  ## run every notebook
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=120 --timeout=300 --durations=0 notebooks

docs: $(VENV)/installed  ## the site, into build/docs; a warning fails it, as does a name that is missing
	$(BIN)/sphinx-build -q -E -W --keep-going docs build/docs

check: lint types docs test notebooks  ## what CI runs

browser:  ## a Chromium for the tests of the dashboard's page, on Debian, as root
	command -v chromium || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium)

test-min: .venv-min/installed  ## the tests with the oldest versions that pyproject.toml allows
	.venv-min/bin/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

.venv-min/installed: pyproject.toml tests/minimum.txt
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/pip install --quiet --editable '.[dev]' --constraint tests/minimum.txt
	touch $@

test-keras: .venv-keras/installed  ## what Keras opens of ours, and we of Keras
	.venv-keras/bin/python -m pytest tests/with_keras/test_with_keras.py

.venv-keras/installed: pyproject.toml tests/with_keras/requirements.txt
	$(PYTHON) -m venv .venv-keras
	.venv-keras/bin/pip install --quiet --editable '.[keras]' -r tests/with_keras/requirements.txt
	touch $@

bench: .venv-bench/installed  ## ratios against peers; DASKNN_DATA names a folder of data
	for script in benchmarks/bench_*.py; do \
	    echo; echo "$$script"; .venv-bench/bin/python $$script || exit 1; done

soak: $(VENV)/installed  ## ten minutes of training while workers are killed, then the same in peace
	$(BIN)/python benchmarks/soak.py

.venv-bench/installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --editable '.[dataframe]' -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-min .venv-keras .venv-bench build .pytest_cache .mypy_cache .ruff_cache
