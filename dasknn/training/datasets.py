"""What a fit learns from, behind one interface: rows in this process, or partitions on a cluster."""

from __future__ import annotations

import math
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.data import loading, partitions, skew
from dasknn.data.blocks import Block, in_partition, problem_of
from dasknn.data.shards import make_shards
from dasknn.data.targets import ClassWeights
from dasknn.engine.state import Shard, TrainingJob
from dasknn.exceptions import LinkError
from dasknn.strategies import Strategy, auto
from dasknn.training import prediction
from dasknn.training.in_process import InProcess
from dasknn.training.peers import OnPeers
from dasknn.training.tasks import OnTasks
from dasknn.training.transport import Transport


class Rows(ABC):
    """Rows of a fit, wherever they are."""

    dtype: str

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows to train on."""

    @abstractmethod
    def summary(self, summarize: Callable) -> Any:
        """Return the sum of summarize(y, weight) over all rows."""

    @abstractmethod
    def warn_of_skew(self, is_ours: bool) -> bool:
        """Warn where partitions differ much in targets or, unless they are ours, in their numbers of rows.

        Returns whether targets differ.
        """

    @abstractmethod
    def draw_seed(self, rng: np.random.RandomState) -> int:
        """Return the seed of further random streams, drawn from rng where there are any."""

    @abstractmethod
    def hold_out(self, fraction: float, encoder: Any) -> Rows:
        """Set random rows aside, where they are; return them. ValueError: fewer than 2 rows."""

    @abstractmethod
    def transport(
        self, job: TrainingJob, strategy: Strategy, encoder: Any, weights: Any, name: str
    ) -> Transport:
        """Deal the rows out to the replicas of the job; return what trains on them.

        name: the transport that is wanted, PEER or TASKS; it will be TASKS where workers cannot be connected.
        """

    @abstractmethod
    def validate(
        self, metric: Any, predictor: prediction.Predictor, weights: ClassWeights | None = None
    ) -> tuple[float, float]:
        """Return the metric of the model's predictions, and their mean loss."""


