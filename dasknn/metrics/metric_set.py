"""The metrics that a training or an evaluation keeps, as one vector of sums."""

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
    """Metrics that are computed together, for a network with n_outputs.

    entries: the name in logs, the metric, and whether it is weighted, for each. center (n_outputs,): about
    the mean of targets, which is taken off for metrics that are shift-invariant; it must be one for all sums
    that are added up.
    """

    entries: tuple[tuple[str, Metric, bool], ...]
    n_outputs: int
    center: tuple[float, ...] | None = None

    @cached_property
    def _sizes(self) -> list[int]:
        return [metric.size(self.n_outputs) for _, metric, _ in self.entries]

    @property
    def size(self) -> int:
        """How many sums there are."""
        return sum(self._sizes)

    def sums(self, y, P, weight) -> np.ndarray:
        """Return the sums of all metrics over these rows, float64 (size,)."""
        parts = []
        for _, metric, is_weighted in self.entries:
            own_y, own_P = less_center(self.center, y, P) if metric.is_shift_invariant else (y, P)
            parts.append(metric.sums(own_y, own_P, weight if is_weighted else None))
        return np.concatenate(parts) if parts else np.zeros(0)

    def results(self, sums) -> dict[str, Any]:
        """Return the metrics by name, floats or lists of them; sums may be 0.0, of no rows."""
        sums = np.zeros(self.size) if np.ndim(sums) == 0 else sums
        found, begin = {}, 0
        for (name, metric, _), size in zip(self.entries, self._sizes, strict=True):
            result = metric.result_of(sums[begin : begin + size], self.n_outputs)
            found[name] = np.asarray(result, np.float64).tolist()
            begin += size
        return found


def named(metrics: Sequence[Metric], weighted_metrics: Sequence[Metric] = ()) -> list[str]:
    """Return names for logs, each but once: a, a_1, a_2; weighted ones follow as weighted_a, weighted_a_1."""
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
