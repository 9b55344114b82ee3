"""Whatever rows come in whatever pieces: a clear error, or a finished run whose numbers are right.

A `Case` is a description from which rows are made, so that hypothesis can show a failing one in a line.
`refusals` says in which cases a fit must be refused, and in which words: in all others it must finish.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left, bits, params_of
from counted_rows import Fit
from distributed import Client
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import dasknn
from dasknn import (
    GradientAveraging,
    MLPClassifier,
    MLPRegressor,
    OuterNesterov,
    PredictionAveraging,
    Sequential,
    WeightAveraging,
    optimizers,
)
from dasknn.callbacks import Callback
from dasknn.exceptions import NonFiniteLossError
from dasknn.layers import Dense, Input

pytestmark = [
    # Few epochs, batches larger than the data, sorted and one-sided partitions: all of it on purpose.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # So are numbers that overflow.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

STRATEGIES = {
    "auto": "auto",
    "gradients": "gradients",
    "weights": "weights",
    "weights every 2": WeightAveraging(every=2),
    "weights every 2, outer": WeightAveraging(every=2, outer=OuterNesterov()),
    "predictions": PredictionAveraging(hop=False),
    "members that hop": "predictions",
}
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64")
# Functions of standard normal X.
MAGNITUDES = {
    "plain": lambda X: 3 * X,
    "zero": lambda X: 0 * X,
    "minus zero": lambda X: -0.0 * np.abs(X),
    "constant": lambda X: np.full_like(X, 2.0),
    "subnormal": lambda X: np.full_like(X, 5e-324),
    "subnormal in float32": lambda X: 1e-40 * X,
    "huge": lambda X: 1e30 * X,
}
# Functions of the number of rows and of a generator.
WEIGHTS = {
    "none": lambda n, rng: None,
    "ones": lambda n, rng: np.ones(n, int),
    "some": lambda n, rng: rng.uniform(0.5, 2, n),
    "float32": lambda n, rng: rng.uniform(0.5, 2, n).astype(np.float32),
    "some zero": lambda n, rng: rng.uniform(0.5, 2, n) * (np.arange(n) % 2),
    "all zero": lambda n, rng: np.zeros(n),
    "huge": lambda n, rng: rng.uniform(0.5, 2, n) * 1e30,
    "enormous": lambda n, rng: np.full(n, 1e308),
    "tiny": lambda n, rng: rng.uniform(0.5, 2, n) * 1e-30,
    "subnormal": lambda n, rng: np.full(n, 5e-324),
    "negative": lambda n, rng: np.where(np.arange(n) == n - 1, -1.0, 1.0),
}
# Labels of classes 0, 1 and 2.
LABELS = {
    "ints": lambda k: np.array([-3, 0, 7])[k],
    "int8": lambda k: np.array([-128, 127, 0], np.int8)[k],
    "unsigned": lambda k: np.array([0, 255, 9], np.uint8)[k],
    "neighbors beyond float64": lambda k: np.array([2**53, 2**53 + 1, -(2**62)])[k],
    "strings": lambda k: np.array(["no", "yes", "perhaps"])[k],
    "objects": lambda k: np.array(["no", "yes", "perhaps"], object)[k],
    "booleans": lambda k: k > 0,
    "whole floats": lambda k: np.array([-1.0, 2.0, 5.0])[k],
    "one class": lambda k: np.full(len(k), 4),
    "a class a chunk": np.sort,
    "continuous": lambda k: k + 0.5,
}
NUMBERS = {
    "floats": lambda z: z,
    "float16": lambda z: z.astype(np.float16),
    "ints": lambda z: np.round(9 * z).astype(int),
    "booleans": lambda z: z > 0,
    "objects": lambda z: z.astype(object),
    "constant": np.ones_like,
    "huge": lambda z: 1e300 * z,
    "two columns": lambda z: np.column_stack([z, -z]),
    "words": lambda z: np.where(z > 0, "yes", "no"),
}
PLAIN_FORMS = ("numpy", "pandas")
FORMS = (
    *PLAIN_FORMS,
    "Dask array",
    "Dask array, the rest plain",
    "Dask array, y in other chunks",
    "Dask dataframe",
    "unknown chunks",
)


@dataclass(frozen=True)
class Case:
    """Rows, and what to train with."""

    chunks: tuple[int, ...] = (4, 3)
    n_columns: int = 2
    dtype: str = "float64"
    magnitude: str = "plain"
    y: str = "ints"
    weight: str = "none"
    form: str = "Dask array"
    strategy: str = "gradients"
    batch_size: int | str = 3
    replicas: int | None = 2
    solver: str = "adam"
    seed: int = 0

    @property
    def n_rows(self):
        return sum(self.chunks)

    @property
    def sees_all_rows(self):
        return self.strategy == "members that hop"

    @property
    def is_in_process(self):
        return self.form in PLAIN_FORMS and self.strategy == "auto"

    @property
    def is_extreme(self):
        """Whether training may come to numbers that are not finite."""
        return "huge" in (self.magnitude, self.y) or self.weight in ("huge", "enormous", "tiny", "subnormal")

    @property
    def trained_dtype(self):
        return "float32" if self.dtype == "float32" else "float64"

    def rows(self):
        """Return X, y and weight as numpy arrays, weight maybe None."""
        rng = np.random.default_rng(self.seed)
        X = MAGNITUDES[self.magnitude](rng.standard_normal((self.n_rows, self.n_columns)))
        if self.dtype not in ("float32", "float64"):
            X = np.clip(X, 0 if self.dtype == "uint8" else -50, 50)
        if self.y in LABELS:
            y = LABELS[self.y](rng.integers(0, 3, self.n_rows))
        else:
            y = NUMBERS[self.y](rng.standard_normal(self.n_rows))
        return X.astype(self.dtype), y, WEIGHTS[self.weight](self.n_rows, rng)

    def data(self):
        """Return X, y and weight in the form of the case."""
        return in_form(self.form, self.chunks, *self.rows())

    def model(self, **others):
        kind = MLPClassifier if self.y in LABELS else MLPRegressor
        parameters = {
            "hidden_layer_sizes": (3,),
            "max_iter": 2,
            "random_state": 0,
            "strategy": STRATEGIES[self.strategy],
            "batch_size": self.batch_size,
            "replicas": self.replicas,
            "solver": self.solver,
        }
        return kind(**{**parameters, **others})


def in_form(form, chunks, X, y, weight=None):
    """Return X, y and weight as that form of data, in chunks of so many rows."""
    if form == "numpy":
        return X, y, weight
    columns = [f"x{i}" for i in range(X.shape[1])]
    targets = ["y"] if y.ndim == 1 else [f"y{i}" for i in range(y.shape[1])]
    if form in ("pandas", "Dask dataframe", "unknown chunks"):
        frame = pd.DataFrame(X, columns=columns)
        frame[targets] = y if y.ndim == 2 else y[:, np.newaxis]
        if y.ndim == 1:
            frame["y"] = y
        if weight is not None:
            frame["weight"] = weight
        if form != "pandas":
            edges = pairwise(np.cumsum([0, *chunks]))
            parts = [frame.iloc[begin:end] for begin, end in edges]
            frame = dd.from_map(lambda part: part, parts, meta=frame.iloc[:0])
        found = [frame[columns], frame["y"] if y.ndim == 1 else frame[targets]]
        found.append(None if weight is None else frame["weight"])
        return [None if data is None else data.values for data in found] if "chunks" in form else found

    def array(data, chunks=chunks):
        return None if data is None else da.from_array(data, chunks=(chunks, *data.shape[1:]))

    if form == "Dask array, the rest plain":
        return array(X), y, weight
    return array(X), array(y, chunks[::-1] if "other chunks" in form else chunks), array(weight)


def refusals(case):
    """Return patterns, one of which the error must match; none: the fit must finish."""
    found = []
    if case.solver == "lbfgs" and STRATEGIES[case.strategy] not in ("auto", "gradients"):
        found.append("solver='lbfgs' needs the gradient over all rows")
    if case.n_rows == 0:
        found.append("at least one row to learn from, found 0 samples|Found array with 0 sample")
    if not (case.is_in_process or case.sees_all_rows) and (case.replicas or 1) > case.n_rows:
        found.append(
            f"Expected at least one row for each of {case.replicas} replicas, received {case.n_rows}"
        )
    if case.y == "continuous":
        found.append("Unknown label type: continuous.*Use a regressor")
    if case.y == "words":
        found.append("Expected numbers in y.*Use a classifier|could not convert string to float: '(no|yes)'")
    _, _, weight = case.rows()
    if weight is not None and case.n_rows:
        weight = weight.astype(case.trained_dtype)
        if not weight.any():
            found.append("Sample weights must contain at least one non-zero number")
        if not np.isfinite(weight).all():
            found.append(r"sample_weight (holds|contains) inf")
        # In this process scikit-learn's rule holds, which takes them.
        if weight.min() < 0 and not case.is_in_process:
            found.append(r"sample_weight holds -1\.0 in row \d+; expected >= 0")
    return found


def cases(**fields):
    """Return a hypothesis strategy of cases; fields replace what they are drawn from."""
    chosen = {
        "chunks": st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 8]), min_size=1, max_size=5).map(tuple),
        "n_columns": st.integers(1, 3),
        "dtype": st.sampled_from(DTYPES),
        "magnitude": st.sampled_from(list(MAGNITUDES)),
        "y": st.sampled_from([*LABELS, *NUMBERS]),
        "weight": st.sampled_from(list(WEIGHTS)),
        "form": st.sampled_from(FORMS),
        "strategy": st.sampled_from(list(STRATEGIES)),
        "batch_size": st.sampled_from([1, 2, 7, 1000, "auto", "full"]),
        "replicas": st.sampled_from([None, 1, 2, 3, 4, 5, 40]),
        "solver": st.sampled_from(["adam", "sgd", "lbfgs"]),
        "seed": st.integers(0, 99),
    }
    return st.builds(Case, **{**chosen, **fields})


#: Cases that must finish.
good_cases = cases(
    chunks=st.lists(st.sampled_from([0, 1, 2, 3, 5, 8]), min_size=1, max_size=5).map(lambda c: (*c, 5)),
    y=st.sampled_from([y for y in (*LABELS, *NUMBERS) if y not in ("continuous", "words", "huge")]),
    weight=st.sampled_from(["none", "none", "ones", "some", "float32", "some zero"]),
    magnitude=st.sampled_from([magnitude for magnitude in MAGNITUDES if magnitude != "huge"]),
    replicas=st.sampled_from([None, 1, 2, 3, 4, 5]),
    solver=st.sampled_from(["adam", "sgd"]),
)


def few(n):
    return settings(
        deadline=None,
        derandomize=True,
        max_examples=n,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def as_announced(predictions):
    """Return lazy or plain predictions as a numpy array; fail unless their dtype is the one announced."""
    computed = predictions.compute() if dask.is_dask_collection(predictions) else predictions
    for kind in ("dtype", "dtypes"):
        # Text is announced as objects, and pandas finds out: see test_bad_users.py.
        if hasattr(computed, kind) and not isinstance(getattr(computed, kind), pd.StringDtype):
            assert np.all(getattr(computed, kind) == getattr(predictions, kind))
    return np.asarray(computed)


def check_finished(case, model, X):
    """Fail unless the fitted model has counted, learned and predicted what it was given."""
    plain_X, y, _ = case.rows()
    assert np.isfinite(params_of(model)).all()
    assert len(model.history_) == model.n_iter_
    n_rows = case.n_rows * (model.replicas_ if case.sees_all_rows else 1)
    assert {entry["n_samples"] for entry in model.history_} <= {n_rows}
    assert np.isfinite([entry["loss"] for entry in model.history_]).all()
    predicted = as_announced(model.predict(X))
    assert predicted.shape == y.shape
    if case.y not in LABELS:
        assert predicted.dtype == case.trained_dtype
        assert case.is_extreme or np.isfinite(predicted).all()
        return
    assert model.classes_.tolist() == np.unique(y).tolist()
    assert set(predicted.tolist()) <= set(model.classes_.tolist())
    chances = as_announced(model.predict_proba(X))
    assert chances.shape == (case.n_rows, len(model.classes_))
    assert case.is_extreme or np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    if case.form != "pandas":
        assert_array_equal(model.predict(plain_X), predicted)


@given(cases())
@few(200)
def test_a_fit_ends_in_a_clear_error_or_a_finished_run(case):
    X, y, weight = case.data()
    model = case.model()
    reasons = refusals(case)
    if reasons:
        with pytest.raises((ValueError, TypeError), match="|".join(reasons)):
            model.fit(X, y, weight)
        return
    try:
        model.fit(X, y, weight)
    except NonFiniteLossError:
        assert case.is_extreme
        assert np.isfinite(params_of(model)).all()
    else:
        check_finished(case, model, X)


@given(good_cases)
@few(150)
def test_a_fit_of_good_rows_finishes_and_counts_all_of_them(case):
    X, y, weight = case.data()
    model = case.model().fit(X, y, weight)
    check_finished(case, model, X)


@given(cases(form=st.sampled_from([form for form in FORMS if form not in PLAIN_FORMS])))
@few(40)
def test_threads_and_the_synchronous_scheduler_give_the_same_bits(case):
    assume(not refusals(case))

    def outcome():
        try:
            return bits(case.model().fit(*case.data()))
        except NonFiniteLossError as error:
            return str(error)

    with dask.config.set(num_workers=3):
        on_threads = outcome()
        with dask.config.set(scheduler="sync"):
            assert outcome() == on_threads


# --- one full-batch gradient step, which has one right answer ------------------------------------------

steps = cases(
    chunks=st.lists(st.integers(0, 4), max_size=4).map(lambda chunks: (*chunks, 5)),
    dtype=st.sampled_from(["int8", "float64"]),
    magnitude=st.just("plain"),
    y=st.sampled_from(["ints", "strings", "booleans", "floats", "two columns"]),
    weight=st.sampled_from(["none", "some"]),
    strategy=st.just("gradients"),
    batch_size=st.just("full"),
    solver=st.just("sgd"),
    replicas=st.integers(1, 5),
)


def after_one_step(case, X, y, weight, form="numpy"):
    """Return loss and parameters after one step on all rows, given in that form in the case's chunks."""
    model = case.model(max_iter=1, learning_rate_init=0.5).fit(*in_form(form, case.chunks, X, y, weight))
    return np.append(params_of(model), model.loss_)


