"""Splits rows by time: the latest ones are set aside, and no time is on both sides.

partition ── times ── kinds, rows without one, NumberSketch ──┐
partition ── times ──────────────────────────────────────────┴── sum ── the time from which rows are held out
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.data import splits
from dasknn.data.tables.reading import DATE, DURATION, MISSING, NUMBER, VALUES, read
from dasknn.data.tables.sketch import NumberSketch


def split(
    columns: dict[str, Any], time: Any, fraction: float, executor: Executor, least: int = 0
) -> tuple[dict, dict | None]:
    """Return (rows to keep, rows set aside): these are the latest ones, about a share of all.

    Rows of one time stay together. The split is the one whose share is nearest to that which was asked for;
    with more than 20,000 different times, to a fraction of a percent of the rows.

    Parameters
    ----------
    columns : dict
        X, y and others by name, each with one entry for each row; None stays None.
    time : array or series (n,), or Dask series
        The time of each row: dates, numbers or durations.
    fraction : float
        Share of the rows to set aside.
    executor : Executor
        Looks at the times of a Dask series, once.
    least : int, default=0
        If the share is one of fewer rows, none are set aside: the second result is None.

    Raises
    ------
    ValueError
        Rows in arrays of Dask, times that do not belong to the rows, that are missing or of other kinds, or
        one time alone.
    """
    return splits.split(
        "time", columns, time, fraction, executor, least, summarize=_Times.of, is_held=_are_late
    )


@dataclass(frozen=True)
class _Times:
    """The times of some rows; those of parts add up.

    kinds: (kind, whether dates have a time zone). n_missing: rows without a time.
    """

    kinds: frozenset[tuple[str, bool]]
    n_missing: int
    sketch: NumberSketch

    @classmethod
    def of(cls, time: Any) -> _Times:
        kinds, numbers = _numbers(time)
        is_missing = np.isnan(numbers)
        return cls(kinds, int(is_missing.sum()), NumberSketch.of(numbers[~is_missing]))

    def __add__(self, other: _Times) -> _Times:
        return _Times(self.kinds | other.kinds, self.n_missing + other.n_missing, self.sketch + other.sketch)

    @property
    def n_rows(self) -> int:
        return int(self.sketch.n_rows) + self.n_missing

    def cut(self, fraction: float) -> float:
        """Return the time from which rows are set aside. ValueError: there is none."""
        if self.n_missing:
            raise ValueError(
                f"Expected a time for each row, received {self.n_missing} rows without one. Leave these rows "
                "out, or fill in their times."
            )
        if len(self.kinds) > 1:
            words = sorted(VALUES[kind] + " with a time zone" * has_zone for kind, has_zone in self.kinds)
            raise ValueError(f"Expected time of one kind, received {' and '.join(words)}.")
        values = self.sketch.values
        if len(values) < 2:
            raise ValueError(
                "Expected time of at least two different values, the later of which are held out, received "
                f"{'one' if len(values) else 'none'}. Leave time out, or pass rows to validate with: X_val "
                "and y_val."
            )
        # Rows from each time on, but for the first one: some are left on both sides.
        n_held = np.cumsum(self.sketch.weights[::-1])[::-1][1:]
        return float(values[1:][np.argmin(np.abs(n_held - fraction * self.sketch.n_rows))])


def _numbers(time: Any) -> tuple[frozenset[tuple[str, bool]], np.ndarray]:
    """Return (kinds, times as float64 (n,), NaN where missing), of dates in microseconds.

    ValueError: neither dates nor numbers.
    """
    if str(getattr(time, "dtype", "")).startswith("period"):
        raise ValueError(
            "Expected time to be dates or numbers, received periods. Convert them: time.dt.to_timestamp()."
        )
    found = read("time", time if hasattr(time, "iloc") else np.asarray(time), zone="UTC")
    if found.kind == MISSING:
        return frozenset(), found.values
    if found.kind not in (DATE, DURATION, NUMBER):
        raise ValueError(
            f"Expected time to be dates or numbers, received {VALUES[found.kind]}. Convert it: "
            "pandas.to_datetime(time)."
        )
    values = found.values
    if found.kind == DATE:
        values = np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))
    return frozenset([(found.kind, found.zone is not None)]), values


def _are_late(time: Any, cut: float) -> np.ndarray:
    return _numbers(time)[1] >= cut
