"""What an evaluation has found, with its intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasknn.evaluation import metrics as evaluation_metrics
from dasknn.evaluation.bootstrap import (
    SliceSums,
    interval,
    interval_of_none,
)
from dasknn.evaluation.metrics import Ledger
from dasknn.evaluation.slicing import Buckets


@dataclass(frozen=True)
class Settings:
    """What to make of the sums. ValueError: settings that make no sense."""

    confidence: float
    min_rows: int
    n_bootstrap: int
    pos_label: Any
    seed: int

    def __post_init__(self):
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
    name: str
    sums: SliceSums


@dataclass(frozen=True, eq=False)
class _Estimate:
    """A metric of a slice, and of its replicates (B,).

    shift: how far replicates lie from where they belong, since their scores are in coarse cells, or since
    drawing rows again moves the metric. trials: of a share, the number of rows that it is a share of.
    """

    value: float
    replicates: np.ndarray
    shift: float = 0.0
    trials: float | None = None

    def __sub__(self, other: _Estimate) -> _Estimate:
        replicates = (self.replicates + self.shift) - (other.replicates + other.shift)
        return _Estimate(self.value - other.value, replicates)

    def interval(
        self, confidence: float, metric: evaluation_metrics.Metric | None = None
    ) -> tuple[float, float]:
        if np.isnan(self.value):
            return float("nan"), float("nan")
        if self.trials is not None and self.value in (0.0, 1.0) and len(self.replicates):
            # All replicates of such a share are alike, as if it were certain.
            return interval_of_none(self.value, self.trials, confidence)
        bounds = (-np.inf, np.inf) if metric is None else (metric.least, metric.most)
        return interval(self.replicates, confidence, self.shift, *bounds)


@dataclass(frozen=True)
class Found:
    """All slices in order, with what their sums are of."""

    slices: list[Slice]
    ledgers: tuple[Ledger, ...]
    min_rows: int
    edges: dict[Buckets, tuple[float, ...]] = field(default_factory=dict)

    def estimate(self, sums: SliceSums, number: int, metric: evaluation_metrics.Metric) -> _Estimate:
        """Return a metric of model `number`; NaN for too few rows."""
        ledger = self.ledgers[number]
        block, n_curves = sums.sums[number], len(ledger.ranked_classes)
        if sums.n_rows < max(self.min_rows, metric.least_rows):
            return _Estimate(float("nan"), np.full(len(block) - 1, np.nan))
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
            weight = float(block[0, ledger.columns[evaluation_metrics.WEIGHT]][0])
            trials *= sums.n_rows / weight if weight else 0.0
        return _Estimate(exact, values, float(shift), trials)

    def frame(self, table: list[dict[str, Any]], settings: Settings):
        from dasknn.evaluation.frames import WholeFrame

        frame = WholeFrame(table)
        frame.attrs["confidence"] = settings.confidence
        frame.attrs["min_rows"] = settings.min_rows
        frame.attrs["greater_is_better"] = {
            metric.name: metric.greater_is_better for metric in self.ledgers[0].metrics
        }
        if self.edges:
            frame.attrs["buckets"] = {bucket.column: list(edges) for bucket, edges in self.edges.items()}
        return frame