@given(steps, st.randoms(use_true_random=False))
@few(40)
def test_a_full_step_depends_neither_on_chunks_nor_on_their_order_nor_on_replicas(case, random):
    rows = case.rows()
    whole = replace(case, chunks=(case.n_rows,), replicas=1, strategy="auto")
    expected = after_one_step(whole, *rows)
    assert_allclose(after_one_step(case, *rows, case.form), expected, atol=1e-9)

    edges = list(pairwise(np.cumsum([0, *case.chunks])))
    random.shuffle(edges)
    shuffled = replace(case, chunks=tuple(int(end - begin) for begin, end in edges))
    rows = [None if part is None else np.concatenate([part[slice(*edge)] for edge in edges]) for part in rows]
    assert_allclose(after_one_step(shuffled, *rows, case.form), expected, atol=1e-9)


@given(steps, st.integers(0, 9))
@few(40)
def test_rows_of_weight_zero_are_as_if_they_were_not_there(case, seed):
    X, y, weight = case.rows()
    weight = np.ones(case.n_rows) if weight is None else weight
    order = np.random.default_rng(seed).permutation(2 * case.n_rows)
    # Twins with the labels of their rows, and other features.
    more = [np.concatenate(both)[order] for both in ((X, X[::-1] + 7), (y, y), (weight, 0 * weight))]
    double = replace(case, chunks=tuple(2 * n for n in case.chunks))
    assert_allclose(after_one_step(double, *more, case.form), after_one_step(case, X, y, weight), atol=1e-9)


