"""Metrics: against figures that Keras computed, and their sums, which add up."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from dasknn import losses, metrics
from dasknn.engine.network import Network
from dasknn.engine.workspace import GradientSum
from dasknn.layers import Dense
from dasknn.metrics import AUC, MetricSet

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses_and_metrics.json").read_text())
WEIGHT = np.array(GOLDEN["weight"])
BATCHES = slice(0, GOLDEN["first_batch"]), slice(GOLDEN["first_batch"], None)


def name_of(case):
    settings = [f"{name}={value}" for name, value in case["settings"].items()]
    return "-".join([case["class"], *settings, case["targets"], case["outputs"]])


CASES = [pytest.param(case, id=name_of(case)) for case in GOLDEN["metrics"]]
ONE_OF_EACH = [
    pytest.param(case, id=name) for name, case in {case["class"]: case for case in GOLDEN["metrics"]}.items()
]


def metric_of(case):
    return getattr(metrics, case["class"])(**case["settings"])


def data_of(case):
    return np.array(GOLDEN["targets"][case["targets"]]), np.array(GOLDEN["outputs"][case["outputs"]])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_two_batches_have_keras_result(case, weighted):
    y, P = data_of(case)
    metric = metric_of(case)
    for rows in BATCHES:
        metric.update_state(y[rows], P[rows], WEIGHT[rows] if weighted else None)
    # Keras counts in float32.
    assert_allclose(metric.result(), case["weighted" if weighted else "value"], rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_sums_of_parts_add_up_to_those_of_the_whole(case, weighted):
    y, P = data_of(case)
    metric, weight = metric_of(case), WEIGHT if weighted else None
    parts = [slice(0, 1), slice(1, 9), slice(9, 9), slice(9, None)]
    sums = [metric.sums(y[rows], P[rows], WEIGHT[rows] if weighted else None) for rows in parts]
    whole = metric.sums(y, P, weight)
    assert {part.dtype for part in [*sums, whole]} == {np.dtype(np.float64)}
    assert {part.shape for part in [*sums, whole]} == {(metric.size(P.shape[1]),)}
    assert_allclose(sum(sums), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_float32_outputs_have_the_same_result(case):
    y, P = data_of(case)
    weight = WEIGHT.astype(np.float32)
    y = y if y.ndim == 1 else y.astype(np.float32)
    metric = metric_of(case)
    sums = metric.sums(y, P.astype(np.float32), weight)
    assert sums.dtype == np.float64
    # float32 has no number that is 1e-7 below 1, and some of these outputs are 1.
    rtol = 0.01 if (case["class"], case["outputs"]) == ("BinaryCrossentropy", "multi") else 1e-4
    assert_allclose(metric.result_of(sums, P.shape[1]), case["weighted"], rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_configuration_is_keras_own_and_comes_back(case):
    metric = metric_of(case)
    config = dict(case["config"])
    if config.get("label_weights"):
        config["label_weights"] = pytest.approx(config["label_weights"])
    assert metric.get_config() == config
    assert json.loads(json.dumps(metric.get_config())) == metric.get_config()
    again = metrics.deserialize(metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert type(metric).from_config(case["config"]).name == metric.name


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_metric_leaves_what_it_is_given_and_its_tally_alone(case):
    y, P = data_of(case)
    before = y.copy(), P.copy(), WEIGHT.copy()
    metric = metric_of(case)
    metric.update_state(y[:5], P[:5])
    result = metric.result()
    metric.result_of(metric.sums(y, P, WEIGHT), P.shape[1])
    assert_array_equal(metric.result(), result)
    for array, copy in zip((y, P, WEIGHT), before, strict=True):
        assert_array_equal(array, copy)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_metric_is_pickled_with_its_tally_and_hashed_by_its_settings(case):
    y, P = data_of(case)
    metric = metric_of(case)
    metric.update_state(y, P)
    again = pickle.loads(pickle.dumps(metric))
    assert_array_equal(again.result(), metric.result())
    assert again == metric == metric_of(case)
    assert hash(again) == hash(metric_of(case))


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_what_is_forgotten_is_not_counted(case):
    y, P = data_of(case)
    metric = metric_of(case)
    metric.update_state(y[:3], P[:3], WEIGHT[:3])
    metric.reset_state()
    assert_allclose(metric(y, P), case["value"], rtol=5e-6, atol=1e-6)
    metric.reset_state()
    assert "_tally" not in metric.__dict__


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_no_rows_have_a_result(case):
    metric = metric_of(case)
    result = np.asarray(metric.result())
    # Keras divides 0 by 0 there, too.
    assert np.isfinite(result).all() or case["class"] == "R2Score"


def test_targets_of_one_output_may_be_flat():
    y, P = data_of({"targets": "binary", "outputs": "binary"})
    for name in ("binary_accuracy", "auc", "precision", "mse", "binary_crossentropy", "r2_score"):
        metric = metrics.get(name)
        expected = metric.sums(y, P, WEIGHT)
        assert_array_equal(metric.sums(y[:, 0].astype(int), P, WEIGHT), expected)
        metric.update_state(y[:, 0].tolist(), P[:, 0].tolist(), WEIGHT.tolist())
        assert_allclose(metric.result(), metric.result_of(expected, 1))


@pytest.mark.parametrize(
    ("metric", "instead"),
    [
        (metrics.CategoricalAccuracy(), "SparseCategoricalAccuracy"),
        (metrics.TopKCategoricalAccuracy(), "SparseTopKCategoricalAccuracy"),
        (metrics.CategoricalCrossentropy(), "SparseCategoricalCrossentropy"),
        (metrics.Precision(), "another metric"),
        (metrics.AUC(), "another metric"),
        (metrics.F1Score(), "another metric"),
        (metrics.BinaryAccuracy(), "another metric"),
    ],
)
def test_labels_for_a_metric_on_one_hot_targets_raise(metric, instead):
    expected = (
        rf"{type(metric).__name__} expects targets of shape \(3, 3\), received .* or {instead} for labels"
    )
    for y in (np.array([0, 2, 1]), np.array([[0], [2], [1]])):
        with pytest.raises(ValueError, match=expected):
            metric.sums(y, np.full((3, 3), 0.3), None)


def test_one_hot_targets_for_a_metric_on_labels_raise():
    for metric in (metrics.SparseCategoricalAccuracy(), metrics.SparseCategoricalCrossentropy()):
        one_hot = type(metric).__name__.removeprefix("Sparse")
        with pytest.raises(ValueError, match=rf"received targets of shape \(3, 3\)\. Use {one_hot}"):
            metric.sums(np.eye(3), np.full((3, 3), 0.3), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AUC(curve="PRC"), "Expected curve to be 'ROC'"),
        (lambda: AUC(summation_method="sum"), "Expected summation_method to be 'interpolation'"),
        (lambda: AUC(num_thresholds=1), "num_thresholds to be at least 2, received 1"),
        (lambda: AUC(num_labels=3), "Expected multi_label=True with num_labels=3"),
        (lambda: AUC(thresholds=[0.5, 2.0]), r"thresholds to be in \[0, 1\]"),
        (lambda: metrics.Precision(thresholds=[-0.1]), r"thresholds to be in \[0, 1\], received \(-0.1,\)"),
        (lambda: metrics.RecallAtPrecision(1.5), r"Expected precision to be in \[0, 1\], received 1.5"),
        (lambda: metrics.PrecisionAtRecall(0.5, 0), "num_thresholds to be at least 1"),
        (lambda: metrics.F1Score("mean"), "Expected average to be None"),
        (lambda: metrics.FBetaScore(beta=0.0), "Expected beta to be above 0"),
        (lambda: metrics.FBetaScore(threshold=1.5), r"Expected threshold to be None or in \(0, 1\]"),
        (lambda: metrics.R2Score("mean"), "Expected class_aggregation to be None"),
        (lambda: metrics.R2Score(num_regressors=-1), "num_regressors to be at least 0"),
        (lambda: metrics.SparseCategoricalCrossentropy(ignore_class=1), "Expected ignore_class None"),
        (lambda: metrics.get("acuracy"), "Did you mean 'accuracy'"),
        (lambda: metrics.resolve(None, None, 1), "Expected a metric, received None"),
    ],
)
def test_settings_out_of_range_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_label_weights_of_another_length_raise():
    with pytest.raises(
        ValueError, match="AUC expects label_weights for 3 outputs, received label_weights for 2"
    ):
        AUC(label_weights=[0.5, 0.5]).sums(np.eye(3), np.eye(3), None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_finds_the_thresholds_that_comparisons_find(dtype):
    P = np.random.default_rng(0).uniform(0, 1, (5000, 1)).astype(dtype)
    # Nudged, these thresholds are no longer even.
    inner = np.arange(1, 199) / 199
    by_search = AUC(thresholds=[inner[0] + 1e-5, *inner[1:]])
    assert not by_search._thresholds.is_even
    y = np.random.default_rng(1).integers(0, 2, P.shape)
    even, searched = AUC().sums(y, P, None), by_search.sums(y, P, None)
    # At most outputs as near to a threshold as rounding goes, and those between the nudged one and its place.
    assert np.abs(even - searched).sum() <= 4
    assert AUC(thresholds=inner)._thresholds.is_even


def test_outputs_that_are_not_numbers_do_not_end_training():
    P = np.array([[np.nan], [0.4], [np.inf]])
    for name in ("auc", "precision", "binary_accuracy", "mse"):
        metric = metrics.get(name)
        assert metric.sums(np.ones((3, 1)), P, None).shape == (metric.size(1),)


class Bias(metrics.Metric):
    name = "bias"

    def size(self, n_outputs):
        return 2

    def sums(self, y, P, weight):
        errors = (P - y).mean(axis=1)
        return np.array([errors.sum(), len(P)] if weight is None else [errors @ weight, weight.sum()])

    def result_of(self, sums, n_outputs):
        return sums[0] / sums[1]


def test_a_metric_of_ones_own_needs_three_methods():
    y, P = data_of({"targets": "real", "outputs": "real"})
    metric = metrics.resolve(Bias(), losses.MeanSquaredError(), 3)
    for rows in BATCHES:
        metric.update_state(y[rows], P[rows])
    assert metric.result() == pytest.approx((P - y).mean())
    assert pickle.loads(pickle.dumps(metric)).result() == metric.result()
    assert metric.get_config() == {"name": "bias", "dtype": "float32"}


def worst_output(y_true, y_pred):
    return np.abs(y_true - y_pred).max(axis=-1)


def test_a_function_becomes_the_mean_over_rows():
    y, P = data_of({"targets": "real", "outputs": "real"})
    metric = metrics.resolve(worst_output, losses.MeanSquaredError(), 3)
    assert metric.name == "worst_output"
    assert metric(y, P, WEIGHT) == pytest.approx(np.average(np.abs(y - P).max(axis=1), weights=WEIGHT))
    # A number for each output is averaged first.
    assert metrics.get(lambda y, P: (y - P) ** 2)(y, P) == pytest.approx(np.mean((y - P) ** 2))
    assert pickle.loads(pickle.dumps(metric)) == metric
    with pytest.raises(ValueError, match="can be saved, received the function worst_output"):
        metrics.serialize(metric)
    with pytest.raises(ValueError, match=r"return one number for each of 12 rows, received shape \(\)"):
        metrics.get(lambda y, P: np.mean(y))(y, P)


def test_a_loss_becomes_the_mean_over_rows():
    y, P = data_of({"targets": "real", "outputs": "real"})
    metric = metrics.get(losses.Huber(0.3))
    assert metric.name == "huber_loss"
    assert metric(y, P) == pytest.approx(losses.Huber(0.3)(y, P))


@pytest.mark.parametrize(
    ("loss", "n_outputs", "accuracy", "crossentropy"),
    [
        ("binary_crossentropy", 1, metrics.BinaryAccuracy, metrics.BinaryCrossentropy),
        ("categorical_crossentropy", 3, metrics.CategoricalAccuracy, metrics.CategoricalCrossentropy),
        (
            "sparse_categorical_crossentropy",
            3,
            metrics.SparseCategoricalAccuracy,
            metrics.SparseCategoricalCrossentropy,
        ),
        ("mse", 2, metrics.CategoricalAccuracy, metrics.CategoricalCrossentropy),
    ],
)
def test_accuracy_and_crossentropy_depend_on_the_targets(loss, n_outputs, accuracy, crossentropy):
    loss = losses.get(loss)
    for name in ("accuracy", "acc"):
        metric = metrics.resolve(name, loss, n_outputs)
        assert (type(metric), metric.name) == (accuracy, name)
    for name in ("crossentropy", "ce"):
        metric = metrics.resolve(name, loss, n_outputs)
        assert (type(metric), metric.name) == (crossentropy, name)


def test_metrics_are_logged_under_the_name_that_was_given():
    loss = losses.MeanSquaredError()
    for name in ("mse", "MAE", "auc", "AUC", "root_mean_squared_error", "f1_score", "cosine_similarity"):
        assert metrics.resolve(name, loss, 2).name == name
    assert metrics.resolve(AUC(name="area"), loss, 2).name == "area"
    assert AUC().name == "auc"
    assert metrics.TruePositives().name == "true_positives"


def test_names_that_occur_twice_get_a_number():
    auc, mse = AUC(), metrics.MeanSquaredError()
    assert metrics.named([auc, mse, auc, auc]) == ["auc", "mean_squared_error", "auc_1", "auc_2"]
    assert metrics.named([auc], [mse, auc, auc]) == [
        "auc",
        "mean_squared_error",
        "weighted_auc",
        "weighted_auc_1",
    ]


SET = MetricSet(
    (
        ("accuracy", metrics.SparseCategoricalAccuracy(), False),
        ("weighted_accuracy", metrics.SparseCategoricalAccuracy(), True),
        ("ce", metrics.SparseCategoricalCrossentropy(), True),
    ),
    3,
)


def test_a_set_gives_each_metric_its_sums():
    y, P = data_of({"targets": "labels", "outputs": "distribution"})
    results = SET.results(sum(SET.sums(y[rows], P[rows], WEIGHT[rows]) for rows in BATCHES))
    hits = P.argmax(axis=1) == y
    assert list(results) == ["accuracy", "weighted_accuracy", "ce"]
    assert results["accuracy"] == pytest.approx(hits.mean())
    assert results["weighted_accuracy"] == pytest.approx(np.average(hits, weights=WEIGHT))
    assert all(type(value) is float for value in results.values())


def test_a_set_without_rows_or_metrics_has_results():
    assert SET.results(0.0) == {"accuracy": 0.0, "weighted_accuracy": 0.0, "ce": 0.0}
    empty = MetricSet((), 3)
    assert empty.size == 0
    assert empty.results(empty.sums(np.zeros(2, int), np.zeros((2, 3)), None)) == {}


def test_a_set_writes_many_numbers_as_a_list():
    several = MetricSet((("f1", metrics.F1Score(), False),), 3)
    assert several.results(several.sums(np.eye(3), np.eye(3), None))["f1"] == pytest.approx(
        [1, 1, 1], rel=1e-6
    )


def test_a_network_sums_metrics_of_its_outputs_while_it_trains(monkeypatch):
    for module in ("network", "workspace"):
        monkeypatch.setattr(f"dasknn.engine.{module}.ROWS_AT_ONCE", 5)
    rng = np.random.default_rng(0)
    loss = losses.SparseCategoricalCrossentropy()
    network = Network(4, (Dense(6, "tanh"), Dense(3, "softmax")), loss, "float32")
    params = network.initial_params(rng)
    X = rng.standard_normal((12, 4)).astype("float32")
    y, weight = np.array(GOLDEN["targets"]["labels"]), WEIGHT.astype("float32")
    total = GradientSum(network, params, SET)
    total.add(X, y, weight, slice(0, 12))
    expected = SET.sums(y, network.predict(params, X), weight)
    assert_allclose(total.metric_sums, expected, rtol=1e-5)
    assert SET.results(total.metric_sums)["ce"] == pytest.approx(total.loss_sum / weight.sum(), rel=1e-5)


# --- weights of another shape -------------------------------------------------------------------------------

SQUARE_Y = np.array([[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]], np.float64)
SQUARE_P = np.linspace(0.05, 0.95, 16)[np.random.default_rng(0).permutation(16)].reshape(4, 4)
ANY_WEIGHT = [metrics.BinaryAccuracy, metrics.RootMeanSquaredError, metrics.Precision, metrics.R2Score, AUC]
OF_ROWS = [metrics.CategoricalAccuracy, metrics.MeanSquaredError, metrics.F1Score]


@pytest.mark.parametrize("kind", [*ANY_WEIGHT, *OF_ROWS])
def test_weights_in_a_row_are_not_weights_of_rows(kind):
    with pytest.raises(ValueError, match=r"Expected sample_weight of shape \(4,\).*received shape \(1, 4\)"):
        kind()(SQUARE_Y, SQUARE_P, np.array([[1.0, 2, 3, 4]]))


@pytest.mark.parametrize("kind", [*ANY_WEIGHT, *OF_ROWS])
def test_a_number_is_the_weight_of_each_row(kind):
    assert_allclose(kind()(SQUARE_Y, SQUARE_P, 2.0), kind()(SQUARE_Y, SQUARE_P))
    assert metrics.TruePositives()(SQUARE_Y, SQUARE_P, 2.0) == 2 * metrics.TruePositives()(SQUARE_Y, SQUARE_P)


@pytest.mark.parametrize("kind", ANY_WEIGHT)
def test_weights_of_outputs_count_as_outputs_that_are_repeated(kind):
    weight = np.array([[1, 2, 0, 1], [1, 1, 1, 1], [2, 2, 2, 2], [1, 0, 0, 3]])
    if kind is metrics.R2Score:
        single = [kind()(*(np.repeat(a[:, j], weight[:, j]) for a in (SQUARE_Y, SQUARE_P))) for j in range(4)]
        expected = np.mean(single)
    else:
        expected = kind()(*(np.repeat(a.reshape(-1), weight.reshape(-1)) for a in (SQUARE_Y, SQUARE_P)))
    assert_allclose(kind()(SQUARE_Y, SQUARE_P, weight), expected)


@pytest.mark.parametrize("kind", OF_ROWS)
def test_weights_of_outputs_for_a_metric_of_rows_raise(kind):
    with pytest.raises(ValueError, match=r"received shape \(4, 4\)"):
        kind()(SQUARE_Y, SQUARE_P, np.ones((4, 4)))


# --- the largest outputs, and one of them -------------------------------------------------------------------


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1.0), (2, 1.0), (3, 2 / 3), (4, 0.5)])
def test_flat_outputs_are_one_row_where_the_largest_are_looked_for(top_k, expected):
    # As keras.metrics.Precision(top_k=...) has it.
    assert metrics.Precision(top_k=top_k)([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3]) == pytest.approx(expected)
    weight = [1.0, 1, 1, 3]
    assert metrics.Precision(top_k=3)([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3], weight) == pytest.approx(0.4)


@pytest.mark.parametrize("kind", [metrics.Precision, metrics.Recall])
@pytest.mark.parametrize(
    ("settings", "targets", "message"),
    [
        ({"class_id": 0}, SQUARE_Y[0], r"class_id=0\) expects y_pred of shape \(n, k\), received \(4,\)"),
        ({"class_id": 4}, SQUARE_Y, r"class_id to be the index of an output, in \[0, 4\), received 4"),
        ({"top_k": 5}, SQUARE_Y, "top_k to be at most 4, the number of outputs, received 5"),
        ({"class_id": -1}, SQUARE_Y, "class_id to be at least 0, received -1"),
        ({"top_k": 0}, SQUARE_Y, "top_k to be at least 1, received 0"),
    ],
)
def test_an_output_that_is_not_there_raises(kind, settings, targets, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)(targets, targets)


def test_the_best_threshold_of_an_output_that_is_not_there_raises():
    with pytest.raises(ValueError, match=r"class_id to be the index of an output, in \[0, 4\)"):
        metrics.RecallAtPrecision(0.5, class_id=4)(SQUARE_Y, SQUARE_P)


# --- R^2 far from 0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_r2_keeps_its_digits_far_from_0(weighted):
    rng = np.random.default_rng(0)
    y = 1e8 + rng.standard_normal((600, 2))
    P, weight = y + 0.3 * rng.standard_normal((600, 2)), rng.uniform(0, 2, 600) if weighted else None
    metric = metrics.R2Score(class_aggregation=None)
    for rows in (slice(0, 100), slice(100, 600)):
        metric.update_state(y[rows], P[rows], None if weight is None else weight[rows])
    expected = r2_score(y, P, sample_weight=weight, multioutput="raw_values")
    assert_allclose(metric.result(), expected, rtol=1e-6)


def test_r2_of_a_constant_is_keras_0_wherever_it_is():
    rng = np.random.default_rng(0)
    assert metrics.R2Score()(np.full(50, 1e8 / 3), 1e8 + rng.standard_normal(50)) == 0.0


def test_r2_takes_an_output_of_which_no_row_counts():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 2))
    P, metric = y + 0.3 * rng.standard_normal((50, 2)), metrics.R2Score(class_aggregation=None)
    metric.update_state(y, P, np.tile([1.0, 0.0], (50, 1)))
    assert_allclose(metric.result()[0], r2_score(y[:, 0], P[:, 0]), rtol=1e-6)
