"""Losses of probabilities and margins, as metrics."""

from __future__ import annotations

from dataclasses import dataclass

from dasknn import losses
from dasknn.metrics.reduction import MeanOfLoss


@dataclass(frozen=True)
class BinaryCrossentropy(MeanOfLoss):
    """See `probabilistic.BinaryCrossentropy`."""

    name: str | None = "binary_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    _loss = losses.BinaryCrossentropy


@dataclass(frozen=True)
class CategoricalCrossentropy(MeanOfLoss):
    """See `probabilistic.CategoricalCrossentropy`."""

    name: str | None = "categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    axis: int = -1
    _for_labels = "SparseCategoricalCrossentropy"
    _loss = losses.CategoricalCrossentropy


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(MeanOfLoss):
    """See `probabilistic.SparseCategoricalCrossentropy`."""

    name: str | None = "sparse_categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    _loss = losses.SparseCategoricalCrossentropy

    def __post_init__(self):
        super().__post_init__()
        # Refuse at once what the loss does not know.
        _ = self._rows


@dataclass(frozen=True)
class KLDivergence(MeanOfLoss):
    """See `probabilistic.KLDivergence`."""

    name: str | None = "kl_divergence"
    dtype: str | None = None
    _loss = losses.KLDivergence


@dataclass(frozen=True)
class Poisson(MeanOfLoss):
    """See `losses.Poisson`."""

    name: str | None = "poisson"
    dtype: str | None = None
    _loss = losses.Poisson


@dataclass(frozen=True)
class Hinge(MeanOfLoss):
    """See `hinge.Hinge`."""

    name: str | None = "hinge"
    dtype: str | None = None
    _loss = losses.Hinge


@dataclass(frozen=True)
class SquaredHinge(MeanOfLoss):
    """See `hinge.SquaredHinge`."""

    name: str | None = "squared_hinge"
    dtype: str | None = None
    _loss = losses.SquaredHinge


@dataclass(frozen=True)
class CategoricalHinge(MeanOfLoss):
    """See `hinge.CategoricalHinge`."""

    name: str | None = "categorical_hinge"
    dtype: str | None = None
    _loss = losses.CategoricalHinge