@given(steps, st.integers(0, 9))
@few(40)
def test_a_row_of_weight_k_is_as_good_as_k_rows(case, seed):
    X, y, _ = case.rows()
    k = np.random.default_rng(seed).integers(1, 4, case.n_rows)
    repeated = [np.repeat(column, k, axis=0) for column in (X, y)]
    expected = after_one_step(replace(case, strategy="auto"), *repeated, None)
    assert_allclose(after_one_step(case, X, y, k, case.form), expected, atol=1e-9)


@given(steps, st.sampled_from([1e-6, 0.5, 1e9]))
@few(25)
def test_without_a_penalty_only_ratios_of_weights_matter(case, factor):
    X, y, weight = case.rows()
    weight = np.ones(case.n_rows) if weight is None else weight
    model, other = case.model(max_iter=1, alpha=0.0), case.model(max_iter=1, alpha=0.0)
    model.fit(*in_form(case.form, case.chunks, X, y, weight))
    other.fit(*in_form(case.form, case.chunks, X, y, weight * factor))
    assert_allclose(params_of(other), params_of(model), atol=1e-9)


# --- predictions and scores ----------------------------------------------------------------------------


@given(good_cases, st.sampled_from(FORMS), st.integers(0, 9))
@few(60)
def test_predictions_and_scores_do_not_depend_on_the_form_of_the_data(case, form, seed):
    X, y, weight = case.rows()
    model = case.model().fit(*case.data())
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, case.n_rows + 1, 3))
    other = tuple(int(n) for n in np.diff([0, *cuts, case.n_rows]))
    if case.form == "pandas" or "dataframe" in case.form:
        assume(form == "pandas" or "dataframe" in form)
    elif form == "pandas" or "dataframe" in form:
        assume(False)
    given_X, given_y, given_weight = in_form(form, other, X, y, weight)
    plain_X = in_form("pandas", (), X, y)[0] if hasattr(given_X, "columns") else X
    predicted = as_announced(model.predict(given_X))
    expected = np.asarray(model.predict(plain_X))
    if case.y in LABELS:
        assert_array_equal(predicted, expected)
    else:
        assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
    assert_allclose(
        model.score(given_X, given_y, given_weight), model.score(plain_X, y, weight), rtol=1e-5, atol=1e-6
    )


