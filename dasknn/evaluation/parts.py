"""The data of an evaluation: X, y, weights and columns to slice by, partition by partition."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from dasknn.data import partitions
from dasknn.evaluation.slicing import Buckets, Dimension

#: Begins the names of slice_data's columns while they travel with X.
FOR_SLICES = "dasknn slice_data "
# Plain data is cut into parts of so many rows: a constant, so that draws do not depend on the machine.
_ROWS_OF_PART = 65_536


def names_of(data: Any) -> list[Hashable]:
    """Return the names of the columns of a dataframe, or of a series with a name; [] of other data."""
    if partitions.is_dataframe(data):
        return list(data.columns)
    name = getattr(data, "name", None)
    return [name] if _is_series(data) and name is not None else []


def _is_series(data: Any) -> bool:
    # A Dask array has a name, too.
    return getattr(data, "ndim", None) == 1 and hasattr(data, "to_frame")


def columns_to_slice_by(X: Any, slice_data: Any) -> list[Hashable]:
    """Return the names of the columns of X and slice_data. ValueError: slice_data without names."""
    if slice_data is not None and not names_of(slice_data):
        raise ValueError(
            f"Expected slice_data to be a dataframe, or a series with a name, received "
            f"{type(slice_data).__name__}. Use pandas.DataFrame or dask.dataframe.from_dask_array(..., "
            "columns=[...])."
        )
    return list(dict.fromkeys([*names_of(slice_data), *names_of(X)]))


def parts_of(
    X: Any, y: Any, sample_weight: Any, slice_data: Any
) -> tuple[list[partitions.Part], list | None]:
    """Return the partitions, and the names of the columns of X if it is a dataframe.

    In partitions, slice_data is a source of its own, or further columns of X if both are Dask dataframes.
    """
    names = names_of(X) if partitions.is_dataframe(X) else None
    n_parts = 1
    if not partitions.is_distributed(X, y, sample_weight, slice_data):
        n_parts = max(1, -(-partitions.n_samples(X) // _ROWS_OF_PART))
    if slice_data is None:
        return partitions.parts(X, y, sample_weight, n_parts), names
    if _is_series(slice_data):
        slice_data = slice_data.to_frame()
    if partitions.is_dask_frame(X) and partitions.is_dask_frame(slice_data):
        return partitions.parts(_side_by_side(X, slice_data), y, sample_weight, n_parts), names
    parts = partitions.parts(X, y, sample_weight, n_parts)
    try:
        beside = partitions.parts(X, None, slice_data, n_parts)
    except ValueError as error:
        raise ValueError(str(error).replace("sample_weight", "slice_data")) from None
    joined = [
        partitions.Part((*part.sources, own.sources[-1]), (*part.names, ("slice_data",)))
        for part, own in zip(parts, beside, strict=True)
    ]
    return joined, names


def order_of(dimension: Dimension, X: Any, slice_data: Any) -> dict | None:
    """Return the rank of each category of an ordered column, None if values have their own order."""
    for data in (slice_data, X):
        if isinstance(dimension, Buckets) or dimension not in names_of(data):
            continue
        column = data[dimension] if partitions.is_dataframe(data) else data
        dtype = getattr(column, "dtype", None)
        if getattr(dtype, "ordered", False):
            return {value: rank for rank, value in enumerate(dtype.categories.tolist())}  # type: ignore[union-attr]
    return None


def _side_by_side(X: Any, slice_data: Any) -> Any:
    """Join Dask dataframes partition by partition, so that their common source is read once."""
    if X.npartitions != slice_data.npartitions:
        raise ValueError(
            f"Expected X and slice_data to have the same partitions, received {X.npartitions} and "
            f"{slice_data.npartitions}. Take them from one dataframe."
        )
    import dask.dataframe as dd

    meta = _joined(X._meta, slice_data._meta)
    return dd.map_partitions(
        _joined, X, slice_data, meta=meta, align_dataframes=False, enforce_metadata=False
    )


def _joined(X: Any, slice_data: Any) -> Any:
    # This copies no column.
    both = X.copy(deep=False)
    # `Plan.outcomes` compares it, which knows the number of the partition.
    both.attrs[FOR_SLICES] = len(slice_data)
    for name in slice_data.columns:
        both[f"{FOR_SLICES}{name}"] = slice_data[name].array if len(slice_data) == len(X) else None
    return both
