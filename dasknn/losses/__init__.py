"""Keras's losses, with their derivatives."""

from dasknn.losses.hinge import CategoricalHinge, Hinge, SquaredHinge
from dasknn.losses.loss import (
    CLASSES,
    LABELS,
    NUMBERS,
    BoundLoss,
    Form,
    Loss,
    RowLoss,
    as_labels,
    as_outputs,
    as_targets,
    as_weights,
)
from dasknn.losses.members import MemberLoss
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
from dasknn.losses.serialization import deserialize, get, serialize

__all__ = [
    "CLASSES",
    "LABELS",
    "NUMBERS",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "BoundLoss",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Form",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "MemberLoss",
    "Poisson",
    "RowLoss",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "as_labels",
    "as_outputs",
    "as_targets",
    "as_weights",
    "deserialize",
    "get",
    "serialize",
]
