"""Write what Keras's losses and metrics return into losses_and_metrics.json, next to this file.

Made with Keras 3.15.1 on PyTorch 2.13.0, which dasknn does not need:

    KERAS_BACKEND=torch python tests/golden/make_losses_and_metrics.py

Inputs are float64, but on PyTorch Keras takes means, ratios and counts in float32. Configurations are those
of float32, the default.
"""

import json
from pathlib import Path

import keras
import numpy as np

N_ROWS, N_OUTPUTS, FIRST_BATCH = 12, 3, 7
F64 = {"dtype": "float64"}

LOSSES = [
    # class, settings, targets, outputs
    ("MeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
    ("MeanAbsolutePercentageError", {}, "counts", "positive"),
    ("MeanSquaredLogarithmicError", {}, "counts", "positive"),
    ("MeanSquaredLogarithmicError", {}, "counts", "real"),
    ("Huber", {}, "real", "real"),
    ("Huber", {"delta": 0.3}, "real", "real"),
    ("LogCosh", {}, "real", "real"),
    ("CosineSimilarity", {}, "real", "real"),
    ("Poisson", {}, "counts", "positive"),
    ("Hinge", {}, "signs", "real"),
    ("Hinge", {}, "multi", "real"),
    ("SquaredHinge", {}, "signs", "real"),
    ("SquaredHinge", {}, "multi", "real"),
    ("CategoricalHinge", {}, "one_hot", "real"),
    ("KLDivergence", {}, "distribution", "distribution"),
    ("KLDivergence", {}, "one_hot", "multi"),
    ("BinaryCrossentropy", {}, "multi", "multi"),
    ("BinaryCrossentropy", {}, "binary", "binary"),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, "multi", "multi"),
    ("BinaryCrossentropy", {"from_logits": True}, "multi", "real"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "multi", "real"),
    ("BinaryFocalCrossentropy", {}, "multi", "multi"),
    ("BinaryFocalCrossentropy", {"gamma": 3.0, "label_smoothing": 0.1}, "multi", "multi"),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4}, "multi", "multi"),
    ("BinaryFocalCrossentropy", {"from_logits": True, "gamma": 0.5}, "multi", "real"),
    ("CategoricalCrossentropy", {}, "one_hot", "distribution"),
    ("CategoricalCrossentropy", {}, "distribution", "positive"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2}, "one_hot", "multi"),
    ("CategoricalCrossentropy", {"from_logits": True}, "one_hot", "real"),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "one_hot", "real"),
    ("CategoricalFocalCrossentropy", {}, "one_hot", "distribution"),
    ("CategoricalFocalCrossentropy", {"alpha": 0.5, "gamma": 1.5}, "one_hot", "multi"),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "one_hot", "real"),
    ("SparseCategoricalCrossentropy", {}, "labels", "distribution"),
    ("SparseCategoricalCrossentropy", {}, "labels", "multi"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "labels", "real"),
]

