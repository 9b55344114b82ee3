"""A fit of either API: warnings point at the line that called it, however deep in the package they arise."""

import time
import warnings

import dask.array as da
import numpy as np
import pytest

from dasknn import Input, MLPClassifier, Sequential
from dasknn.callbacks import EarlyStopping, ModelCheckpoint
from dasknn.layers import Dense

X = np.random.default_rng(0).standard_normal((400, 3))
Y = (np.arange(400) >= 200).astype(int)
SORTED = da.from_array(X, chunks=(100, -1)), da.from_array(Y, chunks=100)


def fit_estimator(data, **settings):
    MLPClassifier((3,), random_state=0, **{"max_iter": 1, **settings}).fit(*data)


def fit_sequential(data, *callbacks):
    model = Sequential([Input((3,)), Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    model.fit(*data, epochs=1, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("message", "fit"),
    [
        ("Maximum iterations", lambda path: fit_estimator((X, Y))),
        ("clipped", lambda path: fit_estimator((X, Y), batch_size=1000)),
        ("dasknn.shuffle", lambda path: fit_estimator(SORTED)),
        ("dasknn.shuffle", lambda path: fit_sequential(SORTED)),
        ("nothing", lambda path: fit_sequential((X, Y), EarlyStopping(monitor="nothing"))),
        (
            "nothing",
            lambda path: fit_sequential(
                (X, Y), ModelCheckpoint(path / "a.safetensors", monitor="nothing", save_best_only=True)
            ),
        ),
    ],
)
def test_a_warning_points_at_the_line_that_called_fit(message, fit, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path)
    (found,) = [warning for warning in caught if message in str(warning.message)]
    assert found.filename == __file__


# --- the time to the first epoch ---------------------------------------------------------------------


def classifier_history(X, y):
    return MLPClassifier((4,), max_iter=2, random_state=0).fit(X, y).history_


def sequential_history(X, y):
    model = Sequential([Input((3,)), Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    return model.fit(X, y, epochs=2, verbose=0).entries


@pytest.mark.parametrize("history", [classifier_history, sequential_history])
@pytest.mark.parametrize("distributed", [False, True])
def test_the_first_entry_of_a_fit_says_how_long_it_took_to_start(history, distributed):
    def slowly(block):
        time.sleep(0.2)
        return block

    rows = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    X, y = rows, (rows[:, 0] > 0).astype(int)
    if distributed:
        X, y = (
            da.from_array(X, chunks=(20, -1)).map_blocks(slowly, dtype=X.dtype),
            da.from_array(y, chunks=20),
        )
    began = time.perf_counter()
    first, second = history(X, y)
    took = time.perf_counter() - began
    assert 0.2 * distributed < first["seconds_to_start"] < took
    assert "seconds_to_start" not in second


def test_a_fit_that_continues_says_it_in_the_first_entry_that_it_adds(tmp_path):
    model = MLPClassifier((4,), max_iter=2, random_state=0)
    model.fit(X, Y, checkpoint=tmp_path)
    model.set_params(max_iter=4).fit(X, Y, checkpoint=tmp_path, resume=True)
    assert ["seconds_to_start" in entry for entry in model.history_] == [True, False, True, False]
