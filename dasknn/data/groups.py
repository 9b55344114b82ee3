"""Splits rows by groups, so that all rows of a group are on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
from dask.base import is_dask_collection

from dasknn.data import partitions
from dasknn.seeds import Stream, generator

_MOST = 2**64


def split(columns: dict[str, Any], groups: Any, fraction: float, seed: int) -> tuple[dict, dict]:
    """Return (rows to keep, rows set aside): of a share of the groups, whose hashes choose them.

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

    Raises
    ------
    ValueError
        Rows in arrays of Dask, or groups that do not belong to the rows.
    """
    is_lazy = any(is_dask_collection(column) for column in columns.values())
    if is_lazy != is_dask_collection(groups):
        raise ValueError(
            "Expected groups to be of the kind of X: a column of the same Dask dataframe, or data in this "
            "process."
        )
    if not is_lazy:
        is_held = is_chosen(groups, fraction, seed)
        for name, column in columns.items():
            if column is not None and partitions.n_samples(column) != len(is_held):
                raise ValueError(
                    f"{name} has {partitions.n_samples(column)} rows, groups has {len(is_held)}."
                )
        return _both(columns, is_held)
    if not all(column is None or partitions.is_dask_frame(column) for column in (*columns.values(), groups)):
        raise ValueError(
            "Expected X, y and groups to be Dask dataframes and series, from one dataframe, to split them by "
            "groups. For arrays, pass rows to validate with: X_val and y_val."
        )
    is_held = groups.map_partitions(_of_series, fraction, seed, meta=("held", bool))
    return _both(columns, is_held)


def _both(columns: dict[str, Any], is_held: Any) -> tuple[dict, dict]:
    kept, held = (
        {name: None if column is None else column[mask] for name, column in columns.items()}
        for mask in (~is_held, is_held)
    )
    return kept, held


def is_chosen(groups: Any, fraction: float, seed: int) -> np.ndarray:
    """Return for each row whether its group is among those set aside (n,)."""
    from pandas import Series
    from pandas.util import hash_pandas_object

    series = groups if hasattr(groups, "iloc") else Series(np.asarray(groups))
    # Its hashes are the same in each process, and on each platform.
    hashes = hash_pandas_object(series, index=False).to_numpy()
    salt = generator(seed, Stream.HELD_OUT_GROUPS).integers(_MOST, dtype=np.uint64, endpoint=False)
    mixed = (hashes ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed < np.uint64(min(int(fraction * _MOST), _MOST - 1))


def _of_series(groups: Any, fraction: float, seed: int) -> Any:
    from pandas import Series

    return Series(is_chosen(groups, fraction, seed), index=groups.index)
