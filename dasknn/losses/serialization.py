"""Losses by name, as configurations, and back."""

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
    """Return the loss that a name, a configuration, a class or an object stands for; None as it is.

    ValueError: nothing of the kind, or a function.
    """
    if callable(identifier) and not isinstance(identifier, Loss | type):
        raise ValueError(
            f"Expected a loss with its derivative, received the function {identifier!r}: there is no "
            "automatic differentiation. Subclass dasknn.losses.Loss with `bind`, or dasknn.losses.RowLoss "
            "with `rows` and `slopes`."
        )
    return _KINDS.get(identifier)


def serialize(loss: Loss) -> dict[str, Any]:
    """Return the loss in Keras's form for configurations."""
    return _KINDS.serialize(loss)


def deserialize(config: Mapping[str, Any]) -> Loss:
    """Return the loss of that configuration. ValueError: an unknown kind, or settings it does not know."""
    return _KINDS.deserialize(config)
