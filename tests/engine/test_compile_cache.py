"""Steps are compiled once for a machine, whoever comes first, and also where nothing can be kept."""

import importlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching, config

from dasknn import MLPClassifier
from dasknn.engine.compiled import cache
from dasknn.training import engine_choice

ROOT = Path(__file__).parent.parent.parent
# Compiling all takes some ten seconds; more where others do the same.
pytestmark = pytest.mark.timeout(600)
DEADLINE = 300


# --- a function that takes a moment to compile -------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where numba keeps what it compiles, and nowhere else."""
    found = tmp_path / "kept"
    monkeypatch.setattr(config, "CACHE_DIR", str(found))
    for name in dir(caching):
        if name.endswith("CacheLocator") and "UserProvided" not in name:
            locator = getattr(caching, name)
            monkeypatch.setattr(locator, "from_function", classmethod(lambda cls, *args: None))
    return found


@pytest.fixture
def double(tmp_path, monkeypatch):
    """double(x) in a module of its own; a new `Function` for each call of the fixture."""
    (tmp_path / "own_kernels.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_kernels")
    yield lambda: cache.Function(module.double, 0)
    del sys.modules["own_kernels"]


def stats(function):
    """Return how often the cache had what was wanted, and how often not."""
    found = function._compiled.stats
    return sum(found.cache_hits.values()), sum(found.cache_misses.values())


def check(function, *dtypes):
    for dtype in dtypes:
        np.testing.assert_array_equal(function(np.arange(3, dtype=dtype)), np.array([0, 2, 4], dtype))


def test_what_was_compiled_is_read_by_the_next(folder, double):
    first, second = double(), double()
    check(first, "float64", "float32", "float64")
    assert stats(first) == (0, 2)
    check(second, "float64", "float32", "float64")
    assert stats(second) == (2, 0)
    assert list(folder.rglob("*.nbc"))


def test_threads_that_call_at_once_compile_once(folder, double):
    function = double()
    threads = [threading.Thread(target=check, args=(function, "float64", "float32")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats(function) == (0, 2)


def test_where_nothing_can_be_kept_it_is_compiled_with_a_warning(folder, double, caplog):
    folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING, "dasknn.engine"):
        check(double(), "float64", "float32")
    (record,) = caplog.records
    assert "Compiled steps cannot be kept: " in record.getMessage()
    assert "Set NUMBA_CACHE_DIR to a folder." in record.getMessage()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_survived(folder, double, caplog):
    folder.mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING, "dasknn.engine"):
        check(double(), "float64", "float32")
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_written_to_any_more_is_survived(folder, double, caplog):
    function = double()
    check(function, "float64")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    folder.write_text("the disk is full")
    with caplog.at_level(logging.WARNING, "dasknn.engine"):
        check(function, "float32", "float64", "float32")
    (record,) = caplog.records
    assert "Compiled steps cannot be kept: " in record.getMessage()


def test_a_process_that_compiles_for_too_long_is_not_waited_for(folder, double, monkeypatch):
    first = double()
    check(first, "float64")
    (lock,) = folder.rglob("double.lock")
    monkeypatch.setattr(cache, "_PATIENCE", 0.2)
    with open(lock, "w") as file:
        cache.fcntl.flock(file, cache.fcntl.LOCK_EX)
        check(double(), "float32")


def test_a_process_that_compiles_is_waited_for(folder, double):
    check(double(), "float64")
    (lock,) = folder.rglob("double.lock")
    second = double()
    with open(lock, "w") as file:
        cache.fcntl.flock(file, cache.fcntl.LOCK_EX)
        thread = threading.Thread(target=check, args=(second, "float32"))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        # Meanwhile, this one keeps what the other one needs.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "_PATIENCE", 0.0)
            check(double(), "float32")
    thread.join(60)
    assert stats(second) == (1, 0)


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_what_takes_long_is_announced(seconds, monkeypatch, caplog):
    monkeypatch.setattr(engine_choice, "_NOTICEABLE", 0.1)
    with caplog.at_level(logging.WARNING, "dasknn"), engine_choice._announced("float32"):
        time.sleep(seconds)
    told = [record.getMessage() for record in caplog.records]
    text = "Compiling the steps for float32, once on each machine: this takes some seconds."
    assert told == [text] * (seconds > 0)


# --- processes ---------------------------------------------------------------------------------------


def start(program, *args, **environment):
    """Start a program in a Python of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_by(process):
    """Return what a program has written, as JSON, when it has ended."""
    try:
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output)


TRAIN = """
import json
import numpy as np
from dasknn import MLPClassifier
rng = np.random.default_rng(0)
X, y = rng.standard_normal((60, 4)), rng.integers(0, 2, 60)
model = MLPClassifier(hidden_layer_sizes=(3,), max_iter=2, random_state=1, engine="numba").fit(X, y)
from dasknn.engine.compiled import cache
found = {}
for name in ("serve", "apply_gradient"):
    stats = getattr(cache, name)._compiled.stats
    found[name] = [sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]
print(json.dumps([model.engine_, model._members.tobytes().hex(), found]))
"""


def test_processes_that_start_together_compile_once_and_later_ones_read_it(tmp_path):
    processes = [start(TRAIN, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    found = [told_by(process) for process in processes]
    found.append(told_by(start(TRAIN, NUMBA_CACHE_DIR=str(tmp_path))))
    engines, weights, counts = zip(*found, strict=True)
    assert set(engines) == {"numba"}
    assert len(set(weights)) == 1
    for name in ("serve", "apply_gradient"):
        first, second, third = (of_process[name] for of_process in counts)
        assert sorted([first, second, third]) == [[0, 1], [1, 0], [1, 0]]
        assert third == [1, 0]
    assert list(tmp_path.rglob("*.nbc"))


FEW = """
import json, pickle, sys
# Where this package is installed, dask.array imports it, and it imports numba.
sys.modules["sparse"] = None
def imported():
    return sorted({"numba", "llvmlite"} & set(sys.modules))
import numpy as np
import dasknn
found = {"import": imported()}
rng = np.random.default_rng(0)
X, y = rng.standard_normal((600, 4)), rng.integers(0, 2, 600)
model = dasknn.MLPClassifier(hidden_layer_sizes=(3,), max_iter=2).fit(X, y)
model.predict(X), model.score(X, y), model.partial_fit(X, y)
found["fit"] = imported()
trained = pickle.load(open(sys.argv[1], "rb"))
assert trained.engine_ == "numba"
trained.predict(X[:100])
found["few rows"] = imported()
trained.predict(X)
found["many rows"] = imported()
print(json.dumps(found))
"""


def test_numba_is_imported_only_where_it_computes(tmp_path):
    rng = np.random.default_rng(0)
    model = MLPClassifier(hidden_layer_sizes=(3,), max_iter=2, engine="numba")
    model.fit(rng.standard_normal((60, 4)), rng.integers(0, 2, 60))
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    found = told_by(start(FEW, tmp_path / "model.pickle"))
    assert found.pop("many rows") == ["llvmlite", "numba"]
    assert found == {"import": [], "fit": [], "few rows": []}
