"""Splits rows by groups, so that all rows of a group are on one side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.data import splits
from dasknn.seeds import Stream, generator

_MOST = 2**64


def split(
    columns: dict[str, Any],
    groups: Any,
    fraction: float,
    seed: int,
    executor: Executor,
    least: int = 0,
) -> tuple[dict, dict | None]:
    """Return (rows to keep, rows set aside): of a share of the groups, whose hashes choose them.

    Of few groups, at least one is on each side.

    Parameters
    ----------
    columns : dict
        X, y and others by name, each with one entry for each row; None stays None.
    groups : array or series (n,), or Dask series
        The group of each row: text, numbers or dates.
    fraction : float
        Share of the groups to set aside.
    seed : int
        Other seeds choose other groups.
    executor : Executor
        Looks at the groups of a Dask series, once.
    least : int, default=0
        If the share is one of fewer rows, none are set aside: the second result is None.

    Raises
    ------
    ValueError
        Rows in arrays of Dask, groups that do not belong to the rows, or one group alone.
    """
    return splits.split(
        "groups",
        columns,
        groups,
        fraction,
        executor,
        least,
        summarize=partial(_Hashes.of, seed),
        is_held=partial(_are_below, seed),
    )


def _hashes(seed: int, groups: Any) -> np.ndarray:
    """Return a hash of the group of each row, uint64 (n,): the same in each process, on each platform."""
    from pandas import Series
    from pandas.util import hash_pandas_object

    series = groups if hasattr(groups, "iloc") else Series(np.asarray(groups))
    hashes = hash_pandas_object(series, index=False).to_numpy()
    salt = generator(seed, Stream.HELD_OUT_GROUPS).integers(_MOST, dtype=np.uint64, endpoint=False)
    mixed = (hashes ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class _Hashes:
    """The number of some rows, and the least and the greatest hash of their groups; those of parts add up."""

    n_rows: int
    least: int
    greatest: int

    @classmethod
    def of(cls, seed: int, groups: Any) -> _Hashes:
        hashes = _hashes(seed, groups)
        return cls(len(hashes), int(hashes.min(initial=_MOST - 1)), int(hashes.max(initial=0)))

    def __add__(self, other: _Hashes) -> _Hashes:
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        return _Hashes(self.n_rows + other.n_rows, least, greatest)

    def cut(self, fraction: float) -> np.uint64:
        """Return the hash below which groups are set aside. ValueError: there is one group, or none."""
        if self.least >= self.greatest:
            raise ValueError(
                "Expected groups of at least two different values, some of which are held out, received "
                f"{'one' if self.n_rows else 'none'}. Leave groups out, or pass rows to validate with: X_val "
                "and y_val."
            )
        return np.uint64(min(max(int(fraction * _MOST), self.least + 1), self.greatest))


def _are_below(seed: int, groups: Any, cut: np.uint64) -> np.ndarray:
    return _hashes(seed, groups) < cut