METRICS = [
    ("Accuracy", {}, "multi", "hard"),
    ("BinaryAccuracy", {}, "multi", "multi"),
    ("BinaryAccuracy", {}, "binary", "binary"),
    ("BinaryAccuracy", {"threshold": 0.3}, "multi", "multi"),
    ("CategoricalAccuracy", {}, "one_hot", "distribution"),
    ("SparseCategoricalAccuracy", {}, "labels", "distribution"),
    ("TopKCategoricalAccuracy", {"k": 2}, "one_hot", "distribution"),
    ("TopKCategoricalAccuracy", {"k": 2}, "one_hot", "hard"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "labels", "distribution"),
    ("SparseTopKCategoricalAccuracy", {"k": 1, "from_sorted_ids": True}, "labels", "sorted_ids"),
    ("MeanSquaredError", {}, "real", "real"),
    ("RootMeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
    ("MeanAbsolutePercentageError", {}, "counts", "positive"),
    ("MeanSquaredLogarithmicError", {}, "counts", "positive"),
    ("LogCoshError", {}, "real", "real"),
    ("CosineSimilarity", {}, "real", "real"),
    ("BinaryCrossentropy", {}, "multi", "multi"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "multi", "real"),
    ("CategoricalCrossentropy", {}, "one_hot", "distribution"),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "one_hot", "real"),
    ("SparseCategoricalCrossentropy", {}, "labels", "distribution"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "labels", "real"),
    ("KLDivergence", {}, "distribution", "distribution"),
    ("Poisson", {}, "counts", "positive"),
    ("Hinge", {}, "signs", "real"),
    ("SquaredHinge", {}, "signs", "real"),
    ("CategoricalHinge", {}, "one_hot", "real"),
    ("AUC", {}, "multi", "multi"),
    ("AUC", {}, "binary", "binary"),
    ("AUC", {"num_thresholds": 5}, "multi", "multi"),
    ("AUC", {"num_thresholds": 2}, "multi", "multi"),
    ("AUC", {"curve": "PR"}, "multi", "multi"),
    ("AUC", {"curve": "PRGAIN"}, "multi", "multi"),
    ("AUC", {"curve": "PR", "summation_method": "minoring"}, "multi", "multi"),
    ("AUC", {"curve": "PR", "summation_method": "majoring"}, "multi", "multi"),
    ("AUC", {"summation_method": "minoring", "num_thresholds": 11}, "multi", "multi"),
    ("AUC", {"summation_method": "majoring", "num_thresholds": 11}, "multi", "multi"),
    ("AUC", {"thresholds": [0.7, 0.2, 0.45]}, "multi", "multi"),
    ("AUC", {"thresholds": [0.25, 0.5, 0.75]}, "multi", "multi"),
    ("AUC", {"thresholds": [0.7, 0.2], "multi_label": True}, "multi", "multi"),
    ("AUC", {"multi_label": True, "num_labels": 3}, "multi", "multi"),
    ("AUC", {"multi_label": True, "label_weights": [0.2, 0.5, 1.0]}, "multi", "multi"),
    ("AUC", {"multi_label": True, "curve": "PR", "label_weights": [0.2, 0.5, 1.0]}, "multi", "multi"),
    ("AUC", {"label_weights": [0.2, 0.5, 1.0]}, "multi", "multi"),
    ("AUC", {"from_logits": True}, "multi", "real"),
    ("Precision", {}, "multi", "multi"),
    ("Precision", {}, "binary", "binary"),
    ("Precision", {"thresholds": 0.3}, "multi", "multi"),
    ("Precision", {"thresholds": [0.8, 0.1, 0.5]}, "multi", "multi"),
    ("Precision", {"thresholds": [0.0, 0.5, 1.0]}, "multi", "multi"),
    ("Precision", {"top_k": 2}, "multi", "distribution"),
    ("Precision", {"top_k": 1, "class_id": 1}, "multi", "distribution"),
    ("Precision", {"class_id": 2}, "multi", "multi"),
    ("Recall", {}, "multi", "multi"),
    ("Recall", {"thresholds": [0.8, 0.1, 0.5]}, "multi", "multi"),
    ("Recall", {"top_k": 2}, "multi", "distribution"),
    ("Recall", {"class_id": 0}, "multi", "multi"),
    ("TruePositives", {}, "multi", "multi"),
    ("TruePositives", {"thresholds": [0.6, 0.4]}, "multi", "multi"),
    ("TrueNegatives", {}, "multi", "multi"),
    ("TrueNegatives", {"thresholds": [0.0, 0.25, 0.5, 0.75, 1.0]}, "multi", "multi"),
    ("FalsePositives", {"thresholds": [0.6, 0.4]}, "multi", "multi"),
    ("FalseNegatives", {"thresholds": [0.6, 0.4]}, "multi", "multi"),
    ("PrecisionAtRecall", {"recall": 0.4}, "multi", "multi"),
    ("PrecisionAtRecall", {"recall": 0.5, "num_thresholds": 1}, "multi", "multi"),
    ("RecallAtPrecision", {"precision": 0.5, "num_thresholds": 20}, "multi", "multi"),
    ("RecallAtPrecision", {"precision": 0.6, "class_id": 1}, "multi", "multi"),
    ("SensitivityAtSpecificity", {"specificity": 0.5}, "multi", "multi"),
    ("SpecificityAtSensitivity", {"sensitivity": 0.5, "num_thresholds": 2}, "multi", "multi"),
    ("SpecificityAtSensitivity", {"sensitivity": 0.5}, "binary", "binary"),
    ("F1Score", {}, "one_hot", "distribution"),
    ("F1Score", {"average": "micro"}, "one_hot", "distribution"),
    ("F1Score", {"average": "macro", "threshold": 0.4}, "multi", "multi"),
    ("F1Score", {"average": "weighted", "threshold": 0.4}, "multi", "multi"),
    ("FBetaScore", {"beta": 2.0, "threshold": 0.5}, "multi", "multi"),
    ("FBetaScore", {"beta": 0.5, "average": "macro"}, "one_hot", "distribution"),
    ("R2Score", {}, "real", "real"),
    ("R2Score", {"class_aggregation": None}, "real", "real"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "real", "real"),
    ("R2Score", {"num_regressors": 4}, "real", "real"),
]


