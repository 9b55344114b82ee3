"""Metrics by name, and to and from configurations."""

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
from dasknn.metrics.auc import AUC
from dasknn.metrics.confusion import (
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
    """Return the metric for a name, configuration, class, object or function; None for None.

    A function `fn(y, P)` and a `RowLoss` become their mean over rows. ValueError if there is no such metric.
    """
    if isinstance(identifier, losses.RowLoss):
        return MeanOfFunction(identifier.rows, identifier.name)
    if callable(identifier) and not isinstance(identifier, Metric | type):
        return MeanOfFunction(identifier)
    return _KINDS.get(identifier)


def resolve(identifier, loss, n_outputs: int) -> Metric:
    """Return the metric for a network, under the name that was given.

    "accuracy" and "crossentropy" (or "acc", "ce") are binary for one output; else sparse categorical if the
    loss takes labels; else categorical.

    Parameters
    ----------
    identifier : str, Metric, type, mapping or callable
        As for `get`.
    loss : Loss
        Loss of the network.
    n_outputs : int
        Outputs of the network.

    Raises
    ------
    ValueError
        No such metric, or None.
    """
    if identifier is None:
        raise ValueError("Expected a metric, received None. Omit it.")
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
    """Return the configuration of a metric, in Keras's form; ValueError for a function."""
    return _KINDS.serialize(metric)


def deserialize(config: Mapping[str, Any]) -> Metric:
    """Return the metric that a configuration describes; ValueError for unknown classes or settings."""
    return _KINDS.deserialize(config)