class RowsInProcess(Rows):
    """X (n, p) dense or CSR, y as it came, weight (n,) or None: one replica, no cluster.

    Random draws come from one RandomState, in scikit-learn's order.
    """

    def __init__(self, X, y: np.ndarray, weight: np.ndarray | None):
        self.X, self.y, self.weight = X, y, weight
        self._rng: Any = None
        # A checksum of the numbers of the rows that were held out.
        self._held_out = 0

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.X.dtype.name

    def summary(self, summarize: Callable):
        """Return summarize(y, weight)."""
        return summarize(self.y, self.weight)

    def warn_of_skew(self, is_ours: bool) -> bool:
        """Return False: there is one part, whose rows are mixed in each epoch."""
        return False

    def draw_seed(self, rng: np.random.RandomState) -> int:
        """Draw from rng from now on; the seed of other streams, which is not used, is 0."""
        self._rng = rng
        return 0

    def hold_out(self, fraction: float, encoder) -> RowsInProcess:
        """Set a random part aside, as scikit-learn does; return it. ValueError: fewer than 2 rows.

        encoder: of two classes, of which both sides have their share; else None.
        """
        if not fraction:
            _check_held_out(0)
        left, held_out = train_test_split(
            np.arange(self.n_rows),
            random_state=self._rng,
            test_size=fraction,
            # As scikit-learn passes them, which names them in its errors.
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

    def transport(self, job: TrainingJob, strategy: Strategy, encoder, weights, name: str):
        """Return what trains on these rows: this process, whatever the name."""
        shard = make_shard(encoder, weights, self.X, self.y, self.weight)
        return InProcess(job, shard, self._rng, self._held_out)

    def validate(
        self, metric, predictor: prediction.Predictor, weights: ClassWeights | None = None
    ) -> tuple[float, float]:
        problem = problem_of(self.X, self.y, self.weight)
        block = Block(self.X, self.y, self.weight, problem)
        return prediction.validate_block(metric, weights, predictor, block).result()


class RowsOnTasks(Rows):
    """Partitions that workers have loaded; see `cluster.partitions`."""

    def __init__(self, tasks: Executor, loaded: loading.Loaded, dtype: str):
        self.tasks = tasks
        self.loaded = loaded
        self.dtype = dtype
        self._seed = 0

    @property
    def n_rows(self) -> int:
        return self.loaded.n_rows

    def summary(self, summarize: Callable):
        """Return the sum of summarize(y, weight) over partitions: what loading them has found."""
        return self.loaded.targets

    def warn_of_skew(self, is_ours: bool) -> bool:
        infos = self.loaded.infos
        targets, n_rows = [info.targets for info in infos], [info.n_rows for info in infos]
        return skew.warn_of_skew(targets, n_rows, self._names, is_ours)

    def warn_of_split(self, held_out: RowsOnTasks, summarize: Callable) -> None:
        """Warn where the last rows, which `hold_out_last` has set aside, have other targets than these."""
        left, last = (
            self._targets_of(rows, other, summarize) for rows, other in ((self, held_out), (held_out, self))
        )
        skew.warn_of_split(left, last, self._names)

    def _targets_of(self, rows: RowsOnTasks, other: RowsOnTasks, summarize: Callable) -> list:
        """Return the summaries of y in the blocks of one side of a split that have rows of it."""
        infos, others = rows.loaded.infos, other.loaded.infos
        own = [p for p, info in enumerate(infos) if info.n_rows]
        # What loading has found is of whole blocks, of which few are cut.
        cut = [p for p in own if others[p].n_rows]
        summarize_again = partial(_summary, summarize)

        def add_summaries(graph: Graph) -> list[Any]:
            rows.loaded.repair(self.tasks)
            return [
                graph.add("dasknn-inspect", summarize_again, rows.loaded.add_block(graph, p)) for p in cut
            ]

        found = dict(zip(cut, self.tasks.values_of(add_summaries) if cut else [], strict=True))
        return [found.get(p, infos[p].targets) for p in own]

    @property
    def _names(self) -> list[str]:
        return [name for names in self.loaded.parts[0].names for name in names]

    def draw_seed(self, rng: np.random.RandomState) -> int:
        """Draw the seed of all further streams."""
        self._seed = int(rng.randint(2**31 - 1))
        return self._seed

    def hold_out(self, fraction: float, encoder) -> RowsOnTasks:
        """Set random rows of each partition aside, where they are. ValueError: fewer than 2 rows."""
        left, held_out = self.loaded.hold_out(self.tasks, fraction, self._seed)
        _check_held_out(held_out.n_rows)
        self.loaded = left
        return RowsOnTasks(self.tasks, held_out, self.dtype)

    def transport(self, job: TrainingJob, strategy: Strategy, encoder, weights, name: str):
        shards = make_shards(self.tasks, self.loaded, job.replicas, partial(make_shard, encoder, weights))
        if name == auto.PEER:
            peers = OnPeers(job, strategy, self.tasks, shards)
            try:
                peers.connect()
                return peers
            except LinkError as error:
                if strategy.remembers or job.network.is_synchronized:
                    raise
                warnings.warn(
                    f"Workers cannot reach one another, so they average through the scheduler: {error}",
                    stacklevel=2,
                )
            except self.tasks.faults:
                # A worker was lost just now; the first wave connects those that are left.
                return peers
        return OnTasks(job, strategy, self.tasks, shards)

    def hold_out_last(self, fraction: float) -> RowsOnTasks:
        """Set the last rows aside, where they are, as Keras does. ValueError: none on one of the sides."""
        n_rows = self.n_rows
        n_left = math.floor(n_rows * (1 - fraction))
        if not 0 < n_left < n_rows:
            raise ValueError(
                f"Expected validation_split to leave rows on both sides, received {fraction} for {n_rows} "
                f"rows."
            )
        left, held_out = self.loaded.hold_out_last(self.tasks, n_rows - n_left)
        self.loaded = left
        return RowsOnTasks(self.tasks, held_out, self.dtype)

    def evaluate(self, evaluation: prediction.Evaluation, weights=None) -> dict[str, float]:
        """Return loss and metrics of a model, computed where the rows are."""
        function = partial(prediction.evaluate_block, weights)
        return evaluation.results(sum_over_blocks(self.tasks, function, evaluation, self._add_blocks))

    def validate(
        self, metric, predictor: prediction.Predictor, weights: ClassWeights | None = None
    ) -> tuple[float, float]:
        function = partial(prediction.validate_block, metric, weights)
        return sum_over_blocks(self.tasks, function, predictor, self._add_blocks).result()

    def _add_blocks(self, graph: Graph) -> list[Any]:
        self.loaded.repair(self.tasks)
        return self.loaded.add_blocks(graph)


def _check_held_out(n_rows: int) -> None:
    if n_rows < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
        )


def _summary(summarize: Callable, block: Block):
    return summarize(block.y, block.weight)


def make_shard(encoder, weights, X, y, weight) -> Shard:
    """Return the Shard of rows: labels encoded, weights of classes multiplied into those of rows."""
    return Shard(X, encoder.encode(y), weight if weights is None else weights.rows(y, weight)).aligned()


def score_parts(
    tasks: Executor, metric, predictor: prediction.Predictor, parts: Sequence[partitions.Part], feature_names
):
    """Return the metric, mergeable, over partitions that are read for it alone.

    feature_names: columns of a dataframe X, or None. PartitionError: bad data; it names the partition.
    ValueError: no rows that weigh anything.
    """

    def add_blocks(graph: Graph) -> list:
        settings = (parts[0].names, predictor.network.dtype, feature_names)
        return [
            graph.add("dasknn-load", partial(loading.load_checked, number, *settings), *part.add_to(graph))
            for number, part in enumerate(parts)
        ]

    found = sum_over_blocks(tasks, partial(prediction.score_block, metric, None), predictor, add_blocks)
    if not found.weight:
        raise ValueError(
            f"Expected at least one row to score, found 0 samples that weigh anything in {len(parts)} "
            "partitions."
        )
    return found


def sum_over_blocks(tasks: Executor, function: Callable, model, add_blocks: Callable[[Graph], Sequence[Any]]):
    """Return the sum of function(model, block) over blocks that add_blocks puts into a graph."""

    def add_sums(graph: Graph) -> list[Any]:
        blocks = add_blocks(graph)
        given = graph.add_value("dasknn-model", model)
        return [
            graph.add("dasknn-score", partial(_of_partition, number, function), given, block)
            for number, block in enumerate(blocks)
        ]

    # In the order of partitions, whichever comes first.
    return reduce(add, tasks.values_of(add_sums))


def _of_partition(number: int, function: Callable, model, block):
    with in_partition(number):
        return function(model, block)
