"""Splits rows by groups, so that all rows of a group are on one side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import partitions, splits
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
    if not splits.is_lazy("groups", groups, columns):
        hashes = _hashes(seed, groups)
        if len(hashes) * fraction < least:
            return columns, None
        return splits.split_by(columns, hashes < _limit(fraction, [_range(hashes)]), "groups")
    # sources: one Delayed for each partition -> a tuple of one series
    sources = partitions.together([groups])

    def add_ranges(graph: Graph) -> list[TaskRef]:
        find = partial(_rows_and_range, seed)
        return [graph.add("dasknn-groups", find, graph.add_source(source)) for source in sources]

    found = executor.values_of(add_ranges)
    if sum(n_rows for n_rows, _ in found) * fraction < least:
        return columns, None
    limit = _limit(fraction, [hashes for _, hashes in found])
    is_held = groups.map_partitions(_are_below, seed, limit, meta=("held", bool))
    return splits.split_by(columns, is_held, "groups")


def _hashes(seed: int, groups: Any) -> np.ndarray:
    """Return a hash of the group of each row, uint64 (n,): the same in each process, on each platform."""
    from pandas import Series
    from pandas.util import hash_pandas_object

    series = groups if hasattr(groups, "iloc") else Series(np.asarray(groups))
    hashes = hash_pandas_object(series, index=False).to_numpy()
    salt = generator(seed, Stream.HELD_OUT_GROUPS).integers(_MOST, dtype=np.uint64, endpoint=False)
    mixed = (hashes ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)


def _range(hashes: np.ndarray) -> tuple[int, int] | None:
    """Return the least and the greatest hash; None without rows."""
    return (int(hashes.min()), int(hashes.max())) if len(hashes) else None


def _rows_and_range(seed: int, series: Sequence[Any]) -> tuple[int, tuple[int, int] | None]:
    hashes = _hashes(seed, series[0])
    return len(hashes), _range(hashes)


def _limit(fraction: float, ranges: Sequence[tuple[int, int] | None]) -> np.uint64:
    """Return the hash below which groups are set aside. ValueError: there is one group, or none."""
    known = [found for found in ranges if found is not None]
    least, greatest = min((low for low, _ in known), default=0), max((high for _, high in known), default=0)
    if least == greatest:
        raise ValueError(
            "Expected groups of at least two different values, some of which are held out, received "
            f"{'one' if known else 'none'}. Leave groups out, or pass rows to validate with: X_val and y_val."
        )
    return np.uint64(min(max(int(fraction * _MOST), least + 1), greatest))


def _are_below(groups: Any, seed: int, limit: np.uint64) -> Any:
    from pandas import Series

    return Series(_hashes(seed, groups) < limit, index=groups.index)
