"""A fit, from checked parameters to a training that has run: what both APIs have in common.

    data ── prepare ── read ── hold out ──┐
                                          ├── choose strategy, batch, transport ── job, state ── Training
    y ───── targets: encoder, weights, network ──┘

`Fit.run` is the way of the data from `fit` to the workers, top to bottom. An API subclasses `Fit` and says
what it differs in: scikit-learn's in `estimators/fitting.py`, Keras's in `models/fitting.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from dasknn.callbacks import Callback, progress
from dasknn.callbacks.announcements import Announcements
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.data import loading, partitions
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.strategies import Strategy, auto
from dasknn.training.datasets import Rows, RowsOnTasks
from dasknn.training.loop import Hooks, Training
from dasknn.training.transport import Transport


class Columns(NamedTuple):
    """Rows as a user gave them: X (n, p), y (n,) or (n, k), sample_weight (n,) or None."""

    X: Any
    y: Any
    sample_weight: Any = None

    @property
    def is_distributed(self) -> bool:
        """Whether any of them is a Dask collection."""
        return partitions.is_distributed(*self)


class Targets(NamedTuple):
    """What is to be learned: how y is encoded, factors of the weights of rows, the network."""

    encoder: Any
    weights: Any
    network: Network


class Choice(NamedTuple):
    """How rows are trained on: sizes, the strategy with the reason for it, the wanted transport."""

    sizes: auto.Sizes
    strategy: Strategy
    reason: str
    transport: str


class Fit(ABC):
    """One call of `fit`.

    Parameters
    ----------
    model : the estimator or Sequential that is fitted
    data, validation : Columns
        Rows to train on, and rows to score after each epoch, or None.
    strategy : Strategy or None
        What was asked for; None leaves it to rules, and plain data in this process.
    replicas : int or None
        The number of replicas that was asked for.
    checkpoints : Checkpoints or None
        Writes snapshots of the training, and may have found one to resume from.
    max_faults : int
        Faults of the cluster that may cost work before the last one is raised.
    """

    #: Where plain data without a strategy is read; None: as arrays.
    in_process: Executor | None = None
    #: Whether a bar of loaded partitions stays when they are there.
    bar_stays = False

    def __init__(
        self,
        model: Any,
        data: Columns,
        validation: Columns | None,
        strategy: Strategy | None,
        replicas: int | None,
        checkpoints: Checkpoints | None,
        max_faults: int,
    ):
        self.model = model
        self.data, self.validation = data, validation
        self.strategy, self.replicas = strategy, replicas
        self.checkpoints = checkpoints
        self._max_faults = max_faults
        #: Threads of the cluster, or of Dask's local scheduler; 1 in this process.
        self.n_slots = 1
        #: Partitions that plain data is cut into.
        self.n_parts = 1

    def run(self) -> Training:
        """Train the model; return the training that has run."""
        with ExitStack() as stack:
            executor = self._connect(
                stack, self.data, *([] if self.validation is None else [self.validation])
            )
            self.data = self.prepare(self.data)
            self._settle_replicas(executor)
            # rows: partitions as blocks where workers have loaded them, or arrays in this process
            rows = self.read(executor, self.data)
            self.look_at(rows)
            held_out = self._read_validation(stack, executor)
            targets = self.learn_targets(rows, held_out)
            if held_out is None:
                held_out = self.hold_out(rows, targets)
            choice = self._choose(rows, targets.network)
            job, state = self.begin(choice, targets)
            # transport: shards of the rows that are left, dealt out to replicas
            transport = rows.transport(
                job, choice.strategy, targets.encoder, targets.weights, choice.transport
            )
            self._tell(choice, transport)
            training = Training(
                self.model,
                transport,
                state,
                self.n_epochs,
                [
                    *([] if self.checkpoints is None else [self.checkpoints]),
                    *self.callbacks(job, choice),
                    *([Announcements(rows.tasks)] if isinstance(rows, RowsOnTasks) else []),
                ],
                self.hooks(job, targets, held_out),
                self.earlier_history,
                self.first_epoch,
            )
            self.train(training, targets)
        return training

    # --- what an API differs in --------------------------------------------------------------------

    @property
    @abstractmethod
    def n_epochs(self) -> int:
        """Epochs to train for, at most."""

    #: Entries of the history of an earlier fit that this one continues.
    earlier_history: Sequence[dict[str, Any]] = ()
    #: Number of the first epoch, from 0; None: the one after the earlier history.
    first_epoch: int | None = None

    def prepare(self, data: Columns) -> Columns:
        """Return the rows to train on in the form that `read` takes."""
        return data

    def prepare_validation(self, validation: Columns) -> Columns:
        """Return the rows to score in the form that `read` takes."""
        return validation

    @abstractmethod
    def default_parts(self) -> int:
        """Return the number of partitions that plain data is cut into, where replicas were not asked for."""

    @abstractmethod
    def read(self, executor: Executor | None, data: Columns, is_validation: bool = False) -> Rows:
        """Return the rows, cast and checked. ValueError: data that cannot be trained on."""

    @abstractmethod
    def look_at(self, rows: Rows) -> None:
        """Warn of partitions that differ much, and keep what the model remembers of its data."""

    @abstractmethod
    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        """Return encoder, weights and network for the targets found. ValueError: y does not fit."""

    @abstractmethod
    def hold_out(self, rows: Rows, targets: Targets) -> Rows | None:
        """Set aside rows to score after each epoch, where parameters ask for it."""

    @abstractmethod
    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        """Return what rules decide by: rows, replicas, the batch size."""

    @abstractmethod
    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy, and why it is this one."""

    @abstractmethod
    def transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        """Return the transport that is wanted: `auto.PEER` or `auto.TASKS`."""

    @abstractmethod
    def begin(self, choice: Choice, targets: Targets) -> tuple[TrainingJob, TrainState]:
        """Return the job, and the state to begin with: fresh, or what an earlier fit left."""

    @abstractmethod
    def callbacks(self, job: TrainingJob, choice: Choice) -> list[Callback]:
        """Return the callbacks of API and user, in their order."""

    @abstractmethod
    def hooks(self, job: TrainingJob, targets: Targets, held_out: Rows | None) -> Hooks:
        """Return what the loop calls: reports, validation, publishing; and what a checkpoint must match."""

    @abstractmethod
    def train(self, training: Training, targets: Targets) -> None:
        """Run the training, and give the model what was learned."""

    # --- steps of `run` ----------------------------------------------------------------------------

    def _connect(self, stack: ExitStack, *data: Columns) -> Executor | None:
        """Return where the first of these is read: plain data without a strategy stays in this process."""
        is_distributed = data[0].is_distributed
        if not is_distributed and self.strategy is None:
            return self.in_process
        collections = [column for columns in data for column in columns]
        place = {"workers": self.model.workers, "data": collections}
        return stack.enter_context(connect(self.model.client, is_distributed, self._max_faults, **place))

    def _settle_replicas(self, executor: Executor | None) -> None:
        """Find the number of parts; a training that is resumed keeps the numbers it had."""
        if executor is None:
            self.replicas = 1
            return
        self.n_slots = len(executor.slots())
        self.n_parts = self.replicas or self.default_parts()
        if self.checkpoints is not None and (found := self.checkpoints.found) is not None:
            # The cluster may have another size now; what the user leaves to it stays as it was.
            self.replicas = self.replicas or found.replicas
            self.n_parts = found.face.get("n_parts", self.replicas)

    def _read_validation(self, stack: ExitStack, executor: Executor | None) -> Rows | None:
        if self.validation is None:
            return None
        validation = self.prepare_validation(self.validation)
        if validation.is_distributed and not self.data.is_distributed:
            # Scored where they are, though the other rows stay in this process.
            executor = self._connect(stack, validation)
        return self.read(executor, validation, is_validation=True)

    def _choose(self, rows: Rows, network: Network) -> Choice:
        sizes = self.sizes(rows.n_rows, network)
        strategy, reason = self.choose(rows, sizes)
        return Choice(sizes, strategy, reason, self.transport(strategy, sizes))

    def _tell(self, choice: Choice, transport: Transport) -> None:
        """Say on the model how it is trained."""
        self.model.replicas_, self.model.transport_ = choice.sizes.replicas, transport.name
        self.model.strategy_ = None if transport.name == auto.PROCESS else choice.strategy
        self.model.strategy_reason_ = choice.reason


def read_partitions(
    executor: Executor,
    data: Columns,
    dtype: str,
    summarize: Callable,
    n_parts: int,
    *,
    shown: bool = False,
    stays: bool = False,
) -> RowsOnTasks:
    """Return rows that workers have loaded: cast to dtype, checked, with their targets summarized.

    Plain data is cut into n_parts partitions. shown, stays: whether a bar shows how many are loaded, and is
    left when all are. PartitionError: bad data; it names the partition.
    """
    names = list(data.X.columns) if partitions.is_dataframe(data.X) else None
    parts = partitions.parts(*data, 1 if partitions.is_distributed(data.X) else n_parts)
    with progress.loading_bar(len(parts), shown, stays=stays) as on_partition:
        loaded = loading.load(
            executor, parts, dtype, summarize, feature_names=names, on_partition=on_partition
        )
    return RowsOnTasks(executor, loaded, dtype)
