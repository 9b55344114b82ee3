"""Losses by name, and to and from configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasknn.losses.hinge import CategoricalHinge, Hinge, SquaredHinge
from dasknn.losses.loss import Loss
from dasknn.losses.probabilistic import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    KLDivergence,
    SparseCategoricalCrossentropy,
)
from dasknn.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
)
from dasknn.saving.serialization import Kinds

_SHORT: dict[str, type[Loss]] = {
    "bce": BinaryCrossentropy,
    "kld": KLDivergence,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_KINDS = Kinds(
    "a loss",
    "keras.losses",
    Loss,
    [
        BinaryCrossentropy,
        BinaryFocalCrossentropy,
        CategoricalCrossentropy,
        CategoricalFocalCrossentropy,
        CategoricalHinge,
        CosineSimilarity,
        Hinge,
        Huber,
        KLDivergence,
        LogCosh,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredError,
        MeanSquaredLogarithmicError,
        Poisson,
        SparseCategoricalCrossentropy,
        SquaredHinge,
    ],
    {
        **_SHORT,
        **{name.upper(): kind for name, kind in _SHORT.items()},
        "kullback_leibler_divergence": KLDivergence,
    },
)


def get(identifier) -> Loss | None:
    """Return the loss for a name, configuration, class or object; None for None.

    Raises
    ------
    ValueError
        No such loss; or a function, whose derivative is unknown.
    """
    if callable(identifier) and not isinstance(identifier, Loss | type):
        raise ValueError(
            f"Expected the name or an object of a loss, received the function {identifier!r}, which dasknn "
            "cannot differentiate. Subclass dasknn.losses.RowLoss and define its methods `rows` and `slopes`."
        )
    return _KINDS.get(identifier)


def serialize(loss: Loss) -> dict[str, Any]:
    """Return the configuration of a loss, in Keras's form."""
    return _KINDS.serialize(loss)


def deserialize(config: Mapping[str, Any]) -> Loss:
    """Return the loss that a configuration describes; ValueError for unknown classes or settings."""
    return _KINDS.deserialize(config)
