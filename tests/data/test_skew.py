"""Sorted partitions draw one warning that says what was found; random ones draw none."""

import warnings
from itertools import pairwise

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dasknn
from dasknn.data import skew
from dasknn.data.targets import ClassSummary, NumberSummary
from dasknn.exceptions import DataSkewWarning
from dasknn.layers import Dense, Input

CLASSES = {
    "two": [0.5, 0.5],
    "90 to 10": [0.9, 0.1],
    "99 to 1": [0.99, 0.01],
    "three": [0.5, 0.3, 0.2],
    "ten": [0.1] * 10,
    "hundred": 1 / np.arange(1, 101) / sum(1 / np.arange(1, 101)),
}
NUMBERS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "far from 0": lambda rng, n: 1e6 + rng.normal(size=n),
    "tiny, with a long tail": lambda rng, n: 1e-6 * rng.lognormal(0, 2, n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "mostly 0": lambda rng, n: (rng.random(n) < 0.05) * rng.exponential(size=n),
    "0 and 1": lambda rng, n: rng.integers(0, 2, n),
    "seven values": lambda rng, n: rng.integers(0, 7, n),
}


def warned(y, rows, summary=ClassSummary, names=("X", "y"), is_ours=False):
    """Return the warning that y draws in partitions of so many rows, or None."""
    edges = np.cumsum([0, *rows])
    parts = [summary.of(y[begin:end]) for begin, end in pairwise(edges)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        skew.warn_of_skew(parts, rows, names, is_ours)
    assert len(found) <= 1
    assert all(entry.category is DataSkewWarning for entry in found)
    return str(found[0].message) if found else None


def random_cut(rng, n):
    """Return the rows of partitions of n rows: even ones, uneven ones, tiny ones, tiny ones and a big one."""
    way = rng.integers(4)
    if way == 0:
        edges = np.arange(rng.integers(2, 12) + 1) * n // 12
    elif way == 1:
        edges = np.sort(rng.integers(0, n + 1, rng.integers(1, 30)))
    elif way == 2:
        edges = np.cumsum(rng.integers(0, rng.integers(2, 10), n // 4))
    else:
        edges = np.cumsum(rng.integers(1, 10, rng.integers(2, min(30, n // 10 + 3))))
    return np.diff(np.unique([0, *edges[edges < n], n])).tolist()


@pytest.mark.parametrize("kind", [*CLASSES, *NUMBERS])
def test_random_rows_are_not_warned_of_however_they_are_cut(kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(10 ** rng.uniform(1, 4))
        rows = random_cut(rng, n)
        if kind in CLASSES:
            y, summary = rng.choice(len(CLASSES[kind]), n, p=CLASSES[kind]), ClassSummary
        else:
            y, summary = NUMBERS[kind](rng, n), NumberSummary
        # Uneven sizes have a warning of their own.
        assert warned(y, rows, summary, is_ours=True) is None, rows


@pytest.mark.parametrize("n_parts", [2, 3, 4, 8, 32])
@pytest.mark.parametrize("kind", [*CLASSES, *NUMBERS])
def test_sorted_rows_are_warned_of(kind, n_parts):
    rng = np.random.default_rng(0)
    n = 4096 if kind != "99 to 1" else 16384
    if kind in CLASSES:
        y, summary = rng.choice(len(CLASSES[kind]), n, p=CLASSES[kind]), ClassSummary
    else:
        y, summary = NUMBERS[kind](rng, n), NumberSummary
    assert warned(np.sort(y), [n // n_parts] * n_parts, summary)


def test_half_sorted_rows_are_warned_of_and_slightly_sorted_ones_are_not():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 1000)

    def with_moved(share):
        rows = rng.choice(4000, int(share * 4000), replace=False)
        moved = y.copy()
        moved[rows] = rng.permutation(moved[rows])
        return moved

    assert warned(with_moved(0.5), [1000] * 4)
    assert warned(with_moved(0.8), [1000] * 4) is None


def test_partitions_of_a_few_rows_are_of_one_class_without_being_sorted():
    y = np.random.default_rng(0).integers(0, 2, 3000)
    for rows in (1, 2, 3):
        assert warned(y, [rows] * (3000 // rows)) is None
    assert warned(np.sort(y), [3] * 1000)


def test_a_handful_of_rows_says_nothing():
    assert warned(np.array([0, 0, 0, 1, 1, 1]), [3, 3]) is None


def test_weights_of_rows_change_nothing():
    rng = np.random.default_rng(0)
    y, weight = rng.integers(0, 3, 400), np.where(np.arange(400) % 100 == 0, 1e6, 1)
    parts = [ClassSummary.of(y[i : i + 100], weight[i : i + 100]) for i in range(0, 400, 100)]
    # One row of each partition has nearly all of its weight; warnings are errors.
    skew.warn_of_skew(parts, [100] * 4, ["X", "y", "weight"], False)


def test_the_warning_says_what_was_found_and_what_to_do():
    message = warned(np.repeat(["a", "b", "c"], 100), [100, 0, 100, 100], names=("X", "y", "weight"))
    assert (
        "sorted by class: its 3 partitions are as different as if the data were sorted (score 100%;"
        in message
    )
    # Partitions are counted with the empty ones.
    assert "Class 'c' has 100% of the rows of partition 3, and 33% of all rows" in message
    assert "X, y, sample_weight = dasknn.shuffle(X, y, sample_weight)" in message

    message = warned(np.arange(300.0), [0, 100, 100, 100], NumberSummary)
    assert "sorted by y: its 3 partitions differ much (score 6" in message
    assert "The mean of y is 49.5 in partition 1, and 250 in partition 3" in message
    assert "X, y = dasknn.shuffle(X, y)" in message


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (np.array(["no", "yes"]), "'yes'"),
        (np.array(["no", "yes"], object), "'yes'"),
        (np.array([0, 1]), "1"),
        (np.array([0.0, 1.0]), "1.0"),
        (np.array([False, True]), "True"),
        (np.array(["2019-01-01", "2020-01-01"], "M8[ns]"), "2020-01-01T"),
    ],
    ids=["text", "objects", "integers", "floats", "booleans", "dates"],
)
def test_labels_of_all_kinds_are_named(labels, shown):
    assert f"Class {shown}" in warned(np.repeat(labels, 100), [100, 100])


def test_one_sorted_column_of_several_is_enough():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1000, 3))
    assert warned(y, [250] * 4, NumberSummary) is None
    y[:, 1].sort()
    assert warned(y, [250] * 4, NumberSummary)


def test_rows_of_one_hot_are_classes():
    y = np.eye(10)[np.random.default_rng(0).integers(0, 10, 1000)]
    assert warned(y, [250] * 4, NumberSummary) is None
    assert warned(y[np.argsort(y.argmax(axis=1))], [250] * 4, NumberSummary)


def test_constant_targets_and_many_labels_a_row_draw_no_warning():
    assert warned(np.full(400, 0.1), [100] * 4, NumberSummary) is None
    assert warned(np.zeros(400, int), [100] * 4) is None
    assert warned(np.repeat(np.eye(4, dtype=int), 100, axis=0), [100] * 4) is None


def test_a_sample_of_y_stays_small_and_is_the_same_again():
    y = np.random.default_rng(0).standard_normal((5000, 7))
    sample = NumberSummary.of(y).sample
    assert sample.size <= 1000
    assert {tuple(row) for row in sample} <= {tuple(row) for row in y[:, [0, 2, 4, 6]]}
    assert (NumberSummary.of(y).sample == sample).all()


def test_one_partition_that_holds_most_rows_is_warned_of():
    y = np.random.default_rng(0).integers(0, 2, 1000)
    message = warned(y, [100, 700, 100, 0, 100])
    assert "Partition 1 holds 700 of 1000 rows, 3 others the rest" in message
    assert "df.repartition" in message
    assert "X.rechunk({0: 250}) and y likewise" in message
    assert warned(y, [100, 450, 150, 300]) is None
    # Two or three partitions cannot be even less uneven by much; ours are even.
    assert warned(y, [150, 700, 150]) is None
    assert warned(y, [100, 700, 100, 100], is_ours=True) is None


def test_both_findings_make_one_warning():
    message = warned(np.repeat([0, 1], [700, 300]), [700, 100, 100, 100])
    assert "sorted by class" in message
    assert "Partition 0 holds 700 of 1000 rows" in message


# --- where it is called -----------------------------------------------------------------------------


LABELS = "sparse_categorical_crossentropy"


def rows_of(n=400, seed=0):
    """Return X (n, 3), y (n,) sorted, 0 or 1."""
    return np.random.default_rng(seed).standard_normal((n, 3)), np.repeat([0, 1], n // 2)


def in_chunks(X, y):
    return da.from_array(X, chunks=(len(X) // 4, -1)), da.from_array(y, chunks=len(y) // 4)


def classifier(**settings):
    return dasknn.MLPClassifier((3,), max_iter=1, random_state=0, **settings)


def regress(X, y):
    model = dasknn.MLPRegressor(hidden_layer_sizes=(3,), max_iter=1)
    return model.fit(*in_chunks(X, X[:, 0] + 9 * y))


def sequential(units, activation, loss):
    model = dasknn.Sequential([Input((3,)), Dense(units, activation=activation)])
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    "fit",
    [
        lambda X, y: classifier().fit(*in_chunks(X, y)),
        lambda X, y: classifier().partial_fit(*in_chunks(X, y), classes=[0, 1]),
        regress,
        lambda X, y: sequential(2, "softmax", LABELS).fit(*in_chunks(X, y), verbose=0),
        lambda X, y: sequential(1, "sigmoid", "binary_crossentropy").fit(*in_chunks(X, y), verbose=0),
        # Plain data is cut as it lies.
        lambda X, y: classifier(strategy="gradients", replicas=2).fit(X, y),
    ],
    ids=["classifier", "partial_fit", "regressor", "labels", "0 and 1", "plain, cut by a strategy"],
)
def test_every_face_warns_of_sorted_data(fit):
    X, y = rows_of()
    with pytest.warns(DataSkewWarning, match=r"dasknn\.shuffle\(X, y\)") as found:
        fit(X, y)
    assert sum(entry.category is DataSkewWarning for entry in found) == 1
    order = np.random.default_rng(0).permutation(len(y))
    # Warnings are errors.
    fit(X[order], y[order])


def test_dataframes_are_looked_at_too():
    X, y = rows_of()
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abc")).assign(label=y), npartitions=4, sort=False)
    with pytest.warns(DataSkewWarning, match="4 partitions are as different as if"):
        classifier().fit(frame[["a", "b", "c"]], frame["label"])


@pytest.mark.parametrize("dtype", ["str", "object", "category", "string[pyarrow]"])
def test_text_of_dataframes_is_named(dtype):
    X, y = rows_of()
    table = pd.DataFrame(X, columns=list("abc")).assign(label=pd.Series(y).map({0: "no", 1: "yes"}))
    frame = dd.from_pandas(table.astype({"label": dtype}), npartitions=4, sort=False)
    with pytest.warns(DataSkewWarning, match="Class '(no|yes)' has 100%"):
        classifier().fit(frame[["a", "b", "c"]], frame["label"])


# --- rows that are held out last --------------------------------------------------------------------


def softmax(n_classes, loss=LABELS):
    return sequential(n_classes, "softmax", loss)


def fits_of_last_rows(n_classes=5):
    """Return, by name, y (n, k) in the forms that losses take, of sorted classes, and a model for each."""
    y = np.repeat(np.arange(n_classes), 200)
    return {
        "labels": (y, softmax(n_classes)),
        "one-hot": (np.eye(n_classes)[y], softmax(n_classes, "categorical_crossentropy")),
        "0 and 1": (y >= n_classes - 2, sequential(1, "sigmoid", "binary_crossentropy")),
        "-1 and 1": (np.where(y >= n_classes - 2, 1, -1), sequential(1, "tanh", "hinge")),
        "numbers": (np.sort(np.random.default_rng(1).standard_normal(len(y))), sequential(1, None, "mse")),
    }


@pytest.mark.parametrize("way", ["plain", "one partition", "cut by a strategy"])
@pytest.mark.parametrize("kind", fits_of_last_rows())
def test_sorted_rows_held_out_last_are_warned_of_once(kind, way):
    y, model = fits_of_last_rows()[kind]
    X = np.random.default_rng(0).standard_normal((len(y), 3))
    if way == "cut by a strategy":
        with dasknn.GradientAveraging(replicas=2).scope():
            model = dasknn.Sequential.from_config(model.get_config())
            model.compile(loss=fits_of_last_rows()[kind][1].loss)

    def fit(X, y):
        if way == "one partition":
            X, y = da.from_array(X, chunks=-1), da.from_array(y, chunks=-1)
        model.fit(X, y, validation_split=0.2, verbose=0)

    with pytest.warns(DataSkewWarning, match=r"dasknn\.shuffle\(X, y\)") as found:
        fit(X, y)
    assert sum(entry.category is DataSkewWarning for entry in found) == 1
    order = np.random.default_rng(0).permutation(len(y))
    # Warnings are errors.
    fit(X[order], y[order])


def test_the_warning_of_rows_held_out_says_what_was_found():
    y, model = fits_of_last_rows()["labels"]
    X = np.zeros((len(y), 3))
    weight = np.ones(len(y))
    expected = "class 4 has 100% of the held-out rows, and 0% of the others"
    with pytest.warns(DataSkewWarning, match=expected) as found:
        model.fit(X, y, sample_weight=weight, validation_split=0.2, verbose=0)
    assert "X, y, sample_weight = dasknn.shuffle(X, y, sample_weight)" in str(found[0].message)
    # The border lies within a partition, and there are some on each side.
    cut = [da.from_array(column, chunks=(300, *column.shape[1:])) for column in (X, np.sort(y % 2))]
    with pytest.warns(DataSkewWarning, match="sorted by class"):
        model.fit(*cut, validation_split=0.25, verbose=0)
    # Nothing of it is known where validation data is given.
    model.fit(X, y, validation_data=(X[-200:], y[-200:]), verbose=0)


def test_a_rare_class_that_is_held_out_whole_is_warned_of():
    y = np.repeat([0, 1], [990, 10])
    with pytest.warns(DataSkewWarning, match="class 1 has 5% of the held-out rows, and 0% of the others"):
        softmax(2).fit(np.zeros((1000, 3)), y, validation_split=0.2, verbose=0)


@pytest.mark.parametrize("kind", [*CLASSES, *NUMBERS])
def test_random_rows_held_out_are_not_warned_of(kind):
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(10 ** rng.uniform(0.5, 4))
        if kind in CLASSES:
            y, summary = rng.choice(len(CLASSES[kind]), n, p=CLASSES[kind]), ClassSummary
        else:
            y, summary = NUMBERS[kind](rng, n), NumberSummary
        border = int(rng.integers(1, n))
        # Warnings are errors.
        skew.warn_of_split([summary.of(y[:border])], [summary.of(y[border:])], ["X", "y"])


def test_what_is_not_cut_or_not_trained_on_draws_no_warning():
    X, y = rows_of()
    order = np.random.default_rng(0).permutation(len(y))
    mixed = in_chunks(X[order], y[order])
    # One partition; plain data in this process; data that only validates; a block of a stream.
    classifier().fit(da.from_array(X, chunks=-1), da.from_array(y, chunks=-1))
    classifier().fit(X, y)
    model = classifier().fit(*mixed, validation_data=in_chunks(X, y))
    model.score(*in_chunks(X, y))
    classifier(strategy="gradients", replicas=2).partial_fit(X, y, classes=[0, 1])
    # All rows make one gradient.
    classifier(solver="lbfgs").fit(*in_chunks(X, y))
    keras = sequential(1, "sigmoid", "binary_crossentropy")
    keras.fit(*mixed, validation_data=in_chunks(X, y), verbose=0)
    keras.evaluate(*in_chunks(X, y), verbose=0)


def test_labels_of_two_kinds_are_refused_before_anything_is_said_of_them():
    X, _ = rows_of(40)
    parts = [np.repeat(np.array(["a", "b"], object), 10), np.repeat(np.array([0, 1], object), 10)]
    y = da.concatenate([da.from_array(part, chunks=20) for part in parts])
    with pytest.raises(ValueError, match="labels of text in some partitions and of numbers in others"):
        classifier().fit(da.from_array(X, chunks=(20, -1)), y)
