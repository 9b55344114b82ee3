"""The rows of a search: loaded once, split once into sides, and visited by all trials that agree on them.

    columns ── split by groups or times ── prepared, loaded ── split at random, or by partitions ── pieces
    pieces ── stations ◄── networks travel here

Trials share a ground if their settings ask for the same preparation. Each split of a ground is a way to
divide its rows in those to train on and those to score: one split, or one for each fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from numbers import Integral
from operator import add
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv

from dasknn._compat.dask import TaskRef
from dasknn._compat.sklearn import _safe_indexing
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import groups, partitions, stations, times
from dasknn.data.blocks import Block, concatenate
from dasknn.data.loading import Loaded, NoWeightError
from dasknn.data.targets import ClassSummary, NumberSummary, RowWeights, Summarize, Summary, TargetEncoder
from dasknn.engine.state import TrainingJob
from dasknn.exceptions import PartitionError
from dasknn.search.ahead import Ahead, OnHopsAhead, Question
from dasknn.strategies import Strategy
from dasknn.training import prediction
from dasknn.training.datasets import Rows, RowsOnWorkers, make_shard
from dasknn.training.fit import Columns
from dasknn.training.hopping import Hopper, Journey
from dasknn.training.hops import layout_of
from dasknn.training.prediction import Predictor, Score
from dasknn.training.transport import Transport


@dataclass(frozen=True)
class Scoring:
    """Which rows are scored, as the user said it.

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

    def fixed(self, columns: Columns) -> Scoring:
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


def sides_of(columns: Columns, scoring: Scoring, executor: Executor, is_classifier: bool) -> Sides:
    """Divide columns, if groups, times, folds of plain data or rows of their own say how.

    ValueError: what divides the rows does not fit them.
    """
    given = dict(zip(Columns._fields, columns, strict=True))
    if scoring.data is not None:
        return Sides(columns, [(columns, None), (scoring.data, 0)])
    if scoring.cv is not None:
        if not columns.is_distributed:
            return Sides(columns, _folds_of_plain(columns, scoring, is_classifier))
        if scoring.groups is None:
            return Sides(columns, None)
        return Sides(columns, _folds_of_groups(given, scoring, executor))
    if scoring.groups is not None:
        kept, held = groups.split(given, scoring.groups, scoring.share, scoring.seed, executor)
    elif scoring.time is not None:
        kept, held = times.split(given, scoring.time, scoring.share, executor)
    else:
        return Sides(columns, None)
    assert held is not None, "no least number of rows was asked for"
    left = Columns(**kept)
    return Sides(left, [(left, None), (Columns(**held), 0)])


def _folds_of_plain(
    columns: Columns, scoring: Scoring, is_classifier: bool
) -> list[tuple[Columns, int | None]]:
    """Return the rows of each fold, as scikit-learn chooses them."""
    X, y, weight = columns
    n_rows = partitions.n_samples(X)
    of_row = np.full(n_rows, -1)
    splitter = check_cv(scoring.cv, y, classifier=is_classifier)
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
    columns: dict[str, Any], scoring: Scoring, executor: Executor
) -> list[tuple[Columns, int | None]]:
    """Return the rows of each fold: whole groups, one share of them after the other."""
    found: list[tuple[Columns, int | None]] = []
    left, n_splits = {**columns, "groups": scoring.groups}, scoring.n_splits
    for fold in range(n_splits - 1):
        share, seed = 1 / (n_splits - fold), scoring.seed + fold
        kept, held = groups.split(left, left["groups"], share, seed, executor)
        assert held is not None, "no least number of rows was asked for"
        found.append((_without_groups(held), fold))
        left = kept
    return [*found, (_without_groups(left), n_splits - 1)]


def _without_groups(columns: dict[str, Any]) -> Columns:
    return Columns(**{name: column for name, column in columns.items() if name != "groups"})


def pieces_of(loaded: Loaded, scoring: Scoring, executor: Executor) -> list[Piece]:
    """Divide loaded rows. ValueError: too few rows or partitions."""
    if scoring.cv is not None:
        return _folds_of_partitions(loaded, scoring.n_splits)
    if scoring.last:
        left, held_out = loaded.hold_out_last(executor, math.ceil(loaded.n_rows * scoring.share))
    else:
        left, held_out = loaded.hold_out(executor, scoring.share, scoring.seed)
    return [Piece(left, None), Piece(held_out, 0)]


