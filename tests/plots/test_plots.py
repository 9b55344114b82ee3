"""Pictures show what scikit-learn computes of all rows, which stay where they are."""

import subprocess
import sys
from itertools import pairwise

import dask.array as da
import dask.dataframe as dd
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dasknn import MLPClassifier, MLPRegressor, Sequential
from dasknn.callbacks import Callback
from dasknn.evaluation.counts import LabelCounts
from dasknn.evaluation.score_sketch import ShareTally, bins_for
from dasknn.layers import Dense
from dasknn.plots import (
    CalibrationDisplay,
    ConfusionMatrixDisplay,
    EpochTimesDisplay,
    LearningCurveDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    SlicesDisplay,
)

matplotlib.use("Agg")

CURVES = [RocCurveDisplay, PrecisionRecallDisplay, CalibrationDisplay]


@pytest.fixture(autouse=True)
def figures_are_closed():
    """Draw the last picture for good, which is when matplotlib finds out what cannot be drawn."""
    yield
    for number in plt.get_fignums()[-1:]:
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.fixture(scope="module")
def two_classes():
    """X (900, 5), y (900,) of "no" and "yes", weight (900,), and a model that tells most of them apart."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 5))
    y = np.where(X @ rng.normal(size=5) + rng.normal(size=900) > 0.5, "yes", "no")
    return X, y, rng.random(900), MLPClassifier((8,), max_iter=20, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def of_digits(digits):
    """A model of ten classes, and two layers of Keras's kind."""
    X, y = digits
    network = Sequential([Dense(16, activation="relu"), Dense(10, activation="softmax")])
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(X / 16, y, epochs=3, verbose=0)
    return MLPClassifier((16,), max_iter=5, random_state=0).fit(X / 16, y), network


def chunked(*arrays, n_rows=210):
    return [da.from_array(array, chunks=(n_rows, *array.shape[1:])) for array in arrays]


def scores_of(display):
    """What curves were computed from cannot be seen; what was drawn can."""
    return np.asarray(display.line_.get_xydata())


# --- curves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_roc_curve_of_dask_data_is_that_of_all_rows(two_classes, weighted):
    X, y, weight, model = two_classes
    dask_X, dask_y, dask_weight = chunked(X, y, weight)
    display = RocCurveDisplay.from_estimator(
        model, dask_X, dask_y, sample_weight=dask_weight if weighted else None
    )
    score, used = model.predict_proba(X)[:, 1], weight if weighted else None
    fpr, tpr, _ = metrics.roc_curve(y, score, pos_label="yes", sample_weight=used)
    assert_allclose(display.fpr, fpr, atol=1e-12)
    assert_allclose(display.tpr, tpr, atol=1e-12)
    assert_allclose(display.roc_auc, metrics.roc_auc_score(y, score, sample_weight=used), rtol=1e-12)
    assert_array_equal(scores_of(display), np.column_stack([display.fpr, display.tpr]))
    assert display.pos_label == "yes"
    assert "Positive label: yes" in display.ax_.get_xlabel()


def test_a_precision_recall_curve_of_dask_data_is_that_of_all_rows(two_classes):
    X, y, weight, model = two_classes
    display = PrecisionRecallDisplay.from_estimator(
        model,
        *chunked(X, y),
        sample_weight=chunked(weight)[0],
        drop_intermediate=False,
        plot_chance_level=True,
    )
    score, is_yes = model.predict_proba(X)[:, 1], y == "yes"
    precision, recall, _ = metrics.precision_recall_curve(is_yes, score, sample_weight=weight)
    assert_allclose(display.precision, precision, atol=1e-12)
    assert_allclose(display.recall, recall, atol=1e-12)
    expected = metrics.average_precision_score(is_yes, score, sample_weight=weight)
    assert_allclose(display.average_precision, expected, rtol=1e-12)
    share = weight[is_yes].sum() / weight.sum()
    assert_allclose(display.prevalence_pos_label, share)
    assert_allclose(display.chance_level_.get_ydata(), [share, share])


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_calibration_curve_of_dask_data_has_the_bins_of_scikit_learn(two_classes, strategy, rounded):
    X, y, _, model = two_classes
    chances = model.predict_proba(X)[:, 1]
    if rounded:
        # On the edges of bins, and many of them equal.
        chances = chances.round(1)
    display = CalibrationDisplay.from_predictions(
        *chunked(y, chances), pos_label="yes", n_bins=10, strategy=strategy
    )
    prob_true, prob_pred = calibration_curve(y, chances, pos_label="yes", n_bins=10, strategy=strategy)
    assert_allclose(display.prob_true, prob_true, atol=1e-12)
    assert_allclose(display.prob_pred, prob_pred, atol=1e-12)
    assert_allclose(scores_of(display), np.column_stack([prob_pred, prob_true]))


