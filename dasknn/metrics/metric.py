"""Base class of metrics: sums over rows that can be added in any order, and results computed from them.

    sums = metric.sums(y, P, weight)             float64 (size,) of one mini-batch, partition or replica
    metric.result_of(sums + others, n_outputs)   the metric of all their rows

y are targets (n, k), or labels (n,) of integers; P (n, k) are the outputs of the network; weight is (n,) or
None, or (n, k) for metrics that count single outputs (`takes_output_weights`). Every metric also accumulates
like Keras's: `update_state`, `result`, `reset_state`. Names, arguments, defaults and results are Keras's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from dasknn import losses
from dasknn.saving.serialization import Configurable, snake_case


class Metric(Configurable, ABC):
    """Base class of metrics.

    Parameters
    ----------
    name : str or None, default=None
        Name in logs; None: the name of the class in snake case.
    dtype : str or None, default=None
        For compatibility with Keras; sums are float64.

    Examples
    --------
    A metric of your own defines how many sums it needs, the sums over some rows, and its result::

        class Bias(Metric):
            name = "bias"

            def size(self, n_outputs):
                return 2

            def sums(self, y, P, weight):
                errors = (P - y).mean(axis=1)
                if weight is None:
                    return np.array([errors.sum(), len(P)])
                return np.array([errors @ weight, weight.sum()])

            def result_of(self, sums, n_outputs):
                return sums[0] / sums[1]
    """

    name: str | None = None
    dtype: str | None = None
    #: Whether subtracting a number from targets and outputs changes nothing. Their mean is then subtracted,
    #: because sums of squares lose digits far from 0.
    is_shift_invariant: ClassVar[bool] = False
    #: Whether weights of single outputs (n, k) are accepted.
    takes_output_weights: ClassVar[bool] = False
    #: The metric to recommend for labels.
    _for_labels: ClassVar[str] = "another metric"

    def __post_init__(self):
        super().__post_init__()
        if self.name is None:
            object.__setattr__(self, "name", snake_case(type(self).__name__))

    @abstractmethod
    def size(self, n_outputs: int) -> int:
        """Return the number of sums."""

    @abstractmethod
    def sums(self, y: np.ndarray, P: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the sums over some rows.

        Parameters
        ----------
        y : array (n, k), or labels (n,)
            Targets.
        P : array (n, k)
            Outputs.
        weight : array (n,), (n, k) or None
            Weights of rows; of single outputs only if `takes_output_weights`.

        Returns
        -------
        array (size,), float64

        Raises
        ------
        ValueError
            Targets of an unexpected shape.
        """

    @abstractmethod
    def result_of(self, sums: np.ndarray, n_outputs: int) -> float | np.ndarray:
        """Return the metric of all rows that were summed: a number, or one for each output."""

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add rows.

        Parameters
        ----------
        y_true : array (n, k), or (n,) for one output
            Targets; labels (n,) or (n, 1) if the metric takes labels.
        y_pred : array (n, k), or (n,) for one output
            Outputs.
        sample_weight : float, array (n,) or (n, 1), or None, default=None
            Weights of rows; (n, k) for metrics that count single outputs.

        Raises
        ------
        ValueError
            Targets or weights of an unexpected shape.
        """
        P = losses.as_outputs(y_pred)
        weight = losses.as_weights(sample_weight, P, of_outputs=self.takes_output_weights)
        y = np.asarray(y_true)
        earlier, _, center = self.__dict__.get("_tally", (0.0, 0, None))
        n_outputs = P.shape[1]
        if self.is_shift_invariant:
            # The mean of the first rows is subtracted from all of them.
            center = center_of(y, weight, P) if center is None else center
            y, P = less_center(center, y, P)
        # Dataclasses of settings are frozen; the state is not a setting.
        self.__dict__["_tally"] = (earlier + self.sums(y, P, weight), n_outputs, center)

    def result(self) -> float | np.ndarray:
        """Return the metric of the rows added since `reset_state`."""
        sums, n_outputs, _ = self.__dict__.get("_tally", (None, 1, None))
        return self.result_of(np.zeros(self.size(n_outputs)) if sums is None else sums, n_outputs)

    def reset_state(self) -> None:
        """Remove all rows."""
        self.__dict__.pop("_tally", None)

    def __call__(self, y_true, y_pred, sample_weight=None) -> float | np.ndarray:
        """Add rows, and return the metric of all rows so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() if is_dataclass(self) else {"name": self.name}
        return {**config, "dtype": self.dtype or "float32"}

    def _targets(self, y, P) -> np.ndarray:
        """Return targets in the shape of P; ValueError if that is impossible."""
        if y.ndim < 2 and P.shape[1] == 1:
            y = y.reshape(-1, 1)
        if y.shape != P.shape:
            raise ValueError(
                f"{type(self).__name__} expects targets of shape {P.shape}, received {y.shape}. "
                f"Use one-hot targets, or {self._for_labels} for labels."
            )
        return y

    def _labels(self, y) -> np.ndarray:
        """Return labels (n,); ValueError for targets of another shape."""
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
    """Return the weighted mean (k,) of targets in the shape of P (n, k); 0 for outputs without weight.

    None if targets have another shape, or if all weights are 0.
    """
    y = np.asarray(y, np.float64)
    if y.size != P.size or not len(P) or (weight is not None and not weight.any()):
        return None
    weight = np.ones(len(P)) if weight is None else weight.astype(np.float64)
    weight = np.broadcast_to(weight if weight.ndim == 2 else weight[:, np.newaxis], P.shape)
    return tuple(ratio((weight * y.reshape(P.shape)).sum(axis=0), weight.sum(axis=0)).tolist())


def less_center(center: tuple[float, ...] | None, y, P):
    """Return targets and outputs (n, k) less a center (k,), float64; unchanged if center is None."""
    if center is None or y.size != P.size:
        return y, P
    return np.asarray(y, np.float64).reshape(P.shape) - center, P.astype(np.float64) - center


def ratio(above, below):
    """Return above / below; 0 where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def flat_weights(weight: np.ndarray | None, P) -> np.ndarray | None:
    """Return weights (n,) or (n, k) as a flat array with one weight for each number in P (n, k)."""
    if weight is None or weight.ndim == 2:
        return weight if weight is None else weight.reshape(-1)
    return np.repeat(weight, P.shape[1])


def settle_outputs(metric: Metric) -> None:
    """Turn lists among the settings into tuples, so that the metric can be hashed."""
    for setting in fields(metric):  # type: ignore[arg-type]
        value = getattr(metric, setting.name)
        if isinstance(value, list | np.ndarray):
            object.__setattr__(metric, setting.name, tuple(np.asarray(value).tolist()))
