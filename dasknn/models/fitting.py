"""A fit of Keras's API: its steps of `training.fit`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dasknn import callbacks as cb
from dasknn.callbacks import progress
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.executor import Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.data import inputs
from dasknn.data.columns import names_of
from dasknn.engine import updater
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.models.arguments import TARGET_NAMES, FitArguments, flat_columns, lines_of, report
from dasknn.models.layer_stack import DTYPE
from dasknn.models.targets import LabelWeights, LossEncoder
from dasknn.saving import schema
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.training.datasets import Rows, RowsOnWorkers
from dasknn.training.fit import Choice, Columns, Fit, Targets, read_partitions
from dasknn.training.loop import Hooks, Training
from dasknn.training.prediction import Evaluation, Predictor

# Least rows of a step for each replica, if the number of replicas is left to the rule.
_LEAST_ROWS_OF_STEP = 8
# Checkpoints keep the origin of the seeds of later fits.
_KEPT = schema.record({"seed": schema.optional(schema.integer(0, 2**128)), "n_fits": schema.integer()})


def read_rows(
    executor: Executor, encoder: LossEncoder, data: Columns, n_parts: int, verbose: Any
) -> RowsOnWorkers:
    """Load rows, given x as `Sequential._ready` returned it. ValueError: no y. PartitionError: bad data."""
    if data.y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    y, sample_weight = (flat_columns(column) for column in inputs.admit(*data[1:], names=TARGET_NAMES))
    data = Columns(data.X, y, sample_weight)
    shown = bool(verbose) and Columns(data.X, None).is_distributed and progress.can_move()
    return read_partitions(executor, data, DTYPE, encoder.summarize, n_parts, shown=shown)


class SequentialFit(Fit):
    """One call of `Sequential.fit`."""

    def __init__(
        self,
        model: Any,
        data: Columns,
        validation: Columns | None,
        arguments: FitArguments,
        checkpoints: Checkpoints | None,
        max_faults: int,
    ):
        strategy = model._strategy
        replicas = None if strategy is None else strategy.replicas
        super().__init__(model, data, validation, strategy, replicas, checkpoints, max_faults)
        self.arguments = arguments
        self.in_process = LocalExecutor()
        self.first_epoch = arguments.initial_epoch
        self._chose_replicas = replicas is not None
        self._summary: Any = None
        self._held_out_summary: Any = None

    # --- data --------------------------------------------------------------------------------------

    def prepare(self, data: Columns) -> Columns:
        model = self.model
        x = model._ready(data.X)
        model._settle_loss(data.y)
        model._warn_of_one_class()
        self._names = names_of(x)
        self._encoder = model._encoder(counts_labels=self.arguments.class_weight is not None)
        return data._replace(X=x)

    def prepare_validation(self, validation: Columns) -> Columns:
        return validation._replace(X=self.model._ready(validation.X, self._names))

    def default_parts(self) -> int:
        batch_size = self.arguments.batch_size
        if self.strategy is not None:
            is_ensemble = isinstance(self.strategy, PredictionAveraging)
            return self.n_slots if is_ensemble else min(self.n_slots, batch_size)
        if not self.data.is_distributed:
            return 1
        return max(1, min(self.n_slots, batch_size // _LEAST_ROWS_OF_STEP))

    def read(self, executor: Executor | None, data: Columns, is_validation: bool = False) -> RowsOnWorkers:
        assert executor is not None
        return read_rows(executor, self._encoder, data, self.n_parts, self.arguments.verbose)

    def look_at(self, rows: Rows) -> None:
        self._is_sorted = rows.warn_of_skew(are_cut=not self.data.is_distributed)

    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        self._summary = self._held_out_summary = rows.summary(self._encoder.summarize)
        if held_out is not None:
            self._held_out_summary = held_out.summary(self._encoder.summarize)
        class_weight = self.arguments.class_weight
        weights = None if class_weight is None else LabelWeights.of(class_weight, self._summary, DTYPE)
        return Targets(self._encoder, weights, self.model._built_network())

    def hold_out(self, rows: Rows, targets: Targets) -> RowsOnWorkers | None:
        fraction = self.arguments.validation_split
        if not fraction:
            return None
        assert isinstance(rows, RowsOnWorkers)
        held_out = rows.hold_out_last(fraction)
        if not self._is_sorted:
            rows.warn_of_split(held_out, self._encoder.summarize)
        return held_out

    # --- how they are trained on -------------------------------------------------------------------

    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        replicas = self.replicas or self.n_parts
        if not self._chose_replicas:
            replicas = min(replicas, n_rows)
        return auto.Sizes(network, n_rows, replicas, min(self.arguments.batch_size, n_rows))

    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        transport, strategy = self._asked_transport, self.strategy
        is_synchronized = sizes.network.is_synchronized
        if strategy is not None:
            fits = isinstance(strategy, GradientAveraging) and transport != auto.TASKS
            if is_synchronized and not fits:
                raise ValueError(
                    "BatchNormalization(synchronized=True) needs averaged gradients and transport='peer', "
                    f"received {strategy} and transport={transport!r}. Leave synchronized out."
                )
            return strategy, f"{strategy.name}: the model was {self.model._scoped} in its scope"
        if is_synchronized:
            return GradientAveraging(), "gradients: a layer is synchronized in each step"
        return auto.choose_strategy(sizes, auto.TASKS if transport == auto.TASKS else auto.PEER)

    @property
    def _asked_transport(self) -> str:
        return self.model._settings("fit").transport

    def transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        asked = self._asked_transport
        return auto.choose_transport(strategy, sizes) if asked == "auto" else asked

    def begin(self, choice: Choice, targets: Targets) -> tuple[TrainingJob, TrainState]:
        sizes, arguments = choice.sizes, self.arguments
        job = self.model._job(
            sizes.batch_size, sizes.replicas, self._summary, arguments.shuffle, arguments.steps_per_epoch
        )
        fresh = choice.strategy.init_state(job, self.model._members[0], sizes.replicas)
        return job, continued(self.model, fresh)

    # --- training ----------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        return self.model._settings("fit").engine

    @property
    def n_epochs(self) -> int:
        return max(0, self.arguments.epochs - self.arguments.initial_epoch)

    def callbacks(self, job: TrainingJob, choice: Choice) -> list[cb.Callback]:
        model = self.model
        model.history = cb.History()
        self._n_steps = self._steps(choice)
        return [*self.arguments.callbacks, model.history, *lines_of(self.arguments.verbose, self._n_steps)]

    def _steps(self, choice: Choice) -> int:
        """Return the steps of an epoch."""
        sizes, wanted = choice.sizes, self.arguments.steps_per_epoch
        assert sizes.batch_size is not None
        # Members of an ensemble take whole steps of their own rows.
        of_step = choice.strategy.replicas_in_step(sizes.replicas)
        if choice.strategy.sees_all_rows:
            of_step *= sizes.replicas
        n_steps = -(-sizes.n_rows * of_step // (sizes.replicas * sizes.batch_size))
        return min(wanted or n_steps, n_steps)

    def hooks(self, job: TrainingJob, targets: Targets, held_out: Rows | None) -> Hooks:
        model, arguments = self.model, self.arguments
        weights = targets.weights
        settings = {
            "model": type(model).__name__,
            "initial_epoch": arguments.initial_epoch,
            "class_weight": weights.weights if isinstance(weights, LabelWeights) else None,
            "sample_weight": self.data.sample_weight is not None,
            "validation rows": None if held_out is None else held_out.n_rows,
            "validation_freq": arguments.validation_freq,
        }
        return Hooks(
            report=partial(report, job.metrics),
            validate=None if held_out is None else self._validator(held_out),
            validated=() if held_out is None else tuple(f"val_{name}" for name in model.metrics_names),
            publish=model._take,
            params={"epochs": arguments.epochs, "steps": self._n_steps, "verbose": arguments.verbose},
            settings=settings,
            # The seeds of later fits are derived from these.
            kept={"seed": model._seed, "n_fits": model._n_fits},
            check_kept=_KEPT,
        )

    def _validator(self, held_out: Rows) -> Callable[[TrainState], dict[str, float]]:
        """Return a function of the state that returns the logs of validation, in the epochs that have any."""
        model, freq = self.model, self.arguments.validation_freq
        metric_set = model._metric_set(self._held_out_summary)

        def validate(state: TrainState) -> dict[str, float]:
            number = state.epoch + 1
            if number not in freq if isinstance(freq, Collection) else number % freq:
                return {}
            training: Training = model._training
            training.tell("on_test_begin", logs={})
            members = np.atleast_2d(state.params)
            predictor = Predictor(model._built_network(), members, self._encoder, model.engine_)
            logs = held_out.evaluate(Evaluation(predictor, metric_set))
            training.tell("on_test_end", logs=dict(logs))
            return {f"val_{name}": value for name, value in logs.items()}

        return validate

    def train(self, training: Training, targets: Targets) -> None:
        model = self.model
        model._learn_names(self._names)
        model.stop_training = False
        model._n_fits += 1
        model._training = training
        try:
            # After an error the model has the weights of the last good epoch.
            training.run()
        finally:
            model._training = None
            kept = training.hooks.kept
            model._seed, model._n_fits = kept["seed"], kept["n_fits"] + 1
        state = training.state
        optimizer = training.transport.job.optimizer
        model._take(state)
        if optimizer.use_ema and state.params.ndim == 1:
            # As in Keras, the model has the averages when training has ended.
            average = updater.averages(optimizer, state.params, state.slots, targets.network.variables)
            model._members = average[np.newaxis]


def continued(model: Any, state: TrainState) -> TrainState:
    """Return a fresh state with the weights, optimizer's state and rate of an earlier fit of the model.

    The optimizer's state is new if the strategy arranges it differently. ValueError: the model is an ensemble
    of another number of networks.
    """
    members, earlier = model._members, model._slots
    if state.params.shape == members.shape or state.params.ndim == len(members) == 1:
        state = replace(state, params=members.reshape(state.params.shape))
    elif len(members) > 1:
        raise ValueError(
            f"This model is an ensemble of {len(members)} networks, received a strategy for "
            f"{len(np.atleast_2d(state.params))}. Use the same strategy and replicas as before."
        )
    if model._rate is not None:
        state = replace(state, learning_rate=model._rate)
    if earlier is None or earlier.ndim != state.slots.ndim:
        return state
    # Strategies may have slots of their own behind the optimizer's.
    slots = state.slots.copy()
    n_slots = min(earlier.shape[-2], slots.shape[-2])
    slots[..., :n_slots, :] = earlier[..., :n_slots, :]
    return replace(state, slots=slots, step=model._step)