def test_a_row_of_weight_two_is_calibrated_as_two_rows(two_classes):
    X, y, _, model = two_classes
    chances, twice = model.predict_proba(X)[:, 1], np.arange(900) % 3 == 0
    for strategy in ("uniform", "quantile"):
        weighted = CalibrationDisplay.from_predictions(
            y, chances, pos_label="yes", strategy=strategy, sample_weight=1 + twice
        )
        repeated = CalibrationDisplay.from_predictions(
            np.concatenate([y, y[twice]]),
            np.concatenate([chances, chances[twice]]),
            pos_label="yes",
            strategy=strategy,
        )
        # A mean row weighs 4/3, so edges between two scores may lie elsewhere between them.
        assert_allclose(weighted.prob_true, repeated.prob_true, atol=0.02)


@pytest.mark.parametrize("display_type", [RocCurveDisplay, PrecisionRecallDisplay])
def test_several_classes_have_a_curve_each(dask_digits, digits, of_digits, display_type):
    X, y = digits
    for model in of_digits:
        display = display_type.from_estimator(model, dask_digits[0] / 16, dask_digits[1])
        chances = model.predict_proba(X / 16) if hasattr(model, "predict_proba") else model.predict(X / 16)
        of_class = [
            metrics.roc_auc_score(y == label, chances[:, label])
            if display_type is RocCurveDisplay
            else metrics.average_precision_score(y == label, chances[:, label])
            for label in range(10)
        ]
        found = display.roc_auc if display_type is RocCurveDisplay else display.average_precision
        assert_allclose(found, of_class, rtol=1e-9)
        texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert len(display.line_) == len(texts) == 10
        assert texts[3].startswith("3 (A")
        assert len({(line.get_color(), line.get_linestyle()) for line in display.line_}) == 10


@pytest.mark.parametrize("display_type", CURVES)
def test_pos_label_chooses_one_class_of_several(digits, of_digits, display_type):
    X, y = digits
    display = display_type.from_estimator(of_digits[0], X / 16, y, pos_label=7)
    chances = of_digits[0].predict_proba(X / 16)[:, 7]
    given = display_type.from_predictions(y, chances, pos_label=7)
    assert_array_equal(scores_of(display), scores_of(given))
    assert display.pos_label == 7


@pytest.mark.parametrize("display_type", CURVES)
def test_scores_of_a_dataframe_have_the_names_of_its_columns(two_classes, display_type):
    X, y, _, _ = two_classes
    frame = pd.DataFrame(X, columns=list("abcde")).assign(y=y)
    data = dd.from_pandas(frame, npartitions=3)
    named = MLPClassifier((8,), max_iter=20, random_state=0).fit(frame[list("abcde")], y)
    chances = named.predict_proba(data[list("abcde")])
    display = display_type.from_predictions(data["y"], chances)
    assert display.pos_label == "yes"
    of_model = display_type.from_estimator(named, data[list("abcde")], data["y"])
    assert_array_equal(scores_of(display), scores_of(of_model))


def test_decision_functions_are_scores_too(two_classes):
    X, y, _, _ = two_classes
    model = make_pipeline(StandardScaler(), RidgeClassifier()).fit(X, y)
    display = RocCurveDisplay.from_estimator(model, *chunked(X, y))
    assert_allclose(display.roc_auc, metrics.roc_auc_score(y, model.decision_function(X)), rtol=1e-12)
    other = RocCurveDisplay.from_estimator(model, *chunked(X, y), pos_label="no")
    assert_allclose(other.roc_auc, display.roc_auc, rtol=1e-12)
    with pytest.raises(ValueError, match="with predict_proba, received Pipeline"):
        CalibrationDisplay.from_estimator(model, X, y)


def test_labels_of_multilabel_data_have_a_curve_each():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    y = (X[:, :2] + rng.normal(size=(300, 2)) > 0).astype(int)
    model = MLPClassifier((8,), max_iter=10, random_state=0).fit(X, y)
    network = Sequential([Dense(2, activation="sigmoid")])
    network.compile("adam", "binary_crossentropy")
    network.fit(X, y, epochs=1, verbose=0)
    for fitted, chances in ((model, model.predict_proba(X)), (network, network.predict(X))):
        display = RocCurveDisplay.from_estimator(fitted, *chunked(X, y))
        assert_allclose(
            display.roc_auc, [metrics.roc_auc_score(y[:, j], chances[:, j]) for j in (0, 1)], rtol=1e-12
        )
        with pytest.raises(ValueError, match="received a multi-label one"):
            ConfusionMatrixDisplay.from_estimator(fitted, X, y)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "from_logits"])
