"""A sample of the rows of a table, drawn where they are and gathered in one place.

    partition (X, y, weight)    a random key for each row, from (seed, partition)
      Rows                      those with the smallest keys, at most as many as are wanted
    merged, eight at a time     those with the smallest keys of all
      Rows                      on one worker, in the order of partitions and rows

Each set of so many rows is equally likely, so partitions are represented in proportion to their rows, and
nobody has to know how many these are: the data is read once (bottom-k sampling, Cohen and Kaplan 2007). If
all rows are wanted, they come in their order, whatever the partitions are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.local import LocalExecutor
from dasknn.data import inputs, partitions
from dasknn.data.blocks import concatenate, in_partition, load_targets, select
from dasknn.evaluation.parts import parts_of
from dasknn.evaluation.plan import targets_of
from dasknn.evaluation.problem import Problem
from dasknn.evaluation.responders import place_of
from dasknn.exceptions import PartitionError
from dasknn.saving.serialization import did_you_mean
from dasknn.seeds import Stream, generator


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a table.

    Attributes
    ----------
    keys : uint64 array (n,)
        The random keys by which they were chosen.
    X : dataframe, array or CSR matrix (n, p)
    y : array or None
        Numbers of classes (n,), or numbers (n, q).
    weight : array (n,) or None
    """

    keys: np.ndarray
    X: Any
    y: np.ndarray | None
    weight: np.ndarray | None

    @classmethod
    def merged(cls, n_wanted: int | None, *parts: Rows) -> Rows:
        """Return the rows of all parts with the smallest keys."""
        # Columns of a dataframe without rows may have any dtype.
        parts = tuple(part for part in parts if len(part.keys)) or parts[:1]
        y = [part.y for part in parts if part.y is not None]
        weight = [part.weight for part in parts if part.weight is not None]
        together = cls(
            np.concatenate([part.keys for part in parts]),
            _stacked([part.X for part in parts]),
            concatenate(y),
            concatenate(weight),
        )
        return together.smallest(n_wanted)

    def smallest(self, n_wanted: int | None) -> Rows:
        """Return the rows with the smallest keys, in their order."""
        if n_wanted is None or len(self.keys) <= n_wanted:
            return self
        rows = np.sort(np.argsort(self.keys, kind="stable")[:n_wanted])
        return Rows(
            self.keys[rows],
            self.X.iloc[rows].reset_index(drop=True) if hasattr(self.X, "iloc") else self.X[rows],
            None if self.y is None else self.y[rows],
            None if self.weight is None else self.weight[rows],
        )


