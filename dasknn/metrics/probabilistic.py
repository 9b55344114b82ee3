"""Losses of probabilities and margins, as metrics."""

from __future__ import annotations

from dataclasses import dataclass

from dasknn import losses
from dasknn.metrics.reduction import MeanOfLoss


@dataclass(frozen=True)
class BinaryCrossentropy(MeanOfLoss):
    """Mean of the loss `losses.BinaryCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits.
    label_smoothing : float, default=0
        As for the loss.
    """

    name: str | None = "binary_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    _loss = losses.BinaryCrossentropy


@dataclass(frozen=True)
class CategoricalCrossentropy(MeanOfLoss):
    """Mean of the loss `losses.CategoricalCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits.
    label_smoothing : float, default=0
        As for the loss.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    """

    name: str | None = "categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    label_smoothing: float = 0
    axis: int = -1
    _for_labels = "SparseCategoricalCrossentropy"
    _loss = losses.CategoricalCrossentropy


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(MeanOfLoss):
    """Mean of the loss `losses.SparseCategoricalCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default=False
        Whether P are logits.
    ignore_class : None, default=None
        For compatibility with Keras. Use `sample_weight=0` for rows to ignore.
    axis : int, default=-1
        For compatibility with Keras: rows have one axis.
    """

    name: str | None = "sparse_categorical_crossentropy"
    dtype: str | None = None
    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
    _loss = losses.SparseCategoricalCrossentropy

    def __post_init__(self):
        super().__post_init__()
        # Refuse settings that the loss does not accept.
        _ = self._rows


@dataclass(frozen=True)
class KLDivergence(MeanOfLoss):
    """Mean of the loss `losses.KLDivergence`."""

    name: str | None = "kl_divergence"
    dtype: str | None = None
    _loss = losses.KLDivergence


@dataclass(frozen=True)
class Poisson(MeanOfLoss):
    """Mean of the loss `losses.Poisson`."""

    name: str | None = "poisson"
    dtype: str | None = None
    _loss = losses.Poisson


@dataclass(frozen=True)
class Hinge(MeanOfLoss):
    """Mean of the loss `losses.Hinge`."""

    name: str | None = "hinge"
    dtype: str | None = None
    _loss = losses.Hinge


@dataclass(frozen=True)
class SquaredHinge(MeanOfLoss):
    """Mean of the loss `losses.SquaredHinge`."""

    name: str | None = "squared_hinge"
    dtype: str | None = None
    _loss = losses.SquaredHinge


@dataclass(frozen=True)
class CategoricalHinge(MeanOfLoss):
    """Mean of the loss `losses.CategoricalHinge`."""

    name: str | None = "categorical_hinge"
    dtype: str | None = None
    _loss = losses.CategoricalHinge
