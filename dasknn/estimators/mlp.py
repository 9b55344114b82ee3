"""What scikit-learn's classifier and regressor have in common, for Dask data too."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from scipy.optimize import OptimizeResult
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d

from dasknn import callbacks as cb
from dasknn import strategies
from dasknn._compat.sklearn import (
    Interval,
    Options,
    StrOptions,
    _check_optimize_result,
    _check_sample_weight,
)
from dasknn.callbacks import checkpoints, progress
from dasknn.callbacks.announcements import Announcements
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, loading, partitions, targets
from dasknn.data.blocks import cast, refuse_kinds
from dasknn.data.columns import check_columns, dtype_of, validated
from dasknn.data.targets import ClassWeights
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState, WarmUp
from dasknn.estimators import conversion
from dasknn.estimators.losses import SklearnLoss
from dasknn.estimators.stopping import InverseScaling, Patience
from dasknn.exceptions import NonFiniteLossError
from dasknn.initializers import VarianceScaling
from dasknn.layers import Dense
from dasknn.optimizers import LBFGS, SGD, Adam, Optimizer
from dasknn.regularizers import BatchL2
from dasknn.saving import safetensors_file, schema
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.training import prediction
from dasknn.training.datasets import RowsInProcess, RowsOnTasks, score_parts
from dasknn.training.in_process import random_memory, recall_random
from dasknn.training.loop import Face, Training
from dasknn.training.prediction import Predictor

# What callbacks and history_ have of validation rows.
_VALIDATED = ("validation_score", "val_loss")


@dataclass(frozen=True)
class _KeptOptimizer:
    """What partial_fit goes on from, besides the weights."""

    optimizer: Optimizer
    slots: np.ndarray
    step: int
    learning_rate: float


class _Attributes(cb.Callback):
    """Keeps fitted attributes up to date while training runs: what callbacks save after an epoch is whole."""

    def __init__(self, note: Callable[[Training], None]):
        self._note = note

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        self._note(self.training)

    def on_epoch_end(self, epoch, logs=None):
        self._note(self.training)


def takes_steps(estimator) -> bool:
    """Return whether the solver trains on mini-batches; AttributeError, in scikit-learn's words, if not."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def _one_validation(validation_data, X_val, y_val, sample_weight_val) -> tuple:
    """Return validation data in one. ValueError: it was given twice, or some of it is missing."""
    if validation_data is not None:
        raise ValueError("Expected validation_data or X_val and y_val, received both. Leave one of them out.")
    for name, value in (("X_val", X_val), ("y_val", y_val)):
        if value is None:
            given = "y_val" if y_val is not None else "X_val" if X_val is not None else "sample_weight_val"
            raise ValueError(f"{given} is provided, but {name} was not provided.")
    return (X_val, y_val) if sample_weight_val is None else (X_val, y_val, sample_weight_val)


def checked_targets(X, y, sample_weight):
    """Return plain y, decimals as numbers. ValueError: rows whose index says that they were mixed."""
    inputs.check_order({"X": X, "y": y, "sample_weight": sample_weight})
    return targets.as_array(y) if targets.has_decimals(y) else y