def test_a_sequential_of_one_output_has_one_curve(two_classes, loss):
    from dasknn.losses import BinaryCrossentropy

    X, y, _, _ = two_classes
    is_yes = (y == "yes").astype(int)
    logits = loss == "from_logits"
    network = Sequential([Dense(1, activation=None if logits else "sigmoid")])
    network.compile("adam", BinaryCrossentropy(from_logits=True) if logits else loss)
    network.fit(X, is_yes, epochs=2, verbose=0)
    dask_X, dask_y = chunked(X.reshape(900, 5), is_yes[:, np.newaxis])
    display = RocCurveDisplay.from_estimator(network, dask_X, dask_y)
    outputs = network.predict(X)[:, 0]
    assert_allclose(display.roc_auc, metrics.roc_auc_score(is_yes, outputs), rtol=1e-12)
    CalibrationDisplay.from_estimator(network, dask_X, dask_y)
    matrix = ConfusionMatrixDisplay.from_estimator(network, dask_X, dask_y).confusion_matrix
    assert_array_equal(matrix, metrics.confusion_matrix(is_yes, outputs > (0 if logits else 0.5)))


def test_margins_have_curves_and_a_matrix_and_are_no_probabilities(two_classes):
    X, y, _, _ = two_classes
    sign = np.where(y == "yes", 1, -1)
    network = Sequential([Dense(1)])
    network.compile("adam", "hinge")
    network.fit(X, sign, epochs=1, verbose=0)
    margins = network.predict(X, verbose=0)[:, 0]
    display = RocCurveDisplay.from_estimator(network, X, sign)
    assert_allclose(display.roc_auc, metrics.roc_auc_score(sign, margins), rtol=1e-12)
    matrix = ConfusionMatrixDisplay.from_estimator(network, X, sign).confusion_matrix
    assert_array_equal(matrix, metrics.confusion_matrix(sign > 0, margins > 0))
    with pytest.raises(ValueError, match="whose outputs are margins"):
        CalibrationDisplay.from_estimator(network, X, sign)


def test_a_class_without_rows_is_left_out_with_a_warning(digits, of_digits):
    X, y = digits
    with pytest.warns(UndefinedMetricWarning, match=r"No curve for \[4\]"):
        display = RocCurveDisplay.from_estimator(of_digits[0], X[y != 4] / 16, y[y != 4])
    assert len(display.line_) == 9


@pytest.mark.parametrize("display_type", CURVES)
def test_two_models_go_into_one_picture(two_classes, display_type):
    X, y, _, model = two_classes
    first = display_type.from_estimator(model, X, y, name="one")
    second = display_type.from_estimator(model, X, y, name="two", ax=first.ax_, linewidth=3)
    assert second.ax_ is first.ax_
    assert second.figure_ is first.figure_
    assert second.line_.get_linewidth() == 3
    assert first.line_.get_color() != second.line_.get_color()
    texts = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert any(text.startswith("one") for text in texts)
    assert any(text.startswith("two") for text in texts)
    assert first.plot() is first


# --- confusion matrix --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalize", "weighted"), [(None, False), (None, True), ("true", True), ("pred", False), ("all", True)]
)
def test_a_confusion_matrix_of_dask_data_is_that_of_all_rows(digits, of_digits, normalize, weighted):
    X, y = digits
    weight = np.random.default_rng(0).random(len(y)) if weighted else None
    # In this order most partitions lack most classes.
    order = np.argsort(y, kind="stable")
    given = [X[order] / 16, y[order]] + ([weight] if weighted else [])
    dask_X, dask_y, *dask_weight = chunked(*given)
    for model in of_digits:
        predicted = np.asarray(model.predict(X[order] / 16))
        predicted = predicted if predicted.ndim == 1 else predicted.argmax(axis=1)
        display = ConfusionMatrixDisplay.from_estimator(
            model, dask_X, dask_y, sample_weight=dask_weight[0] if weighted else None, normalize=normalize
        )
        expected = metrics.confusion_matrix(
            y[order], predicted, sample_weight=weight, normalize=normalize, labels=range(10)
        )
        assert_allclose(display.confusion_matrix, expected, atol=1e-12)
        assert display.confusion_matrix.dtype == expected.dtype
        assert_allclose(display.im_.get_array(), expected)


def test_labels_choose_and_order_the_classes_of_a_confusion_matrix():
    y_true = np.array(["b", "a", "c", "b", "c"])
    y_pred = np.array(["b", "b", "c", "a", "a"])
    display = ConfusionMatrixDisplay.from_predictions(
        *chunked(y_true, y_pred, n_rows=2), labels=["c", "b", "z"]
    )
    expected = metrics.confusion_matrix(y_true, y_pred, labels=["c", "b", "z"])
    assert_array_equal(display.confusion_matrix, expected)
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["c", "b", "z"]