def _stacked(tables: list) -> Any:
    if len(tables) == 1 or not partitions.is_dataframe(tables[0]):
        return concatenate(tables)
    if all(table.dtypes.equals(tables[0].dtypes) for table in tables):
        from pandas import concat
    else:
        # pandas would make objects of categories that differ between partitions.
        from dask.dataframe.dispatch import concat
    return concat(tables, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Draw:
    """How rows are drawn from each partition, as a picklable object.

    Attributes
    ----------
    seed : int
    n_wanted : int or None
        Rows of the sample; None: all rows.
    problem : Problem or None
        What y is for; None: there is no y.
    names : tuple of tuples of str
        The columns that each source of a partition holds: X, y, weight.
    feature_names : list or None
        The columns of X, in their order, if it is a dataframe.
    """

    seed: int
    n_wanted: int | None
    problem: Problem | None
    names: tuple[tuple[str, ...], ...]
    feature_names: list | None

    def rows(self, number: int, *values: Any) -> Rows:
        """Return the sampled rows of a partition. PartitionError: bad data, except for values of X."""
        with in_partition(number):
            columns = partitions.columns_of(self.names, values)
            X, y, weight = columns["X"], columns["y"], columns["weight"]
            if X is None:
                raise PartitionError("X is None: expected an array or dataframe of rows.")
            n_rows = partitions.n_samples(X)
            inputs.check_order({name: column for name, column in columns.items() if column is not None})
            # Without y, zeros stand for it where weights are checked.
            block = load_targets(n_rows, np.zeros(n_rows) if y is None else y, weight)
            block.check()
            numbers = None
            if self.problem is not None:
                assert block.y is not None, "there is no score without y"
                numbers = targets_of(self.problem, block.y)
            X = select(X, self.feature_names)
            if hasattr(X, "iloc"):
                X = X.reset_index(drop=True)
            elif sparse.issparse(X):
                X = X.tocsr()
            keys = generator(self.seed, Stream.SAMPLED_ROWS, number).bit_generator.random_raw(n_rows)
            return Rows(keys, X, numbers, block.weight).smallest(self.n_wanted)

    def merged(self, *parts: Rows) -> Rows:
        """Return the sample of several partitions, given the samples of each, in their order."""
        return Rows.merged(self.n_wanted, *parts)

    def checked(self, rows: Rows) -> Rows:
        """Return the sample of all partitions. ValueError: it has no rows, or all of them weigh 0."""
        if not len(rows.keys):
            raise ValueError("Expected at least one row, found 0 samples.")
        if rows.weight is not None and not rows.weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return rows


class Sampling:
    """Where and how a sample is drawn from some data.

    Parameters
    ----------
    X, y, sample_weight
        Data that `inputs.admit` has returned; y and weights may be None.
    problem : Problem or None
        What y is for.
    max_samples : int or None
    random_state : int, RandomState instance or None

    Attributes
    ----------
    seed : int
    is_distributed : bool
        Whether the data is on a cluster.
    data : tuple
        X, y and sample_weight.

    Raises
    ------
    ValueError
        Another number of rows, or data that does not belong together.
    """

    def __init__(
        self, X: Any, y: Any, sample_weight: Any, problem: Problem | None, max_samples: Any, random_state: Any
    ):
        if max_samples is not None and not (_is_whole(max_samples) and max_samples >= 1):
            raise ValueError(
                f"Expected max_samples to be an integer >= 1, or None for all rows, received {max_samples!r}."
            )
        self.data = (X, y, sample_weight)
        self.is_distributed = partitions.is_distributed(*self.data)
        self.seed = int(check_random_state(random_state).randint(2**31 - 1))
        self._parts, names = parts_of(X, y, sample_weight, None)
        self._draw = Draw(self.seed, max_samples, problem, self._parts[0].names, names)
        # Plain data is sampled in this process, so that no more than the sample is sent anywhere.
        self._here = None if self.is_distributed else self._drawn_here()

    def _drawn_here(self) -> Rows:
        drawn = [self._draw.rows(number, *part.sources) for number, part in enumerate(self._parts)]
        return self._draw.checked(self._draw.merged(*drawn))

    def add_to(self, tasks: Executor, graph: Graph) -> Any:
        """Return the sampled Rows as an argument for tasks of a graph."""
        if self._here is not None:
            return tasks.put([self._here], [None])[0]
        drawn = [
            graph.add("dasknn-draw", partial(self._draw.rows, number), *part.add_to(graph))
            for number, part in enumerate(self._parts)
        ]
        merged = graph.add_tree(self._draw.merged, drawn)[0]
        return graph.add("dasknn-sample", self._draw.checked, merged)


@contextmanager
def tasks_for(model: Any, sampling: Sampling, client: Any) -> Iterator[Executor]:
    """Yield what runs tasks: a cluster if the data is there or if there is a client, else this process."""
    if not sampling.is_distributed and client is None:
        with LocalExecutor() as here:
            yield here
        return
    place = place_of(model)
    if client is not None:
        place["client"] = client
    with connect(**place, distributed=True, data=sampling.data) as tasks:
        yield tasks


@contextmanager
def in_sample(n_rows: int) -> Iterator[None]:
    """Say in errors that rows are those of the sample."""
    try:
        yield
    except Exception as error:
        error.add_note(f"Rows are counted within the sample of {n_rows:,} rows.")
        raise


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def checked_number(name: str, number: Any, least: int) -> int:
    """Return a whole number. ValueError: it is another kind of number, or smaller than the least one."""
    if not _is_whole(number) or number < least:
        raise ValueError(f"Expected {name} to be an integer >= {least}, received {number!r}.")
    return int(number)


# --- columns of a table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """A column of X, or several that are taken together.

    Attributes
    ----------
    name
        The name of the column, or a tuple of names.
    positions : tuple of int
    """

    name: Any
    positions: tuple[int, ...]


def as_table(X: Any) -> Any:
    """Return X (n, p), lists as an array. ValueError: another shape."""
    X = X if hasattr(X, "ndim") else np.asarray(X)
    if X.ndim != 2:
        hint = "X.to_frame()" if hasattr(X, "to_frame") else "X.reshape(-1, 1) if it has a single column"
        raise ValueError(f"Expected X of shape (n, p), received {X.ndim} dimensions. Use {hint}.")
    return X


def names_of_columns(X: Any) -> list:
    """Return the names of the columns of a dataframe; x0, x1, ... of an array, as in scikit-learn."""
    if partitions.is_dataframe(X):
        return list(X.columns)
    return [f"x{position}" for position in range(int(X.shape[1]))]


def chosen_columns(columns: Any, X: Any, may_be_several: bool = False) -> list[Chosen]:
    """Return columns by their names, or of arrays also by their positions; None: all of them.

    Parameters
    ----------
    columns : name, position, or a list of these
    X : dataframe or array (n, p), of Dask or plain
    may_be_several : bool, default=False
        Whether a tuple of names means several columns that are taken together.

    Raises
    ------
    ValueError
        A column that does not exist, two of that name, or the same column twice.
    """
    names = names_of_columns(X)
    if columns is None:
        return [Chosen(name, (position,)) for position, name in enumerate(names)]
    wanted = list(columns) if _is_listed(columns, names) else [columns]
    find = partial(_position, names=names, is_array=not partitions.is_dataframe(X))
    chosen = []
    for one in wanted:
        if may_be_several and isinstance(one, tuple) and one not in names:
            positions = tuple(map(find, one))
            chosen.append(Chosen(tuple(names[position] for position in positions), positions))
        else:
            position = find(one)
            chosen.append(Chosen(names[position], (position,)))
    twice = [one.positions for one in chosen]
    if not chosen or len(set(twice)) < len(twice) or any(len(set(own)) < max(len(own), 1) for own in twice):
        raise ValueError(f"Expected one or more different columns, received {columns!r}.")
    return chosen


def _is_listed(columns: Any, names: Sequence) -> bool:
    if isinstance(columns, tuple) and columns in names:
        return False
    return not isinstance(columns, str | bytes) and np.iterable(columns)


def _position(wanted: Any, names: list, is_array: bool) -> int:
    if wanted in names:
        if names.count(wanted) > 1:
            raise ValueError(
                f"Expected one column of the name {wanted!r}, received {names.count(wanted)}. Rename columns "
                "by X.columns = [...]."
            )
        return names.index(wanted)
    if is_array and _is_whole(wanted) and -len(names) <= wanted < len(names):
        return int(wanted) % len(names)
    there = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
    what = f"positions from 0 to {len(names) - 1}, or names" if is_array else "names"
    raise ValueError(
        f"Expected {what} of columns of X, received {wanted!r}.{did_you_mean(wanted, names)} There are "
        f"{there}."
    )


def with_rows_of(X: Any, positions: Sequence[int], rows: np.ndarray) -> Any:
    """Return X (n, p) whose columns at some positions have the values of rows (n,); X stays as it is."""
    if hasattr(X, "isetitem"):
        # Only the columns that are set are copied.
        X = X.copy(deep=False)
        for position in positions:
            X.isetitem(position, X.iloc[:, position].array.take(rows))
        return X
    if sparse.issparse(X):
        columns, pieces, begin = X.tocsc(), [], 0
        for position in sorted(positions):
            pieces += [columns[:, begin:position], columns[:, [position]][rows]]
            begin = position + 1
        return sparse.hstack([*pieces, columns[:, begin:]], format="csr", dtype=X.dtype)
    X = X.copy()
    for position in positions:
        X[:, position] = X[rows, position]
    return X