def inputs():
    """Return targets, outputs and weights, by name."""
    rng = np.random.default_rng(0)
    shape = N_ROWS, N_OUTPUTS
    labels = rng.integers(0, N_OUTPUTS, N_ROWS)
    multi = rng.uniform(0, 1, shape)
    # On thresholds, and where probabilities are clipped.
    multi[0], multi[1, :2], multi[2] = [0, 0.5, 1], 0.25, [1, 0, 0.5]
    targets = {
        "real": rng.standard_normal(shape),
        "counts": rng.poisson(1.5, shape).astype(float) + 0.25,
        "signs": rng.choice([-1.0, 1.0], shape),
        "multi": rng.integers(0, 2, shape).astype(float),
        "binary": rng.integers(0, 2, (N_ROWS, 1)).astype(float),
        "one_hot": np.eye(N_OUTPUTS)[labels],
        "distribution": rng.dirichlet([1.0] * N_OUTPUTS, N_ROWS),
        "labels": labels,
    }
    outputs = {
        "real": 2 * rng.standard_normal(shape),
        "positive": rng.gamma(2.0, 1.0, shape),
        "multi": multi,
        "hard": np.rint(rng.uniform(0, 1, shape)),
        "binary": rng.uniform(0, 1, (N_ROWS, 1)),
        "distribution": rng.dirichlet([1.0] * N_OUTPUTS, N_ROWS),
        "sorted_ids": rng.permuted(np.tile(np.arange(N_OUTPUTS), (N_ROWS, 1)), axis=1).astype(float),
    }
    return targets, outputs, rng.uniform(0, 2, N_ROWS)


def plain(value):
    return np.asarray(value.detach() if hasattr(value, "detach") else value).tolist()


def config_of(kind, settings):
    keras.config.set_floatx("float32")
    keras.utils.clear_session()
    config = kind(**settings).get_config()
    keras.config.set_floatx("float64")
    return {name: plain(value) if hasattr(value, "detach") else value for name, value in config.items()}


def loss_case(name, settings, targets, outputs, data):
    kind, (y, P, weight) = getattr(keras.losses, name), data
    by_weight = kind(**settings, **F64, reduction="mean_with_sample_weight")
    return {
        "class": name,
        "settings": settings,
        "targets": targets,
        "outputs": outputs,
        "config": config_of(kind, settings),
        "rows": plain(kind(**settings, **F64, reduction=None)(y, P)),
        "value": plain(kind(**settings, **F64)(y, P)),
        "weighted": plain(kind(**settings, **F64)(y, P, weight)),
        "by_weight": plain(by_weight(y, P, weight)),
    }


def metric_case(name, settings, targets, outputs, data):
    kind, (y, P, weight) = getattr(keras.metrics, name), data
    case = {
        "class": name,
        "settings": settings,
        "targets": targets,
        "outputs": outputs,
        "config": config_of(kind, settings),
    }
    for key, weights in (("value", None), ("weighted", weight)):
        metric = kind(**settings, **F64)
        for rows in (slice(0, FIRST_BATCH), slice(FIRST_BATCH, None)):
            metric.update_state(y[rows], P[rows], None if weights is None else weights[rows])
        case[key] = plain(metric.result())
    return case


def main():
    targets, outputs, weight = inputs()

    def cases(make, table):
        return [make(*row, (targets[row[2]], outputs[row[3]], weight)) for row in table]

    keras.config.set_floatx("float64")
    golden = {
        "keras": keras.__version__,
        "first_batch": FIRST_BATCH,
        "targets": {name: plain(y) for name, y in targets.items()},
        "outputs": {name: plain(P) for name, P in outputs.items()},
        "weight": plain(weight),
        "losses": cases(loss_case, LOSSES),
        "metrics": cases(metric_case, METRICS),
    }
    Path(__file__).with_name("losses_and_metrics.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