def test_a_dataframe_of_text_goes_through_a_pipeline():
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"color": ["red", "blue", "red", "green"] * 50, "size": np.arange(200) % 7})
    y = pd.Series(np.where(frame["color"] == "red", "stop", "go"), name="y")
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["color"]), remainder="passthrough"),
        MLPClassifier((4,), max_iter=5, random_state=0),
    ).fit(frame, y)
    data = dd.from_pandas(frame.assign(y=y), npartitions=3)
    display = ConfusionMatrixDisplay.from_estimator(model, data[["color", "size"]], data["y"])
    assert_array_equal(display.confusion_matrix, metrics.confusion_matrix(y, model.predict(frame)))


# --- where the rows are ------------------------------------------------------------------------------


def test_counts_do_not_grow_with_rows():
    rng = np.random.default_rng(0)
    n_bins = bins_for(100)
    counts = []
    for n_rows in (20_000, 200_000):
        is_positive = rng.random(n_rows) < 0.3
        scores = rng.normal(size=n_rows) + is_positive
        counts.append(ShareTally.of(is_positive, scores, None, n_bins))
    assert all(len(count.keys) <= 2 * n_bins for count in counts)
    merged = ShareTally.merged(counts * 4)
    assert len(merged.keys) <= 2 * n_bins
    assert_allclose(sum(merged.totals), 4 * 220_000)


@pytest.mark.parametrize("prevalence", [0.4, 0.002])
def test_areas_of_many_distinct_scores_are_right_to_a_ten_thousandth(prevalence):
    rng = np.random.default_rng(1)
    is_positive = rng.random(400_000) < prevalence
    # Of a model that is hardly trained: all close to one another.
    scores = 0.5 + 1e-4 / (1 + np.exp(-rng.normal(size=400_000) - 1.5 * is_positive))
    display = RocCurveDisplay.from_predictions(*chunked(is_positive, scores, n_rows=10_000))
    assert abs(display.roc_auc - metrics.roc_auc_score(is_positive, scores)) < 1e-5
    parts = [
        ShareTally.of(*part) for part in zip(*(np.split(a, 40) for a in (is_positive, scores)), strict=True)
    ]
    merged = ShareTally.merged([ShareTally.merged(parts[i : i + 8]) for i in range(0, 40, 8)])
    assert len(merged.keys) < 70_000
    label, score, weight = merged.as_rows()
    average = metrics.average_precision_score(label, score, sample_weight=weight)
    assert abs(average - metrics.average_precision_score(is_positive, scores)) < 1e-3
    shares = np.linspace(0.1, 0.9, 9)
    assert_allclose(merged.quantiles(shares), np.quantile(scores, shares), atol=1e-8)


def test_partitions_are_counted_where_they_are_in_one_pass(client, two_classes):
    X, y, _, model = two_classes

    def read(block):
        from distributed import get_worker

        worker = get_worker()
        worker.n_read = getattr(worker, "n_read", 0) + 1
        return block

    dask_X, dask_y = chunked(X, y, n_rows=90)
    counted = dask_X.map_blocks(read, dtype=float, meta=np.empty((0, 5)))
    before = client.run(lambda dask_worker: getattr(dask_worker, "n_read", 0))
    displays = [RocCurveDisplay.from_estimator(model, counted, dask_y)]
    after = client.run(lambda dask_worker: getattr(dask_worker, "n_read", 0))
    assert sum(after.values()) - sum(before.values()) == 10
    displays.append(RocCurveDisplay.from_estimator(model, X, y))
    assert displays[0].roc_auc == displays[1].roc_auc
    ConfusionMatrixDisplay.from_estimator(model, counted, dask_y)
    CalibrationDisplay.from_estimator(model, counted, dask_y)
    assert_nothing_left(client)


def test_what_comes_to_this_process_is_one_set_of_counts(client, two_classes, monkeypatch):
    from dasknn.cluster.distributed import ClusterExecutor

    X, y, _, model = two_classes
    brought = []
    run = ClusterExecutor.run

    def watched(self, graph, wanted):
        values = run(self, graph, wanted)
        brought.append(values)
        return values

    monkeypatch.setattr(ClusterExecutor, "run", watched)
    RocCurveDisplay.from_estimator(model, *chunked(X, y, n_rows=30))
    ((counts,),) = brought[0]
    assert isinstance(counts, ShareTally)
    assert len(brought) == 1


