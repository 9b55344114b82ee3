"""Learns the columns of a raw table in one pass over its partitions, where they lie.

X, y ── parts ── TableSummary of each ── sum, in order ── columns ── TableEncoder
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from dask.base import is_dask_collection

from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import inputs, partitions
from dasknn.data.blocks import refuse
from dasknn.data.preprocessing import check_names_of_columns, named_by_text
from dasknn.data.tables.bins import greedy_edges, quantile_edges, tree_edges
from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.kinds import (
    MOST_BINS,
    MOST_CODES,
    Binary,
    Binned,
    CategoryColumn,
    Column,
    IgnoredColumn,
    NumberColumn,
    part_names,
)
from dasknn.data.tables.reading import DATE, Table, chosen_columns, names_of_positions
from dasknn.data.tables.sketch import NumberSketch
from dasknn.data.tables.summaries import (
    CategorySummary,
    ColumnSummary,
    MissingSummary,
    NumbersSummary,
    RowSample,
    TableSummary,
    merged,
)

# By default, values of fewer rows share a code: a network would learn their own from a few examples only, and
# the shared code learns what to say of values that it has never seen. Columns of few values keep them all,
# and so do small tables, where each row counts.
_RARE_ROWS, _FEW_VALUES, _SMALL_TABLE = 5, 30, 1_000
# A column with more distinct values than this share of its rows names the rows, and says nothing of others.
_MOST_DISTINCT = 0.9
# Integers in y are classes to a tree, unless there are more distinct ones.
_MOST_CLASSES = 100


@dataclass(frozen=True)
class _Settings:
    """How columns are learned; see `learn_table`."""

    n_bins: int
    bins: str
    min_frequency: int | float | None
    max_categories: int
    hash_bins: int
    task: str | None
    rows_of_bin: int

    def __post_init__(self) -> None:
        for name, least, most in (
            ("n_bins", 1, MOST_BINS),
            ("max_categories", 1, MOST_CODES // 2),
            ("hash_bins", 1, MOST_CODES // 2),
            ("rows_of_bin", 1, 2**31),
        ):
            value = getattr(self, name)
            is_integer = isinstance(value, Integral) and not isinstance(value, bool)
            if not is_integer or not least <= int(value) <= most:
                raise ValueError(f"Expected {name} from {least} to {most:,}, received {value!r}.")
        for name, allowed in (
            ("bins", ("greedy", "quantile", "tree")),
            ("task", ("classification", "regression", None)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Expected {name} among {allowed}, received {getattr(self, name)!r}.")
        share = self.min_frequency
        if share is not None and not (
            isinstance(share, Real) and (share >= 1 if isinstance(share, Integral) else 0 < share < 1)
        ):
            raise ValueError(
                f"Expected min_frequency to be a number of rows, a share between 0 and 1, or None, received "
                f"{share!r}."
            )

    def most_bins(self, sketch: NumberSketch) -> int:
        """Return the most bins of a number."""
        return max(2, min(self.n_bins, int(sketch.weights.sum()) // self.rows_of_bin))

    def least_rows(self, n_rows: int, n_values: int) -> float:
        """Return the number of rows below which a value of a category with n_values is rare."""
        if self.min_frequency is None:
            return _RARE_ROWS if n_values > _FEW_VALUES and n_rows >= _SMALL_TABLE else 1
        if isinstance(self.min_frequency, Integral):
            return int(self.min_frequency)
        return self.min_frequency * n_rows


def learn_table(
    X: Any,
    y: Any = None,
    *,
    categorical_features: Any = None,
    n_bins: int = 48,
    bins: str = "greedy",
    min_frequency: int | float | None = None,
    max_categories: int = 4_096,
    hash_bins: int = 4_096,
    task: str | None = None,
    rows_of_bin: int = 1,
    dtype: str = "float32",
    executor: Executor | None = None,
) -> TableEncoder:
    """Learn how to encode the columns of a raw table, in one pass over its rows.

    Parameters
    ----------
    X : dataframe, array or sparse matrix of shape (n_samples, n_features), or a Dask collection of them
        Numbers, booleans, text, categories, decimals, dates, durations; missing values of all kinds.
    y : array or series of shape (n_samples,) or (n_samples, n_outputs), or None
        Targets, which only bins='tree' needs.
    categorical_features : list of str or int, mask or None
        Columns of numbers or booleans that are categories: their names, their positions, or a mask. Text and
        pandas' categories are categories in any case.
    n_bins : int, default=48
        Most bins of a number. Numbers with at most n_bins + 1 distinct values have an edge at each of them
        (not with bins='tree').
    bins : {'greedy', 'quantile', 'tree'}, default='greedy'
        How edges are chosen: values of many rows get edges of their own and the others equal shares;
        quantiles; or thresholds of a decision tree for each number, learned from 20,000 rows and y.
    min_frequency : int, float or None, default=None
        Values of categories with fewer rows (int), or a smaller share of all rows (float), share a code.
        None stands for 5 rows; for 1 in tables of less than 1,000 rows, and for columns of at most 30
        values.
    max_categories : int, default=4096
        Most values of a column with codes of their own, the most frequent ones; the others are hashed. By
        default as many as hash_bins: hashing fewer would save no codes, and mix values.
    hash_bins : int, default=4096
        Most codes of hashed values. Columns with more than 20,000 distinct values are hashed as a whole.
    rows_of_bin : int, default=1
        Least rows for each bin, on average: small tables have fewer bins.
    task : {'classification', 'regression'} or None
        What y is, for bins='tree'; None to judge by its values.
    dtype : {'float32', 'float64'}, default='float32'
        Data type of the encoded columns.
    executor : Executor or None
        What runs the tasks for a Dask collection; None for the current client, or this process.

    Returns
    -------
    TableEncoder

    Raises
    ------
    ValueError
        Settings that make no sense; no rows; columns that are neither of these kinds. A `PartitionError`,
        which names the partition and the row, for infinity and for values of several kinds in one column.
    """
    settings = _Settings(n_bins, bins, min_frequency, max_categories, hash_bins, task, rows_of_bin)
    if dtype not in ("float32", "float64"):
        raise ValueError(f"Expected dtype to be 'float32' or 'float64', received {dtype!r}.")
    if bins == "tree" and y is None:
        raise ValueError("Expected y, from which bins='tree' learns; received none. Or use bins='greedy'.")
    X = inputs.admitted("X", X)
    is_named = partitions.is_dataframe(X)
    names = _names_of(X)
    categories = chosen_columns(categorical_features, names)
    found = _find(X, y if bins == "tree" else None, names, categories, executor)
    refuse(found.problem)
    if not found.n_rows:
        raise ValueError("Expected at least one row to learn from, found none.")
    columns = tuple(_learn(name, found.columns[name], found, settings) for name in names)
    return TableEncoder(columns, dtype, is_named)


def _names_of(X: Any) -> tuple[str, ...]:
    """Return the names of the columns of X, Dask or not. ValueError: it has no columns."""
    if partitions.is_dataframe(X):
        # Columns of a Dask series would be an error here.
        names = [str(name) if isinstance(name, Integral) else name for name in X.columns]
        check_names_of_columns(names)
        found = tuple(names)
    elif not is_dask_collection(X):
        found = Table.of(X).names
    elif partitions.is_dask_frame(X):
        raise ValueError("Expected X of shape (n, p), received a Series. Use X.to_frame().")
    else:
        partitions.check_chunks(X)
        if X.ndim != 2:
            raise ValueError(f"Expected X of shape (n, p), received shape {X.shape}.")
        found = names_of_positions(X.shape[1])
    if not found:
        raise ValueError("Expected at least one column, received none.")
    return found


# --- the pass over the rows --------------------------------------------------------------------------


def _find(
    X: Any, y: Any, names: tuple[str, ...], categories: frozenset[str], executor: Executor | None
) -> TableSummary:
    if not partitions.is_distributed(X):
        return TableSummary.of(names, categories, X, y)
    parts = partitions.parts(named_by_text(X) if partitions.is_dataframe(X) else X, y)

    def add_summaries(graph: Graph) -> list[Any]:
        found = [
            graph.add(
                "dasknn-summarize",
                partial(_summarize, names, categories, part.names, number),
                *part.add_to(graph),
            )
            for number, part in enumerate(parts)
        ]
        # Summed on the workers: those of thousands of partitions would be much for the client.
        return graph.add_tree(merged, found)

    if executor is not None:
        return executor.values_of(add_summaries)[0]
    with connect(None, distributed=True, data=(X,)) as tasks:
        return tasks.values_of(add_summaries)[0]


def _summarize(
    names: tuple[str, ...],
    categories: frozenset[str],
    columns: tuple[tuple[str, ...], ...],
    number: int,
    *values: Any,
) -> TableSummary:
    """Summarize a partition. columns, values: those of its `Part`."""
    found = partitions.columns_of(columns, values)
    return TableSummary.of(names, categories, found["X"], found["y"], number)


# --- what is learned of a column ---------------------------------------------------------------------


def _learn(name: str, summary: ColumnSummary, table: TableSummary, settings: _Settings) -> Column:
    if isinstance(summary, MissingSummary):
        return IgnoredColumn(name, "no value is known", True)
    if isinstance(summary, CategorySummary):
        return _learn_category(name, summary, table.n_rows, settings)
    return _learn_numbers(name, summary, table.sample, settings)


def _learn_category(
    name: str, summary: CategorySummary, n_rows: int, settings: _Settings
) -> CategoryColumn | IgnoredColumn:
    counts, has_missing = summary.counts, summary.n_missing > 0
    if counts is None:
        return CategoryColumn(name, summary.holds, (), settings.hash_bins, has_missing)
    least = settings.least_rows(n_rows, len(counts))
    kept = [value for value, n in counts.items() if n >= least]
    n_shared = int(len(kept) < len(counts))
    if len(kept) > settings.max_categories:
        # Of equally frequent ones, the first in their order.
        kept = sorted(kept, key=lambda value: (-counts[value], value))[: settings.max_categories]
        n_shared = min(settings.hash_bins, len(counts) - len(kept))
    if not kept and settings.min_frequency is None and len(counts) <= _MOST_DISTINCT * n_rows:
        # They are rare, but tell rows apart: customers of a few rows each, for instance.
        n_shared = min(settings.hash_bins, len(counts))
    if len(kept) + n_shared == 1 and not has_missing:
        return IgnoredColumn(name, "all rows have one value" if kept else "all values are rare", False)
    return CategoryColumn(name, summary.holds, tuple(sorted(kept)), n_shared, has_missing)


def _learn_numbers(
    name: str, summary: NumbersSummary, sample: RowSample | None, settings: _Settings
) -> NumberColumn | IgnoredColumn:
    sampled = None if sample is None else sample.numbers.get(name)
    parts: list[Binned | Binary] = []
    origin = None
    for place, (part, sketch) in enumerate(zip(part_names(summary.kind), summary.sketches, strict=True)):
        numbers = None if sampled is None else sampled[place]
        if summary.kind == DATE and part == "days":
            origin = float(sketch.values[0])
            sketch, numbers = sketch.less(origin), None if numbers is None else numbers - origin
        if len(sketch.values) == 2:
            parts.append(Binary(part, *sketch.values.tolist()))
        elif len(sketch.values) > 2:
            edges = _edges(sketch, numbers, sample, settings)
            parts.append(Binned.of(part, *sketch.center_and_scale(), edges))
    if not parts and not summary.n_missing:
        return IgnoredColumn(name, "all rows have one value", False)
    return NumberColumn(name, summary.kind, tuple(parts), summary.n_missing > 0, summary.zone, origin)


def _edges(
    sketch: NumberSketch, numbers: np.ndarray | None, sample: RowSample | None, settings: _Settings
) -> np.ndarray:
    n_bins = settings.most_bins(sketch)
    # Trees need a row of the sample in which the number is known.
    if sample is not None and numbers is not None:
        is_classifier = _is_classes(sample.y, settings.task)
        return tree_edges(sketch, n_bins, numbers, sample.y, is_classifier)
    choose = quantile_edges if settings.bins == "quantile" else greedy_edges
    return choose(sketch, n_bins)


def _is_classes(y: np.ndarray, task: str | None) -> bool:
    if task is not None:
        return task == "classification"
    if y.dtype.kind == "f":
        return False
    return y.dtype.kind not in "iu" or len(np.unique(y)) <= _MOST_CLASSES
