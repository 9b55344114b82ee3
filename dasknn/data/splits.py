"""Splits the rows of a fit in two, by a column that belongs to them and is no part of the table."""

from __future__ import annotations

from typing import Any

from dask.base import is_dask_collection

from dasknn.data import inputs, partitions


def is_lazy(name: str, by: Any, columns: dict[str, Any]) -> bool:
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
    found = any(is_dask_collection(column) for column in columns.values())
    if found != is_dask_collection(by):
        raise ValueError(
            f"Expected {name} to be of the kind of X: a column of the same Dask dataframe, or data in this "
            "process."
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
    return found


def split_by(columns: dict[str, Any], is_held: Any) -> tuple[dict, dict]:
    """Return (rows to keep, rows set aside) of columns. is_held: array or Dask series of bool (n,)."""
    kept, held = (
        {name: None if column is None else column[mask] for name, column in columns.items()}
        for mask in (~is_held, is_held)
    )
    return kept, held