def _folds_of_partitions(loaded: Loaded, n_splits: int) -> list[Piece]:
    numbers = [number for number, info in enumerate(loaded.infos) if info.n_rows]
    if len(numbers) < n_splits:
        raise ValueError(
            f"Expected at least one partition for each of {n_splits} folds, received {len(numbers)} with "
            "rows. Use fewer folds, more partitions (X.repartition, X.rechunk), or groups."
        )
    return [Piece(loaded.part(numbers[fold::n_splits]), fold) for fold in range(n_splits)]


@dataclass(eq=False)
class Ground:
    """Rows that some trials share, and what was learned of them.

    Attributes
    ----------
    pieces : list of Piece
    targets : Summary
        Of all rows.
    scored : list of Summary
        Of the rows that each split scores.
    dtype : str
    learned : dict
        Attributes that reading the rows has given to a model, which those of other trials get, too.
    n_splits : int
    columns : Columns
        As fits take them.
    preparation : object
        What has prepared the columns.
    like : Ground or None
        Another ground of the same rows, whose stations have the same ones.
    """

    executor: Executor
    hopper: Hopper
    pieces: list[Piece]
    targets: Summary
    scored: list[Summary]
    dtype: str
    learned: dict[str, Any]
    n_splits: int
    columns: Columns
    preparation: Any = None
    like: Ground | None = None
    trains_all: bool = False
    _stations: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for split in range(self.n_splits):
            if not self.rows_of(split, scored=True):
                raise ValueError(
                    "Expected at least one row to score, received none. Use a larger share (validation=), or "
                    "pass rows: validation=(X, y)."
                )
            if not self.rows_of(split, scored=False):
                raise ValueError(
                    "Expected rows to train on, received none besides those that are scored. Use a smaller "
                    "share (validation=)."
                )
            _require_classes(self.targets, self.scored[split])
            _require_weight(self.targets, self.scored[split])

    def _pieces(self, split: int, scored: bool) -> list[int]:
        return [number for number, piece in enumerate(self.pieces) if (piece.fold == split) is scored]

    def rows_of(self, split: int, scored: bool) -> int:
        """Return the number of rows that are scored in a split, or trained on."""
        return sum(self.pieces[number].loaded.n_rows for number in self._pieces(split, scored))

    def stations(self, split: int, scored: bool) -> list[int]:
        """Return the stations of the rows that are scored in a split, or trained on."""
        return [n for number in self._pieces(split, scored) for n in self._stations[number]]

    def settle(self, encoder: TargetEncoder, weights: RowWeights | None) -> None:
        """Make the stations, unless they are there."""
        if self._stations:
            return
        self.encoder = encoder
        places = self.hopper.stations
        make = partial(make_shard, encoder, weights)
        several = self.n_splits > 1 or self.trains_all
        for number, (loaded, fold) in enumerate(self.pieces):
            trained = None if fold is not None and not several else make
            n = None if self.like is None else len(self.like._stations[number])
            self._stations.append(places.add(loaded, trained, scored=fold is not None, n=n))
        places.spread()
        places.release_blocks()

    def layout(self, split: int) -> dict[str, Any]:
        """Return what of the data the weights depend on."""
        numbers = self.stations(split, False)
        first = self.pieces[self._pieces(split, False)[0]].loaded
        return layout_of(self.hopper.stations, numbers, first)