def test_a_model_whose_callbacks_cannot_travel_is_drawn(client, dask_digits):
    class Holds(Callback):
        def __init__(self):
            self.client = client

    X, y = dask_digits
    model = MLPClassifier((8,), max_iter=2, random_state=0, callbacks=[Holds()]).fit(X / 16, y)
    display = ConfusionMatrixDisplay.from_estimator(model, X / 16, y)
    assert display.confusion_matrix.sum() == len(y)
    ConfusionMatrixDisplay.from_estimator(make_pipeline("passthrough", model), X / 16, y)
    assert len(model.callbacks) == 1
    assert len(model.history_) == 2


def test_empty_partitions_count_nothing(two_classes):
    X, y, _, _ = two_classes
    frame = pd.DataFrame(X, columns=list("abcde")).assign(y=y)
    data = dd.from_pandas(frame, npartitions=3)
    # What is left of the first and the last partition is nothing.
    data = data.map_partitions(lambda part: part[part.index.isin(range(300, 600))])
    fitted = LogisticRegression().fit(frame[list("abcde")], y)
    for display_type in (ConfusionMatrixDisplay, *CURVES):
        display = display_type.from_estimator(fitted, data[list("abcde")], data["y"])
    assert display_type is CalibrationDisplay
    assert len(display.prob_true) == 5


def test_a_pipeline_that_ends_in_a_sequential_is_drawn(two_classes):
    X, y, _, _ = two_classes
    is_yes = (y == "yes").astype(int)
    network = Sequential([Dense(1, activation="sigmoid")])
    network.compile("adam", "binary_crossentropy")
    pipeline = make_pipeline(StandardScaler(), network).fit(X, is_yes, sequential__verbose=0)
    chances = np.asarray(pipeline.predict(X))[:, 0]
    display = RocCurveDisplay.from_estimator(pipeline, *chunked(X, is_yes))
    assert_allclose(display.roc_auc, metrics.roc_auc_score(is_yes, chances), rtol=1e-12)
    matrix = ConfusionMatrixDisplay.from_estimator(pipeline, *chunked(X, is_yes)).confusion_matrix
    assert_array_equal(matrix, metrics.confusion_matrix(is_yes, chances > 0.5))
    CalibrationDisplay.from_estimator(pipeline, X, is_yes)


# --- what cannot be drawn ----------------------------------------------------------------------------


@pytest.mark.parametrize("display_type", [ConfusionMatrixDisplay, *CURVES])
def test_models_that_say_no_classes_are_refused(two_classes, display_type):
    X, y, _, _ = two_classes
    with pytest.raises(NotFittedError):
        display_type.from_estimator(MLPClassifier(), X, y)
    with pytest.raises(NotFittedError, match="not built"):
        display_type.from_estimator(Sequential([Dense(1)]), X, y)
    regressor = MLPRegressor(hidden_layer_sizes=(2,), max_iter=1).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="Expected a classifier, received MLPRegressor"):
        display_type.from_estimator(regressor, X, X[:, 0])
    network = Sequential([Dense(1)])
    network.compile("adam", "mse")
    network.fit(X, X[:, 0], epochs=1, verbose=0)
    with pytest.raises(ValueError, match="'sigmoid' or 'softmax'"):
        display_type.from_estimator(network, X, y)
    with pytest.raises(TypeError, match="Expected a fitted model"):
        display_type.from_estimator("model", X, y)


@pytest.mark.parametrize(
    ("y_true", "y_score", "settings", "message"),
    [
        (["a", "b"], [0.1, 0.2], {}, "pos_label is not specified"),
        ([0, 1, 1], [0.1, 0.2], {}, "y_true has 3, y_score has 2"),
        ([0, 1], [0.1, np.nan], {}, "finite scores, received nan in row 1|finite scores, received"),
        ([0, 0], [0.1, 0.2], {}, "Expected rows of 1 and others"),
        (["a", "b"], [0.1, 0.2], {"pos_label": "c"}, "Look at the labels of y"),
        ([0, 1], [[0.1, 0.9], [0.2, 0.8]], {"labels": ["a"]}, "labels for 2 columns"),
        ([0, 1], [[0.1, 0.9], [0.2, 0.8]], {"pos_label": 5}, r"one of \[0, 1\], received 5"),
        ([0, None], [0.1, 0.2], {}, "y holds None in row 1"),
        ([0, 1], [0.1, 0.2], {"sample_weight": [1, -1]}, "sample_weight holds -1.0 in row 1"),
    ],
)
def test_scores_that_make_no_curve_are_refused(y_true, y_score, settings, message):
    with pytest.raises(ValueError, match=message):
        RocCurveDisplay.from_predictions(np.array(y_true), np.array(y_score), **settings)


