"""Splits the rows of a fit in two, by a column that belongs to them and is no part of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from dask.base import is_dask_collection

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph, merge_tree
from dasknn.data import inputs, partitions
from dasknn.data.blocks import in_partition


class Summary(Protocol):
    """What must be known of the column to choose the rows; summaries of parts add up."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    def __add__(self, other: Any) -> Any: ...

    def cut(self, fraction: float) -> Any:
        """Return what tells the rows to set aside from the others. ValueError: nothing can."""


def split(
    name: str,
    columns: dict[str, Any],
    by: Any,
    fraction: float,
    executor: Executor,
    least: int,
    *,
    summarize: Callable[[Any], Summary],
    is_held: Callable[[Any, Any], np.ndarray],
) -> tuple[dict, dict | None]:
    """Return (rows to keep, rows set aside), which the values of a column choose.

    Parameters
    ----------
    name : str
        What the column is called in errors.
    columns : dict
        X, y and others by name, each with one entry for each row; None stays None.
    by : array or series (n,), or Dask series
        The column.
    fraction : float
        Share of the rows to set aside.
    executor : Executor
        Looks at the column of Dask data, once.
    least : int
        If the share is one of fewer rows, none are set aside: the second result is None.
    summarize : callable(column)
        Returns the summary of a column, or of a partition of it.
    is_held : callable(column, cut)
        Returns whether each row is set aside, bool (n,).

    Raises
    ------
    ValueError
        Rows in arrays of Dask, a column that does not belong to the rows, or one that cannot split them.
    """
    lazy = _is_lazy(name, by, columns)
    found = _summary_of_partitions(name, by, summarize, executor) if lazy else summarize(by)
    if found.n_rows * fraction < least:
        return columns, None
    cut = found.cut(fraction)
    mask = by.map_partitions(_as_series, is_held, cut, meta=("held", bool)) if lazy else is_held(by, cut)
    return _split_by(columns, mask, name)


def _summary_of_partitions(
    name: str, by: Any, summarize: Callable[[Any], Summary], executor: Executor
) -> Summary:
    # sources: one Delayed for each partition -> a tuple of one series
    sources = partitions.together([by])

    def add_summaries(graph: Graph) -> list[TaskRef]:
        summaries = [
            graph.add(f"dasknn-{name}", partial(_summarize, summarize, number), graph.add_source(source))
            for number, source in enumerate(sources)
        ]
        return graph.add_tree(_merged, summaries)

    (found,) = executor.values_of(add_summaries)
    return found


def _summarize(summarize: Callable[[Any], Summary], number: int, series: Sequence[Any]) -> Summary:
    with in_partition(number):
        return summarize(series[0])


def _merged(*parts: Summary) -> Summary:
    return merge_tree(lambda a, b: a + b, *parts)


def _as_series(column: Any, is_held: Callable[[Any, Any], np.ndarray], cut: Any) -> Any:
    from pandas import Series

    return Series(is_held(column, cut), index=column.index)


def _is_lazy(name: str, by: Any, columns: dict[str, Any]) -> bool:
    """Return whether rows and the column that splits them are Dask's.

    Parameters
    ----------
    name : str
        What the column is called in errors.
    by : array or series (n,), or Dask series
        The column.
    columns : dict
        X, y and others by name, each with one entry for each row; None stays None.

    Raises
    ------
    ValueError
        Rows in arrays of Dask, or a column that does not belong to the rows.
    """
    if isinstance(by, str):
        raise ValueError(
            f"Expected {name} to be a value for each row, received the text {by!r}. Pass the column itself, "
            f"such as X[{by!r}]."
        )
    found = any(is_dask_collection(column) for column in columns.values())
    if found != is_dask_collection(by):
        raise ValueError(
            f"Expected X, y and {name} to be of one kind: columns of the same Dask dataframe, or data in "
            "this process."
        )
    if getattr(by, "ndim", 1) != 1:
        raise ValueError(f"Expected {name} of shape (n,), received {by.ndim} dimensions. Pass one column.")
    if not found:
        for other, column in columns.items():
            if column is not None and partitions.n_samples(column) != len(by):
                raise ValueError(f"{other} has {partitions.n_samples(column)} rows, {name} has {len(by)}.")
        inputs.check_order({**columns, name: by})
    elif not all(column is None or partitions.is_dask_frame(column) for column in (*columns.values(), by)):
        raise ValueError(
            f"Expected X, y and {name} to be Dask dataframes and series, from one dataframe, to split them "
            f"by {name}. For arrays, pass rows to validate with: X_val and y_val."
        )
    else:
        for other, column in columns.items():
            if column is None or column.npartitions == by.npartitions:
                continue
            # By known divisions, Dask finds the rows that belong together.
            if not (column.known_divisions and by.known_divisions):
                raise ValueError(
                    f"Expected {other} and {name} to have the same partitions, received "
                    f"{column.npartitions} and {by.npartitions}. Take them from one dataframe."
                )
    return found


def _split_by(columns: dict[str, Any], is_held: Any, name: str) -> tuple[dict, dict]:
    """Return (rows to keep, rows set aside) of columns.

    is_held: array or Dask series of bool (n,). name: of the column that it comes from, in errors.
    """
    select = _lazy_rows if is_dask_collection(is_held) else _rows
    kept, held = (
        {other: None if column is None else select(column, mask, name) for other, column in columns.items()}
        for mask in (~is_held, is_held)
    )
    return kept, held


def _rows(column: Any, mask: Any, name: str) -> Any:
    return column[mask]


def _lazy_rows(column: Any, mask: Any, name: str) -> Any:
    return column.map_partitions(_rows_of_partition, mask, name, meta=column._meta)


def _rows_of_partition(column: Any, mask: Any, name: str) -> Any:
    """Return the rows of a partition where mask is true. ValueError: mask is of other rows."""
    if not column.index.equals(mask.index):
        # pandas would look for the rows by their labels, which may be those of others.
        raise ValueError(
            f"Expected X, y and {name} to have the same rows in each partition, received {len(column)} rows "
            f"beside {len(mask)} of {name}, or another index. Take them from one dataframe."
        )
    return column[mask.to_numpy()]
