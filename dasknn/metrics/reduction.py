"""Metrics that are a mean over rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dasknn import losses
from dasknn.metrics.metric import Metric, ratio
from dasknn.saving.serialization import snake_case

# --- means over rows ----------------------------------------------------------------------------------------


class MeanOfRows(Metric):
    """The weighted mean of a number that each row has."""

    @abstractmethod
    def rows(self, y, P) -> np.ndarray:
        """Return the number of each row (n,)."""

    def size(self, n_outputs):
        return 2

    def sums(self, y, P, weight):
        return _mean_sums(self.rows(y, P), weight)

    def result_of(self, sums, n_outputs):
        return float(ratio(sums[0], sums[1]))


def _mean_sums(rows, weight) -> np.ndarray:
    if weight is None:
        total = np.count_nonzero(rows) if rows.dtype == bool else np.add.reduce(rows, dtype=np.float64)
        return np.array([total, len(rows)], np.float64)
    return np.array(
        [np.dot(weight.astype(np.float64), rows), np.add.reduce(weight, dtype=np.float64)], np.float64
    )


class MeanOfOutputs(MeanOfRows):
    """The weighted mean of a number that each output has."""

    takes_output_weights = True

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return the number of each output (n, k), for targets of its shape."""

    def rows(self, y, P):
        terms = self.terms(self._targets(y, P), P)
        return terms.reshape(-1) if P.shape[1] == 1 else terms.mean(axis=1)

    def sums(self, y, P, weight):
        if weight is None or weight.ndim == 1:
            return super().sums(y, P, weight)
        terms = self.terms(self._targets(y, P), P)
        return _mean_sums(terms.reshape(-1), weight.reshape(-1)) / P.shape[1]


@dataclass(frozen=True)
class MeanOfFunction(MeanOfRows):
    """The mean of fn(y, P), which returns a number for each row (n,), or for each output (n, k)."""

    fn: Callable[[np.ndarray, np.ndarray], Any]
    name: str | None = None
    dtype: str | None = None

    def __post_init__(self):
        if self.name is None:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            object.__setattr__(self, "name", snake_case(name.strip("<>")))

    def rows(self, y, P):
        if y.ndim < 2 and P.shape[1] == 1:
            y = y.reshape(-1, 1)
        rows = np.asarray(self.fn(y, P))
        if rows.shape[:1] != (len(P),):
            raise ValueError(
                f"{self.name} must return a number for each of {len(P)} rows, received shape {rows.shape}. "
                "Take the mean over axis=-1 only."
            )
        return rows.reshape(len(P), -1).mean(axis=1) if rows.ndim > 1 else rows

    def get_config(self):
        raise ValueError(
            f"Expected a metric with settings, received the function {self.name}, which cannot be written. "
            "Subclass dasknn.metrics.Metric."
        )


# --- the losses as metrics ----------------------------------------------------------------------------------


class MeanOfLoss(MeanOfRows):
    """The mean of the losses of rows, whatever the loss divides by."""

    _loss: ClassVar[type[losses.RowLoss]]

    @cached_property
    def _rows(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        own = {setting.name for setting in fields(self._loss)} - {"name", "dtype", "reduction"}  # type: ignore[arg-type]
        mine = {setting.name for setting in fields(self)}  # type: ignore[arg-type]
        return self._loss(**{name: getattr(self, name) for name in own & mine}).rows

    def rows(self, y, P):
        if self._loss.takes_labels:
            return self._rows(self._labels(y), P)
        return self._rows(np.asarray(self._targets(y, P), P.dtype), P)