def test_what_is_wrong_is_told_with_its_partition():
    scores = np.full(40, 0.5)
    scores[33] = np.inf
    with pytest.raises(ValueError, match="finite scores") as caught:
        RocCurveDisplay.from_predictions(*chunked(np.arange(40) % 2, scores, n_rows=10))
    assert any("partition 3" in note for note in caught.value.__notes__)


def test_nan_in_the_rows_of_a_network_is_told_with_its_column(two_classes):
    X, y, _, _ = two_classes
    # Before pandas 3, the frame would share X.
    frame = pd.DataFrame(X.copy(), columns=list("abcde"))
    model = MLPClassifier((2,), max_iter=1, random_state=0).fit(frame, y)
    frame.loc[700, "d"] = np.nan
    data = dd.from_pandas(frame.assign(y=y), npartitions=3)
    for display_type in (ConfusionMatrixDisplay, RocCurveDisplay):
        with pytest.raises(ValueError, match="X holds nan in row 100, column 'd'") as caught:
            display_type.from_estimator(model, data[list("abcde")], data["y"])
        assert any("partition 2" in note for note in caught.value.__notes__)


def test_scores_are_no_labels_and_no_probabilities():
    with pytest.raises(ValueError, match=r"numbers with fractions such as 0\.3"):
        ConfusionMatrixDisplay.from_predictions([0, 1], [0.3, 1.0])
    with pytest.raises(ValueError, match="text such as 'a' and numbers such as 0"):
        ConfusionMatrixDisplay.from_predictions([0, 1], ["a", "b"])
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        CalibrationDisplay.from_predictions([0, 1], [0.3, 2.0])
    with pytest.raises(ValueError, match="more than 1000 distinct labels"):
        LabelCounts.of(np.arange(1500), np.arange(1500))
    with pytest.raises(ValueError, match="'uniform' or 'quantile'"):
        CalibrationDisplay.from_predictions([0, 1], [0.3, 0.4], strategy="other")


def test_more_classes_than_lines_can_show_are_refused():
    with pytest.raises(ValueError, match="at most 28 classes"):
        RocCurveDisplay.from_predictions(np.arange(40), np.full((40, 40), 1 / 40))


