"""The rows of a fit, behind one interface: arrays in this process, or partitions that workers have loaded."""

from __future__ import annotations

import math
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
from sklearn.model_selection import train_test_split

from dasknn._compat.dask import TaskRef
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import loading, partitions, skew
from dasknn.data.blocks import Block, in_partition, problem_of
from dasknn.data.bundles import Group, values_of_each
from dasknn.data.shards import make_shards
from dasknn.data.targets import ClassEncoder, RowWeights, Summarize, Summary, TargetEncoder
from dasknn.engine.state import Shard, TrainingJob
from dasknn.exceptions import LinkError, caller_stacklevel
from dasknn.strategies import Strategy, auto
from dasknn.training import prediction
from dasknn.training.hops import MembersOnHops
from dasknn.training.in_process import InProcess
from dasknn.training.peers import OnPeers
from dasknn.training.prediction import AnyScore, Evaluation, Predictor, Score
from dasknn.training.tasks import OnTasks
from dasknn.training.transport import Transport

_Model = TypeVar("_Model")
_Sum = TypeVar("_Sum")


class Rows(ABC):
    """Rows of a fit, in this process or on workers.

    Attributes
    ----------
    executor : Executor or None
        Runs what is computed where the rows are. None: they are arrays in this process.
    """

    executor: Executor | None = None

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Name of the dtype of X."""

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows to train on."""

    @abstractmethod
    def summary(self, summarize: Summarize) -> Summary:
        """Return the sum of summarize(y, weight) over all parts of the rows."""

    @abstractmethod
    def warn_of_skew(self, are_cut: bool) -> bool:
        """Warn if partitions differ much in their targets or numbers of rows; return whether targets differ.

        are_cut: whether they were cut from plain data, so that their numbers of rows say nothing.
        """

    @abstractmethod
    def draw_seed(self, rng: np.random.RandomState) -> int:
        """Return the seed of further random streams, drawn from rng if there are any."""

    @abstractmethod
    def hold_out(self, fraction: float, encoder: ClassEncoder | None) -> Rows:
        """Set random rows aside, where they are, and return them.

        encoder: of two classes, whose shares the held-out rows in this process keep; else None. ValueError:
        fewer than 2 rows.
        """

    @abstractmethod
    def transport(
        self,
        job: TrainingJob,
        strategy: Strategy,
        encoder: TargetEncoder,
        weights: RowWeights | None,
        name: str,
    ) -> Transport:
        """Deal the rows out to the replicas of the job, and return the transport that trains on them.

        name: the transport that is wanted, PEER or TASKS; it is TASKS if workers cannot be connected.
        """

    @abstractmethod
    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        """Return the score of the model's predictions, and their mean loss."""

    def evaluate(self, evaluation: Evaluation, weights: RowWeights | None = None) -> dict[str, float]:
        """Return loss and metrics of a model, computed where the rows are."""
        return evaluation.results(self.total(partial(prediction.evaluate_block, weights), evaluation))

    @abstractmethod
    def total(self, function: Callable[[_Model, Block], _Sum], model: _Model) -> _Sum:
        """Return the sum of function(model, block) over all parts of the rows, in their order."""


