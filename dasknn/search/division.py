"""How the rows of a search are divided: in those that networks are trained on, and those that are scored.

columns ── by groups, times, folds of plain data ── sides ── loaded ── at random, by partitions ── pieces
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv

from dasknn._compat.sklearn import _safe_indexing
from dasknn.cluster.executor import Executor
from dasknn.data import groups, partitions, times
from dasknn.data.loading import Loaded
from dasknn.training.fit import Columns


@dataclass(frozen=True)
class Division:
    """How rows are divided in those to train on and those to score, as the user said it.

    Attributes
    ----------
    share : float
        Share of the rows, if nothing else says which.
    data : Columns or None
        Rows of their own.
    cv : int, splitter, list of (rows to train on, rows to score) or None
        Folds, each of which is scored by networks that are trained on the others. A splitter until `fixed`.
    groups, time : array or series (n,), Dask series, or None
        Rows of one group stay together; or the latest rows are scored.
    last : bool
        Whether the share is that of the last rows.
    seed : int
    """

    share: float = 0.15
    data: Columns | None = None
    cv: Any = None
    groups: Any = None
    time: Any = None
    last: bool = False
    seed: int = 0
    #: Whether the best network is trained again on all rows.
    trains_all: bool = False

    @property
    def n_splits(self) -> int:
        """How many networks a trial trains."""
        if self.cv is None:
            return 1
        return int(self.cv) if isinstance(self.cv, Integral) else len(self.cv)

    def fixed(self, columns: Columns) -> Division:
        """Return the same with folds of these columns that are the same each time.

        ValueError: a splitter does not say which rows are scored.
        """
        is_number = isinstance(self.cv, Integral)
        if self.cv is None or (is_number and (self.groups is None or columns.is_distributed)):
            return self
        if columns.is_distributed:
            self._check_folds_of_partitions()
            return replace(self, cv=int(self.cv.get_n_splits()))
        splitter = GroupKFold(int(self.cv)) if is_number else copy(self.cv)
        if getattr(splitter, "random_state", 0) is None and getattr(splitter, "shuffle", True):
            splitter.random_state = self.seed
        X = np.empty((partitions.n_samples(columns.X), 1))
        folds = list(splitter.split(X, columns.y, self.groups))
        _check_folds(folds, splitter, len(X), self.groups)
        return replace(self, cv=folds)

    def _check_folds_of_partitions(self) -> None:
        """Raise ValueError for a splitter that says more than how many folds there are."""
        known: tuple[type, ...] = (KFold, StratifiedKFold)
        if self.groups is not None:
            known = (GroupKFold, StratifiedGroupKFold)
        if type(self.cv) not in known:
            names = " or ".join(one.__name__ for one in known)
            raise ValueError(
                f"Expected cv to be a number of folds, or {names}, since folds of Dask collections are of "
                f"whole partitions, or of groups=; received {self.cv!r}. Use validation=(X, y) for rows that "
                "you choose."
            )


class Piece(NamedTuple):
    """Some of the rows; `fold` is the split in which they are scored, None: they are always trained on."""

    loaded: Loaded
    fold: int | None


class Sides(NamedTuple):
    """Columns that were divided before they are loaded: rows to learn the columns from, and each piece.

    pieces: (columns, fold); None: rows are divided after loading.
    """

    learned: Columns
    pieces: list[tuple[Columns, int | None]] | None


def sides_of(columns: Columns, division: Division, executor: Executor, is_classifier: bool) -> Sides:
    """Divide columns, if groups, times, folds of plain data or rows of their own say how.

    ValueError: what divides the rows does not fit them.
    """
    given = dict(zip(Columns._fields, columns, strict=True))
    if division.data is not None:
        return Sides(columns, [(columns, None), (division.data, 0)])
    if division.cv is not None:
        if not columns.is_distributed:
            return Sides(columns, _folds_of_plain(columns, division, is_classifier))
        if division.groups is None:
            return Sides(columns, None)
        return Sides(columns, _folds_of_groups(given, division, executor))
    if division.groups is not None:
        kept, held = groups.split(given, division.groups, division.share, division.seed, executor)
    elif division.time is not None:
        kept, held = times.split(given, division.time, division.share, executor)
    else:
        return Sides(columns, None)
    assert held is not None, "no least number of rows was asked for"
    left = Columns(**kept)
    return Sides(left, [(left, None), (Columns(**held), 0)])


def _folds_of_plain(
    columns: Columns, division: Division, is_classifier: bool
) -> list[tuple[Columns, int | None]]:
    """Return the rows of each fold, as scikit-learn chooses them."""
    X, y, weight = columns
    n_rows = partitions.n_samples(X)
    of_row = np.full(n_rows, -1)
    splitter = check_cv(division.cv, y, classifier=is_classifier)
    for fold, (_, test) in enumerate(splitter.split(np.empty((n_rows, 1)), y)):
        of_row[test] = fold
    found: list[tuple[Columns, int | None]] = []
    for fold in sorted(set(of_row.tolist())):
        rows = np.flatnonzero(of_row == fold)
        own = [None if column is None else _safe_indexing(column, rows) for column in (X, y, weight)]
        found.append((Columns(*own), None if fold < 0 else fold))
    return found


def _check_folds(folds: list[tuple[Any, Any]], splitter: Any, n_rows: int, groups: Any) -> None:
    """Raise ValueError if a row is in two folds, or in none of the sides of one, or a group is in two."""
    of_row = np.full(n_rows, -1)
    for fold, (train, test) in enumerate(folds):
        if (of_row[test] >= 0).any() or len(train) + len(test) != n_rows:
            raise ValueError(
                f"Expected cv to score each row in at most one fold, and to train on all others, received "
                f"{splitter!r}. Use KFold, StratifiedKFold or GroupKFold, or time= with validation=."
            )
        of_row[test] = fold
    if groups is None:
        return
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(set(zip(numbers.tolist(), of_row.tolist(), strict=True))) > numbers.max() + 1:
        raise ValueError(
            f"Expected cv to keep the rows of each group in one fold, received {splitter!r}. Use a number of "
            "folds, GroupKFold or StratifiedGroupKFold."
        )


def _folds_of_groups(
    columns: dict[str, Any], division: Division, executor: Executor
) -> list[tuple[Columns, int | None]]:
    """Return the rows of each fold: whole groups, one share of them after the other."""
    found: list[tuple[Columns, int | None]] = []
    left, n_splits = {**columns, "groups": division.groups}, division.n_splits
    for fold in range(n_splits - 1):
        share, seed = 1 / (n_splits - fold), division.seed + fold
        kept, held = groups.split(left, left["groups"], share, seed, executor)
        assert held is not None, "no least number of rows was asked for"
        found.append((_without_groups(held), fold))
        left = kept
    return [*found, (_without_groups(left), n_splits - 1)]


def _without_groups(columns: dict[str, Any]) -> Columns:
    return Columns(**{name: column for name, column in columns.items() if name != "groups"})


def pieces_of(loaded: Loaded, division: Division, executor: Executor) -> list[Piece]:
    """Divide loaded rows. ValueError: too few rows or partitions."""
    if division.cv is not None:
        return _folds_of_partitions(loaded, division.n_splits)
    if division.last:
        left, held_out = loaded.hold_out_last(executor, math.ceil(loaded.n_rows * division.share))
    else:
        left, held_out = loaded.hold_out(executor, division.share, division.seed)
    return [Piece(left, None), Piece(held_out, 0)]


def _folds_of_partitions(loaded: Loaded, n_splits: int) -> list[Piece]:
    numbers = [number for number, info in enumerate(loaded.infos) if info.n_rows]
    if len(numbers) < n_splits:
        raise ValueError(
            f"Expected at least one partition for each of {n_splits} folds, received {len(numbers)} with "
            "rows. Use fewer folds, more partitions (X.repartition, X.rechunk), or groups."
        )
    folds = loaded.divided([numbers[fold::n_splits] for fold in range(n_splits)])
    return [Piece(part, fold) for fold, part in enumerate(folds)]