def test_matplotlib_is_imported_by_the_first_picture_and_asked_for_where_it_is_missing():
    program = (
        "import sys\n"
        "import dasknn\n"
        "assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = None\n"
        "try: dasknn.plots.RocCurveDisplay.from_predictions([0, 1], [0.1, 0.2])\n"
        "except ImportError as error: assert \"pip install 'dasknn[plots]'\" in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- trainings ---------------------------------------------------------------------------------------


def entries(n_epochs=4, workers=("tcp://10.0.0.1:400", "tcp://10.0.0.2:400", "tcp://10.0.0.10:400")):
    times = {"compute": 2.0, "communication": 0.5, "waiting": 0.25}
    return [
        {
            "epoch": epoch,
            "loss": 1 / epoch,
            "val_loss": 1.5 / epoch,
            "accuracy": 1 - 0.5 / epoch,
            "n_samples": 10,
            "learning_rate": 0.1,
            "seconds": 3.0,
            "faults": [],
            "workers": {worker: {**times, "compute": 2.0 * epoch} for worker in workers},
        }
        for epoch in range(1, n_epochs + 1)
    ]


def lines_of(panel):
    return {line.get_label(): line.get_ydata() for line in panel.get_lines() if len(line.get_xdata()) > 2}


def test_a_learning_curve_shows_loss_and_metrics_by_epoch():
    display = LearningCurveDisplay.from_history(entries())
    loss, accuracy = display.axes_
    assert_allclose(lines_of(loss)["training"], [1, 1 / 2, 1 / 3, 1 / 4])
    assert_allclose(lines_of(loss)["validation"], [1.5, 1.5 / 2, 1.5 / 3, 1.5 / 4])
    assert_allclose(lines_of(accuracy)["training"], [0.5, 0.75, 1 - 0.5 / 3, 0.875])
    assert (loss.get_ylabel(), accuracy.get_ylabel(), accuracy.get_xlabel()) == ("loss", "accuracy", "epoch")
    assert display.ax_ is loss


def test_a_learning_curve_marks_faults_and_a_learning_rate_that_varies():
    history = entries()
    history[1]["faults"] = [{"what": "worker lost", "epoch": 2}, {"what": "worker joined", "epoch": 2}]
    history[2]["faults"] = [{"what": "worker lost", "epoch": 3}]
    history[3]["learning_rate"] = 0.001
    display = LearningCurveDisplay.from_history(history)
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["training", "validation", "worker lost (2×)", "worker joined"]
    marks = [line for line in display.ax_.get_lines() if line.get_label().startswith("_worker")]
    assert [(mark.get_label(), mark.get_xdata()[0]) for mark in marks] == [
        ("_worker lost", 2),
        ("_worker joined", 2),
        ("_worker lost", 3),
    ]
    assert len({(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks}) == 3
    assert len(display.axes_) == 3
    rates = display.axes_[-1]
    assert rates.get_yscale() == "log"
    assert_allclose(lines_of(rates).popitem()[1], [0.1, 0.1, 0.1, 0.001])


def test_a_learning_curve_takes_the_place_of_axes():
    figure, grid = plt.subplots(1, 2)
    display = LearningCurveDisplay.from_history(entries(), ax=grid[0])
    assert display.ax_ is grid[0]
    assert display.axes_[1].figure is figure
    assert display.axes_[1].get_position().x1 < grid[1].get_position().x0
    fixed = plt.figure().add_axes((0, 0, 1, 1))
    LearningCurveDisplay.from_history(entries(), metrics="loss", ax=fixed)
    with pytest.raises(ValueError, match="Draw on a new figure"):
        LearningCurveDisplay.from_history(entries(), ax=fixed)


def test_learning_curves_of_both_apis(digits, of_digits):
    X, y = digits
    model = MLPClassifier((4,), max_iter=3, early_stopping=True, random_state=0).fit(X, y)
    display = LearningCurveDisplay.from_estimator(make_pipeline("passthrough", model))
    assert_allclose(display.curves["loss"], model.loss_curve_)
    assert_allclose(display.curves["validation_score"], model.validation_scores_)
    network = of_digits[1]
    display = LearningCurveDisplay.from_estimator(network)
    assert_allclose(display.curves["loss"], network.history.history["loss"])
    assert len(LearningCurveDisplay.from_history(network.history).epochs) == 3


def test_trainings_that_are_none_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        LearningCurveDisplay.from_history(entries(), metrics=["acuracy"])
    for display_type in (LearningCurveDisplay, EpochTimesDisplay):
        with pytest.raises(NotFittedError):
            display_type.from_estimator(MLPClassifier())
        with pytest.raises(NotFittedError, match="no history"):
            display_type.from_estimator(Sequential([Dense(1)]))
        with pytest.raises(TypeError, match="no history_"):
            display_type.from_estimator(LogisticRegression().fit([[0], [1]], [0, 1]))
        with pytest.raises(ValueError, match="an epoch or more, received none"):
            display_type.from_history([])
        with pytest.raises(ValueError, match="entries of history_"):
            display_type.from_history([0.5, 0.4])


def test_times_of_epochs_by_worker_are_means_over_its_epochs():
    history = entries()
    del history[0]["workers"]["tcp://10.0.0.2:400"]
    display = EpochTimesDisplay.from_history(history)
    # In the order of numbers, not of letters.
    assert display.names == ["10.0.0.1:400", "10.0.0.2:400", "10.0.0.10:400"]
    assert_allclose(display.times["compute"], [5, 6, 5])
    assert_allclose([bar.get_width() for bar in display.bars_["compute"]], [5, 6, 5])
    assert_allclose([bar.get_x() for bar in display.bars_["waiting"]], [5.5, 6.5, 5.5])
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[1] == "10.0.0.2:400  (3 of 4 epochs)"
    assert "mean of 4 epochs" in display.ax_.get_xlabel()


def test_times_of_epochs_by_epoch_are_means_over_workers():
    history = entries(workers=("a", "b"))
    history[0]["workers"]["a"]["compute"] = 4.0
    display = EpochTimesDisplay.from_history(history, by="epoch")
    assert_allclose([bar.get_height() for bar in display.bars_["compute"]], [3, 4, 6, 8])
    assert_allclose([bar.get_y() for bar in display.bars_["waiting"]], [3.5, 4.5, 6.5, 8.5])
    assert display.names == [1, 2, 3, 4]


def test_labels_of_64_workers_do_not_overlap():
    display = EpochTimesDisplay.from_history(entries(2, [f"tcp://10.0.0.{i}:40000" for i in range(64)]))
    display.figure_.canvas.draw()
    boxes = [label.get_window_extent() for label in display.ax_.get_yticklabels()]
    assert len(boxes) == 64
    assert all(not one.overlaps(other) for one, other in pairwise(boxes))


def test_a_training_in_this_process_computes_all_the_time(digits):
    X, y = digits
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, y)
    display = EpochTimesDisplay.from_estimator(model)
    assert display.names == ["this process"]
    assert_allclose(display.times["compute"], np.mean([entry["seconds"] for entry in model.history_]))
    assert display.times["waiting"] == 0
    with pytest.raises(ValueError, match="'worker' or 'epoch'"):
        EpochTimesDisplay.from_estimator(model, by="day")


def test_times_of_a_training_on_a_cluster_name_its_workers(client, dask_digits):
    X, y = dask_digits
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X / 16, y)
    addresses = {address.split("://")[1] for address in client.nthreads()}
    names = EpochTimesDisplay.from_estimator(model).names
    assert names
    assert set(names) <= addresses


