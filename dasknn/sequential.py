"""Keras's Sequential, for data on a Dask cluster too: compile, fit, evaluate, predict."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from inspect import isfunction
from math import prod
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Tags, TargetTags

from dasknn import callbacks as cb
from dasknn import keras_files, layers, losses, metrics, optimizers, strategies
from dasknn.callbacks import checkpoints, progress
from dasknn.callbacks.announcements import Announcements
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, loading, partitions
from dasknn.data.blocks import load_block, refuse_problems
from dasknn.data.columns import check_names, names_of, refuse_text
from dasknn.engine import updater
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.exceptions import ModelFileError
from dasknn.handles import OptimizerHandle
from dasknn.layers import Input
from dasknn.metrics import MetricSet
from dasknn.models.targets import LabelWeights, LossEncoder
from dasknn.regularizers import BatchL2
from dasknn.saving import safetensors_file, schema, storage
from dasknn.stack import DTYPE, Stack
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.strategies.local_trainer import LocalTrainer
from dasknn.training import prediction
from dasknn.training.datasets import RowsOnTasks, make_shard
from dasknn.training.loop import Face, Training
from dasknn.training.prediction import Evaluation, Predictor

# Names of losses that the shape of y chooses.
_BY_THE_DATA = ("crossentropy", "ce")
# Where the rules choose, a replica has at least so many rows of a step.
_LEAST_ROWS_OF_STEP = 8
# What y and sample_weight are called at the door.
_TARGETS = ("y", "sample_weight")
_NO_PENALTY = BatchL2(0.0)

# Seeds of models that are created: a stream that `set_random_seed` begins anew.
_seeds = np.random.default_rng()


def set_random_seed(seed: int) -> None:
    """Make the models that are created from now on the same in each run, as Keras's utils.set_random_seed
    does.
    """
    global _seeds
    _seeds = np.random.default_rng(seed)


class _Compiled(NamedTuple):
    """What `compile` was given, looked up."""

    optimizer: Any
    loss: Any
    metrics: tuple
    weighted_metrics: tuple
    transport: str


class Sequential(Placed, Stack):
    """A stack of layers that trains where the data is; methods, arguments and words are Keras's.

    layers: objects of `dasknn.layers`, `Input` first, or input_shape on the first. A model that is created,
    compiled or fitted within `strategy.scope()` uses that strategy from then on; without one, plain data
    trains in this process, and Dask data by a rule that `strategy_reason_` tells.
    """

    def __init__(self, layers: Sequence | None = None, trainable: bool = True, name: str | None = None):
        self._strategy = strategies.in_scope()
        #: What was done in the scope that the strategy is of.
        self._scoped = "created"
        self._compiled: _Compiled | None = None
        self._training: Training | None = None
        #: Set by callbacks: end training after the running epoch.
        self.stop_training = False
        self.history: cb.History | None = None
        self._n_fits = 0
        self._forget_steps()
        super().__init__(layers, trainable, name, int(_seeds.integers(2**31)))

    # --- compile -----------------------------------------------------------------------------------

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        *,
        transport="auto",
    ) -> None:
        """Say what to train with; arguments are Keras's.

        metrics are over rows, weighted_metrics over their weights. transport: how averages travel, "peer",
        "tasks" or "auto". ValueError: names that are not known; RuntimeError: another strategy's scope.
        """
        if loss_weights not in (None, 1, 1.0, [1], [1.0]):
            raise ValueError(
                f"Expected loss_weights=None, since there is one output, received {loss_weights!r}."
            )
        if transport not in ("auto", auto.PEER, auto.TASKS):
            raise ValueError(f"Expected transport to be 'auto', 'peer' or 'tasks', received {transport!r}.")
        self._take_scope("compiled")
        if isinstance(optimizer, OptimizerHandle):
            optimizer = optimizer.settings
        if isinstance(loss, list | tuple) and len(loss) == 1:
            loss = loss[0]
        is_open = isinstance(loss, str) and loss.lower() in _BY_THE_DATA
        self._compiled = _Compiled(
            optimizers.get(optimizer),
            loss if is_open else losses.get(loss),
            tuple(_listed(metrics)),
            tuple(_listed(weighted_metrics)),
            transport,
        )
        self._loss = None if is_open else self._compiled.loss
        self._forget_steps()
        if self.built:
            self._rebuild()
            self._metric_set()

    def _settle_loss(self, y) -> _Compiled:
        """Return what the model was compiled with; which cross-entropy it is, the shape of y says."""
        settings = self._settings("loss")
        if isinstance(settings.loss, str) and y is not None:
            n_outputs = self._built_network().n_outputs
            shape = np.shape(_plain(y)) if not hasattr(y, "ndim") else (None, *tuple(y.shape)[1:])
            kind: type = losses.CategoricalCrossentropy
            if n_outputs == 1:
                kind = losses.BinaryCrossentropy
            elif len(shape) < 2 or shape[-1] == 1:
                kind = losses.SparseCategoricalCrossentropy
            self._compiled = settings = settings._replace(loss=kind())
            self._loss = settings.loss
            self._rebuild()
        return settings

    def _warn_of_one_class(self) -> None:
        network = self._built_network()
        loss = self._loss
        is_softmax = network.layers[-1].activation_name == "softmax"
        of_classes = isinstance(loss, losses.CategoricalCrossentropy | losses.SparseCategoricalCrossentropy)
        if network.n_outputs == 1 and (is_softmax or of_classes):
            what = "softmax" if is_softmax else type(loss).__name__
            warnings.warn(
                f"{what} of one output is the same whatever the weights are, so this model cannot learn. For "
                "two classes use Dense(1, activation='sigmoid') and loss='binary_crossentropy', or an output "
                "for each class.",
                stacklevel=3,
            )

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None

    @property
    def optimizer(self) -> OptimizerHandle:
        """The optimizer, with the learning rate that training is at. AttributeError: not compiled."""
        return OptimizerHandle(self, self._settings("optimizer").optimizer)

    @property
    def loss(self) -> Any:
        """The loss that the model was compiled with."""
        return self._settings("loss").loss

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns."""
        return ["loss", *(name for name, _, _ in self._metric_set().entries)]

    def _settings(self, what: str) -> _Compiled:
        if self._compiled is None:
            raise AttributeError(f"You must call `compile()` before using `{what}`.")
        return self._compiled

    def _check_compiled(self, method: str) -> _Compiled:
        if self._compiled is None:
            raise ValueError(f"You must call `compile()` before calling `{method}()`.")
        if self._compiled.loss is None:
            raise ValueError(
                f"`{method}()` needs a loss, received compile(loss=None). Pass one, such as loss='mse'."
            )
        return self._compiled

    def _take_scope(self, scoped: str) -> None:
        """Take the strategy of the scope that this is called in. RuntimeError: the model has another one."""
        current = strategies.in_scope()
        if self._strategy is None:
            self._strategy, self._scoped = current, scoped
        elif current is not None and current != self._strategy:
            raise RuntimeError(
                f"This model was {self._scoped} in the scope of {self._strategy}, and is used in that of "
                f"{current}. A model has one strategy: create another one there, with strategy.scope(): "
                "model = Sequential(...)."
            )

    def _metric_set(self, summary=None) -> MetricSet:
        """Return the metrics, for targets of which this is the summary."""
        center = getattr(summary, "center", None)
        settings = self._settings("metrics")
        n_outputs = self._built_network().n_outputs
        plain, weighted = (
            [metrics.resolve(metric, settings.loss, n_outputs) for metric in wanted]
            for wanted in (settings.metrics, settings.weighted_metrics)
        )
        is_weighted = [False] * len(plain) + [True] * len(weighted)
        names = metrics.named(plain, weighted)
        return MetricSet(tuple(zip(names, [*plain, *weighted], is_weighted, strict=True)), n_outputs, center)

    def _built_network(self):
        self._check_built()
        assert self._network is not None
        return self._network

    # --- what the optimizer has come to ------------------------------------------------------------

    def _forget_steps(self) -> None:
        self._slots: np.ndarray | None = None
        self._step = 0
        self._rate: float | None = None

    def _layout_changed(self) -> None:
        self._forget_steps()

    def __getstate__(self):
        # A running training holds data and a client, which stay in their process.
        return super().__getstate__() | {"_training": None}

    def __sklearn_clone__(self):
        # As of an estimator: what it is made of and was told, and nothing that it has learned. The shape of
        # rows is learned, too, unless it was told.
        knows_shape = any(isinstance(given, Input) or given.input_shape is not None for given in self._given)
        twin = type(self)(
            [*([Input(self._input_shape)] if knows_shape else []), *self._layers], self.trainable, self.name
        )
        twin._strategy, twin._scoped = self._strategy, self._scoped
        twin._compiled, twin._loss = self._compiled, self._loss
        if twin.built:
            twin._rebuild()
        self._place(twin)
        return twin

    @property
    def _learning_rate(self) -> float:
        if self._training is not None:
            return self._training.learning_rate
        return self._settings("optimizer").optimizer.initial_rate if self._rate is None else self._rate

    def _set_learning_rate(self, rate: float) -> None:
        if self._training is not None:
            self._training.learning_rate = rate
            return
        if not isinstance(self._settings("optimizer").optimizer.learning_rate, Real):
            raise TypeError("Expected an optimizer with a number for its learning rate, received a schedule.")
        self._rate = rate

    def _replace_members(self, members: np.ndarray) -> None:
        super()._replace_members(members)
        if self._training is not None:
            state = self._training.state
            self._training.state = replace(state, params=members.reshape(state.params.shape))

    def _n_optimizer_params(self) -> int:
        if self._slots is None:
            return 0
        kept = self._slots.reshape(-1, self._slots.shape[-2], self._slots.shape[-1])
        own = kept[
            :, : updater.n_slots(self._settings("optimizer").optimizer), : self._built_network().n_learned
        ]
        has_schedule = not isinstance(self._settings("optimizer").optimizer.learning_rate, Real)
        return own.size + (1 if has_schedule else 2)

    # --- fit ---------------------------------------------------------------------------------------

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        *,
        checkpoint=None,
        resume=False,
        max_faults=MAX_FAULTS,
    ) -> cb.History:
        """Train on x (n, ...) and y (n,) or (n, k); return the History. Arguments are Keras's.

        x, y and sample_weight may be numpy arrays, Dask arrays or dataframes, pandas objects, lists.
        batch_size (32) counts the rows of a step over all replicas. validation_split takes the last rows,
        also of Dask data. steps_per_epoch: end epochs after so many steps. max_faults: how many faults of the
        cluster (workers lost, attempts that failed) may cost work before training gives up with the last one;
        what happened in an epoch is in History.entries.

        checkpoint: a folder or fsspec URL to which the whole training is written after each epoch, or a
        `dasknn.Checkpoint(path, every=...)`; the two newest files are kept. resume: go on from the newest
        whole one, to the bits of a training that was never interrupted; where there is none, begin at the
        beginning.

        Raises ValueError (or its kind, PartitionError) for data that cannot be trained on, before training
        begins (so for a checkpoint of a training with other settings or data; it says which), FileExistsError
        for a folder that holds checkpoints without resume, ModelFileError where all of them are damaged, and
        NonFiniteLossError when training diverges.
        """
        self._check_compiled("fit")
        self._take_scope("fitted")
        callbacks = cb.as_list(callbacks)
        for callback in callbacks:
            if isinstance(callback, cb.ModelCheckpoint):
                # Now, not after the first epoch.
                _path(callback.filepath, True, _WEIGHTS if callback.save_weights_only else _MODELS)
        _check_fit(
            epochs, initial_epoch, steps_per_epoch, validation_split, validation_steps, validation_freq
        )
        is_distributed = partitions.is_distributed(x, y, sample_weight)
        batch_size = _batch_size(batch_size)
        keeper = checkpoints.begin(checkpoint, resume)
        given = tuple(validation_data) if isinstance(validation_data, list | tuple) else ()
        data = (x, y, sample_weight, *given)
        with ExitStack() as stack:
            tasks = stack.enter_context(self._tasks(is_distributed, data, max_faults))
            x = self._ready(x)
            settings = self._settle_loss(y)
            self._warn_of_one_class()
            names = names_of(x)
            network = self._built_network()
            encoder = self._encoder(counts_labels=class_weight is not None)
            replicas = self._replicas(is_distributed, len(tasks.slots()), batch_size)
            if keeper is not None and keeper.found is not None and not self._says_replicas():
                # The cluster may have another size now; what the user leaves to it stays as it was.
                replicas = keeper.found.replicas
            rows = self._read(tasks, encoder, x, y, sample_weight, replicas, verbose=verbose)
            is_sorted = rows.warn_of_skew(is_ours=not is_distributed)
            summary = held_out_summary = rows.summary(encoder.summarize)
            weights = None if class_weight is None else LabelWeights.of(class_weight, summary, DTYPE)
            held_out = None
            if validation_data is not None:
                validation = self._validation(validation_data, names)
                where = tasks
                if not is_distributed and partitions.is_distributed(*validation):
                    # They are evaluated where they are.
                    where = stack.enter_context(self._tasks(True, validation, max_faults))
                held_out = self._read(where, encoder, *validation, replicas, verbose=verbose)
                held_out_summary = held_out.summary(encoder.summarize)
            elif validation_split:
                held_out = rows.hold_out_last(validation_split)
                if not is_sorted:
                    rows.warn_of_split(held_out, encoder.summarize)
            if not self._says_replicas():
                replicas = min(replicas, rows.n_rows)
            batch_size = min(batch_size, rows.n_rows)
            sizes = auto.Sizes(network, rows.n_rows, replicas, batch_size)
            strategy, self.strategy_reason_ = self._choose(sizes)
            job = self._job(batch_size, replicas, summary, shuffle, steps_per_epoch)
            state = self._begin(job, strategy, replicas)
            wanted = (
                auto.choose_transport(strategy, sizes) if settings.transport == "auto" else settings.transport
            )
            transport = rows.transport(job, strategy, encoder, weights, wanted)
            self.replicas_, self.strategy_, self.transport_ = replicas, strategy, transport.name
            self.history = cb.History()
            decisive = {
                "model": type(self).__name__,
                "initial_epoch": initial_epoch,
                "class_weight": None if weights is None else weights.weights,
                "sample_weight": sample_weight is not None,
                "validation rows": None if held_out is None else held_out.n_rows,
                "validation_freq": validation_freq,
            }
            # Members of an ensemble take whole steps of their own rows.
            of_step = strategy.replicas_in_step(replicas)
            n_steps = -(-rows.n_rows * of_step // (replicas * batch_size))
            n_steps = min(steps_per_epoch or n_steps, n_steps)
            training = Training(
                self,
                transport,
                state,
                max(0, epochs - initial_epoch),
                [
                    *([] if keeper is None else [keeper]),
                    *callbacks,
                    self.history,
                    *_lines(verbose, n_steps),
                    Announcements(tasks),
                ],
                Face(
                    partial(_report, job.metrics),
                    self._validate(encoder, held_out, held_out_summary, validation_freq),
                    () if held_out is None else tuple(f"val_{name}" for name in self.metrics_names),
                    self._take,
                    {"epochs": epochs, "steps": n_steps, "verbose": verbose},
                    settings=decisive,
                    # What the seeds of later fits come from.
                    kept={"seed": self._seed, "n_fits": self._n_fits},
                    check_kept=_KEPT,
                ),
                first_epoch=initial_epoch,
            )
            self._learn_names(names)
            self._run(training)
        return self.history

    def _run(self, training: Training) -> None:
        self.stop_training = False
        self._n_fits += 1
        self._training = training
        try:
            # Whoever catches an error finds the weights of the last good epoch.
            training.run()
        finally:
            self._training = None
            kept = training.face.kept
            self._seed, self._n_fits = kept["seed"], kept["n_fits"] + 1
        state = training.state
        optimizer = training.transport.job.optimizer
        self._take(state)
        if optimizer.use_ema and state.params.ndim == 1:
            # As in Keras, what training ends with are the averages.
            average = updater.averages(optimizer, state.params, state.slots, self._built_network().variables)
            self._members = average[np.newaxis]

    def _take(self, state: TrainState) -> None:
        """Take over what has been learned."""
        self._members = np.atleast_2d(state.params)
        self._slots, self._step = state.slots, state.step
        self._rate = state.learning_rate

    def _begin(self, job: TrainingJob, strategy: Strategy, replicas: int) -> TrainState:
        """Return the state to begin with: what an earlier fit has left, if it goes with this one."""
        assert self._members is not None
        state = strategy.init_state(job, self._members[0], replicas)
        if state.params.shape == self._members.shape or state.params.ndim == len(self._members) == 1:
            state = replace(state, params=self._members.reshape(state.params.shape))
        elif len(self._members) > 1:
            raise ValueError(
                f"This model is an ensemble of {len(self._members)} networks, received a strategy for "
                f"{len(np.atleast_2d(state.params))}. Keep strategy and replicas."
            )
        if self._rate is not None:
            state = replace(state, learning_rate=self._rate)
        if self._slots is None or self._slots.ndim != state.slots.ndim:
            return state
        # Another strategy may have a slot of its own behind those of the optimizer.
        slots = state.slots.copy()
        n_slots = min(self._slots.shape[-2], slots.shape[-2])
        slots[..., :n_slots, :] = self._slots[..., :n_slots, :]
        return replace(state, slots=slots, step=self._step)

    def _job(
        self, batch_size: int | None, replicas: int, summary, shuffle=True, steps_per_epoch=None
    ) -> TrainingJob:
        seed = int(np.random.SeedSequence([self._seed, self._n_fits]).generate_state(1)[0] >> 1)
        optimizer = self._settings("optimizer").optimizer
        metric_set = self._metric_set(summary)
        return TrainingJob(
            self._built_network(),
            optimizer,
            _NO_PENALTY,
            batch_size,
            seed,
            replicas,
            bool(shuffle),
            metrics=metric_set if metric_set.entries else None,
            steps_per_epoch=steps_per_epoch,
        )

    def _validate(self, encoder: LossEncoder, held_out: RowsOnTasks | None, summary, freq) -> Callable | None:
        """Return a function of the state that gives the logs of validation, in the epochs that have any."""
        if held_out is None:
            return None
        metric_set = self._metric_set(summary)

        def validate(state: TrainState) -> dict[str, float]:
            number = state.epoch + 1
            if number not in freq if isinstance(freq, Collection) else number % freq:
                return {}
            assert self._training is not None
            self._training.tell("on_test_begin", logs={})
            predictor = Predictor(self._built_network(), np.atleast_2d(state.params), encoder)
            logs = held_out.evaluate(Evaluation(predictor, metric_set))
            self._training.tell("on_test_end", logs=dict(logs))
            return {f"val_{name}": value for name, value in logs.items()}

        return validate

    def _replicas(self, is_distributed: bool, n_slots: int, batch_size: int) -> int:
        if self._strategy is not None:
            if self._strategy.replicas is not None:
                return self._strategy.replicas
            return n_slots if isinstance(self._strategy, PredictionAveraging) else min(n_slots, batch_size)
        return max(1, min(n_slots, batch_size // _LEAST_ROWS_OF_STEP)) if is_distributed else 1

    def _says_replicas(self) -> bool:
        """Return whether the number of replicas was asked for."""
        return self._strategy is not None and self._strategy.replicas is not None

    def _choose(self, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy, and why it is this one."""
        transport = self._settings("fit").transport
        is_synchronized = sizes.network.is_synchronized
        if self._strategy is not None:
            if is_synchronized and not (
                isinstance(self._strategy, GradientAveraging) and transport != auto.TASKS
            ):
                raise ValueError(
                    "BatchNormalization(synchronized=True) needs averaged gradients and the peer transport, "
                    "received "
                    f"{self._strategy} and transport={transport!r}. Leave synchronized out."
                )
            return self._strategy, f"{self._strategy.name}: asked for by the scope it was {self._scoped} in"
        if is_synchronized:
            return GradientAveraging(), "gradients: a layer is synchronized, step by step"
        return auto.choose_strategy(sizes, auto.TASKS if transport == auto.TASKS else auto.PEER)

    # --- data --------------------------------------------------------------------------------------

    @contextmanager
    def _tasks(self, is_distributed: bool, data: tuple, max_faults: int = MAX_FAULTS) -> Iterator[Executor]:
        """Yield where to run: plain data without a strategy stays in this process."""
        if not is_distributed and self._strategy is None:
            yield LocalExecutor()
            return
        with connect(self.client, is_distributed, max_faults, workers=self.workers, data=data) as tasks:
            yield tasks

    def _ready(self, x, names: list[str] | None = None):
        """Return x with rows of one dimension, (n, p); build the model for their shape, if it is not
        built.

        names: of the columns of a dataframe, where the model knows none yet.
        """
        if x is None:
            raise ValueError("Expected x, an array or dataframe of inputs, received None.")
        x = inputs.admitted("x", x)
        if partitions.is_dataframe(x):
            refuse_text(x)
            check_names(getattr(self, "feature_names_in_", names), x)
            shape: tuple[int, ...] = (len(x.columns),)
        else:
            x = x if hasattr(x, "ndim") else np.asarray(x)
            if x.ndim == 0:
                raise ValueError(
                    f"Expected x of shape (n, ...), an array or dataframe of inputs, received {x!r:.80}."
                )
            shape = tuple(int(n) for n in x.shape[1:]) or (1,)
        if not self.built:
            self.build((None, *shape))
        if shape != self._input_shape:
            raise ValueError(
                f"Expected x of shape {(None, *(self._input_shape or ()))}, as the model's first layer, "
                f"received "
                f"{(None, *shape)}."
            )
        x = partitions.flat_rows(x)
        if partitions.is_distributed(x) and not partitions.is_dataframe(x):
            partitions.check_chunks(x)
        return x

    def _learn_names(self, names: Sequence[str] | None) -> None:
        """Take over the names of the columns of a dataframe that is trained on."""
        if names is not None:
            #: Names of the columns of the dataframes that it was fitted to; an array has none.
            self.feature_names_in_ = np.array(names, dtype=object)

    def _read(
        self, tasks: Executor, encoder: LossEncoder, x, y, sample_weight, n_parts: int, *, verbose
    ) -> RowsOnTasks:
        if y is None:
            raise ValueError("Expected y, an array of targets, received None.")
        names = list(x.columns) if partitions.is_dataframe(x) else None
        y, sample_weight = (_plain(data) for data in inputs.admit(y, sample_weight, names=_TARGETS))
        is_distributed = partitions.is_distributed(x)
        parts = partitions.parts(x, y, sample_weight, 1 if is_distributed else n_parts)
        shown = bool(verbose) and is_distributed and progress.can_move()
        with progress.loading_bar(len(parts), shown) as on_partition:
            loaded = loading.load(
                tasks, parts, DTYPE, encoder.summarize, feature_names=names, on_partition=on_partition
            )
        return RowsOnTasks(tasks, loaded, DTYPE)

    def _validation(self, data, names: list[str] | None) -> tuple[Any, Any, Any]:
        if not isinstance(data, list | tuple) or len(data) not in (2, 3):
            raise ValueError(
                f"Expected validation_data to be (x, y) or (x, y, sample_weight), received "
                f"{type(data).__name__}."
            )
        x, y, *weight = data
        return self._ready(x, names), y, weight[0] if weight else None

    def _encoder(self, counts_labels: bool = False) -> LossEncoder:
        return LossEncoder(self._loss, self._built_network().n_outputs, DTYPE, counts_labels)

    # --- evaluate and predict ----------------------------------------------------------------------

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """Return the loss, or [loss, metrics...] where there are metrics, or a dict; computed where the data
        is.
        """
        self._check_compiled("evaluate")
        _refuse_steps("steps", steps)
        watchers = cb.CallbackList(callbacks, self)
        watchers.tell("on_test_begin", {})
        began = time.perf_counter()
        x = self._ready(x)
        self._settle_loss(y)
        encoder = self._encoder()
        data = (x, y, sample_weight)
        with self._tasks(partitions.is_distributed(*data), data) as tasks:
            n_parts = max(1, len(tasks.slots()))
            rows = self._read(tasks, encoder, x, y, sample_weight, n_parts, verbose=verbose)
            metric_set = self._metric_set(rows.summary(encoder.summarize))
            logs = rows.evaluate(Evaluation(self._predictor(encoder), metric_set))
        watchers.tell("on_test_end", dict(logs))
        progress.print_keras_line(verbose, -(-rows.n_rows // _batch_size(batch_size)), began, logs)
        return logs if return_dict else _scalar_or_list(logs)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Return the outputs (n, units) of x; of Dask data lazily: a Dask array, or a dataframe for a
        dataframe.

        A model that is not built yet is built for x, as in Keras. ValueError: x has other shapes.
        """
        _refuse_steps("steps", steps)
        watchers = cb.CallbackList(callbacks, self)
        x = self._ready(x)
        predictor = self._predictor(self._encoder())
        if partitions.is_distributed(x):
            columns = list(range(predictor.network.n_outputs))
            return self._shaped(prediction.lazily(predictor, "outputs", x, columns))
        watchers.tell("on_predict_begin", {})
        began = time.perf_counter()
        outputs = predictor.outputs(x)
        watchers.tell("on_predict_end", {})
        progress.print_keras_line(verbose, -(-len(outputs) // _batch_size(batch_size)), began, {})
        return self._shaped(outputs)

    def _shaped(self, outputs):
        """Return outputs (n, p) of flat rows in the shape that rows have behind the last layer."""
        shape = self._shapes[-1]
        if len(shape) == 1:
            return outputs
        if isinstance(outputs, np.ndarray):
            return _reshaped(outputs, shape)
        return outputs.map_blocks(
            _reshaped,
            shape,
            dtype=outputs.dtype,
            chunks=(outputs.chunks[0], *((n,) for n in shape)),
            new_axis=list(range(2, len(shape) + 1)),
        )

    def __call__(self, x) -> np.ndarray:
        """Return the outputs (n, units) of plain x."""
        return self.predict_on_batch(x)

    def _predictor(self, encoder: LossEncoder) -> Predictor:
        assert self._members is not None
        return Predictor(self._built_network(), self._members, encoder)

    # --- single batches ----------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Take one step on one batch of plain data, in this process; return its loss and metrics."""
        self._check_compiled("train_on_batch")
        x = self._ready(x)
        self._settle_loss(y)
        self._warn_of_one_class()
        encoder = self._encoder()
        weights = (
            None if class_weight is None else LabelWeights.checked(class_weight, DTYPE, encoder.n_labels)
        )
        names = names_of(x)
        x, y, sample_weight = _cast(x, y, sample_weight)
        shard = make_shard(encoder, weights, x, y, sample_weight)
        job = self._job(None, 1, encoder.summarize(y, sample_weight), shuffle=False)
        state = self._begin(job, GradientAveraging(), 1).begin_epoch(0)
        self._learn_names(names)
        trainer = LocalTrainer(job, state)
        trainer.train(shard, slice(0, len(shard)), [0, len(shard)])
        self._take(trainer.state())
        logs = _report(job.metrics, trainer.state())
        return logs if return_dict else _scalar_or_list(logs)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Return loss and metrics of one batch of plain data."""
        self._check_compiled("test_on_batch")
        x = self._ready(x)
        self._settle_loss(y)
        encoder = self._encoder()
        x, y, sample_weight = _cast(x, y, sample_weight)
        metric_set = self._metric_set(encoder.summarize(y, sample_weight))
        evaluation = Evaluation(self._predictor(encoder), metric_set)
        logs = evaluation.results(evaluation.sums(x, encoder.encode(y), sample_weight))
        return logs if return_dict else _scalar_or_list(logs)

    def predict_on_batch(self, x) -> np.ndarray:
        """Return the outputs (n, units) of plain x."""
        x = self._ready(x)
        return self._shaped(self._predictor(self._encoder()).outputs(x))

    # --- ensembles ---------------------------------------------------------------------------------

    @property
    def members(self) -> list[Sequential]:
        """The networks of an ensemble, each a model; one network is its own only member."""
        assert self._members is not None
        return [self._member(member) for member in self._members]

    def _member(self, params: np.ndarray) -> Sequential:
        model = type(self).from_config(self.get_config())
        if self._compiled is not None:
            model._compiled, model._loss = self._compiled, self._loss
            model._rebuild()
        model._members = params[np.newaxis].copy()
        model._learn_names(getattr(self, "feature_names_in_", None))
        return model

    # --- files -------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> Sequential:
        """Return a model with such layers and new weights. ValueError: layers or settings not known."""
        model, shape = cls._unbuilt(config)
        if shape is not None:
            model.build(shape)
        return model

    @classmethod
    def _unbuilt(cls, config: dict[str, Any]) -> tuple[Sequential, tuple[int | None, ...] | None]:
        """Return a model with such layers, still without weights, and the shape of inputs, if known."""
        model = cls(trainable=config.get("trainable", True), name=config.get("name"))
        for described in config.get("layers", ()):
            model.add(layers.deserialize(described), rebuild=False)
        shape = config.get("build_input_shape") or model.input_shape
        return model, None if shape is None else (None, *shape[1:])

    def _weight_shapes(self, input_shape: tuple[int | None, ...] | None) -> dict[str, list[tuple[int, ...]]]:
        """Return what shapes weights are going to have, by layer, without making any."""
        found: dict[str, list[tuple[int, ...]]] = {layer.name or "": [] for layer in self._layers}
        if input_shape is None:
            return found
        shape = layers.Input(shape=input_shape[1:]).shape
        for layer in self._layers:
            found[layer.name or ""] = [weight.shape for weight in layer.weights(prod(shape))]
            shape = layer.output_shape(shape)
        return found

    def to_json(self, **settings) -> str:
        """Return the layers as JSON, in Keras's form."""
        return json.dumps(self._described(), **settings)

    def _described(self) -> dict[str, Any]:
        return {
            "module": "keras",
            "class_name": "Sequential",
            "config": self.get_config(),
            "registered_name": None,
        }

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return what `compile` was given, in Keras's form; None: not compiled."""
        if self._compiled is None:
            return None
        settings = self._compiled
        optimizer = settings.optimizer
        if isinstance(optimizer.learning_rate, Real):
            # As in Keras: the rate that training has come to. Keras takes no integers.
            optimizer = replace(optimizer, learning_rate=float(self._learning_rate))
        return {
            "optimizer": optimizers.serialize(optimizer),
            "loss": losses.serialize(settings.loss)
            if isinstance(settings.loss, losses.Loss)
            else settings.loss,
            "loss_weights": None,
            "metrics": [_described_metric(metric) for metric in settings.metrics] or None,
            "weighted_metrics": [_described_metric(metric) for metric in settings.weighted_metrics] or None,
            "run_eagerly": False,
            "steps_per_execution": 1,
            "jit_compile": "auto",
        }

    def compile_from_config(self, config: dict[str, Any], custom_objects=None) -> None:
        """Compile as `get_compile_config` described it; custom_objects: names to functions and classes."""
        known = ("optimizer", "loss", "metrics", "weighted_metrics")
        self.compile(**{name: _looked_up(config.get(name), custom_objects or {}) for name in known})

    def save(self, filepath, overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write layers, weights, what it was compiled with and the optimizer's state to one file.

        The name says the form: ".keras", which Keras opens (needs h5py), or ".safetensors", which also holds
        ensembles. The file comes to be as a whole or not at all. FileExistsError: it is there, and overwrite
        is False.
        """
        self._check_built()
        path = _path(filepath, overwrite, _MODELS)
        if path.endswith(".keras"):
            state = self._optimizer_state() if include_optimizer else []
            weights = self._by_layer(self._params_of_one())
            columns = self.feature_names_in_.tolist() if hasattr(self, "feature_names_in_") else None
            keras_files.write(path, keras_files.KerasFile(self._whole_config(), weights, state, columns))
            return
        safetensors_file.write(path, *parts_of(self, include_optimizer))

    def _whole_config(self) -> dict[str, Any]:
        """Return layers, the shape of inputs and what it was compiled with, as Keras's files say it."""
        config = self._described() | {"build_config": {"input_shape": list(self.input_shape or ())}}
        if self._compiled is not None:
            config["compile_config"] = self.get_compile_config()
        return config

    def save_weights(self, filepath, overwrite: bool = True) -> None:
        """Write the weights alone: ".weights.h5", which Keras reads (needs h5py), or ".safetensors"."""
        path = _path(filepath, overwrite, _WEIGHTS)
        if path.endswith(".h5"):
            weights = self._by_layer(self._params_of_one())
            file = keras_files.KerasFile({}, weights, self._optimizer_state())
            keras_files.write_weights(path, file, self._names())
            return
        arrays = {f"{number:06d}": weight for number, weight in enumerate(self.get_weights())}
        safetensors_file.write(path, {"kind": "weights"}, arrays)

    def load_weights(self, filepath, skip_mismatch: bool = False) -> None:
        """Read weights that `save_weights` or Keras's wrote, or those of a whole model's file.

        skip_mismatch: leave out layers whose weights do not fit, and warn; not of ".safetensors".
        ValueError, or its kind ModelFileError: weights that are missing or of other shapes.
        """
        self._check_built()
        path = os.fspath(filepath)
        if path.endswith(".safetensors"):
            description, arrays = safetensors_file.read(path)
            if description.get("kind") == "Sequential":
                self.set_weights(from_parts(description, arrays, path, compile=False).get_weights())
                return
            if description.get("kind") != "weights":
                raise ModelFileError(f"Expected weights in {path}, received {description.get('kind')!r}.")
            with schema.refusing(path, "weights of this model", ""):
                self.set_weights([arrays[name] for name in sorted(arrays)])
            return
        read = keras_files.read if path.endswith(".keras") else keras_files.read_weights
        self._load_by_layer(read(path, self._names()).weights, skip_mismatch)

    def _load_by_layer(self, by_layer: dict[str, list[np.ndarray]], skip_mismatch: bool = False) -> None:
        params = self._params_of_one().copy()
        views = self._views(params)
        keras_files.assign(views, keras_files.fitting(views, by_layer) if skip_mismatch else by_layer)
        self._replace_members(params[np.newaxis])

    def _names(self) -> list[tuple[str, str]]:
        """Return class and name of each layer, from which Keras makes the names in its weight files."""
        return [(type(layer).__name__, layer.name or "") for layer in self._layers]

    def _optimizer_state(self) -> list[np.ndarray]:
        """Return what Keras keeps of an optimizer; nothing where there is none."""
        if self._compiled is None:
            return []
        params, slots = self._params_of_one(), self._slots
        if slots is None:
            slots = updater.initial_slots(self._compiled.optimizer, params)
        # An ensemble of one has its slots as (1, n_slots, n).
        slots = slots.reshape(-1, len(params))
        return keras_files.optimizer_variables(
            self._compiled.optimizer, self._ordered_variables(), slots, self._step, self._learning_rate
        )

    def _ordered_variables(self) -> list[updater.Variable]:
        """Return what is learned, in Keras's order: layer by layer."""
        network = self._built_network()
        order = {(i, w.name): (i, k) for i, ws in enumerate(network.weights) for k, w in enumerate(ws)}
        learned = [variable for variable in network.variables if variable.is_learned]
        return sorted(learned, key=lambda variable: order[variable.layer, variable.name])

    def _restore_optimizer(self, state: list[np.ndarray]) -> None:
        if not state or self._compiled is None:
            return
        slots = updater.initial_slots(self._compiled.optimizer, self._params_of_one())
        self._step, rate = keras_files.restore_optimizer(
            self._compiled.optimizer, self._ordered_variables(), slots, state
        )
        self._slots = slots
        if rate is not None:
            self._rate = rate

    # --- in scikit-learn's pipelines ---------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return self.built

    def __sklearn_tags__(self):
        return Tags(estimator_type=None, target_tags=TargetTags(required=True, multi_output=True))

    def __repr__(self):
        return f"<Sequential name={self.name}, built={self.built}>"


# --- loading -----------------------------------------------------------------------------------------


def load_model(filepath, custom_objects=None, compile: bool = True, safe_mode: bool = True) -> Sequential:
    """Return the model that `Sequential.save` or Keras's `model.save` wrote, compiled as it was.

    custom_objects: names to functions and classes that losses and metrics of it are made of.

    FileNotFoundError: no such file. ModelFileError, a ValueError: a damaged file, layers or settings that are
    not known, weights that are missing or of another shape.
    """
    path = os.fspath(filepath)
    if path.endswith(".safetensors"):
        return from_parts(*safetensors_file.read(path), path, compile, custom_objects)
    found = keras_files.read(path)
    with schema.refusing(path, _MODEL, _REMEDY):
        check = partial(keras_files.check_shapes, by_layer=found.weights)
        model = _from_config(found.config, compile, check, custom_objects)
        if model.built:
            model._load_by_layer(found.weights)
            model._restore_optimizer(found.optimizer)
        model._learn_names(found.columns)
    return model


def model_from_json(json_string: str, custom_objects=None) -> Sequential:
    """Return a model with the layers that `to_json` described, and new weights."""
    with schema.refusing("The string", _MODEL, "Use to_json of a Sequential."):
        return _from_config(schema.parse(json_string), compile=False)


def _from_config(
    config: dict[str, Any], compile: bool = True, check: Callable | None = None, custom_objects=None
) -> Sequential:
    """Return the model that was described. ModelFileError: it cannot be made here.

    check: hears the shapes of all weights by layer, before there are any: so no file makes absurd arrays.
    """
    schema.table(schema.anything)(config, "config")
    if config.get("class_name") != "Sequential":
        raise ModelFileError(
            f"Expected a Sequential model, received a {config.get('class_name')!r}: dasknn has no other."
        )
    try:
        model, shape = Sequential._unbuilt(config["config"])
        if check is not None:
            check(model._weight_shapes(shape))
        if shape is not None:
            model.build(shape)
        if compile and (settings := config.get("compile_config")):
            model.compile_from_config(settings, custom_objects)
    except ModelFileError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelFileError(
            f"The model in the file cannot be made here: {error} load_model takes losses and metrics of "
            f"yours "
            "as custom_objects; with compile=False it leaves out optimizer, loss and metrics."
        ) from error
    return model


# Endings of files.
_MODELS, _WEIGHTS = (".keras", ".safetensors"), (".weights.h5", ".safetensors")
# What checkpoints keep, besides the training.
_KEPT = schema.record({"seed": schema.optional(schema.integer(0, 2**128)), "n_fits": schema.integer()})
_MODEL, _REMEDY = "a model", "Save the model again."
_PARTS = schema.record(
    {
        "kind": schema.text,
        "config": schema.table(schema.anything),
        "step": schema.integer(),
        "learning_rate": schema.optional(schema.number()),
    },
    {"feature_names_in": schema.each(schema.text)},
    others=schema.anything,
)


def parts_of(
    model: Sequential, include_optimizer: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a built model: what its file holds."""
    model._check_built()
    assert model._members is not None
    arrays = {"members": model._members}
    description = {
        "kind": Sequential.__name__,
        "config": model._whole_config(),
        "step": model._step,
        "learning_rate": None if model._rate is None else float(model._rate),
    }
    if hasattr(model, "feature_names_in_"):
        description["feature_names_in"] = model.feature_names_in_.tolist()
    if include_optimizer and model._slots is not None:
        arrays["slots"] = model._slots
    return description, arrays


def from_parts(
    description, arrays, path: str | os.PathLike, compile: bool = True, custom_objects=None
) -> Sequential:
    """Return the model that these are the parts of. ModelFileError, naming the path: another kind."""
    if description.get("kind") != Sequential.__name__:
        raise ModelFileError(
            f"Expected a Sequential in {path}, received {str(description.get('kind'))[:60]!r}. Use "
            "dasknn.load."
        )
    with schema.refusing(path, _MODEL, _REMEDY):
        _PARTS(description, "")
        members, slots = arrays["members"], arrays.get("slots")
        model = _from_config(description["config"], compile, partial(_check_members, members), custom_objects)
        if slots is not None:
            _check_slots(slots, members)
        model._members = members
        model._step, model._rate = description["step"], description["learning_rate"]
        model._slots = slots if compile else None
        model._learn_names(description.get("feature_names_in"))
    return model


def _check_members(members: np.ndarray, shapes: dict[str, list[tuple[int, ...]]]) -> None:
    n_params = sum(prod(shape) for of_layer in shapes.values() for shape in of_layer)
    if members.ndim != 2 or not len(members) or members.shape[1] != n_params or members.dtype != DTYPE:
        raise ModelFileError(
            f"Expected parameters of shape (members, {n_params}) and of {DTYPE} for the layers described, "
            f"received {members.shape} of {members.dtype}."
        )


def _check_slots(slots: np.ndarray, members: np.ndarray) -> None:
    fits = slots.ndim in (2, 3) and slots.shape[-1] == members.shape[1] and slots.dtype == DTYPE
    if not fits or (slots.ndim == 3 and len(slots) != len(members)):
        raise ModelFileError(
            f"Expected an optimizer's state for parameters of shape {members.shape}, received "
            f"{slots.shape} of {slots.dtype}."
        )


def from_keras(model) -> Sequential:
    """Return a Sequential with the layers, weights and compiled settings of one of Keras's.

    ModelFileError: layers that dasknn does not have.
    """
    config = {"class_name": type(model).__name__, "config": model.get_config()}
    if getattr(model, "compiled", False):
        config["compile_config"] = model.get_compile_config()
    found = _from_config(config)
    if found.built:
        found._load_by_layer({layer.name: layer.get_weights() for layer in model.layers})
    return found


def to_keras(model: Sequential):
    """Return one of Keras's models with the same layers, weights and compiled settings.

    ImportError: no Keras.
    """
    return keras_files.to_keras(model._described(), model.get_compile_config(), model.get_weights())


# --- arguments ---------------------------------------------------------------------------------------


def _listed(wanted) -> list:
    if wanted is None:
        return []
    if isinstance(wanted, dict):
        raise ValueError(f"Expected a list of metrics, since there is one output, received {wanted!r}.")
    if not isinstance(wanted, list | tuple):
        return [wanted]
    return [metric for item in wanted for metric in (item if isinstance(item, list | tuple) else [item])]


def _described_metric(metric):
    if isfunction(metric):
        return {
            "module": "builtins",
            "class_name": "function",
            "config": metric.__name__,
            "registered_name": "function",
        }
    return metric if isinstance(metric, str | dict) else metrics.serialize(metrics.resolve(metric, None, 1))


def _looked_up(described, custom_objects: dict[str, Any]):
    """Return what a description stands for among objects of the user's; other functions by their names."""
    if isinstance(described, list | tuple):
        return [_looked_up(item, custom_objects) for item in described]
    if isinstance(described, str):
        return custom_objects.get(described, described)
    if not isinstance(described, dict):
        return described
    if described.get("class_name") == "function":
        return _looked_up(str(described.get("config")), custom_objects)
    kind = custom_objects.get(str(described.get("class_name")))
    return described if kind is None else kind.from_config(described["config"])


def _batch_size(batch_size) -> int:
    if batch_size is None:
        return 32
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"Expected batch_size to be an integer of at least 1, received {batch_size!r}.")
    return int(batch_size)


def _check_fit(
    epochs, initial_epoch, steps_per_epoch, validation_split, validation_steps, validation_freq
) -> None:
    for name, value in (("epochs", epochs), ("initial_epoch", initial_epoch)):
        if not isinstance(value, int | np.integer) or value < 0:
            raise ValueError(f"Expected {name} to be an integer of at least 0, received {value!r}.")
    is_list = isinstance(validation_freq, Collection) and not isinstance(validation_freq, str)
    frequencies = list(validation_freq) if is_list else [validation_freq]
    if not all(isinstance(number, int | np.integer) and number >= 1 for number in frequencies):
        raise ValueError(
            "Expected validation_freq to be an integer of at least 1, every how many epochs, or the numbers "
            f"of epochs, from 1, received {validation_freq!r}."
        )
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"Expected steps_per_epoch to be at least 1, received {steps_per_epoch!r}.")
    if not 0 <= validation_split < 1:
        raise ValueError(f"Expected validation_split to be in [0, 1), received {validation_split!r}.")
    _refuse_steps("validation_steps", validation_steps)


def _refuse_steps(name: str, steps) -> None:
    if steps is not None:
        raise ValueError(f"Expected {name}=None: all rows are used, received {steps!r}. Pass fewer rows.")


def _lines(verbose, n_steps: int) -> list[cb.Callback]:
    shown = 1 if verbose == "auto" else int(verbose)
    return [progress.KerasLines(n_steps, bar=shown == 1)] if shown else []


def _report(metric_set: MetricSet | None, state: TrainState) -> dict[str, Any]:
    """Return what callbacks hear of a state."""
    found = {} if metric_set is None else metric_set.results(state.metric_sums)
    return {"loss": state.loss, **found}


def _scalar_or_list(logs: dict[str, Any]):
    values = list(logs.values())
    return values if len(values) > 1 else values[0]


def _plain(column):
    """Return a list as an array, and an array of rows (n, ...) as (n, k); whatever else as it is."""
    column = np.asarray(column) if isinstance(column, list | tuple) else column
    return partitions.flat_rows(column) if getattr(column, "ndim", 1) > 2 else column


def _reshaped(block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return block.reshape(len(block), *shape)


def _cast(x, y, sample_weight):
    """Return plain data as a block has them. ValueError: lengths that differ; PartitionError: bad numbers."""
    if y is None:
        raise ValueError("Expected y, an array of targets, received None.")
    y, sample_weight = inputs.admit(y, sample_weight, names=_TARGETS)
    columns = {"X": x, "y": _plain(y)}
    if sample_weight is not None:
        columns["weight"] = _plain(sample_weight)
    block = load_block(tuple((name,) for name in columns), DTYPE, None, *columns.values())
    refuse_problems(block)
    return block.X, block.y, block.weight


def _path(filepath, overwrite: bool, endings: tuple[str, ...]) -> str:
    path = os.fspath(filepath)
    if not path.endswith(endings):
        raise ValueError(f"Expected a path that ends in {' or '.join(endings)}, received {path!r}.")
    if not overwrite and storage.exists(path):
        raise FileExistsError(f"{path} exists. Pass overwrite=True, or another name.")
    return path
