"""Blocks: the rows of one partition as arrays, cast and checked where they are loaded.

`load_block` finds out whether the rows can be used, and keeps a problem with the block. It does not raise: if
a block is lost, the scheduler calls `load_block` again, and nothing else. Consumers of a block call its
`check`, which raises if it has a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from dask.base import is_dask_collection
from numpy.typing import DTypeLike
from scipy import sparse

from dasknn.data import inputs
from dasknn.data.partitions import argument_name, columns_of, is_dataframe, to_array
from dasknn.data.targets import first_missing, has_decimals, is_decimal
from dasknn.exceptions import PartitionError

# Kinds of dtypes that numpy silently converts to numbers: dates, durations, complex numbers, records.
_NO_NUMBERS = "mMcV"


@dataclass(frozen=True)
class Block:
    """One partition, cast: X (n, p) C-ordered or CSR, y (n,) or (n, k) as it came, weight (n,) or None.

    problem: why its rows cannot be used; `load_block` looks for one. stays: whether X is memory that the user
    keeps, so that a view of some rows keeps nothing else in memory.
    """

    X: Any
    y: np.ndarray | None = None
    weight: np.ndarray | None = None
    problem: str | None = None
    stays: bool = False

    def map(self, function: Callable[[Any], Any]) -> Block:
        """Return a block of function(column) for each column."""
        X, y, weight = (None if c is None else function(c) for c in (self.X, self.y, self.weight))
        return Block(X, y, weight)

    def rows(self, begin: int, end: int) -> Block:
        """Return a block of some rows: a view."""
        return replace(self.map(lambda column: column[begin:end]), stays=self.stays)

    def copy(self) -> Block:
        """Return a block with arrays of its own."""
        return self.map(lambda column: column.copy())

    def check(self, number: int | None = None, shape: tuple[int, int] | None = None) -> None:
        """Raise PartitionError for a block that has a problem, or another shape of X than it had before.

        number: of the partition, for the message. shape: of X when the partition was first read.
        """
        refuse(self.problem, number)
        for what, before, now in zip(("rows", "features"), shape or (), self.X.shape, strict=False):
            if now != before:
                raise PartitionError(
                    f"Partition {number} had {before} {what} when it was first read, and has {now} now. "
                    "Training reads the data many times, so its source must return the same rows each time: "
                    "persist it or write it to Parquet once."
                )


@dataclass(frozen=True)
class BlockInfo:
    """Size and targets of a block, which the client gets; problem: why its rows cannot be used."""

    n_rows: int
    n_features: int
    nbytes: int
    weight_sum: float
    targets: Any = None
    problem: str | None = None


def refuse(problem: str | None, number: int | None = None) -> None:
    """Raise PartitionError if there is a problem; number: of the partition, for the message."""
    if problem:
        raise PartitionError(problem if number is None else f"Partition {number}: {problem}")


def load_block(
    names: tuple[tuple[str, ...], ...],
    dtype: DTypeLike,
    feature_names: list | None,
    *values: Any,
    stays: bool = False,
) -> Block:
    """Return the Block for the values of the sources of a Part, X cast to the dtype, with its problem.

    stays: whether the user keeps the first source in memory.
    """
    try:
        block = _cast_block(names, dtype, feature_names, *values)
    except PartitionError as error:
        return Block(np.empty((0, 0), dtype), problem=str(error))
    is_same = isinstance(values[0], np.ndarray) and np.may_share_memory(values[0], block.X)
    problem = problem_of(block.X, block.y, block.weight, feature_names)
    return replace(block, problem=problem, stays=stays and is_same)


def load_targets(n_rows: int, y: Any, weight: Any) -> Block:
    """Return y and weight as a Block with its problem; X, of n_rows rows, is checked elsewhere."""
    names = (("X",), ("y",)) if weight is None else (("X",), ("y",), ("weight",))
    return load_block(names, np.float64, None, *(np.empty((n_rows, 0)), y, weight)[: len(names)])


def _cast_block(
    names: tuple[tuple[str, ...], ...], dtype: DTypeLike, feature_names: list | None, *values: Any
) -> Block:
    """Return a Block. PartitionError: X is not rows of numbers, y not targets, or rows are in two orders."""
    columns = columns_of(names, values)
    given = [name for group in names for name in group]
    for name in given:
        if columns[name] is None:
            raise PartitionError(f"{argument_name(name)} is None: expected an array or dataframe of rows.")
    inputs.check_order({argument_name(name): columns[name] for name in given})
    y, weight = columns["y"], columns["weight"]
    return Block(
        cast(select(columns["X"], feature_names), dtype),
        None if y is None else _targets(y),
        None if weight is None else _weights(weight, dtype),
    )


@contextmanager
def in_partition(number: int) -> Iterator[None]:
    """Add the number of the partition to errors: a ValueError becomes a PartitionError, others get a note."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if not message.startswith("Partition "):
            message = f"Partition {number}: {message}"
        raise PartitionError(message) from error
    except Exception as error:
        error.add_note(f"This happened with partition {number}.")
        raise


