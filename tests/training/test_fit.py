"""A fit of either API: warnings point at the line that called it, however deep in the package they arise."""

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
