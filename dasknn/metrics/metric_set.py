"""Several metrics as one vector of sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dasknn.metrics.metric import Metric, less_center
from dasknn.saving.serialization import snake_case


@dataclass(frozen=True)
class MetricSet:
    """Metrics that are computed together.

    Parameters
    ----------
    entries : tuple of (name, metric, is_weighted)
        Name in logs, metric, and whether it uses the weights of rows.
    n_outputs : int
        Outputs of the network.
    center : tuple (n_outputs,) or None, default=None
        Approximate mean of the targets, subtracted for metrics that are shift-invariant. All sums that are
        added up must have the same center.
    """

    entries: tuple[tuple[str, Metric, bool], ...]
    n_outputs: int
    center: tuple[float, ...] | None = None

    @cached_property
    def _sizes(self) -> list[int]:
        return [metric.size(self.n_outputs) for _, metric, _ in self.entries]

    @property
    def size(self) -> int:
        """Number of sums."""
        return sum(self._sizes)

    def sums(self, y, P, weight) -> np.ndarray:
        """Return the sums of all metrics over these rows, float64 (size,)."""
        parts = []
        for _, metric, is_weighted in self.entries:
            own_y, own_P = less_center(self.center, y, P) if metric.is_shift_invariant else (y, P)
            parts.append(metric.sums(own_y, own_P, weight if is_weighted else None))
        return np.concatenate(parts) if parts else np.zeros(0)

    def results(self, sums) -> dict[str, Any]:
        """Return the metrics by name, as floats or lists of floats; sums of 0.0 stand for no rows."""
        sums = np.zeros(self.size) if np.ndim(sums) == 0 else sums
        found, begin = {}, 0
        for (name, metric, _), size in zip(self.entries, self._sizes, strict=True):
            result = metric.result_of(sums[begin : begin + size], self.n_outputs)
            found[name] = np.asarray(result, np.float64).tolist()
            begin += size
        return found


def named(metrics: Sequence[Metric], weighted_metrics: Sequence[Metric] = ()) -> list[str]:
    """Return distinct names for logs: a, a_1, a_2; then weighted_a, weighted_a_1 for weighted metrics."""
    counts: dict[str, int] = {}
    names = []
    for i, metric in enumerate([*metrics, *weighted_metrics]):
        name = metric.name or snake_case(type(metric).__name__)
        if name in counts and i >= len(metrics):
            name = f"weighted_{name}"
        n = counts.get(name, 0)
        counts[name] = n + 1
        names.append(f"{name}_{n}" if n else name)
    return names