# --- Sequential ----------------------------------------------------------------------------------------

OUTPUTS = {
    "mse": (1, "linear"),
    "binary_crossentropy": (1, "sigmoid"),
    "sparse_categorical_crossentropy": (3, "softmax"),
}
SCOPES = {name: None if name == "auto" else dasknn.strategies.get(STRATEGIES[name]) for name in STRATEGIES}


def sequential(case, loss, optimizer="adam"):
    """Return a compiled model for the case, in the scope of its strategy."""
    dasknn.set_random_seed(case.seed)
    units, activation = OUTPUTS[loss]

    def build():
        model = Sequential([Input((case.n_columns,)), Dense(3, "relu"), Dense(units, activation)])
        model.compile(optimizer, loss)
        return model

    if SCOPES[case.strategy] is None:
        return build()
    with replace(SCOPES[case.strategy], replicas=case.replicas).scope():
        return build()


def rows_for(case, loss):
    """Return x, y and weight for a loss, as numpy arrays."""
    x, y, weight = case.rows()
    labels = np.random.default_rng(case.seed).integers(0, 3, case.n_rows)
    if loss == "binary_crossentropy":
        y = labels > 0
    elif loss == "sparse_categorical_crossentropy":
        y = labels.astype(np.uint8 if case.seed % 2 else np.float32)
    return x, y, weight


