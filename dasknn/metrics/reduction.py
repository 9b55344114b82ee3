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
    """Base class of metrics that are the weighted mean of one number for each row."""

    @abstractmethod
    def rows(self, y, P) -> np.ndarray:
        """Return one number for each row (n,), for targets y and outputs P (n, k)."""

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
    """Base class of metrics that are the weighted mean of one number for each output."""

    takes_output_weights = True

    @abstractmethod
    def terms(self, y, P) -> np.ndarray:
        """Return one number for each output (n, k), for targets (n, k)."""

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
    """Mean of a function.

    Parameters
    ----------
    fn : callable
        `fn(y, P)` returns one number for each row (n,), or for each output (n, k), from targets and outputs.
    name : str or None, default=None
        Name in logs; None: the name of the function.
    dtype : str or None, default=None
        For compatibility with Keras; sums are float64.
    """

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
                f"Expected the metric {self.name} to return one number for each of {len(P)} rows, received "
                f"shape {rows.shape}. Take the mean over axis=-1 only."
            )
        return rows.reshape(len(P), -1).mean(axis=1) if rows.ndim > 1 else rows

    def get_config(self):
        raise ValueError(
            f"Expected a metric that can be saved, received the function {self.name}. Subclass "
            "dasknn.metrics.Metric instead."
        )


# --- losses as metrics ----------------------------------------------------------------------------------


class MeanOfLoss(MeanOfRows):
    """Base class of metrics that are the weighted mean of the losses of rows."""

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