class RowsToTrainOn(Rows):
    """The rows of a ground that a network travels to."""

    def __init__(
        self,
        ground: Ground,
        split: int,
        pace: Any,
        priority: Callable[[], tuple],
        ahead: Ahead,
        n_allowed: Callable[[], int],
    ):
        self._ground, self._split, self._pace, self._priority = ground, split, pace, priority
        self._ahead, self._n_allowed = ahead, n_allowed
        self.executor = ground.executor

    @property
    def dtype(self) -> str:
        return self._ground.dtype

    @property
    def n_rows(self) -> int:
        return self._ground.rows_of(self._split, scored=False)

    def summary(self, summarize: Summarize) -> Summary:
        """Return the summary of all rows, those that are scored among them."""
        return self._ground.targets

    def warn_of_skew(self, are_cut: bool) -> bool:
        return False

    def draw_seed(self, rng: np.random.RandomState) -> int:
        return int(rng.randint(2**31 - 1))

    def hold_out(self, fraction: float, encoder: Any) -> Rows:
        raise NotImplementedError("a search has divided its rows")

    def transport(
        self,
        job: TrainingJob,
        strategy: Strategy,
        encoder: TargetEncoder,
        weights: RowWeights | None,
        name: str,
    ) -> Transport:
        ground = self._ground
        ground.settle(encoder, weights)
        numbers = ground.stations(self._split, scored=False)
        layout = ground.layout(self._split)
        return OnHopsAhead(
            job,
            ground.hopper,
            numbers,
            layout,
            self._pace,
            self._priority,
            self._ahead,
            ground.stations(self._split, scored=True),
            self._n_allowed,
        )

    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        raise NotImplementedError("these rows are trained on")

    def total(self, function: Callable[[Any, Any], Any], model: Any) -> Any:
        raise NotImplementedError("these rows are trained on")


class RowsToScore(Rows):
    """The rows of a ground on which a network is scored, where they lie.

    Any thread but that of the hopper may ask.
    """

    def __init__(self, ground: Ground, split: int, pace: Any, priority: Callable[[], tuple], ahead: Ahead):
        self._ground, self._split, self._ahead = ground, split, ahead
        self._pace, self._priority = (pace, "score"), priority
        self.executor = ground.executor

    @property
    def dtype(self) -> str:
        return self._ground.dtype

    @property
    def n_rows(self) -> int:
        return self._ground.rows_of(self._split, scored=True)

    def summary(self, summarize: Summarize) -> Summary:
        return self._ground.scored[self._split]

    def warn_of_skew(self, are_cut: bool) -> bool:
        return False

    def draw_seed(self, rng: np.random.RandomState) -> int:
        raise NotImplementedError("nobody trains on these rows")

    def hold_out(self, fraction: float, encoder: Any) -> Rows:
        raise NotImplementedError("nobody trains on these rows")

    def transport(self, *settings: Any, **more: Any) -> Transport:
        raise NotImplementedError("nobody trains on these rows")

    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        return self.total(partial(prediction.validate_block, metric, weights), predictor).result()

    def total(self, function: Callable[[Any, Any], Any], model: Any) -> Any:
        found = self._ahead.answer(Question(function, model))
        if found is None:
            found = self._ground.hopper.send(self.journey(function, model)).result()
        return reduce(add, found)

    def journey(self, function: Callable[[Any, Any], Any], model: Any) -> Journey:
        """Return the journey that brings (function(model, block), ...) of all stations."""
        visit = partial(_visit, function, model)
        visits = [(number, visit) for number in self._ground.stations(self._split, scored=True)]
        return Journey(visits, (), pace=self._pace, priority=self._priority())

    def gathered(self, function: Callable[[Any, Any, np.ndarray], float], model: Any) -> float:
        """Return function(model, X, y) of all rows, which one worker gathers."""
        numbers = self._ground.stations(self._split, scored=True)
        visits = [(number, partial(_gather, function, model, number == numbers[-1])) for number in numbers]
        journey = Journey(visits, (), pace=self._pace, priority=self._priority())
        return self._ground.hopper.send(journey).result()


def _gather(function: Callable[..., float], model: Any, is_last: bool, found: tuple, station: Any) -> Any:
    found = (*found, (station.block.X, station.block.y))
    if not is_last:
        return found
    X, y = (concatenate([one[column] for one in found]) for column in (0, 1))
    return function(model, X, y)


def _visit(function: Callable[[Any, Any], Any], model: Any, found: tuple, station: Any) -> tuple:
    try:
        return (*found, function(model, station.block))
    except PartitionError as error:
        error.add_note("This happened while rows were scored.")
        raise


