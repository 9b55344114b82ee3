"""A fit, from checked parameters to a training that has run: what both APIs have in common.

    data ── prepare ── read ── hold out ──┐
                                          ├── choose strategy, batch, transport ── job, state ── Training
    y ───── targets: encoder, weights, network ──┘

`Fit.run` shows the way of the data from `fit` to the workers, top to bottom. Each API subclasses `Fit` for
the steps in which it differs: scikit-learn's in `estimators/fitting.py`, Keras's in `models/fitting.py`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from dasknn.callbacks import Callback, progress
from dasknn.callbacks.announcements import Announcements
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import Executor
from dasknn.data import loading, partitions
from dasknn.data.targets import RowWeights, Summarize, TargetEncoder
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.strategies import Strategy, auto
from dasknn.training import engine_choice
from dasknn.training.datasets import Rows, RowsInProcess, RowsOnWorkers
from dasknn.training.engine_choice import EngineChoice
from dasknn.training.loop import Hooks, Training
from dasknn.training.pace import Pace
from dasknn.training.transport import Transport


class Columns(NamedTuple):
    """Rows as the user passed them: X (n, p), y (n,) or (n, k), sample_weight (n,) or None."""

    X: Any
    y: Any
    sample_weight: Any = None

    @property
    def is_distributed(self) -> bool:
        """Whether any of them is a Dask collection."""
        return partitions.is_distributed(*self)


class Targets(NamedTuple):
    """The encoder of y, weights of classes or labels if there are any, and the network to train."""

    encoder: TargetEncoder
    weights: RowWeights | None
    network: Network


class Choice(NamedTuple):
    """How to train: sizes, the strategy with the reason for it, the wanted transport."""

    sizes: auto.Sizes
    strategy: Strategy
    reason: str
    transport: str


class Fit(ABC):
    """One call of `fit`.

    Parameters
    ----------
    model : estimator or Sequential
        The model that is fitted.
    data : Columns
        Rows to train on.
    validation : Columns or None
        Rows to score after each epoch.
    strategy : Strategy or None
        The user's choice. None: rules choose, and plain data stays in this process.
    replicas : int or None
        The user's choice.
    checkpoints : Checkpoints or None
        Writes snapshots of the training; it may have found one to resume from.
    max_faults : int
        How many faults of the cluster may cost work before the last one is raised.

    Attributes
    ----------
    n_slots : int
        Threads of the cluster or of Dask's local scheduler; 1 in this process.
    n_parts : int
        Partitions that plain data is cut into.
    """

    #: Reads plain data if no strategy was chosen; None: it stays as arrays.
    in_process: Executor | None = None

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
        self._called = time.perf_counter()
        self.n_slots = 1
        self.n_parts = 1

    def run(self) -> Training:
        """Train the model; return the training that ran."""
        with ExitStack() as stack:
            executor = self._connect(
                stack, self.data, *([] if self.validation is None else [self.validation])
            )
            self.data = self.prepare(self.data)
            self._settle_replicas(executor)
            # rows: blocks that workers have loaded, or arrays in this process
            rows = self.read(executor, self.data)
            self.look_at(rows)
            held_out = self._read_validation(stack, executor)
            training, targets = self.set_up(rows, held_out)
            self.train(training, targets)
        return training

    def set_up(self, rows: Rows, held_out: Rows | None) -> tuple[Training, Targets]:
        """Return a training of rows that were read, which `train` runs."""
        targets = self.learn_targets(rows, held_out)
        if held_out is None:
            held_out = self.hold_out(rows, targets)
        choice = self._choose(rows, targets.network)
        job, state = self.begin(choice, targets)
        engine = self._choose_engine(rows, job, choice.strategy)
        job = replace(job, engine=engine.name)
        # transport: holds shards of the rows that were not held out, dealt out to replicas
        transport = rows.transport(job, choice.strategy, targets.encoder, targets.weights, choice.transport)
        self._set_attributes(choice, transport, engine)
        training = Training(
            self.model,
            transport,
            state,
            self.n_epochs,
            [
                *([] if self.checkpoints is None else [self.checkpoints]),
                *self.callbacks(job, choice),
                *(_background(rows.executor, job, choice) if isinstance(rows, RowsOnWorkers) else []),
            ],
            replace(self.hooks(job, targets, held_out), called=self._called),
            self.earlier_history,
            self.first_epoch,
        )
        return training, targets

    # --- steps that differ between the APIs --------------------------------------------------------

    @property
    @abstractmethod
    def engine(self) -> str:
        """The user's choice of an engine."""

    @property
    @abstractmethod
    def n_epochs(self) -> int:
        """Most epochs to train for."""

    #: History of an earlier fit that this one continues.
    earlier_history: Sequence[dict[str, Any]] = ()
    #: Number of the first epoch, from 0; None: the next one after the earlier history.
    first_epoch: int | None = None

    def prepare(self, data: Columns) -> Columns:
        """Return the rows to train on in the form that `read` takes."""
        return data

    def prepare_validation(self, validation: Columns) -> Columns:
        """Return the rows to score in the form that `read` takes."""
        return validation

    @abstractmethod
    def default_parts(self) -> int:
        """Return the number of partitions that plain data is cut into if the user chose no replicas."""

    @abstractmethod
    def read(self, executor: Executor | None, data: Columns, is_validation: bool = False) -> Rows:
        """Return the rows, cast and checked. ValueError: data that cannot be trained on."""

    @abstractmethod
    def look_at(self, rows: Rows) -> None:
        """Warn of partitions that differ much, and set attributes of the model that describe its data."""

    @abstractmethod
    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        """Return encoder, weights and network for the targets of the rows. ValueError: y does not fit."""

    @abstractmethod
    def hold_out(self, rows: Rows, targets: Targets) -> Rows | None:
        """Set aside rows to score after each epoch, if parameters ask for it."""

    @abstractmethod
    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        """Return the sizes that rules decide by: rows, replicas, the batch size."""

    @abstractmethod
    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy, and the reason for it."""

    @abstractmethod
    def transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        """Return the transport that is wanted: `auto.PEER` or `auto.TASKS`."""

    @abstractmethod
    def begin(self, choice: Choice, targets: Targets) -> tuple[TrainingJob, TrainState]:
        """Return the job, and the state to begin with, which may be that of an earlier fit."""

    @abstractmethod
    def callbacks(self, job: TrainingJob, choice: Choice) -> list[Callback]:
        """Return the callbacks of the API and of the user, in their order."""

    @abstractmethod
    def hooks(self, job: TrainingJob, targets: Targets, held_out: Rows | None) -> Hooks:
        """Return the functions that the loop calls, and the settings that a checkpoint must match."""

    @abstractmethod
    def train(self, training: Training, targets: Targets) -> None:
        """Run the training, and give the model the result."""

    # --- steps of `run` ----------------------------------------------------------------------------

    def _connect(self, stack: ExitStack, *data: Columns) -> Executor | None:
        """Return the executor that reads the first of these; None: it stays as arrays in this process."""
        is_distributed = data[0].is_distributed
        if not is_distributed and self.strategy is None:
            return self.in_process
        collections = [column for columns in data for column in columns]
        place = {"workers": self.model.workers, "data": collections}
        return stack.enter_context(connect(self.model.client, is_distributed, self._max_faults, **place))

    def _settle_replicas(self, executor: Executor | None) -> None:
        """Choose the number of partitions; a resumed training keeps the numbers it had."""
        if executor is None:
            self.replicas = 1
            return
        self.n_slots = len(executor.slots())
        self.n_parts = self.replicas or self.default_parts()
        if self.checkpoints is not None and (found := self.checkpoints.found) is not None:
            # The cluster may have another size now; numbers that were derived from it stay as they were.
            self.replicas = self.replicas or found.replicas
            self.n_parts = found.face.get("n_parts", self.replicas)

    def _read_validation(self, stack: ExitStack, executor: Executor | None) -> Rows | None:
        if self.validation is None:
            return None
        validation = self.prepare_validation(self.validation)
        if validation.is_distributed and not self.data.is_distributed:
            # They are scored where they are, although the rows to train on stay in this process.
            executor = self._connect(stack, validation)
        return self.read(executor, validation, is_validation=True)

    def _choose(self, rows: Rows, network: Network) -> Choice:
        sizes = self.sizes(rows.n_rows, network)
        strategy, reason = self.choose(rows, sizes)
        return Choice(sizes, strategy, reason, self.transport(strategy, sizes))

    def _choose_engine(self, rows: Rows, job: TrainingJob, strategy: Strategy) -> EngineChoice:
        if isinstance(rows, RowsInProcess) and self.engine == engines.AUTO:
            reason = "numpy: plain data in this process gives scikit-learn's own numbers"
            return EngineChoice(engines.NUMPY, reason)
        found = None if self.checkpoints is None else self.checkpoints.found
        # Networks that travel may come to any worker.
        n_places = max(job.replicas, self.n_slots) if strategy.sees_all_rows else job.replicas
        earlier = None if found is None else found.engine
        return engine_choice.choose(self.engine, job, rows.executor, earlier, n_places)

    def _set_attributes(self, choice: Choice, transport: Transport, engine: EngineChoice) -> None:
        """Set the attributes of the model that say how it is trained."""
        self.model.engine_, self.model.engine_reason_ = engine
        self.model.replicas_, self.model.transport_ = choice.sizes.replicas, transport.name
        self.model.strategy_ = None if transport.name == auto.PROCESS else choice.strategy
        self.model.strategy_reason_ = choice.reason


def _background(executor: Executor, job: TrainingJob, choice: Choice) -> list[Callback]:
    """Return callbacks that tell people how a training on a cluster fares."""
    return [Pace(job, choice.strategy), Announcements(executor)]


def read_partitions(
    executor: Executor,
    data: Columns,
    dtype: str,
    summarize: Summarize,
    n_parts: int,
    *,
    shown: bool = False,
    stays: bool = False,
) -> RowsOnWorkers:
    """Load rows on workers: cast to dtype, checked, with their targets summarized.

    Parameters
    ----------
    executor : Executor
    data : Columns
    dtype : str
    summarize : callable(y, weight) -> Summary
    n_parts : int
        Partitions that plain data is cut into: as many as replicas will probably share the rows.
    shown : bool, default=False
        Whether a bar shows how many partitions are loaded.
    stays : bool, default=False
        Whether the bar stays when all of them are.

    Raises
    ------
    PartitionError
        A partition holds data that cannot be trained on; the message names it.
    """
    names = list(data.X.columns) if partitions.is_dataframe(data.X) else None
    parts = partitions.parts(*data, 1 if partitions.is_distributed(data.X) else n_parts)
    with progress.loading_bar(len(parts), shown, stays=stays) as on_partition:
        loaded = loading.load(
            executor,
            parts,
            dtype,
            summarize,
            feature_names=names,
            on_partition=on_partition,
            replicas=n_parts,
        )
    return RowsOnWorkers(executor, loaded, dtype)
