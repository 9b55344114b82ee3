"""From the sums of slices to metrics with their intervals, and to the table that users get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasknn.evaluation.bootstrap import (
    SliceSums,
    interval,
    interval_of_none,
)
from dasknn.evaluation.ledger import Ledger
from dasknn.evaluation.metrics import WEIGHT, Metric
from dasknn.evaluation.slicing import Buckets


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation. ValueError: values out of range."""

    confidence: float
    min_rows: int
    n_bootstrap: int
    pos_label: Any
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"Expected confidence in (0, 1), such as 0.95, received {self.confidence!r}.")
        for name, least in (("min_rows", 0), ("n_bootstrap", 0), ("seed", 0)):
            number = getattr(self, name)
            if not isinstance(number, int | np.integer) or number < least:
                called = "random_state" if name == "seed" else name
                raise ValueError(f"Expected {called} to be an integer >= {least}, received {number!r}.")
        fewest = int(np.ceil(2 / (1 - self.confidence) - 1 - 1e-9))
        if 0 < self.n_bootstrap < fewest:
            raise ValueError(
                f"Expected n_bootstrap of {fewest} or more for confidence={self.confidence}, received "
                f"{self.n_bootstrap}. Use 0 for no intervals."
            )


@dataclass(frozen=True)
class Slice:
    """A slice by name, with its sums."""

    name: str
    sums: SliceSums


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric of a slice.

    Attributes
    ----------
    value : float
    replicates : array (B,)
    shift : float
        How far replicates lie from where they belong, because their scores are in coarse cells, or because
        drawing rows again moves the metric.
    trials : float or None
        The number of rows of which it is a share, if it is a share.
    """

    value: float
    replicates: np.ndarray
    shift: float = 0.0
    trials: float | None = None

    def __sub__(self, other: Estimate) -> Estimate:
        replicates = (self.replicates + self.shift) - (other.replicates + other.shift)
        return Estimate(self.value - other.value, replicates)

    def interval(self, confidence: float, metric: Metric | None = None) -> tuple[float, float]:
        if np.isnan(self.value):
            return float("nan"), float("nan")
        if self.trials is not None and self.value in (0.0, 1.0) and len(self.replicates):
            # All replicates of such a share are equal, as if it were certain.
            return interval_of_none(self.value, self.trials, confidence)
        bounds = (-np.inf, np.inf) if metric is None else (metric.least, metric.most)
        return interval(self.replicates, confidence, self.shift, *bounds)


@dataclass(frozen=True)
class Estimates:
    """All slices of an evaluation, in order.

    Attributes
    ----------
    slices : list of Slice
    ledgers : tuple of Ledger
        The layout of the sums of each model.
    min_rows : int
        Metrics of slices with fewer rows are NaN.
    edges : dict of Buckets to tuple of float
    """

    slices: list[Slice]
    ledgers: tuple[Ledger, ...]
    min_rows: int
    edges: dict[Buckets, tuple[float, ...]] = field(default_factory=dict)

    def estimate(self, sums: SliceSums, number: int, metric: Metric) -> Estimate:
        """Return a metric of model `number`; NaN if there are too few rows."""
        ledger = self.ledgers[number]
        block, n_curves = sums.sums[number], len(ledger.ranked_classes)
        if sums.n_rows < max(self.min_rows, metric.least_rows):
            return Estimate(float("nan"), np.full(len(block) - 1, np.nan))
        own = slice(number * n_curves, (number + 1) * n_curves)
        if metric.curve is None:
            values = ledger.value(metric, block, ())
            exact, values = float(values[0]), values[1:]
            shift = exact - np.nanmean(values) if metric.centered and len(values) else 0.0
        else:
            exact = float(ledger.value(metric, block, [tally.weights for tally in sums.tallies[own]]))
            coarse = ledger.value(metric, block, [tally.weights for tally in sums.resampled[own]])
            shift, values = exact - coarse[0], coarse[1:]
        trials = ledger.trials(metric, block[0])
        if trials is not None:
            weight = float(block[0, ledger.columns[WEIGHT]][0])
            trials *= sums.n_rows / weight if weight else 0.0
        return Estimate(exact, values, float(shift), trials)

    def frame(self, columns: Callable[[SliceSums, Metric], dict[str, Any]], settings: Settings) -> Any:
        """Return a dataframe with a row for each slice; columns(sums, metric) are those of a metric."""
        from dasknn.evaluation.frames import WholeFrame

        table = []
        for one in self.slices:
            row: dict[str, Any] = {"slice": one.name, "rows": one.sums.n_rows}
            for metric in self.ledgers[0].metrics:
                row |= columns(one.sums, metric)
            table.append(row)
        frame = WholeFrame(table)
        frame.attrs["confidence"] = settings.confidence
        frame.attrs["min_rows"] = settings.min_rows
        frame.attrs["greater_is_better"] = {
            metric.name: metric.greater_is_better for metric in self.ledgers[0].metrics
        }
        if self.edges:
            frame.attrs["buckets"] = {bucket.column: list(edges) for bucket, edges in self.edges.items()}
        return frame
