"""Partial dependence: the mean prediction if all rows have the same value in a column.

    sample (X, weight)          on one worker (`sampling`)
      Grid                      rows of the sample that have the values to try, of each column
      means (k,)                of the predictions with one of these values in all rows: a task each
    values, average ── in this process

A value is put into a column as the row has it that it is taken from, so that columns keep their dtypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from dasknn.cluster.graph import Graph
from dasknn.data import inputs
from dasknn.data.targets import has_decimals, is_decimal
from dasknn.evaluation.plan import add_models
from dasknn.evaluation.responders import Responder, classifier_of, responder_of, rows_for
from dasknn.evaluation.sampling import (
    Rows,
    Sampling,
    as_table,
    checked_number,
    chosen_columns,
    in_sample,
    tasks_for,
    with_rows_of,
)

# Kinds of dtypes whose values have an order and distances: numbers, dates and durations.
_ORDERED = "iufmM"
# How values are shown that are missing.
MISSING = "missing"


# --- the result ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class PartialDependence:
    """Result of `partial_dependence`; printed, it names the columns and the range of their averages.

    Attributes
    ----------
    feature_names : tuple
        The names of the columns.
    values : dict of name to array (m,)
        The values that were tried: ascending numbers or dates, or categories, None where they are missing.
    average : dict of name to array (k, m)
        The mean prediction for each value: a row for each class, or for each column of numbers.
    is_category : dict of name to bool
    classes : array (k,) or None
        The labels of the classes; None for numbers.
    response : {"predict_proba", "decision_function", "predict"}
        What was averaged.
    n_samples : int
        Rows of the sample.
    """

    feature_names: tuple
    values: dict[Any, np.ndarray]
    average: dict[Any, np.ndarray]
    is_category: dict[Any, bool]
    classes: np.ndarray | None
    response: str
    n_samples: int

    def __getitem__(self, name: str) -> Any:
        """Return an attribute by its name, as scikit-learn's Bunch does."""
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def labels(self, name: Any) -> list[str]:
        """Return the values of a column as text."""
        return [MISSING if value is None else str(value) for value in self.values[name].tolist()]

    def to_frame(self) -> Any:
        """Return a pandas dataframe with a row for each column, value and class (or output)."""
        from dasknn.evaluation.frames import WholeFrame

        outputs = self.classes if self.classes is not None else None
        table = [
            {"column": str(name), "value": value}
            | ({"output": number} if outputs is None else {"class": outputs[number]})
            | {"average": float(mean)}
            for name in self.feature_names
            for number, means in enumerate(self.average[name])
            for value, mean in zip(self.values[name], means, strict=True)
        ]
        return WholeFrame(table)

    def __repr__(self) -> str:
        width = max(len(str(name)) for name in self.feature_names)
        lines = [f"partial dependence of {self.response}, {self.n_samples:,} rows"]
        for name in self.feature_names:
            # Of two classes, the second says it all.
            means = self.average[name][-1 if self.classes is not None and len(self.classes) == 2 else 0 :]
            kind = "categories" if self.is_category[name] else "values"
            lines.append(
                f"  {name!s:<{width}}  {len(self.values[name])} {kind}, averages from {means.min():.4g} to "
                f"{means.max():.4g}"
            )
        return "\n".join(lines)


# --- what users call -------------------------------------------------------------------------------------


