"""Keras's Sequential, for data on a Dask cluster too: fit, evaluate, predict."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.utils import Tags, TargetTags

from dasknn import callbacks as cb
from dasknn.callbacks import checkpoints, progress
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.local import LocalExecutor
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions
from dasknn.data.columns import check_names, names_of, refuse_text
from dasknn.engine import engines
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.layers import Input
from dasknn.models import persistence
from dasknn.models.arguments import (
    FitArguments,
    checked_batch_size,
    checked_callbacks,
    checked_validation,
    one_block,
    refuse_steps,
    report,
    reshaped,
    scalar_or_list,
)
from dasknn.models.compile import CompiledStack
from dasknn.models.fitting import SequentialFit, continued, read_rows
from dasknn.models.layer_stack import DTYPE
from dasknn.models.targets import LabelWeights, LossEncoder
from dasknn.regularizers import BatchL2
from dasknn.seeds import seed_of_fit
from dasknn.strategies import GradientAveraging
from dasknn.strategies.local_trainer import LocalTrainer
from dasknn.training import prediction
from dasknn.training.datasets import make_shard
from dasknn.training.fit import Columns
from dasknn.training.prediction import Evaluation, Predictor

_NO_PENALTY = BatchL2(0.0)

# Draws the seeds of new models; `set_random_seed` replaces it.
_seeds = np.random.default_rng()


def set_random_seed(seed: int) -> None:
    """Make the models that are created afterwards reproducible, as Keras's utils.set_random_seed does.

    Parameters
    ----------
    seed : int
        At least 0.
    """
    global _seeds
    _seeds = np.random.default_rng(seed)


@contextmanager
def seeds_from(seed: int) -> Iterator[None]:
    """Let the seeds of models that are created in this context follow from one seed."""
    global _seeds
    before = _seeds
    set_random_seed(seed)
    try:
        yield
    finally:
        _seeds = before


class Sequential(Placed, CompiledStack):
    """A stack of layers that trains where the data is, with Keras's methods and arguments.

    A model that is created, compiled or fitted within `strategy.scope()` has that strategy from then on.
    Without a strategy, plain data trains in this process, and a rule chooses one for Dask data.

    Parameters
    ----------
    layers : sequence of Layer or None, default=None
        `Input` first, or a first layer with input_shape; else the data of `fit` or `predict` has the shape.
    trainable : bool, default=True
        Whether training changes the weights of the layers.
    name : str or None, default=None
        None: "sequential".

    Attributes
    ----------
    history : History or None
        Losses and metrics of the last fit.
    stop_training : bool
        Callbacks set it to end training after the running epoch.
    feature_names_in_ : array (n_columns,)
        Names of the columns of x in `fit`, if it was a dataframe.
    replicas_ : int
        Number of replicas in the last fit.
    strategy_ : Strategy
        The strategy of the last fit.
    strategy_reason_ : str
        Why this strategy was used.
    engine_ : {'numpy', 'numba'}
        What computed in the last fit.
    engine_reason_ : str
        Why this engine was used.
    transport_ : {'peer', 'tasks'}
        How averages travelled in the last fit.
    """

    def __init__(self, layers: Sequence | None = None, trainable: bool = True, name: str | None = None):
        self.stop_training = False
        self.history: cb.History | None = None
        self._n_fits = 0
        super().__init__(layers, trainable, name, int(_seeds.integers(2**31)))

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
        """Train the model, with Keras's arguments.

        Dask collections, or a model with a strategy, train on the cluster of `self.client` or of the current
        client, else on Dask's local scheduler. Plain data without a strategy trains in this process.

        Parameters
        ----------
        x : Dask array or dataframe, array, dataframe or list, (n, ...)
        y : Dask array or series, array, series or list, (n,) or (n, k)
        batch_size : int or None, default=None
            Rows of a step over all replicas. None: 32.
        epochs : int, default=1
            Number of the last epoch.
        verbose : {'auto', 0, 1, 2}, default='auto'
            0: nothing. 1 and 'auto': a progress bar and a line for each epoch. 2: a line for each epoch.
        callbacks : Callback, list of them or None, default=None
            Called during training, in the process that called fit.
        validation_split : float, default=0.0
            Share of the rows, the last ones, to hold out and score after each epoch.
        validation_data : (x, y) or (x, y, sample_weight), default=None
            Rows to score after each epoch, instead of held-out rows.
        shuffle : bool, default=True
            Whether rows are visited in a new order in each epoch.
        class_weight : dict, 'balanced' or None, default=None
            Weights of the labels, by which the weights of rows are multiplied. 'balanced': the same total
            weight for each label.
        sample_weight : Dask array or series, array, series, list or None, (n,), default=None
        initial_epoch : int, default=0
            Number of epochs that were trained before.
        steps_per_epoch : int or None, default=None
            Most steps of an epoch. None: all rows.
        validation_steps : None
            All rows are scored.
        validation_batch_size : None
            Has no effect.
        validation_freq : int or list of int, default=1
            Score validation rows after every so many epochs, or after the epochs with these numbers, from 1.
        checkpoint : str, path, Checkpoint or None, default=None
            A folder or fsspec URL, or a `dasknn.Checkpoint`, to which the whole training is written after
            each epoch. The two newest files are kept.
        resume : bool, default=False
            Whether to resume from the newest undamaged file, with the same bits as a training that was not
            interrupted. If there is none, training starts from the beginning.
        max_faults : int, default=10
            How many faults of the cluster (lost workers, failed attempts) may cost work before the last one
            is raised. The history has the faults of each epoch.

        Returns
        -------
        History
            `history.history` has losses and metrics by name, `history.entries` the details of each epoch.

        Raises
        ------
        ValueError
            Before training: data that cannot be trained on (a PartitionError names the partition), or a
            checkpoint of a training with other settings or data.
        FileExistsError
            The folder holds checkpoints, and resume is False.
        ModelFileError
            All checkpoints in the folder are damaged.
        NonFiniteLossError
            Training diverges.
        """
        self._check_compiled("fit")
        self._take_scope("fitted")
        refuse_steps("validation_steps", validation_steps)
        arguments = FitArguments(
            checked_batch_size(batch_size),
            epochs,
            verbose,
            checked_callbacks(callbacks),
            validation_split,
            bool(shuffle),
            class_weight,
            initial_epoch,
            steps_per_epoch,
            validation_freq,
        )
        validation = None if validation_data is None else checked_validation(validation_data)
        found = checkpoints.begin(checkpoint, resume)
        data = Columns(x, y, sample_weight)
        SequentialFit(self, data, validation, arguments, found, max_faults).run()
        assert self.history is not None
        return self.history

    def _take(self, state: TrainState) -> None:
        """Take over weights, optimizer's state and learning rate of a state."""
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
    def _connect(self, is_distributed: bool, data: tuple) -> Iterator[Executor]:
        """Yield an executor; plain data without a strategy stays in this process."""
        if not is_distributed and self._strategy is None:
            yield LocalExecutor()
            return
        with connect(self.client, is_distributed, workers=self.workers, data=data) as executor:
            yield executor

    def _ready(self, x, names: list[str] | None = None):
        """Return x with flat rows (n, p); build the model for their shape, if it is not built.

        names: expected columns of a dataframe, if the model was not fitted to one.
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
                f"received {(None, *shape)}."
            )
        x = partitions.flat_rows(x)
        if partitions.is_distributed(x) and not partitions.is_dataframe(x):
            partitions.check_chunks(x)
        return x

    def _learn_names(self, names: Sequence[str] | None) -> None:
        """Keep the names of the columns of a dataframe that the model is trained on."""
        if names is not None:
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
        """Compute loss and metrics, where the data is.

        Parameters
        ----------
        x, y
            Rows and targets as for `fit`.
        batch_size : int or None, default=None
            Counts steps in the printed line only.
        verbose : {'auto', 0, 1, 2}, default='auto'
            0: nothing. Else: a line.
        sample_weight
            Weights of the rows as for `fit`.
        steps : None
            All rows are used.
        callbacks : Callback, list of them or None, default=None
        return_dict : bool, default=False

        Returns
        -------
        float, list of float or dict
            The loss; with metrics, a list that begins with the loss, in the order of `metrics_names`; with
            return_dict, a dict with these names.

        Raises
        ------
        ValueError
            The model is not compiled, or data that it cannot score (a PartitionError names the partition).
        """
        self._check_compiled("evaluate")
        refuse_steps("steps", steps)
        watchers = cb.CallbackList(callbacks, self)
        watchers.tell("on_test_begin", {})
        began = time.perf_counter()
        x = self._ready(x)
        self._settle_loss(y)
        encoder = self._encoder()
        data = Columns(x, y, sample_weight)
        with self._connect(data.is_distributed, data) as executor:
            n_parts = max(1, len(executor.slots()))
            rows = read_rows(executor, encoder, data, n_parts, verbose)
            metric_set = self._metric_set(rows.summary(encoder.summarize))
            logs = rows.evaluate(Evaluation(self._predictor(encoder), metric_set))
        watchers.tell("on_test_end", dict(logs))
        progress.print_keras_line(verbose, -(-rows.n_rows // checked_batch_size(batch_size)), began, logs)
        return logs if return_dict else scalar_or_list(logs)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Compute the outputs for x; a model that is not built yet is built for x, as in Keras.

        Parameters
        ----------
        x : Dask array or dataframe, array, dataframe or list, (n, ...)
        batch_size : int or None, default=None
            Counts steps in the printed line only.
        verbose : {'auto', 0, 1, 2}, default='auto'
            0: nothing. Else: a line, for plain data.
        steps : None
            All rows are used.
        callbacks : Callback, list of them or None, default=None
            Called for plain data.

        Returns
        -------
        array (n, ...), with rows of the shape of `output_shape`
            For a Dask array a Dask array, for a Dask dataframe a Dask dataframe, not yet computed.

        Raises
        ------
        ValueError
            x has rows of another shape than the model.
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
        """Return flat outputs (n, p) with rows of the shape behind the last layer."""
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
        """Compute the outputs (n, ...) for plain data x, as `predict_on_batch`."""
        return self.predict_on_batch(x)

    def _predictor(self, encoder: LossEncoder) -> Predictor:
        assert self._members is not None
        return Predictor(
            self._built_network(), self._members, encoder, vars(self).get("engine_", engines.NUMPY)
        )

    # --- single batches ----------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Take one step on one batch of plain data, in this process.

        Parameters
        ----------
        x : array, dataframe or list, (n, ...)
        y : array, series or list, (n,) or (n, k)
        sample_weight : array, series, list or None, (n,), default=None
        class_weight : dict or None, default=None
            Weights of the labels, by which the weights of rows are multiplied.
        return_dict : bool, default=False

        Returns
        -------
        float, list of float or dict
            Loss and metrics of the batch before the step, in the form that `evaluate` returns.

        Raises
        ------
        ValueError
            The model is not compiled, or data that it cannot be trained on.
        """
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
        """Compute loss and metrics of one batch of plain data, in this process.

        Parameters
        ----------
        x : array, dataframe or list, (n, ...)
        y : array, series or list, (n,) or (n, k)
        sample_weight : array, series, list or None, (n,), default=None
        return_dict : bool, default=False

        Returns
        -------
        float, list of float or dict
            In the form that `evaluate` returns.

        Raises
        ------
        ValueError
            The model is not compiled, or data that it cannot score.
        """
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
        """Compute the outputs for one batch of plain data, in this process.

        Parameters
        ----------
        x : array, dataframe or list, (n, ...)

        Returns
        -------
        array (n, ...), with rows of the shape of `output_shape`
        """
        x = self._ready(x)
        return self._shaped(self._predictor(self._encoder()).outputs(x))

    def _notes(self) -> list[str]:
        fitted = vars(self)
        if "engine_" not in fitted:
            return []
        engine, reason = fitted["engine_"], fitted["engine_reason_"]
        return [f" Engine of the last fit: {engine} ({reason.removeprefix(f'{engine}: ')})"]

    # --- copies ------------------------------------------------------------------------------------

    @property
    def members(self) -> list[Self]:
        """The networks of an ensemble, each a model; one network is its own only member."""
        assert self._members is not None
        return [self._member(member) for member in self._members]

    def _member(self, params: np.ndarray) -> Self:
        model = type(self).from_config(self.get_config())
        if self._compiled is not None:
            model._compiled, model._loss = self._compiled, self._loss
            model._rebuild()
        model._members = params[np.newaxis].copy()
        model._learn_names(getattr(self, "feature_names_in_", None))
        return model

    def __getstate__(self):
        # A running training holds data and a client, which stay in their process.
        return super().__getstate__() | {"_training": None}

    def __sklearn_clone__(self):
        # As for an estimator: layers and settings, but nothing that was learned, such as a shape from data.
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

    # --- files -------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> Self:
        """Create a model from a dict that `get_config` returned, with new weights.

        Parameters
        ----------
        config : dict
        custom_objects : None
            Has no effect, since all layers are dasknn's.

        Returns
        -------
        Sequential

        Raises
        ------
        ValueError
            Unknown layers or settings.
        """
        model, shape = persistence.unbuilt(cls, config)
        if shape is not None:
            model.build(shape)
        return model

    def to_json(self, **settings) -> str:
        """Describe the layers as JSON, in Keras's form; `dasknn.model_from_json` reads it.

        Parameters
        ----------
        **settings
            Arguments of `json.dumps`.

        Returns
        -------
        str
        """
        return json.dumps(persistence.described(self), **settings)

    def save(self, filepath, overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write layers, weights, arguments of `compile` and the optimizer's state to one file.

        The file is written completely or not at all. `dasknn.load_model` reads it.

        Parameters
        ----------
        filepath : str, path or fsspec URL
            Ends in `.keras`, which Keras can read (needs h5py), or in `.safetensors`, which also holds
            ensembles.
        overwrite : bool, default=True
        include_optimizer : bool, default=True
            Whether to write the optimizer's state.

        Raises
        ------
        FileExistsError
            The file exists, and overwrite is False.
        ValueError
            The model is not built; the path has another ending; an ensemble in a `.keras` file.
        """
        persistence.save(self, filepath, overwrite, include_optimizer)

    def save_weights(self, filepath, overwrite: bool = True) -> None:
        """Write the weights to a file.

        Parameters
        ----------
        filepath : str, path or fsspec URL
            Ends in `.weights.h5`, which Keras can read (needs h5py), or in `.safetensors`.
        overwrite : bool, default=True

        Raises
        ------
        FileExistsError
            The file exists, and overwrite is False.
        ValueError
            The model is not built, or is an ensemble; the path has another ending.
        """
        persistence.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath, skip_mismatch: bool = False) -> None:
        """Read the weights from a file that `save_weights`, `save` or Keras wrote.

        Parameters
        ----------
        filepath : str, path or fsspec URL
        skip_mismatch : bool, default=False
            Whether to skip layers whose weights have other shapes, with a warning; not for `.safetensors`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            Weights are missing or have other shapes, or the file is damaged (ModelFileError).
        """
        persistence.load_weights(Sequential, self, filepath, skip_mismatch)

    # --- scikit-learn's pipelines ------------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return self.built

    def __sklearn_tags__(self):
        return Tags(estimator_type=None, target_tags=TargetTags(required=True, multi_output=True))

    def __repr__(self):
        return f"<Sequential name={self.name}, built={self.built}>"
