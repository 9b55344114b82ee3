"""Keras's Sequential, for data on a Dask cluster too: compile, fit, evaluate, predict."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import Tags, TargetTags

from dasknn import callbacks as cb
from dasknn import layers, losses, metrics, optimizers, strategies
from dasknn.callbacks import checkpoints, progress
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions
from dasknn.data.columns import check_names, names_of, refuse_text
from dasknn.engine import updater
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.exceptions import caller_stacklevel
from dasknn.layers import Input
from dasknn.metrics import MetricSet
from dasknn.models import persistence
from dasknn.models.arguments import (
    check_fit,
    checked_batch_size,
    checked_path,
    checked_validation,
    flat_columns,
    one_block,
    refuse_steps,
    report,
    reshaped,
    scalar_or_list,
)
from dasknn.models.compile import BY_THE_DATA, Compiled, described_metric, listed, looked_up
from dasknn.models.fitting import FitArguments, SequentialFit, continued, read_rows
from dasknn.models.layer_stack import DTYPE, Stack
from dasknn.models.persistence import MODEL_ENDINGS, WEIGHTS_ENDINGS
from dasknn.models.targets import LabelWeights, LossEncoder
from dasknn.models.views import OptimizerHandle
from dasknn.regularizers import BatchL2
from dasknn.seeds import seed_of_fit
from dasknn.strategies import GradientAveraging, auto
from dasknn.strategies.local_trainer import LocalTrainer
from dasknn.training import prediction
from dasknn.training.datasets import make_shard
from dasknn.training.fit import Columns
from dasknn.training.loop import Training
from dasknn.training.prediction import Evaluation, Predictor

_NO_PENALTY = BatchL2(0.0)

# Seeds of models that are created: a stream that `set_random_seed` begins anew.
_seeds = np.random.default_rng()


def set_random_seed(seed: int) -> None:
    """Make the models that are created from now on the same in each run, as Keras's utils.set_random_seed
    does.
    """
    global _seeds
    _seeds = np.random.default_rng(seed)


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
        self._compiled: Compiled | None = None
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
        is_open = isinstance(loss, str) and loss.lower() in BY_THE_DATA
        self._compiled = Compiled(
            optimizers.get(optimizer),
            loss if is_open else losses.get(loss),
            tuple(listed(metrics)),
            tuple(listed(weighted_metrics)),
            transport,
        )
        self._loss = None if is_open else self._compiled.loss
        self._forget_steps()
        if self.built:
            self._rebuild()
            self._metric_set()

    def _settle_loss(self, y) -> Compiled:
        """Return what the model was compiled with; which cross-entropy it is, the shape of y says."""
        settings = self._settings("loss")
        if isinstance(settings.loss, str) and y is not None:
            n_outputs = self._built_network().n_outputs
            shape = np.shape(flat_columns(y)) if not hasattr(y, "ndim") else (None, *tuple(y.shape)[1:])
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
                stacklevel=caller_stacklevel(),
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

    def _settings(self, what: str) -> Compiled:
        if self._compiled is None:
            raise AttributeError(f"You must call `compile()` before using `{what}`.")
        return self._compiled

    def _check_compiled(self, method: str) -> Compiled:
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
                checked_path(
                    callback.filepath, True, WEIGHTS_ENDINGS if callback.save_weights_only else MODEL_ENDINGS
                )
        check_fit(epochs, initial_epoch, steps_per_epoch, validation_split, validation_steps, validation_freq)
        if validation_data is not None:
            validation_data = checked_validation(validation_data)
        arguments = FitArguments(
            checked_batch_size(batch_size),
            epochs,
            verbose,
            callbacks,
            validation_split,
            bool(shuffle),
            class_weight,
            initial_epoch,
            steps_per_epoch,
            validation_freq,
        )
        found = checkpoints.begin(checkpoint, resume)
        data = Columns(x, y, sample_weight)
        SequentialFit(self, data, validation_data, arguments, found, max_faults).run()
        assert self.history is not None
        return self.history

    def _take(self, state: TrainState) -> None:
        """Take over what has been learned."""
        self._members = np.atleast_2d(state.params)
        self._slots, self._step = state.slots, state.step
        self._rate = state.learning_rate

    def _job(
        self, batch_size: int | None, replicas: int, summary, shuffle=True, steps_per_epoch=None
    ) -> TrainingJob:
        seed = seed_of_fit(self._seed, self._n_fits)
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
        refuse_steps("steps", steps)
        watchers = cb.CallbackList(callbacks, self)
        watchers.tell("on_test_begin", {})
        began = time.perf_counter()
        x = self._ready(x)
        self._settle_loss(y)
        encoder = self._encoder()
        data = (x, y, sample_weight)
        with self._tasks(partitions.is_distributed(*data), data) as tasks:
            n_parts = max(1, len(tasks.slots()))
            rows = read_rows(tasks, encoder, Columns(x, y, sample_weight), n_parts, verbose)
            metric_set = self._metric_set(rows.summary(encoder.summarize))
            logs = rows.evaluate(Evaluation(self._predictor(encoder), metric_set))
        watchers.tell("on_test_end", dict(logs))
        progress.print_keras_line(verbose, -(-rows.n_rows // checked_batch_size(batch_size)), began, logs)
        return logs if return_dict else scalar_or_list(logs)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Return the outputs (n, units) of x; of Dask data lazily: a Dask array, or a dataframe for a
        dataframe.

        A model that is not built yet is built for x, as in Keras. ValueError: x has other shapes.
        """
        refuse_steps("steps", steps)
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
        progress.print_keras_line(verbose, -(-len(outputs) // checked_batch_size(batch_size)), began, {})
        return self._shaped(outputs)

    def _shaped(self, outputs):
        """Return outputs (n, p) of flat rows in the shape that rows have behind the last layer."""
        shape = self._shapes[-1]
        if len(shape) == 1:
            return outputs
        if isinstance(outputs, np.ndarray):
            return reshaped(outputs, shape)
        return outputs.map_blocks(
            reshaped,
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
        x, y, sample_weight = one_block(x, y, sample_weight)
        shard = make_shard(encoder, weights, x, y, sample_weight)
        job = self._job(None, 1, encoder.summarize(y, sample_weight), shuffle=False)
        assert self._members is not None
        state = continued(self, GradientAveraging().init_state(job, self._members[0], 1)).begin_epoch(0)
        self._learn_names(names)
        trainer = LocalTrainer(job, state)
        trainer.train(shard, slice(0, len(shard)), [0, len(shard)])
        self._take(trainer.state())
        logs = report(job.metrics, trainer.state())
        return logs if return_dict else scalar_or_list(logs)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Return loss and metrics of one batch of plain data."""
        self._check_compiled("test_on_batch")
        x = self._ready(x)
        self._settle_loss(y)
        encoder = self._encoder()
        x, y, sample_weight = one_block(x, y, sample_weight)
        metric_set = self._metric_set(encoder.summarize(y, sample_weight))
        evaluation = Evaluation(self._predictor(encoder), metric_set)
        logs = evaluation.results(evaluation.sums(x, encoder.encode(y), sample_weight))
        return logs if return_dict else scalar_or_list(logs)

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
            "metrics": [described_metric(metric) for metric in settings.metrics] or None,
            "weighted_metrics": [described_metric(metric) for metric in settings.weighted_metrics] or None,
            "run_eagerly": False,
            "steps_per_execution": 1,
            "jit_compile": "auto",
        }

    def compile_from_config(self, config: dict[str, Any], custom_objects=None) -> None:
        """Compile as `get_compile_config` described it; custom_objects: names to functions and classes."""
        known = ("optimizer", "loss", "metrics", "weighted_metrics")
        self.compile(**{name: looked_up(config.get(name), custom_objects or {}) for name in known})

    def save(self, filepath, overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write layers, weights, what it was compiled with and the optimizer's state to one file.

        The name says the form: ".keras", which Keras opens (needs h5py), or ".safetensors", which also holds
        ensembles. The file comes to be as a whole or not at all. FileExistsError: it is there, and overwrite
        is False.
        """
        persistence.save(self, filepath, overwrite, include_optimizer)

    def save_weights(self, filepath, overwrite: bool = True) -> None:
        """Write the weights alone: ".weights.h5", which Keras reads (needs h5py), or ".safetensors"."""
        persistence.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath, skip_mismatch: bool = False) -> None:
        """Read weights that `save_weights` or Keras's wrote, or those of a whole model's file.

        skip_mismatch: leave out layers whose weights do not fit, and warn; not of ".safetensors".
        ValueError, or its kind ModelFileError: weights that are missing or of other shapes.
        """
        persistence.load_weights(Sequential, self, filepath, skip_mismatch)

    # --- in scikit-learn's pipelines ---------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return self.built

    def __sklearn_tags__(self):
        return Tags(estimator_type=None, target_tags=TargetTags(required=True, multi_output=True))

    def __repr__(self):
        return f"<Sequential name={self.name}, built={self.built}>"
