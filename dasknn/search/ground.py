"""The rows of a search: loaded once, divided once, and visited by all trials that agree on them.

    columns ── divided (`division.py`), prepared, loaded ── pieces ── stations ◄── networks travel here

Trials share a ground if their settings ask for the same preparation. Each split of a ground is a way to
divide its rows in those to train on and those to score: one split, or one for each fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import stations
from dasknn.data.blocks import Block, concatenate
from dasknn.data.bundles import Group, values_of_each
from dasknn.data.loading import Loaded, NoWeightError
from dasknn.data.targets import ClassSummary, NumberSummary, RowWeights, Summarize, Summary, TargetEncoder
from dasknn.engine.state import TrainingJob
from dasknn.exceptions import PartitionError
from dasknn.search.ahead import Ahead, OnHopsAhead, Question
from dasknn.search.division import Division, Piece, pieces_of, sides_of
from dasknn.strategies import Strategy
from dasknn.training import prediction
from dasknn.training.datasets import Rows, RowsOnWorkers, make_shard
from dasknn.training.fit import Columns
from dasknn.training.hopping import Hopper, Journey, Visit
from dasknn.training.hops import layout_of
from dasknn.training.prediction import Predictor, Score
from dasknn.training.transport import Transport


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


class _RowsOfGround(Rows):
    """One side of a split of a ground, which a network asks for; each kind of rows answers what it can."""

    _IS_SCORED: ClassVar[bool]

    def __init__(self, ground: Ground, split: int, pace: Any, priority: Callable[[], tuple], ahead: Ahead):
        self._ground, self._split, self._ahead = ground, split, ahead
        self._pace, self._priority = pace, priority
        self.executor = ground.executor

    @property
    def dtype(self) -> str:
        return self._ground.dtype

    @property
    def n_rows(self) -> int:
        return self._ground.rows_of(self._split, scored=self._IS_SCORED)

    def warn_of_skew(self, are_cut: bool) -> bool:
        return False

    def draw_seed(self, rng: np.random.RandomState) -> int:
        raise NotImplementedError("nobody trains on these rows")

    def hold_out(self, fraction: float, encoder: Any) -> Rows:
        raise NotImplementedError("a search has divided its rows")

    def transport(self, *settings: Any, **more: Any) -> Transport:
        raise NotImplementedError("nobody trains on these rows")

    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        return self.total(partial(prediction.validate_block, metric, weights), predictor).result()

    def total(self, function: Callable[[Any, Any], Any], model: Any) -> Any:
        raise NotImplementedError("nothing is scored on these rows")


class RowsToTrainOn(_RowsOfGround):
    """The rows of a ground that a network travels to.

    n_allowed: returns how many epochs may be trained now.
    """

    _IS_SCORED = False

    def __init__(self, *settings: Any, n_allowed: Callable[[], int]):
        super().__init__(*settings)
        self._n_allowed = n_allowed

    def summary(self, summarize: Summarize) -> Summary:
        """Return the summary of all rows, those that are scored among them."""
        return self._ground.targets

    def draw_seed(self, rng: np.random.RandomState) -> int:
        return int(rng.randint(2**31 - 1))

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
        return OnHopsAhead(
            job,
            ground.hopper,
            ground.stations(self._split, scored=False),
            ground.layout(self._split),
            self._pace,
            self._priority,
            self._ahead,
            ground.stations(self._split, scored=True),
            self._n_allowed,
        )


class RowsToScore(_RowsOfGround):
    """The rows of a ground on which a network is scored, where they lie.

    Any thread but that of the hopper may ask.
    """

    _IS_SCORED = True

    def summary(self, summarize: Summarize) -> Summary:
        return self._ground.scored[self._split]

    def total(self, function: Callable[[Any, Any], Any], model: Any) -> Any:
        found = self._ahead.answer(Question(function, model))
        if found is None:
            visit = partial(_visit, function, model)
            found = self._send([(number, visit) for number in self._numbers])
        return reduce(add, found)

    def gathered(self, function: Callable[[Any, Any, np.ndarray], float], model: Any) -> float:
        """Return function(model, X, y) of all rows, which one worker gathers."""
        last = self._numbers[-1]
        return self._send([(n, partial(_gather, function, model, n == last)) for n in self._numbers])

    @property
    def _numbers(self) -> list[int]:
        return self._ground.stations(self._split, scored=True)

    def _send(self, visits: list[tuple[int, Visit]]) -> Any:
        """Return what a journey brings that begins with nothing."""
        # A score is soon there, and may let a trial go on.
        priority = (-math.inf, *self._priority())
        journey = Journey(visits, (), pace=self._pace, priority=priority)
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
    division: Division,
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
    sides = sides_of(columns, division, executor, is_classifier)
    prepared = fit.prepare(sides.learned)
    pieces: list[Piece] = []
    scored: list[Summary] = []
    if sides.pieces is None:
        rows: RowsOnWorkers = fit.read(executor, prepared)
        fit.look_at(_Quiet.of(rows))
        pieces, targets = pieces_of(rows.loaded, division, executor), rows.loaded.targets
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
        division.n_splits,
        columns,
        preparation,
        like,
        division.trains_all,
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

    def add_blocks(graph: Graph) -> list[Group]:
        loaded.repair(executor)
        return loaded.add_blocks(graph)

    found = values_of_each(executor, "dasknn-inspect", summarize, add_blocks)
    return reduce(add, (found[number] for number in sorted(found)))


def _summarize(summarize: Summarize, number: int, block: Block) -> Summary:
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
