"""Metrics: sums over rows that may be added up in any order, and what follows from them.

    sums = metric.sums(y, P, weight)             float64 (size,) of one mini-batch, partition or replica
    metric.result_of(sums + others, n_outputs)   the metric of all their rows

Names, arguments, their order, defaults and results are Keras's. y is targets (n, k), or labels (n,) of
integers; P (n, k) are the network's outputs; weight (n,) or None, or (n, k) for metrics that count outputs
one by one (`takes_output_weights`). On top of that core every metric has Keras's habit of keeping a tally:
`update_state`, `result`, `reset_state`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn import losses
from dasknn.saving.serialization import Configurable, snake_case


class Metric(Configurable, ABC):
    """Settings of a metric. For one of your own, write `size`, `sums` and `result_of`.

    class Bias(Metric):
        name = "bias"

        def size(self, n_outputs):
            return 2

        def sums(self, y, P, weight):
            errors = (P - y).mean(axis=1)
            return np.array([errors.sum(), len(P)] if weight is None else [errors @ weight, weight.sum()])

        def result_of(self, sums, n_outputs):
            return sums[0] / sums[1]
    """

    name: str | None = None
    dtype: str | None = None
    #: Whether it is the same for targets and outputs less a number: with the mean of targets near 0, sums of
    #: their squares keep their digits.
    is_shift_invariant: ClassVar[bool] = False
    #: Whether each output of a row may have a weight of its own.
    takes_output_weights: ClassVar[bool] = False
    #: The metric to use for labels instead.
    _for_labels: ClassVar[str] = "a metric that takes them"

    def __post_init__(self):
        super().__post_init__()
        if self.name is None:
            object.__setattr__(self, "name", snake_case(type(self).__name__))

    @abstractmethod
    def size(self, n_outputs: int) -> int:
        """Return how many sums it needs."""

    @abstractmethod
    def sums(self, y: np.ndarray, P: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the sums over these rows, float64 (size,). ValueError: targets that it cannot take."""

    @abstractmethod
    def result_of(self, sums: np.ndarray, n_outputs: int) -> float | np.ndarray:
        """Return the metric of all rows that were summed."""

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add rows to the tally.

        y_true, y_pred (n, k), or (n,) for one output; labels (n,) or (n, 1) where the metric takes them;
        sample_weight a number, (n,), (n, 1) or None, or (n, k) where the metric counts outputs one by one.
        ValueError: targets or weights that it cannot take.
        """
        P = losses.as_outputs(y_pred)
        weight = losses.as_weights(sample_weight, P, of_outputs=self.takes_output_weights)
        y = np.asarray(y_true)
        earlier, _, center = self.__dict__.get("_tally", (0.0, 0, None))
        n_outputs = P.shape[1]
        if self.is_shift_invariant:
            # The first rows say where all of them are moved to.
            center = center_of(y, weight, P) if center is None else center
            y, P = less_center(center, y, P)
        # Settings may be frozen; what was counted is not one of them.
        self.__dict__["_tally"] = (earlier + self.sums(y, P, weight), n_outputs, center)

    def result(self) -> float | np.ndarray:
        """Return the metric of the rows since `reset_state`."""
        sums, n_outputs, _ = self.__dict__.get("_tally", (None, 1, None))
        return self.result_of(np.zeros(self.size(n_outputs)) if sums is None else sums, n_outputs)

    def reset_state(self) -> None:
        """Forget all rows."""
        self.__dict__.pop("_tally", None)

    def __call__(self, y_true, y_pred, sample_weight=None) -> float | np.ndarray:
        """Add rows to the tally, and return the metric of all so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() if is_dataclass(self) else {"name": self.name}
        return {**config, "dtype": self.dtype or "float32"}

    def _targets(self, y, P) -> np.ndarray:
        """Return targets of the shape of P. ValueError: others."""
        if y.ndim < 2 and P.shape[1] == 1:
            y = y.reshape(-1, 1)
        if y.shape != P.shape:
            raise ValueError(
                f"{type(self).__name__} expects targets of shape {P.shape}, received {y.shape}. "
                f"Use one-hot targets, or {self._for_labels} for labels."
            )
        return y

    def _labels(self, y) -> np.ndarray:
        """Return labels (n,). ValueError: targets of another shape."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = y.reshape(-1)
        if y.ndim != 1:
            kind = type(self).__name__
            raise ValueError(
                f"{kind} expects labels of shape (n,), received targets of shape {y.shape}. "
                f"Use {kind.removeprefix('Sparse')} for one-hot targets."
            )
        return y


def center_of(y, weight, P) -> tuple[float, ...] | None:
    """Return the mean of targets of the shape of P (n, k), 0 for an output of which none counts.

    None for targets of other shapes, and where no row counts.
    """
    y = np.asarray(y, np.float64)
    if y.size != P.size or not len(P) or (weight is not None and not weight.any()):
        return None
    weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
    weight = np.broadcast_to(weight if weight.ndim == 2 else weight[:, np.newaxis], P.shape)
    return tuple(ratio((weight * y.reshape(P.shape)).sum(axis=0), weight.sum(axis=0)).tolist())


def less_center(center: tuple[float, ...] | None, y, P):
    """Return targets and outputs (n, k) less a center (k,), float64; as they are, where there is none."""
    if center is None or y.size != P.size:
        return y, P
    return np.asarray(y, np.float64).reshape(P.shape) - center, P.astype(np.float64) - center


def ratio(above, below):
    """Return above / below, and 0 where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def flat_weights(weight: np.ndarray | None, P) -> np.ndarray | None:
    """Return weights (n,) or (n, k) as one for each output of P (n, k), flat."""
    if weight is None or weight.ndim == 2:
        return weight if weight is None else weight.reshape(-1)
    return np.repeat(weight, P.shape[1])


def settle_outputs(metric: Metric) -> None:
    """Make lists tuples, so that a metric can be hashed by what it says."""
    for setting in fields(metric):  # type: ignore[arg-type]
        value = getattr(metric, setting.name)
        if isinstance(value, list | np.ndarray):
            object.__setattr__(metric, setting.name, tuple(np.asarray(value).tolist()))