sequential_cases = cases(
    y=st.sampled_from(["floats", "float16", "ints", "booleans", "objects", "huge", "constant"]),
    batch_size=st.sampled_from([None, 1, 2, 7, 1000]),
    replicas=st.sampled_from([1, 2, 3, 4, 5, 40]),
)


def refusals_of_sequential(case, loss):
    """Return what `refusals` does, for a model of float32 without rules of scikit-learn's."""
    found = refusals(replace(case, dtype="float32", solver="adam", form="Dask array"))
    if (case.y, loss) == ("objects", "mse"):
        found.append("Expected numbers in y, received dtype object")
    if case.strategy == "auto":
        found = [pattern for pattern in found if "for each of" not in pattern]
    return found


@given(sequential_cases, st.sampled_from(list(OUTPUTS)))
@few(120)
def test_a_sequential_ends_in_a_clear_error_or_a_finished_run(case, loss):
    rows = rows_for(case, loss)
    x, y, weight = in_form(case.form, case.chunks, *rows)
    model = sequential(case, loss)
    # Fewer rows than replicas of its own choosing: see test_bad_users.py.
    assume(case.strategy != "auto" or case.n_rows not in (1, 2, 3))
    reasons = refusals_of_sequential(case, loss)
    if reasons:
        with pytest.raises((ValueError, TypeError), match="|".join(reasons)):
            model.fit(x, y, case.batch_size, 2, 0, sample_weight=weight)
        return
    try:
        history = model.fit(x, y, case.batch_size, 2, 0, sample_weight=weight)
    except NonFiniteLossError:
        assert case.is_extreme
    else:
        n_rows = case.n_rows * (model.replicas_ if case.sees_all_rows else 1)
        assert [entry["n_samples"] for entry in history.entries] == [n_rows] * 2
        assert np.isfinite(history.history["loss"]).all()
        predicted = as_announced(model.predict(x, verbose=0))
        assert predicted.shape == (case.n_rows, OUTPUTS[loss][0])
        assert predicted.dtype == np.float32
        of_chunks = model.evaluate(x, y, verbose=0, sample_weight=weight)
        of_rows = model.evaluate(*in_form("numpy", (), *rows)[:2], verbose=0, sample_weight=rows[2])
        assert_allclose(of_chunks, of_rows, rtol=1e-4, atol=1e-6)
    assert all(np.isfinite(array).all() for member in model.members for array in member.get_weights())