class RowsInProcess(Rows):
    """Plain data, for one replica and no cluster.

    Random draws come from one RandomState, in scikit-learn's order.

    Parameters
    ----------
    X : array or CSR matrix (n, p)
    y : array (n,) or (n, k)
        Targets as the user gave them.
    weight : array (n,) or None
    """

    def __init__(self, X: Any, y: np.ndarray, weight: np.ndarray | None):
        self.X, self.y, self.weight = X, y, weight
        self._rng: Any = None
        # A checksum of the numbers of the held-out rows.
        self._held_out = 0

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def dtype(self) -> str:
        return self.X.dtype.name

    def summary(self, summarize: Summarize) -> Summary:
        return summarize(self.y, self.weight)

    def warn_of_skew(self, are_cut: bool) -> bool:
        """Return False: there is one part, whose rows are mixed in each epoch."""
        return False

    def draw_seed(self, rng: np.random.RandomState) -> int:
        """Draw from rng from now on; return 0, since other streams are not used."""
        self._rng = rng
        return 0

    def hold_out(self, fraction: float, encoder: ClassEncoder | None) -> RowsInProcess:
        if not fraction:
            _check_held_out(0)
        left, held_out = train_test_split(
            np.arange(self.n_rows),
            random_state=self._rng,
            test_size=fraction,
            # As scikit-learn passes them, whose errors name them.
            stratify=None if encoder is None else encoder.encode(self.y).astype(bool),
        )
        _check_held_out(len(held_out))
        self._held_out = zlib.crc32(held_out.tobytes())
        part = RowsInProcess(*self._rows(held_out))
        self.X, self.y, self.weight = self._rows(left)
        return part

    def _rows(self, rows: np.ndarray) -> list:
        columns = (self.X, self.y, self.weight)
        return [None if column is None else column[rows] for column in columns]

    def transport(
        self,
        job: TrainingJob,
        strategy: Strategy,
        encoder: TargetEncoder,
        weights: RowWeights | None,
        name: str,
    ) -> Transport:
        """Return the transport of this process, whatever the name."""
        shard = make_shard(encoder, weights, self.X, self.y, self.weight)
        return InProcess(job, shard, self._rng, self._held_out)

    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        return prediction.validate_block(metric, weights, predictor, self._block()).result()

    def total(self, function: Callable[[_Model, Block], _Sum], model: _Model) -> _Sum:
        return function(model, self._block())

    def _block(self) -> Block:
        problem = problem_of(self.X, self.y, self.weight)
        return Block(self.X, self.y, self.weight, problem)


class RowsOnWorkers(Rows):
    """Partitions that workers have loaded; see `data.loading`."""

    executor: Executor

    def __init__(self, executor: Executor, loaded: loading.Loaded, dtype: str):
        self.executor = executor
        self.loaded = loaded
        self._dtype = dtype
        self._seed = 0

    @property
    def dtype(self) -> str:
        return self._dtype

    @property
    def n_rows(self) -> int:
        return self.loaded.n_rows

    def summary(self, summarize: Summarize) -> Summary:
        """Return the sum of summarize(y, weight) over partitions, which was found when they were loaded."""
        return self.loaded.targets

    def warn_of_skew(self, are_cut: bool) -> bool:
        infos = self.loaded.infos
        targets, n_rows = [info.targets for info in infos], [info.n_rows for info in infos]
        return skew.warn_of_skew(targets, n_rows, self._names, are_cut)

    def warn_of_split(self, held_out: RowsOnWorkers, summarize: Summarize) -> None:
        """Warn if the rows that `hold_out_last` has set aside have other targets than these."""
        left, last = (
            self._targets_of(rows, other, summarize) for rows, other in ((self, held_out), (held_out, self))
        )
        skew.warn_of_split(left, last, self._names)

    def _targets_of(self, rows: RowsOnWorkers, other: RowsOnWorkers, summarize: Summarize) -> list[Summary]:
        """Return a summary of y for each block that has rows on one side of a split."""
        infos, others = rows.loaded.infos, other.loaded.infos
        own = [p for p, info in enumerate(infos) if info.n_rows]
        # Summaries made while loading are of whole blocks; only the few blocks that are cut need new ones.
        cut = [p for p in own if others[p].n_rows]
        found = (
            self._of_blocks("dasknn-inspect", partial(_summary, summarize), rows.loaded, cut) if cut else {}
        )
        return [found.get(p, infos[p].targets) for p in own]

    @property
    def _names(self) -> list[str]:
        return [name for names in self.loaded.parts[0].names for name in names]

    def draw_seed(self, rng: np.random.RandomState) -> int:
        self._seed = int(rng.randint(2**31 - 1))
        return self._seed

    def hold_out(self, fraction: float, encoder: ClassEncoder | None) -> RowsOnWorkers:
        """Set random rows of each partition aside, where they are. ValueError: fewer than 2 rows."""
        left, held_out = self.loaded.hold_out(self.executor, fraction, self._seed)
        _check_held_out(held_out.n_rows)
        self.loaded = left
        return RowsOnWorkers(self.executor, held_out, self.dtype)

    def transport(
        self,
        job: TrainingJob,
        strategy: Strategy,
        encoder: TargetEncoder,
        weights: RowWeights | None,
        name: str,
    ) -> Transport:
        make = partial(make_shard, encoder, weights)
        if strategy.sees_all_rows:
            return MembersOnHops(job, strategy, self.executor, self.loaded, make)
        shards = make_shards(self.executor, self.loaded, job.replicas, make)
        if name == auto.PEER:
            peers = OnPeers(job, strategy, self.executor, shards)
            try:
                peers.connect()
                return peers
            except LinkError as error:
                if strategy.remembers or job.network.is_synchronized:
                    raise
                warnings.warn(
                    f"Workers cannot connect to one another, so they average through the scheduler: {error}",
                    stacklevel=caller_stacklevel(),
                )
            except self.executor.faults:
                # A worker was lost just now; the first wave connects those that are left.
                return peers
        return OnTasks(job, strategy, self.executor, shards)

    def hold_out_last(self, fraction: float) -> RowsOnWorkers:
        """Set the last rows aside, where they are, as Keras does. ValueError: one side would be empty."""
        n_rows = self.n_rows
        n_left = math.floor(n_rows * (1 - fraction))
        if not 0 < n_left < n_rows:
            raise ValueError(
                "Expected validation_split to leave rows on both sides, received "
                f"{fraction} for {n_rows} rows."
            )
        left, held_out = self.loaded.hold_out_last(self.executor, n_rows - n_left)
        self.loaded = left
        return RowsOnWorkers(self.executor, held_out, self.dtype)

    def validate(
        self, metric: type[Score], predictor: Predictor, weights: RowWeights | None = None
    ) -> tuple[float, float]:
        return self.total(partial(prediction.validate_block, metric, weights), predictor).result()

    def total(self, function: Callable[[_Model, Block], _Sum], model: _Model) -> _Sum:
        found = self._of_blocks("dasknn-score", partial(_of_partition, function), self.loaded, None, model)
        # In the order of partitions, not in the order of arrival.
        return reduce(add, (found[number] for number in sorted(found)))

    def _of_blocks(
        self,
        name: str,
        function: Callable[..., Any],
        loaded: loading.Loaded,
        numbers: Sequence[int] | None,
        *shared: Any,
    ) -> dict[int, Any]:
        """Return function(number, *shared, block) for these blocks, or all of them, by number."""

        def add_blocks(graph: Graph) -> list[Group]:
            loaded.repair(self.executor)
            return loaded.add_blocks(graph, numbers)

        return values_of_each(self.executor, name, function, add_blocks, *shared)