def partial_dependence(
    model: Any,
    X: Any,
    columns: Any,
    *,
    sample_weight: Any = None,
    grid_resolution: int = 50,
    percentiles: tuple[float, float] = (0.05, 0.95),
    max_categories: int = 20,
    max_samples: int | None = 10_000,
    random_state: Any = None,
    client: Any = None,
) -> PartialDependence:
    """Return the mean prediction of a model for each value of a column, all other columns as they are.

    A sample of the rows is drawn where the rows are, in one pass, and gathered on a worker. Then a task for
    each value gives all rows of the sample this value, and averages the predictions. With the same `X`,
    `max_samples` and `random_state`, the sample has the rows of `permutation_importance`.

    Parameters
    ----------
    model : estimator of dasknn, Sequential, Pipeline or any fitted estimator
        See `evaluate`. Values are put into X before the first step of a pipeline.
    X : dataframe or array (n, p), of Dask or plain
    columns : name, or list of names
        Columns of X by name, and those of an array also by position. None: all of them.
    sample_weight : array (n,), default=None
        Weights of rows in the averages.
    grid_resolution : int, default=50
        Most values of a column of numbers or dates: all of them if there are no more, otherwise quantiles,
        which lie closer where there are more rows.
    percentiles : tuple of float, default=(0.05, 0.95)
        The first and the last of the quantiles.
    max_categories : int, default=20
        Most values of a column of text, booleans or categories: the most frequent ones.
    max_samples : int, default=10_000
        Rows of the sample. None: all rows; they have to fit into the memory of a worker.
    random_state : int, RandomState instance or None, default=None
        Seed of the sample.
    client : distributed.Client, default=None
        See `permutation_importance`.

    Returns
    -------
    PartialDependence
        With `values` and `average`, each a dict by name of the column: arrays (m,) of the values, and (k, m)
        of the mean probability of each class, or the mean prediction of each number. Also `feature_names`,
        `classes`, `is_category`, `response`, `n_samples` and `to_frame()`. Classifiers without probabilities
        have averages of `decision_function`.

    Raises
    ------
    ValueError
        An unknown column, or one without values.
    PartitionError
        Bad data; the message names the partition.
    NotFittedError
        The model is not fitted.

    See Also
    --------
    permutation_importance : Which columns matter.

    Notes
    -----
    Where columns depend on one another, averages go over rows that do not occur, such as large flats with
    one room. Method: Friedman 2001, "Greedy function approximation", sec. 8.2.
    """
    low, high = _checked_percentiles(percentiles)
    settings = _Settings(
        checked_number("grid_resolution", grid_resolution, 2),
        low,
        high,
        checked_number("max_categories", max_categories, 1),
    )
    X, _, sample_weight = inputs.admit(X, None, sample_weight)
    responder = responder_of(model)
    response = "predict"
    if responder.classes is not None:
        responder = classifier_of(model)
        response = "predict_proba" if responder.has_proba else "decision_function"
    X = as_table(rows_for(model, X))
    chosen = chosen_columns(columns, X)
    sampling = Sampling(X, None, sample_weight, None, max_samples, random_state)
    # The number of values is known only after the data has been read; tasks beyond it return None.
    most = max(settings.grid_resolution, settings.max_categories)

    def add(graph: Graph) -> list[Any]:
        given, rows = add_models(tasks, graph, responder), sampling.add_to(tasks, graph)
        wanted = [graph.add("dasknn-count", _n_rows, rows)]
        for one in chosen:
            [position] = one.positions
            grid = graph.add("dasknn-grid", settings.grid, one.name, position, rows)
            wanted.append(grid)
            wanted += [
                graph.add("dasknn-average", partial(_means, position, number), given, rows, grid)
                for number in range(most)
            ]
        return wanted

    with tasks_for(model, sampling, client) as tasks:
        n_samples, *found = tasks.values_of(add)
    grids = found[:: most + 1]
    means = [found[begin + 1 : begin + 1 + most] for begin in range(0, len(found), most + 1)]
    names = tuple(one.name for one in chosen)
    return PartialDependence(
        feature_names=names,
        values={name: grid.values for name, grid in zip(names, grids, strict=True)},
        average={name: _columns(own) for name, own in zip(names, means, strict=True)},
        is_category={name: grid.is_category for name, grid in zip(names, grids, strict=True)},
        classes=responder.classes,
        response=response,
        n_samples=n_samples,
    )


def _checked_percentiles(percentiles: Any) -> tuple[float, float]:
    try:
        low, high = map(float, percentiles)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not 0 <= low < high <= 1:
        raise ValueError(
            f"Expected percentiles as two shares of rows, such as (0.05, 0.95), received {percentiles!r}."
        )
    return low, high