@given(steps, st.sampled_from(list(OUTPUTS)))
@few(25)
def test_a_full_step_of_a_sequential_depends_on_the_rows_alone(case, loss):
    x, y, weight = rows_for(replace(case, y="floats"), loss)
    weight = np.ones(case.n_rows) if weight is None else weight

    def weights_after(case, rate, x, y, weight, form):
        model = sequential(case, loss, optimizers.SGD(rate))
        x, y, weight = in_form(form, case.chunks, x, y, weight)
        model.fit(x, y, 10**6, 1, 0, sample_weight=weight)
        return np.concatenate([array.ravel() for array in model.get_weights()])

    expected = weights_after(replace(case, strategy="auto"), 0.1, x, y, weight, "numpy")
    assert_allclose(weights_after(case, 0.1, x, y, weight, case.form), expected, atol=1e-5)
    # As in Keras, losses are divided by the number of rows, those of weight zero included.
    double = replace(case, chunks=tuple(2 * n for n in case.chunks))
    twice = [np.concatenate(both) for both in ((x, x[::-1]), (y, y), (weight, 0 * weight))]
    assert_allclose(weights_after(double, 0.2, *twice, case.form), expected, atol=1e-5)


# --- a cluster -----------------------------------------------------------------------------------------


@given(good_cases)
@few(6)
def test_a_cluster_gives_the_bits_of_this_process(cluster, case):
    assume(not case.is_in_process)
    # Without a number of replicas it would be that of the threads.
    case = replace(case, replicas=case.replicas or 2)
    here, there = case.model(), case.model()
    with Client(cluster, set_as_default=False) as client:
        there.client = client
        there.fit(*case.data())
        assert_nothing_left(client)
    assert bits(there) == bits(here.fit(*case.data()))


#: Ways to train that must each come to every row; see `counted_rows`.
fits = st.builds(
    Fit,
    st.sampled_from(["estimator", "sequential"]),
    st.sampled_from(
        [
            GradientAveraging(),
            WeightAveraging(),
            WeightAveraging(every=1),
            WeightAveraging(every=3, outer=OuterNesterov()),
            PredictionAveraging(hop=False),
        ]
    ),
    transport=st.sampled_from(["peer", "tasks"]),
    streamed=st.booleans(),
    batch_size=st.integers(1, 9),
    replicas=st.integers(1, 9),
    chunks=st.lists(st.integers(1, 6), min_size=2, max_size=5).map(tuple),
    cut=st.booleans(),
    shuffle=st.booleans(),
).filter(
    lambda fit: (
        fit.replicas <= fit.n_rows
        # Members of an ensemble exchange nothing.
        and not (fit.transport == "peer" and isinstance(fit.strategy, PredictionAveraging))
    )
)


@given(fits)
@few(12)
def test_every_way_to_train_comes_to_each_row_once_an_epoch(cluster, fit):
    with Client(cluster) as client:
        fit.check()
        assert_nothing_left(client)


class Strikes(Callback):
    """Sends a signal to a worker between the first two epochs."""

    def __init__(self, client, sent):
        self.processes, self.sent = client.run(os.getpid), sent

    def state(self):
        return None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            os.kill(min(self.processes.values()), self.sent)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@given(fit=fits)
@few(2)
def test_every_way_to_train_comes_to_each_row_though_a_worker_is_lost(start_cluster, sent, fit):
    # Soon enough for this test; it ends by its deadline or not at all.
    with (
        dask.config.set({"dasknn.silence": 3, "dasknn.timeout": 60}),
        start_cluster(2) as cluster,
        Client(cluster) as client,
    ):
        strikes = Strikes(client, sent)
        try:
            fit.check(strikes, n_epochs=3)
        finally:
            for process in strikes.processes.values():
                # A process that is stopped does not end when it is told to.
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