def _check_held_out(n_rows: int) -> None:
    if n_rows < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
        )


def _summary(summarize: Summarize, number: int, block: Block) -> Summary:
    assert block.y is not None, "a summary needs targets"
    return summarize(block.y, block.weight)


def make_shard(
    encoder: TargetEncoder, weights: RowWeights | None, X: Any, y: np.ndarray, weight: np.ndarray | None
) -> Shard:
    """Return a Shard of rows: y encoded, weights of classes multiplied into the weights of the rows."""
    return Shard(X, encoder.encode(y), weight if weights is None else weights.rows(y, weight)).aligned()


def score_parts(
    executor: Executor,
    metric: type[AnyScore],
    predictor: Predictor,
    parts: Sequence[partitions.Part],
    feature_names: list | None,
) -> AnyScore:
    """Return the score of the predictions for partitions, which are read for this alone.

    Parameters
    ----------
    executor : Executor
    metric : subclass of Score
    predictor : Predictor
    parts : sequence of Part
    feature_names : list or None
        Columns of a dataframe X; None for an array.

    Raises
    ------
    PartitionError
        A partition holds data that cannot be scored; the message names it.
    ValueError
        No row has a weight above 0.
    """

    settings = (parts[0].names, predictor.network.dtype, feature_names)

    def add_scores(graph: Graph) -> list[TaskRef]:
        given = graph.add_value("dasknn-model", predictor)
        return [
            graph.add(
                "dasknn-score", partial(_score_part, number, metric, settings), given, *part.add_to(graph)
            )
            for number, part in enumerate(parts)
        ]

    # In the order of partitions.
    found = reduce(add, executor.values_of(add_scores))
    if not found.weight:
        raise ValueError(
            f"Expected at least one row with a weight above 0 to score, found 0 samples in {len(parts)} "
            "partitions."
        )
    return found


def _score_part(
    number: int, metric: type[AnyScore], settings: tuple, predictor: Predictor, *values: Any
) -> AnyScore:
    block = loading.load_checked(number, *settings, *values)
    return _of_partition(partial(prediction.score_block, metric, None), number, predictor, block)


def _of_partition(
    function: Callable[[_Model, Block], _Sum], number: int, model: _Model, block: Block
) -> _Sum:
    with in_partition(number):
        return function(model, block)