def _columns(means: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.stack([one for one in means if one is not None], axis=1)


# --- what tasks compute ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """The values of a column that are tried.

    Attributes
    ----------
    rows : int array (m,)
        Rows of the sample that have them.
    values : array (m,)
        Numbers or dates, or objects: categories, None where they are missing.
    is_category : bool
    """

    rows: np.ndarray
    values: np.ndarray
    is_category: bool


@dataclass(frozen=True)
class _Settings:
    """How the values of a column are chosen, as a picklable object."""

    grid_resolution: int
    low: float
    high: float
    max_categories: int

    def grid(self, name: Any, position: int, rows: Rows) -> Grid:
        """Return the grid of a column. ValueError: all of its values are missing."""
        column = _column(rows.X, position)
        codes = _codes(column)
        if _is_number(column):
            found = self._quantiles(_ascending(column, codes), codes)
            if not len(found):
                raise ValueError(
                    f"Expected values in column {name!r}, received none in the {len(codes):,} rows of the "
                    "sample: all are missing."
                )
            return Grid(found, _numbers(_taken(column, found)), False)
        found = self._most_frequent(column, codes)
        return Grid(found, _categories(_taken(column, found), codes[found]), True)

    def _quantiles(self, order: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return rows with all values, or with quantiles; order: rows with a value, the least first."""
        first = order[np.concatenate([[True], np.diff(codes[order]) != 0])] if len(order) else order
        if len(first) <= self.grid_resolution:
            return first
        shares = np.linspace(self.low, self.high, self.grid_resolution)
        # Values that there are: between two of them a whole number might not be whole.
        places = np.clip(np.ceil(shares * len(order)).astype(np.intp) - 1, 0, len(order) - 1)
        found = order[places]
        return found[np.concatenate([[True], np.diff(codes[found]) != 0])]

    def _most_frequent(self, column: Any, codes: np.ndarray) -> np.ndarray:
        """Return rows with the most frequent values, in the order of the categories where they have one."""
        _, first, counts = np.unique(codes, return_index=True, return_counts=True)
        most = np.lexsort([first, -counts])[: self.max_categories]
        ranks = _ranks(column)
        if ranks is not None:
            # Missing values, of rank NaN, last.
            most = most[np.argsort(ranks[first[most]], kind="stable")]
        return first[most]


def _n_rows(rows: Rows) -> int:
    return len(rows.keys)


def _means(position: int, number: int, responder: Responder, rows: Rows, grid: Grid) -> np.ndarray | None:
    """Return the mean predictions (k,) with one value of the grid in all rows; None: there are fewer."""
    if number >= len(grid.rows):
        return None
    n_rows = len(rows.keys)
    X = with_rows_of(rows.X, (position,), np.full(n_rows, grid.rows[number]))
    with in_sample(n_rows):
        predicted = responder.labels(X) if responder.classes is None else responder.scores(X)
    predicted = np.asarray(predicted, dtype=np.float64).reshape(n_rows, -1)
    return np.average(predicted, axis=0, weights=rows.weight)


# --- columns of a sample -----------------------------------------------------------------------------------


def _column(X: Any, position: int) -> Any:
    """Return a column as a pandas series or an array (n,)."""
    if hasattr(X, "iloc"):
        return X.iloc[:, position]
    if sparse.issparse(X):
        return X[:, [position]].toarray()[:, 0]
    return X[:, position]


def _taken(column: Any, rows: np.ndarray) -> Any:
    return column.array.take(rows) if hasattr(column, "array") else column[rows]


def _is_number(column: Any) -> bool:
    """Return whether a column holds numbers, dates or durations."""
    if getattr(column.dtype, "kind", "O") in _ORDERED or is_decimal(column.dtype):
        return True
    if hasattr(column, "array"):
        return has_decimals(column)
    # Arrays of objects may hold numbers beside columns of text.
    present = [value for value in column.tolist() if not _is_missing(value)]
    return bool(present) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _ranks(column: Any) -> np.ndarray | None:
    """Return float64 (n,) in the order of ordered categories or booleans, NaN where a value is missing."""
    if getattr(column.dtype, "ordered", False):
        codes = np.asarray(column.cat.codes, dtype=np.float64)
        return np.where(codes < 0, np.nan, codes)
    if getattr(column.dtype, "kind", "O") != "b":
        return None
    if hasattr(column, "to_numpy"):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.astype(np.float64)


def _codes(column: Any) -> np.ndarray:
    """Return a number for each value (n,), the same for equal ones, and -1 where a value is missing."""
    if hasattr(column, "factorize"):
        return np.asarray(column.factorize()[0])
    if column.dtype.kind in _ORDERED:
        codes = np.unique(column, return_inverse=True)[1]
        return np.where(column == column, codes, -1)
    known: dict[Any, int] = {}
    return np.array(
        [-1 if _is_missing(value) else known.setdefault(value, len(known)) for value in column.tolist()],
        dtype=np.intp,
    )


def _ascending(column: Any, codes: np.ndarray) -> np.ndarray:
    """Return the rows that have a value, the least value first."""
    present = np.flatnonzero(codes >= 0)
    values = _taken(column, present)
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        values = values.astype(np.float64)
    return present[np.asarray(values.argsort(kind="stable"))]


def _numbers(values: Any) -> np.ndarray:
    """Return numbers as float64, dates and durations as they are."""
    kind = getattr(values.dtype, "kind", "O")
    if kind in "mM":
        # Without the time zone, in which a date is shown.
        values = values.tz_localize(None) if getattr(values.dtype, "tz", None) is not None else values
        return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if hasattr(values, "to_numpy"):
        return values.to_numpy(dtype=np.float64)
    return values.astype(np.float64)


def _categories(values: Any, codes: np.ndarray) -> np.ndarray:
    found = np.empty(len(codes), dtype=object)
    for number, (value, code) in enumerate(zip(values.tolist(), codes.tolist(), strict=True)):
        found[number] = None if code < 0 else value.item() if isinstance(value, np.generic) else value
    return found