def _targets(y: Any) -> np.ndarray:
    # Dates may be labels; regressors refuse them later.
    refuse_kinds("y", y, "cV")
    y = to_array("y", y)
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise PartitionError(f"Expected y of shape (n,) or (n, k), received shape {y.shape}.")
    return y


def _weights(weight: Any, dtype: DTypeLike) -> np.ndarray:
    refuse_kinds("sample_weight", weight)
    weight = _one_column(_numbers("sample_weight", to_array("sample_weight", weight), dtype))
    if weight.ndim != 1:
        raise PartitionError(f"Expected sample_weight of shape (n,), received shape {weight.shape}.")
    return weight


def _one_column(values: np.ndarray) -> np.ndarray:
    # (n, 1) -> (n,)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def select(X: Any, feature_names: list | None) -> Any:
    """Return the columns of a dataframe in this order. PartitionError: one of them is missing.

    The order of the columns of a Dask dataframe may differ from that of its partitions, as in X - X.mean().
    """
    if feature_names is None or not is_dataframe(X) or list(X.columns) == feature_names:
        return X
    missing = [name for name in feature_names if name not in X.columns]
    if missing or len(X.columns) != len(feature_names):
        raise PartitionError(
            f"Expected the columns of the dataframe, {feature_names}, received {list(X.columns)}."
        )
    return X[feature_names]


def cast(X: Any, dtype: DTypeLike) -> Any:
    """Return X (n, p) as a C-ordered array or CSR matrix of a dtype, not copied if it is one already.

    PartitionError: X of another shape, or with values that are not numbers.
    """
    if not hasattr(X, "dtype") and not is_dataframe(X):
        X = to_array("X", X)
    if X.ndim != 2:
        raise PartitionError(
            f"Expected X of shape (n, p), received shape {X.shape}. Reshape it with X.reshape(-1, 1) if it "
            "has a single feature."
        )
    refuse_kinds("X", X)
    return _numbers("X", X, dtype)


