"""Metrics by name, as configurations, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dasknn import losses
from dasknn.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from dasknn.metrics.confusion import (
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from dasknn.metrics.f_score import F1Score, FBetaScore
from dasknn.metrics.metric import Metric
from dasknn.metrics.probabilistic import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from dasknn.metrics.reduction import MeanOfFunction
from dasknn.metrics.regression import (
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    R2Score,
    RootMeanSquaredError,
)
from dasknn.saving.serialization import Kinds

_SHORT: dict[str, type[Metric]] = {
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_KINDS = Kinds(
    "a metric",
    "keras.metrics",
    Metric,
    [
        AUC,
        Accuracy,
        BinaryAccuracy,
        BinaryCrossentropy,
        CategoricalAccuracy,
        CategoricalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        F1Score,
        FBetaScore,
        FalseNegatives,
        FalsePositives,
        Hinge,
        KLDivergence,
        LogCoshError,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        Precision,
        PrecisionAtRecall,
        R2Score,
        Recall,
        RecallAtPrecision,
        RootMeanSquaredError,
        SensitivityAtSpecificity,
        SparseCategoricalAccuracy,
        SparseCategoricalCrossentropy,
        SparseTopKCategoricalAccuracy,
        SpecificityAtSensitivity,
        SquaredHinge,
        TopKCategoricalAccuracy,
        TrueNegatives,
        TruePositives,
    ],
    {**_SHORT, **{name.upper(): kind for name, kind in _SHORT.items()}},
)


def get(identifier) -> Metric | None:
    """Return the metric that a name, a configuration, a class, an object or a function stands for.

    A function fn(y, P) and a `RowLoss` become their mean; None stays. ValueError: nothing of the kind.
    """
    if isinstance(identifier, losses.RowLoss):
        return MeanOfFunction(identifier.rows, identifier.name)
    if callable(identifier) and not isinstance(identifier, Metric | type):
        return MeanOfFunction(identifier)
    return _KINDS.get(identifier)


def resolve(identifier, loss, n_outputs: int) -> Metric:
    """Return the metric for a network with that loss and n_outputs, under the name that was given.

    "accuracy" and "crossentropy" (or "acc", "ce") are binary for one output, those of labels where the loss
    takes them, and categorical otherwise. ValueError: no metric.
    """
    if identifier is None:
        raise ValueError("Expected a metric, received None. Leave it out.")
    if not isinstance(identifier, str):
        metric = get(identifier)
        assert metric is not None
        return metric
    takes_labels = getattr(loss, "takes_labels", False)
    metric = None
    if identifier.lower() in ("accuracy", "acc"):
        if n_outputs == 1:
            metric = BinaryAccuracy()
        else:
            metric = SparseCategoricalAccuracy() if takes_labels else CategoricalAccuracy()
    elif identifier.lower() in ("crossentropy", "ce"):
        from_logits = getattr(loss, "from_logits", False)
        if n_outputs == 1:
            metric = BinaryCrossentropy(from_logits=from_logits)
        else:
            kind = SparseCategoricalCrossentropy if takes_labels else CategoricalCrossentropy
            metric = kind(from_logits=from_logits)
    else:
        metric = _KINDS.get(identifier)
    return replace(metric, name=identifier)


def serialize(metric: Metric) -> dict[str, Any]:
    """Return the metric in Keras's form for configurations. ValueError: a function."""
    return _KINDS.serialize(metric)


def deserialize(config: Mapping[str, Any]) -> Metric:
    """Return the metric of that configuration. ValueError: an unknown kind, or settings it does not know."""
    return _KINDS.deserialize(config)