# --- slices ------------------------------------------------------------------------------------------


def evaluation():
    frame = pd.DataFrame(
        {
            "slice": ["all", "sex=F", "sex=M", "age=old"],
            "rows": [1000, 400, 590, 10],
            "accuracy": [0.8, 0.75, 0.85, np.nan],
            "accuracy_low": [0.78, 0.7, 0.8, np.nan],
            "accuracy_high": [0.82, 0.8, 0.9, np.nan],
            "log_loss": [0.4, 0.5, 0.3, np.nan],
            "log_loss_low": [0.35, 0.4, 0.2, np.nan],
            "log_loss_high": [0.45, 0.6, 0.4, np.nan],
        }
    )
    frame.attrs = {"confidence": 0.9, "greater_is_better": {"accuracy": True, "log_loss": False}}
    return frame


def test_slices_are_dots_with_intervals_the_best_first():
    display = SlicesDisplay.from_evaluation(evaluation(), "accuracy")
    assert display.names == ["sex=M", "sex=F", "age=old"]
    dots, _, (intervals,) = display.errorbar_
    assert_allclose(dots.get_xydata(), [[0.85, 0], [0.75, 1]])
    assert_allclose(intervals.get_segments(), [[[0.8, 0], [0.9, 0]], [[0.7, 1], [0.8, 1]]])
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["sex=M  (590)", "sex=F  (400)", "age=old  (10)"]
    assert_allclose(display.line_.get_xdata(), [0.8, 0.8])
    assert display.ax_.get_legend().get_texts()[0].get_text() == "all rows: 0.800  (1,000)"
    assert [text.get_text() for text in display.ax_.texts] == ["too few rows"]
    assert display.ax_.get_xlabel() == "accuracy  (90% intervals)"
    assert SlicesDisplay.from_evaluation(evaluation(), "log_loss").names == ["sex=M", "sex=F", "age=old"]
    assert SlicesDisplay.from_evaluation(evaluation(), sort=False).names == ["sex=F", "sex=M", "age=old"]


def test_compared_slices_are_differences_around_zero():
    frame = pd.DataFrame(
        {
            "slice": ["all", "a", "b"],
            "rows": [20, 10, 10],
            "r2_a": [0.5, 0.5, 0.5],
            "r2_b": [0.4, 0.45, 0.3],
            "r2_difference": [0.1, 0.05, 0.2],
            "r2_difference_low": [0.05, -0.05, 0.1],
            "r2_difference_high": [0.15, 0.15, 0.3],
        }
    )
    display = SlicesDisplay.from_evaluation(frame, "r2")
    assert display.is_difference
    assert_allclose(display.errorbar_[0].get_xdata(), [0.2, 0.05])
    assert any(list(line.get_xdata()) == [0, 0] for line in display.ax_.get_lines())
    hollow = [line for line in display.ax_.get_lines() if line.get_color() == "white"]
    assert_allclose(hollow[0].get_xdata(), [0.05])
    assert "a − b" in display.ax_.get_xlabel()


def test_frames_that_are_no_evaluations_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        SlicesDisplay.from_evaluation(evaluation(), "acuracy")
    with pytest.raises(ValueError, match="all rows alone"):
        SlicesDisplay.from_evaluation(evaluation()[:1])
    with pytest.raises(ValueError, match="Expected the frame that dasknn"):
        SlicesDisplay.from_evaluation(pd.DataFrame({"slice": ["a"]}))


def test_what_evaluate_and_compare_return_is_drawn(two_classes):
    import dasknn

    X, y, _, model = two_classes
    group = pd.DataFrame({"group": np.arange(900) % 2})
    settings = {"slices": ["group"], "slice_data": group, "n_bootstrap": 50}
    frame = dasknn.evaluate(model, X, y, ["accuracy"], **settings)
    display = SlicesDisplay.from_evaluation(frame)
    assert_allclose(sorted(display.values), sorted(frame["accuracy"][1:]))
    other = MLPClassifier((2,), max_iter=1, random_state=1).fit(X, y)
    frame = dasknn.compare(model, other, X, y, ["accuracy"], **settings)
    assert SlicesDisplay.from_evaluation(frame).is_difference