class BaseMLP(Placed, BaseEstimator):
    """What the classifier and the regressor share."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto", "full"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose", None],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "strategy": [StrOptions({"auto", "gradients", "weights", "predictions"}), Strategy],
        "replicas": [Interval(Integral, 1, None, closed="left"), None],
        "transport": [StrOptions({"auto", auto.PEER, auto.TASKS})],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "callbacks": ["array-like", cb.Callback, None],
    }

    history_: list[dict[str, Any]]
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None

    def __init__(self, **parameters):
        for name, value in parameters.items():
            setattr(self, name, value)

    # --- what the two differ in --------------------------------------------------------------------

    _metric: Any

    @abstractmethod
    def _loss(self, encoder) -> SklearnLoss:
        """Return the loss for targets that this encoder makes."""

    @abstractmethod
    def _summarize(self):
        """Return the class of `targets` that summarizes parts of y."""

    @abstractmethod
    def _learn_targets(self, summary, dtype: str, incremental: bool) -> Any:
        """Return the encoder of y; set the attributes that come from y. ValueError: y does not fit."""

    def _class_weights(self, summary, encoder, incremental: bool) -> ClassWeights | None:
        """Return the weights of classes, if there are any."""
        return None

    # --- fit ---------------------------------------------------------------------------------------

    def fit(
        self,
        X,
        y,
        sample_weight=None,
        *,
        X_val=None,
        y_val=None,
        sample_weight_val=None,
        validation_data=None,
        checkpoint=None,
        resume=False,
        max_faults=MAX_FAULTS,
    ):
        """Train on X (n, p), y (n,) or (n, k) and sample_weight (n,) or None; return self.

        Each may be a Dask array, dataframe or series, a numpy array, a pandas object, a list; X a scipy
        sparse matrix. With Dask collections, or an explicit strategy, training runs on the cluster of
        `self.client` or of the current client, else on Dask's local scheduler; plain data with
        strategy="auto" trains in this process.

        X_val, y_val and, if there are any, sample_weight_val are scored after each epoch: accuracy, or R^2
        for the regressor, goes into `validation_scores_` and, as "validation_score", into `history_` and what
        callbacks hear; beside it goes "val_loss", the mean loss without the penalty. With early_stopping=True
        they take the place of rows held out. In a Pipeline, transform_input=["X_val"] sends X_val through the
        steps before. validation_data=(X, y) or (X, y, sample_weight) says the same in one.

        checkpoint: a folder or fsspec URL to which the whole training is written after each epoch, or a
        `dasknn.Checkpoint(path, every=...)`; the two newest files are kept. resume: go on from the newest
        whole one, to the bits of a training that was never interrupted; where there is none, begin at the
        beginning. With solver="lbfgs" training goes on from its weights, but to other bits: SciPy keeps the
        curvature that it has gathered to itself.

        max_faults: how many faults of the cluster (workers lost, attempts that failed) may cost work before
        training gives up with the last one. What happened in an epoch is in history_[epoch]["faults"].

        Raises ValueError (or its kind, PartitionError) for data that cannot be trained on, before training
        begins (so for a checkpoint of a training with other settings or data; it says which), FileExistsError
        for a folder that holds checkpoints without resume, ModelFileError where all of them are damaged, and
        NonFiniteLossError when training diverges.
        """
        if X_val is not None or y_val is not None or sample_weight_val is not None:
            validation_data = _one_validation(validation_data, X_val, y_val, sample_weight_val)
        keeper = checkpoints.begin(checkpoint, resume)
        return self._fit(X, y, sample_weight, validation_data, max_faults=max_faults, keeper=keeper)

    def _fit(
        self,
        X,
        y,
        sample_weight=None,
        validation_data=None,
        incremental=False,
        max_faults=MAX_FAULTS,
        keeper: Checkpoints | None = None,
    ):
        self._validate_params()
        self._check_settings(validation_data, incremental)
        going_on = self.__sklearn_is_fitted__() and (self.warm_start or incremental)
        if not going_on:
            # Until this fit has come to something, nothing is fitted.
            self.__dict__.pop("_members", None)
        dtype = self.dtype or (self._network_.dtype if going_on else None)
        X, y, sample_weight = inputs.admit(X, y, sample_weight)
        validation_data = None if validation_data is None else tuple(inputs.admit(*validation_data))
        distributed = partitions.is_distributed(X, y, sample_weight)
        verbose = self._verbosity(distributed)
        with ExitStack() as stack:
            if not distributed and self.strategy == "auto":
                strategy, n_slots, n_parts = None, 1, 1
                replicas: int | None = 1
                read: Callable[..., Any] = partial(self._read_in_process, dtype)
            else:
                strategy = None if self.strategy == "auto" else strategies.get(self.strategy)
                replicas = self._replicas(strategy, going_on)
                data = (X, y, sample_weight, *(validation_data or ()))
                tasks = stack.enter_context(self._connect(distributed, data, max_faults))
                n_slots = len(tasks.slots())
                n_parts = replicas or n_slots
                if keeper is not None and (found := keeper.found) is not None:
                    # The cluster may have another size now; what the user leaves to it stays as it was.
                    replicas, n_parts = replicas or found.replicas, found.face.get("n_parts", n_parts)
                read = partial(self._read_on, tasks, dtype or dtype_of(X), n_parts, verbose)
            rows = read(X, y, sample_weight, reset=not going_on)
            # L-BFGS takes the gradient over all rows, wherever they are; a block of a stream is as it comes.
            if self.solver != "lbfgs" and (distributed or not incremental):
                rows.warn_of_skew(is_ours=not distributed)
            if not going_on:
                self._learn_name(y)
            held_out = None
            if validation_data is not None:
                if not distributed and partitions.is_distributed(*validation_data):
                    # They are scored where they are.
                    tasks = stack.enter_context(self._connect(True, validation_data, max_faults))
                    read = partial(self._read_on, tasks, rows.dtype, 1, verbose)
                held_out = self._read_held_out(read, validation_data)
            given = {"sample_weight": sample_weight is not None}
            if held_out is not None:
                given["rows of validation_data"] = held_out.n_rows
            return self._train(
                rows,
                held_out,
                strategy,
                replicas,
                n_slots,
                going_on,
                incremental,
                given,
                n_parts,
                keeper,
                verbose,
            )

    def _connect(self, distributed: bool, data: tuple, max_faults: int = MAX_FAULTS):
        return connect(self.client, distributed, max_faults, workers=self.workers, data=data)

    def _check_settings(self, validation_data, incremental: bool) -> None:
        self._hidden_sizes()
        for callback in cb.as_list(self.callbacks):
            if isinstance(callback, cb.ModelCheckpoint):
                _check_path(callback.filepath)
                if callback.save_weights_only:
                    raise ValueError(
                        f"{type(self).__name__} is saved as a whole, received "
                        "ModelCheckpoint(save_weights_only=True). Leave it out."
                    )
        if validation_data is not None and len(validation_data) not in (2, 3):
            raise ValueError(
                "Expected validation_data to be (X, y) or (X, y, sample_weight), received "
                f"{len(validation_data)} items."
            )
        if self.solver == "lbfgs" and self.transport == auto.PEER:
            raise ValueError("solver='lbfgs' goes through the client, received transport='peer'. Use 'auto'.")
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _verbosity(self, distributed: bool) -> int:
        """Return what to show: 0 nothing, 1 lines, 2 bars."""
        if self.verbose is None:
            return 2 if distributed and progress.can_move() else 0
        return int(self.verbose)

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError("hidden_layer_sizes must be > 0, got %s." % sizes)
        return sizes

    def _replicas(self, strategy: Strategy | None, going_on: bool) -> int | None:
        """Return the number of replicas, where parameters or an earlier fit say so."""
        if strategy is None:
            return self.replicas
        if self.transport == auto.PEER and isinstance(strategy, PredictionAveraging):
            raise ValueError(
                "transport='peer' is for replicas that exchange something, which members of an ensemble do "
                "not. Use transport='auto'."
            )
        if self.transport == auto.TASKS and strategy.remembers:
            raise ValueError(
                "Compressed gradients travel between workers themselves, received transport='tasks'. Use "
                "transport='auto', or leave compression out."
            )
        if self.solver == "lbfgs" and not isinstance(strategy, GradientAveraging):
            raise ValueError(
                f"solver='lbfgs' needs the gradient over all rows in each iteration, received strategy "
                f"{strategy.name!r}. Use strategy='gradients', or solver='adam'."
            )
        wanted = strategy.replicas or self.replicas
        if self.replicas not in (None, wanted):
            raise ValueError(
                f"Expected replicas={wanted}, as the strategy says, received {self.replicas}. "
                "Leave replicas out."
            )
        if going_on and isinstance(strategy, PredictionAveraging):
            return wanted or len(self._members)
        return wanted

    # --- the data ----------------------------------------------------------------------------------

    def _read_held_out(self, read: Callable[..., Any], validation_data):
        try:
            return read(*validation_data, reset=False)
        except (TypeError, ValueError) as error:
            error.add_note(
                "This is about validation data, which a Pipeline hands to its last step as it is. Let it "
                "transform X_val: sklearn.set_config(enable_metadata_routing=True), "
                f"{type(self).__name__}(...).set_fit_request(X_val=True, y_val=True), "
                'make_pipeline(..., transform_input=["X_val"]).fit(X, y, X_val=X_val, y_val=y_val).'
            )
            raise

    def _read_in_process(self, dtype: str | None, X, y, sample_weight=None, *, reset: bool) -> RowsInProcess:
        y = checked_targets(X, y, sample_weight)
        X, y = validated(
            self, X, y=y, multi_output=True, y_numeric=isinstance(self, RegressorMixin), reset=reset
        )
        if sparse.issparse(y):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        X = cast(X, dtype or X.dtype)
        if sample_weight is not None:
            refuse_kinds("sample_weight", sample_weight)
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
            if not sample_weight.any():
                raise ValueError("Sample weights must contain at least one non-zero number.")
        return RowsInProcess(X, y, sample_weight)

    def _read_on(
        self,
        tasks: Executor,
        dtype: str,
        n_parts: int,
        verbose: int,
        X,
        y,
        sample_weight=None,
        *,
        reset: bool,
    ) -> RowsOnTasks:
        check_columns(self, X, reset=reset)
        self._require_targets(y)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        parts = partitions.parts(X, y, sample_weight, 1 if partitions.is_distributed(X) else n_parts)
        shown = verbose > 1 or (verbose > 0 and progress.can_move())
        with progress.loading_bar(len(parts), shown, stays=self.verbose == 2) as on_partition:
            loaded = loading.load(
                tasks, parts, dtype, self._summarize().of, feature_names=names, on_partition=on_partition
            )
        return RowsOnTasks(tasks, loaded, dtype)

    def _learn_name(self, y) -> None:
        """Keep the name of a series y, as scikit-learn keeps those of the columns of X."""
        name = getattr(y, "name", None) if hasattr(y, "to_frame") else None
        if isinstance(name, str):
            self.target_name_ = name
        else:
            self.__dict__.pop("target_name_", None)

    def _require_targets(self, y) -> None:
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Pass it with X."
            )

    # --- training ----------------------------------------------------------------------------------

    def _train(
        self,
        rows,
        held_out,
        strategy: Strategy | None,
        replicas,
        n_slots,
        going_on,
        incremental,
        given: dict[str, Any],
        n_parts: int,
        keeper: Checkpoints | None,
        verbose: int,
    ):
        summary = rows.summary(self._summarize().of)
        if held_out is not None:
            summary.check_held_out(held_out.summary(self._summarize().of))
        encoder = self._learn_targets(summary, rows.dtype, incremental)
        class_weights = self._class_weights(summary, encoder, incremental)
        network = self._network(encoder, rows.dtype)

        # Random draws in scikit-learn's order: parameters, rows held out, orders of rows.
        rng = check_random_state(self.random_state)
        members = self._members_for(network) if going_on else network.initial_params(rng)[np.newaxis]
        kept = self._kept(going_on) | {"n_parts": n_parts}
        if keeper is not None:
            rng = self._go_on_drawing(rng, keeper)
            kept["random"] = random_memory(rng)
        seed = rows.draw_seed(rng)
        validate = self._validation(rows, held_out, network, encoder, class_weights)

        replicas = replicas or self._default_replicas(strategy, n_slots, rows.n_rows)
        sizes = self._sizes(network, rows.n_rows, replicas, strategy)
        averages, reason = self._choose(rows, strategy, sizes)
        job = self._job(sizes, seed)
        state = averages.init_state(job, members[0], replicas)
        if going_on:
            job, state = self._go_on(job, state, members, incremental)
        patience = self._make_patience(going_on)
        transport = rows.transport(job, averages, encoder, class_weights, self._transport(averages, sizes))
        self.replicas_, self.transport_ = replicas, transport.name
        self.strategy_ = None if transport.name == auto.PROCESS else averages
        self.strategy_reason_ = reason
        training = Training(
            self,
            transport,
            state,
            1 if incremental else self.max_iter,
            [
                *([] if keeper is None else [keeper]),
                *self._lines(verbose, incremental),
                *self._watchers(patience, going_on, job.optimizer.learning_rate),
                *([Announcements(rows.tasks)] if isinstance(rows, RowsOnTasks) else []),
            ],
            Face(
                validate=validate,
                validated=() if validate is None else _VALIDATED,
                publish=partial(self._publish, job.network, encoder),
                settings=self._settings(encoder, class_weights) | given,
                kept=kept,
                check_kept=_KEPT,
            ),
            self.history_ if going_on else (),
        )
        self.history_ = training.history
        learn = partial(self._learn, training, encoder, patience)
        found = None
        try:
            if isinstance(job.optimizer, LBFGS):
                found = training.minimize(job.optimizer)
            else:
                training.run()
        except NonFiniteLossError:
            # Whoever catches the error finds the weights of the last good epoch.
            learn()
            raise
        learn()
        if not (training.stop_training or training.interrupted or incremental):
            self._warn_unless_converged(found)
        return self

    def _publish(self, network: Network, encoder, state: TrainState) -> None:
        """Take over what has been learned: callbacks may predict, score and save."""
        self._set_predictor(Predictor(network, np.atleast_2d(state.params), encoder))

    def _validation(self, rows, held_out, network, encoder, class_weights: ClassWeights | None):
        """Return a function of the state that scores it: on held_out, or on some rows that it takes away."""
        if held_out is not None:
            # Their weights are the user's.
            class_weights = None
        elif self.early_stopping and self.solver != "lbfgs":
            is_binary = isinstance(encoder, targets.ClassEncoder) and encoder.n_outputs == 1
            held_out = rows.hold_out(self.validation_fraction, encoder if is_binary else None)
        else:
            return None

        def validate(state: TrainState) -> dict[str, float]:
            predictor = Predictor(network, np.atleast_2d(state.params), encoder)
            found = held_out.validate(self._metric, predictor, class_weights)
            return dict(zip(_VALIDATED, found, strict=True))

        return validate

    def _network(self, encoder, dtype: str) -> Network:
        loss = self._loss(encoder)
        # scikit-learn draws the biases, too, and takes a smaller bound for logistic units.
        glorot = VarianceScaling(1 / 3 if self.activation == "logistic" else 1.0, "fan_avg", "uniform")
        units = [(size, self.activation) for size in self._hidden_sizes()]
        units.append((encoder.n_outputs, loss.canonical_activation))
        layers = tuple(
            Dense(int(n), name, kernel_initializer=glorot, bias_initializer=glorot) for n, name in units
        )
        return Network(self.n_features_in_, layers, loss, dtype)

    def _choose(self, rows, strategy: Strategy | None, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy, and why it is this one."""
        if strategy is not None:
            return strategy, f"{strategy.name}: asked for"
        if isinstance(rows, RowsInProcess):
            return GradientAveraging(), "none: plain data trains in this process"
        return self._choose_by_rules(sizes)

    def _choose_by_rules(self, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return what strategy='auto' is for Dask data, and why."""
        transport = auto.TASKS if self.transport == auto.TASKS else auto.PEER
        return auto.choose_strategy(sizes, transport)

    def _transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        if self.solver == "lbfgs":
            return auto.TASKS
        return auto.choose_transport(strategy, sizes) if self.transport == "auto" else self.transport

    def _job(self, sizes: auto.Sizes, seed: int) -> TrainingJob:
        """Return the job; a batch that grows with the number of replicas takes a larger learning rate."""
        network, n_rows, replicas, batch_size = sizes
        factor = 1.0
        if self.batch_size == "auto" and batch_size is not None:
            factor = auto.rate_factor(self.solver, batch_size / min(auto.AUTO_BATCH, n_rows))
        warmup = None if factor == 1 else WarmUp(factor, sizes.n_steps)
        penalty = BatchL2(float(self.alpha))
        optimizer = self._optimizer(factor)
        return TrainingJob(network, optimizer, penalty, batch_size, seed, replicas, self.shuffle, warmup)

    def _optimizer(self, rate_factor: float) -> Optimizer:
        if self.solver == "lbfgs":
            return LBFGS(self.tol, self.max_fun)
        rate = self.learning_rate_init * rate_factor
        if self.solver == "adam":
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon)
        return SGD(rate, self.momentum, self.nesterovs_momentum)

    def _sizes(self, network: Network, n_rows: int, replicas: int, strategy: Strategy | None) -> auto.Sizes:
        batch_size = self._wanted_batch()
        if isinstance(batch_size, str):
            batch_size = auto.auto_batch_size(strategy or GradientAveraging(), n_rows, replicas)
        elif batch_size is not None and batch_size > n_rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=5,
            )
            batch_size = n_rows
        return auto.Sizes(network, n_rows, replicas, None if batch_size is None else int(batch_size))

    def _wanted_batch(self) -> int | str | None:
        """Return the rows of a step: a number, "auto", or None for all of them."""
        return None if self.batch_size == "full" or self.solver == "lbfgs" else self.batch_size

    def _default_replicas(self, strategy: Strategy | None, n_slots: int, n_rows: int) -> int:
        return auto.default_replicas(strategy or GradientAveraging(), n_slots, n_rows, self._wanted_batch())

    def _make_patience(self, going_on: bool) -> Patience:
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        patience = Patience(
            self.tol, self.n_iter_no_change, adaptive, bool(self.verbose), self.early_stopping
        )
        if going_on and hasattr(self, "_patience"):
            patience.go_on_from(self._patience)
        return patience

    def _lines(self, verbose: int, incremental: bool) -> list[cb.Callback]:
        if verbose == 1:
            return [progress.EpochLines()]
        # Calls of partial_fit may come by the thousand.
        return [progress.ProgressBar(stays=bool(self.verbose) or not incremental)] if verbose else []

    def _watchers(self, patience: Patience, going_on: bool, learning_rate: float) -> list[cb.Callback]:
        watchers: list[cb.Callback] = []
        if self.solver != "lbfgs":
            watchers.append(patience)
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            rows_seen = self.t_ if going_on else 0
            watchers.append(InverseScaling(learning_rate, self.power_t, rows_seen))
        # Before those of users, which may save the model.
        return [*watchers, _Attributes(partial(self._note, patience)), *cb.as_list(self.callbacks)]

    # --- going on from an earlier fit --------------------------------------------------------------

    def _members_for(self, network: Network) -> np.ndarray:
        """Return the fitted parameters (m, n_params). ValueError: they are of another network."""
        if network.shapes != self._network_.shapes:
            fitted, wanted = ([W for W, _ in net.shapes] for net in (self._network_, network))
            raise ValueError(
                f"Expected to go on with the layers that were fitted, {fitted}, received parameters and "
                f"data for {wanted}. Use fit with warm_start=False to begin anew."
            )
        return self._predictor().members.astype(network.dtype, copy=False)

    def _go_on(self, job: TrainingJob, state: TrainState, members: np.ndarray, incremental: bool):
        """Return job and state with what an earlier fit has left; only partial_fit keeps the optimizer."""
        if len(members) != len(np.atleast_2d(state.params)):
            raise ValueError(
                f"Expected to go on with {len(members)} members, as they were fitted, received a strategy "
                f"for {len(np.atleast_2d(state.params))}. Keep strategy and replicas, or use fit with "
                "warm_start=False."
            )
        state = replace(state, params=members.reshape(state.params.shape))
        kept = getattr(self, "_kept_optimizer", None)
        if not incremental or kept is None:
            return job, state
        # Another strategy may have a slot of its own behind those of the optimizer.
        n_slots = min(kept.slots.shape[-2], state.slots.shape[-2])
        slots = state.slots.copy()
        slots[..., :n_slots, :] = kept.slots[..., :n_slots, :]
        state = replace(state, slots=slots, step=kept.step, learning_rate=kept.learning_rate)
        return replace(job, optimizer=kept.optimizer), state

    # --- going on from a checkpoint ----------------------------------------------------------------

    def _settings(self, encoder, class_weights: ClassWeights | None) -> dict[str, Any]:
        """Return what decides about learning, besides what the job and the data say."""
        settings: dict[str, Any] = {
            "model": type(self).__name__,
            "classes": getattr(encoder, "classes", None),
            "weights of classes": None if class_weights is None else class_weights.values,
        }
        if isinstance(self.random_state, Integral):
            settings["random_state"] = int(self.random_state)
        if self.solver == "lbfgs":
            return settings
        names = ["tol", "n_iter_no_change", "early_stopping"]
        if self.early_stopping:
            names.append("validation_fraction")
        if self.solver == "sgd":
            names += ["learning_rate", "power_t"] if self.learning_rate == "invscaling" else ["learning_rate"]
        return settings | {name: getattr(self, name) for name in names}

    def _kept(self, going_on: bool) -> dict[str, Any]:
        """Return what an earlier fit has left that this one adds to."""
        names = ("t_", *conversion.ABSENT_AFTER_LBFGS) if going_on else ()
        return {"earlier": {name: getattr(self, name) for name in names if hasattr(self, name)}}

    def _go_on_drawing(self, rng: np.random.RandomState, keeper: Checkpoints) -> np.random.RandomState:
        """Return what to draw from: as the training drew that this one goes on from, where there is one."""
        kept = None if keeper.found is None else keeper.found.face.get("random")
        if kept is not None:
            # Without a seed, rng is the one of the whole process.
            rng = np.random.RandomState() if self.random_state is None else rng
            with schema.refusing("The checkpoint", "that of this training", ""):
                recall_random(rng, kept)
        return rng

    # --- what was learned --------------------------------------------------------------------------

    def _learn(self, training: Training, encoder, patience: Patience) -> None:
        """Take over what a training has come to, for good."""
        state, job = training.state, training.transport.job
        self._publish(job.network, encoder, state)
        self._note(patience, training)
        self._kept_optimizer = None
        if not isinstance(job.optimizer, LBFGS):
            self._patience = patience
            self._kept_optimizer = _KeptOptimizer(job.optimizer, state.slots, state.step, state.learning_rate)

    def _note(self, patience: Patience, training: Training) -> None:
        """Set the fitted attributes, but for the weights, to what a training has come to so far."""
        state = training.state
        self.history_ = training.history
        epochs = training.history[training.n_before :]
        # L-BFGS may find nothing to do: then there is a loss, but no epoch.
        self.loss_ = self.history_[-1]["loss"] if self.history_ and not state.n_samples else state.loss
        self.n_iter_ = len(epochs)
        self.interrupted_ = training.interrupted
        self.t_ = 0
        for name in conversion.ABSENT_AFTER_LBFGS:
            self.__dict__.pop(name, None)
        self.__dict__.update(training.face.kept["earlier"])
        scores = [entry["validation_score"] for entry in epochs if "validation_score" in entry]
        if scores:
            self.validation_scores_ = [*(vars(self).get("validation_scores_") or []), *scores]
            # As in scikit-learn, a score that is NaN is never the best.
            known = (score for score in self.validation_scores_ if not isnan(score))
            self.best_validation_score_ = max(known, default=float("-inf"))
        if isinstance(training.transport.job.optimizer, LBFGS):
            return
        if not scores:
            self.validation_scores_ = self.best_validation_score_ = None
        self.t_ += len(epochs) * training.n_samples
        self.loss_curve_ = [*vars(self).get("loss_curve_", []), *(entry["loss"] for entry in epochs)]
        self.best_loss_ = None if self.early_stopping else patience.best_loss

    def _warn_unless_converged(self, found: OptimizeResult | None) -> None:
        if found is not None:
            self.n_iter_ = _check_optimize_result("lbfgs", found, self.max_iter)
        elif self.n_iter_ == self.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _set_predictor(self, predictor: Predictor) -> None:
        network, members = predictor.network, predictor.members
        self._network_, self._encoder = network, predictor.encoder
        self.n_layers_ = len(network.layers) + 1
        self.n_outputs_ = network.n_outputs
        self.out_activation_ = network.layers[-1].activation_name
        self._members = members
        # An earlier fit may have left those of one network.
        for name in ("coefs_", "intercepts_"):
            self.__dict__.pop(name, None)
        if len(members) == 1:
            views = network.views(members[0])
            self.coefs_ = [W for W, _ in views]
            self.intercepts_ = [b for _, b in views]

    # --- predict -----------------------------------------------------------------------------------

    def _predictor(self) -> Predictor:
        check_is_fitted(self)
        members = self._members
        if len(members) == 1:
            # coefs_ and intercepts_ are the truth, since scikit-learn's users change them.
            parts = [*self.coefs_, *self.intercepts_]
            members = np.concatenate([np.ravel(part) for part in parts])[np.newaxis]
        return Predictor(self._network_, members, self._encoder)

    def _predict(self, method: str, X, columns: list | None = None):
        predictor = self._predictor()
        (X,) = inputs.admit(X)
        if partitions.is_distributed(X):
            check_columns(self, X, reset=False)
            return prediction.lazily(predictor, method, X, columns)
        return getattr(predictor, method)(validated(self, X, reset=False))

    def _columns_of_outputs(self) -> list | None:
        """Return the names of the columns of predictions in a dataframe, None for a series."""
        check_is_fitted(self)
        several = self.n_outputs_ > 1 and not isinstance(self._encoder, targets.ClassEncoder)
        return list(range(self.n_outputs_)) if several else None

    def _score_where_data_is(self, X, y, sample_weight) -> float:
        predictor = self._predictor()
        check_columns(self, X, reset=False)
        self._require_targets(y)
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        with self._connect(True, (X, y, sample_weight)) as tasks:
            return score_parts(tasks, self._metric, predictor, parts, names).result()

    @property
    def members_(self) -> list:
        """The members of an ensemble, each a fitted estimator; one network is its own only member."""
        predictor = self._predictor()
        return [
            self._member(replace(predictor, members=member[np.newaxis].copy()))
            for member in predictor.members
        ]

    def _member(self, predictor: Predictor):
        member = clone(self).set_params(strategy="auto", replicas=None)
        for name in (*_OF_THE_DATA, "n_iter_", "t_"):
            if hasattr(self, name):
                setattr(member, name, getattr(self, name))
        # What is known of the ensemble's losses is their mean over members.
        member.history_, member.loss_curve_, member.best_loss_ = [], [], float("inf")
        member.replicas_, member.strategy_, member.interrupted_ = 1, None, self.interrupted_
        member.transport_, member.strategy_reason_ = self.transport_, "a member of an ensemble"
        member._set_predictor(predictor)
        return member

    # --- other forms -------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file; `dasknn.load` reads it.

        The optimizer's state is not in it: partial_fit of a loaded model begins with a new one. ValueError: a
        path that ends as a file of Keras's.
        """
        _check_path(path)
        safetensors_file.write(path, *conversion.parts_of(self))

    def to_sklearn(self):
        """Return a fitted estimator of scikit-learn with the same predictions, for tools that expect one.

        Its parameters are those that scikit-learn knows. ValueError: an ensemble, which has none.
        """
        return conversion.to_sklearn(self)

    def __sklearn_is_fitted__(self):
        return "_members" in vars(self)

    def __getattr__(self, name):
        if name in ("coefs_", "intercepts_") and "_members" in vars(self):
            raise AttributeError(
                f"An ensemble of {len(self._members)} members has no {name} of its own: each member "
                "has. Predictions are the mean of theirs."
            )
        return super().__getattribute__(name)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _check_path(path: str | os.PathLike) -> None:
    if os.fspath(path).endswith((".keras", ".h5")):
        raise ValueError(
            f"Expected a path such as 'model.safetensors', which is the form of this file, received "
            f"{os.fspath(path)!r}. Keras's files are for dasknn.Sequential."
        )


# What fit has learned of the data, besides the weights. _numbered: columns that are called by integers.
_OF_THE_DATA = ("n_features_in_", "feature_names_in_", "_numbered", "target_name_", "classes_")
# What checkpoints keep of an earlier fit, and of this one's random draws.
_KEPT = schema.record(
    {
        "earlier": schema.record(
            {}, {name: conversion.FITTED[name] for name in ("t_", *conversion.ABSENT_AFTER_LBFGS)}
        ),
        "n_parts": schema.integer(1),
    },
    {"random": schema.anything},
)