def _numbers(name: str, data: Any, dtype: DTypeLike) -> Any:
    """Return data as numbers of a dtype. PartitionError: it holds something else."""
    if sparse.issparse(data):
        return data.tocsr().astype(dtype, copy=False)
    try:
        if hasattr(data, "to_numpy"):
            # Missing values of all kinds become NaN, which is checked later.
            data = data.to_numpy(dtype=dtype, na_value=np.nan)
        return np.ascontiguousarray(data, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise PartitionError(
            f"Expected numbers in {name}, received {_strange(data)}. Encode such values, or drop them."
        ) from error


def _strange(data: Any) -> str:
    """Return a text on the part of the data that is not numbers."""
    if is_dataframe(data):
        return "columns " + ", ".join(f"{name!r} ({kind})" for name, kind in columns_of_text(data).items())
    for value in np.asarray(data).reshape(-1):
        try:
            # None is a missing number.
            float(0 if value is None else value)
        except (TypeError, ValueError):
            return f"{value!r:.80} (dtype {data.dtype})"
    return f"dtype {data.dtype}"


def columns_of_text(X: Any) -> dict[str, str]:
    """Return the dtypes of the columns of a dataframe that hold anything but numbers, by name."""
    strange = {}
    for position, (name, kind) in enumerate(X.dtypes.items()):
        if getattr(kind, "kind", "O") in "biuf" or is_decimal(kind):
            continue
        # Objects of a Dask column cannot be looked at here.
        if is_dask_collection(X) or not has_decimals(X.iloc[:, position]):
            strange[str(name)] = str(kind)
    return strange


def refuse_kinds(name: str, data: Any, kinds: str = _NO_NUMBERS) -> None:
    """Raise PartitionError for data of these kinds of dtypes, and for masked values.

    Data without a dtype is accepted.
    """
    dtypes = dict(data.dtypes) if is_dataframe(data) else {None: getattr(data, "dtype", None)}
    for column, dtype in dtypes.items():
        if getattr(dtype, "kind", "O") in kinds:
            where = "" if column is None else f", column {column!r}"
            raise PartitionError(
                f"Expected numbers in {name}{where}, received dtype {dtype}. Convert it to real numbers: "
                "dates to days since the first one, complex numbers to columns of their parts."
            )
    if isinstance(data, np.ma.MaskedArray) and (mask := np.ma.getmaskarray(data)).any():
        row = int(np.argwhere(mask)[0][0]) if data.ndim else 0
        raise PartitionError(f"{name} holds a masked value in row {row}. {_REMEDY}")


def inspect(summarize: Callable[[np.ndarray, np.ndarray | None], Any], block: Block) -> BlockInfo:
    """Return the BlockInfo of a block. summarize(y, weight): summary of its targets, or ValueError."""
    n_rows, n_features = block.X.shape
    info = partial(BlockInfo, n_rows, n_features, _nbytes(block))
    if block.problem:
        return info(0.0, problem=block.problem)
    try:
        targets = None if block.y is None else summarize(block.y, block.weight)
    except ValueError as error:
        return info(0.0, problem=str(error))
    return info(float(n_rows if block.weight is None else block.weight.sum()), targets)


def problem_of(
    X: Any,
    y: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    feature_names: Sequence | None = None,
) -> str | None:
    """Return why the rows of a block cannot be used, or None.

    That is: different numbers of rows, NaN or infinity, missing targets, weights below 0.
    """
    columns = [("y", y), ("sample_weight", weight)]
    for name, column in columns:
        if column is not None and len(column) != X.shape[0]:
            return f"X has {X.shape[0]} rows, {name} has {len(column)}."
    values = X.data if sparse.issparse(X) else X
    # The sum is finite if all values are, up to overflow, and takes no memory.
    if not np.isfinite(values.sum(dtype=np.float64)) and not np.isfinite(values).all():
        return _first_bad(X, feature_names)
    for name, column in columns:
        if column is not None and (row := first_missing(column)) is not None:
            remedy = "Drop rows without a target." if name == "y" else _REMEDY
            return f"{name} holds {column[row]} in row {row}. {remedy}"
    if weight is not None and len(weight) and weight.min() < 0:
        row = int(weight.argmin())
        return f"sample_weight holds {weight[row]} in row {row}; expected >= 0."
    return None


_REMEDY = "Expected finite numbers: drop such rows, or fill them (dask.dataframe's fillna, or an imputer)."


def _first_bad(X: Any, feature_names: Sequence | None) -> str:
    if sparse.issparse(X):
        X = X.tocoo()
        at = int(np.isfinite(X.data).argmin())
        row, column, value = X.row[at], X.col[at], X.data[at]
    else:
        row, column = np.unravel_index(np.isfinite(X).argmin(), X.shape)
        value = X[row, column]
    name = f"column {column}" if feature_names is None else f"column {feature_names[column]!r}"
    if not sparse.issparse(X) and X.shape[0] > 1 and not np.isfinite(X[:, column]).any():
        name += (
            ", and in all other rows of the partition (was a constant column divided by its deviation, 0?)"
        )
    return f"X holds {value} in row {row}, {name}. {_REMEDY}"


def _nbytes(block: Block) -> int:
    X = block.X
    arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
    arrays += [array for array in (block.y, block.weight) if array is not None]
    return sum(array.nbytes for array in arrays)


def concatenate(arrays: list) -> Any:
    """Return the rows of dense or sparse arrays in one array; None if there are no arrays."""
    if len(arrays) < 2:
        return arrays[0] if arrays else None
    if sparse.issparse(arrays[0]):
        return sparse.vstack(arrays, format="csr")
    return np.concatenate(arrays)