def ground_of(
    fit: Any,
    columns: Columns,
    scoring: Scoring,
    executor: Executor,
    hopper: Hopper,
    is_classifier: bool,
    preparation: Any = None,
    like: Ground | None = None,
) -> Ground:
    """Load rows for a fit, and for all that agree with it on how they are prepared.

    ValueError: data that cannot be trained on (a PartitionError names the partition).
    """
    model = fit.model
    before = set(vars(model))
    sides = sides_of(columns, scoring, executor, is_classifier)
    prepared = fit.prepare(sides.learned)
    pieces: list[Piece] = []
    scored: list[Summary] = []
    if sides.pieces is None:
        rows: RowsOnWorkers = fit.read(executor, prepared)
        fit.look_at(_Quiet.of(rows))
        pieces, targets = pieces_of(rows.loaded, scoring, executor), rows.loaded.targets
        scored = [_targets_of(executor, loaded, fit) for loaded, fold in pieces if fold is not None]
    else:
        for own, fold in sides.pieces:
            is_learned = own is sides.learned
            rows = fit.read(
                executor,
                prepared if is_learned else fit.prepare_validation(own),
                is_validation=bool(pieces) and not is_learned,
            )
            if not pieces:
                fit.look_at(_Quiet.of(rows))
            pieces.append(Piece(rows.loaded, fold))
        targets = reduce(add, (loaded.targets for loaded, _ in pieces))
        scored = [loaded.targets for loaded, fold in pieces if fold is not None]
    learned = {name: value for name, value in vars(model).items() if name not in before}
    return Ground(
        executor,
        hopper,
        pieces,
        targets,
        scored,
        rows.dtype,
        learned,
        scoring.n_splits,
        columns,
        preparation,
        like,
        scoring.trains_all,
    )


class _Quiet:
    """What a fit looks at of rows that become one station: then it does not matter how they lie."""

    def __init__(self, dtype: str):
        self.dtype = dtype

    @staticmethod
    def of(rows: RowsOnWorkers) -> Any:
        """Return the rows, or what is to be known of them."""
        is_one = sum(info.nbytes for info in rows.loaded.infos) <= stations.STATION_BYTES
        return _Quiet(rows.dtype) if is_one else rows

    def warn_of_skew(self, are_cut: bool) -> bool:
        return False


def _targets_of(executor: Executor, loaded: Loaded, fit: Any) -> Summary:
    """Return the summary of the targets of some of the rows of blocks."""
    if loaded.blocks is None or loaded.taken is None:
        # Of whole blocks, or too long to look at once more.
        return loaded.targets
    summarize = partial(_summarize, fit.summarize)

    def add_summaries(graph: Graph) -> list[TaskRef]:
        loaded.repair(executor)
        return [graph.add("dasknn-inspect", summarize, block) for block in loaded.add_blocks(graph)]

    return reduce(add, executor.values_of(add_summaries))


def _summarize(summarize: Summarize, block: Block) -> Summary:
    assert block.y is not None, "a summary needs targets"
    return summarize(block.y, block.weight)


def _require_classes(targets: Summary, scored: Summary) -> None:
    """Raise ValueError if all rows that are scored are of one class, and others are not."""
    if not isinstance(targets, ClassSummary) or targets.multilabel:
        return
    assert isinstance(scored, ClassSummary), "all summaries are of one kind"
    if len(targets.labels) == 1:
        raise ValueError(
            f"Expected rows of at least two classes, received {targets.labels.tolist()[0]!r} alone. Add rows "
            "of another class."
        )
    if len(scored.labels) == 1 < len(targets.labels):
        raise ValueError(
            "Expected rows of at least two classes to be scored, received "
            f"{scored.labels.tolist()[0]!r} alone, of {len(targets.labels)} classes. Score a larger "
            "share (validation=), or random rows (hold_out='random')."
        )


def _require_weight(targets: Summary, scored: Summary) -> None:
    """Raise NoWeightError if all rows that are scored, or all others, have weight 0."""
    total, held = _weight_of(targets), _weight_of(scored)
    if total is None or held is None:
        return
    # Of rows that are too many to look at once more, both are the same summary.
    is_part = scored.n_rows < targets.n_rows  # type: ignore[attr-defined]
    for weight, side in ((held, "score"), (total - held if is_part else held, "train on")):
        if weight <= total * 1e-12:
            raise NoWeightError(
                f"Expected rows with a weight above 0 to {side}, received none. Divide the rows in another "
                "way (validation=, hold_out=, cv=), or leave rows without a weight out."
            )


def _weight_of(summary: Summary) -> float | None:
    """Return the weight of rows; None: nobody has added it up."""
    if isinstance(summary, NumberSummary):
        return float(summary.weight)
    if isinstance(summary, ClassSummary) and not summary.multilabel:
        return float(summary.counts.sum())
    return None
