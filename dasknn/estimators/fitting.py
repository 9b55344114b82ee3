"""A fit of scikit-learn's API: its steps of `training.fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse
from scipy.optimize import OptimizeResult
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from dasknn import callbacks as cb
from dasknn._compat.sklearn import _check_optimize_result, _check_sample_weight
from dasknn.callbacks import progress
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.executor import Executor
from dasknn.data import inputs, targets
from dasknn.data.blocks import cast, refuse_kinds
from dasknn.data.columns import check_columns, dtype_of, validated
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, TrainState
from dasknn.estimators import conversion
from dasknn.estimators.stopping import InverseScaling, Patience
from dasknn.exceptions import NonFiniteLossError, caller_stacklevel
from dasknn.optimizers import LBFGS, Optimizer
from dasknn.saving import schema
from dasknn.strategies import GradientAveraging, PredictionAveraging, Strategy, auto
from dasknn.training.datasets import Rows, RowsInProcess, RowsOnWorkers
from dasknn.training.fit import Choice, Columns, Fit, Targets, read_partitions
from dasknn.training.in_process import random_memory, recall_random
from dasknn.training.loop import Hooks, Training
from dasknn.training.prediction import Predictor

# Names of the score and the loss of validation rows, in callbacks' logs and history_.
VALIDATED = ("validation_score", "val_loss")
# Checkpoints keep attributes of an earlier fit, and the state of the random draws of this one.
_KEPT = schema.record(
    {
        "earlier": schema.record(
            {}, {name: conversion.FITTED[name] for name in ("t_", *conversion.ABSENT_AFTER_LBFGS)}
        ),
        "n_parts": schema.integer(1),
    },
    {"random": schema.anything},
)


@dataclass(frozen=True)
class KeptOptimizer:
    """The state of the optimizer after a fit, from which partial_fit continues."""

    optimizer: Optimizer
    slots: np.ndarray
    step: int
    learning_rate: float


class _Attributes(cb.Callback):
    """Keeps fitted attributes up to date during training: callbacks may save the model after each epoch."""

    def __init__(self, note: Callable[[Training], None]):
        self._note = note

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        self._note(self.training)

    def on_epoch_end(self, epoch, logs=None):
        self._note(self.training)


def one_validation(validation_data, X_val, y_val, sample_weight_val) -> tuple:
    """Return validation data in one tuple. ValueError: it was passed twice, or some of it is missing."""
    if validation_data is not None:
        raise ValueError("Expected validation_data or X_val and y_val, received both. Leave one of them out.")
    for name, value in (("X_val", X_val), ("y_val", y_val)):
        if value is None:
            given = "y_val" if y_val is not None else "X_val" if X_val is not None else "sample_weight_val"
            raise ValueError(f"{given} is provided, but {name} was not provided.")
    return (X_val, y_val) if sample_weight_val is None else (X_val, y_val, sample_weight_val)


def checked_targets(X, y, sample_weight):
    """Return plain y, decimals as numbers. ValueError: the indices of X and y are in different orders."""
    inputs.check_order({"X": X, "y": y, "sample_weight": sample_weight})
    return targets.as_array(y) if targets.has_decimals(y) else y


def checked_weight(weight: Any, X: Any, dtype: DTypeLike) -> np.ndarray | None:
    """Return plain weights (n,) of the rows of X (n, p), or None. ValueError: none is above 0, or others."""
    if weight is None:
        return None
    refuse_kinds("sample_weight", weight)
    weight = _check_sample_weight(weight, X, dtype=dtype)
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weight


def require_targets(model, y) -> None:
    """Raise scikit-learn's ValueError if there is no y."""
    if y is None:
        raise ValueError(
            f"{type(model).__name__} requires y to be passed, but the target y is None. Pass it with X."
        )


def check_path(path: str) -> None:
    """Raise ValueError if a path ends as Keras's files do."""
    if path.endswith((".keras", ".h5")):
        raise ValueError(
            "Expected a path such as 'model.safetensors', since estimators are saved in that format, "
            f"received {path!r}. Keras's files are for dasknn.Sequential."
        )


class EstimatorFit(Fit):
    """One call of `fit` or `partial_fit` of an MLPClassifier or MLPRegressor.

    is_partial: it is partial_fit, for one epoch. is_continued: it starts from the weights of an earlier fit.
    """

    #: Seconds before a bar appears.
    _bar_delay: float = 0.0

    def __init__(
        self,
        model: Any,
        data: Columns,
        validation: Columns | None,
        strategy: Strategy | None,
        checkpoints: Checkpoints | None,
        max_faults: int,
        *,
        is_partial: bool,
        is_continued: bool,
    ):
        self.is_partial, self.is_continued = is_partial, is_continued
        replicas = _asked_replicas(model, strategy, is_continued)
        super().__init__(model, data, validation, strategy, replicas, checkpoints, max_faults)
        self._given_y = data.y
        self._given: dict[str, Any] = {"sample_weight": data.sample_weight is not None}
        self._dtype = model.dtype or (model._network_.dtype if is_continued else None)
        self._verbose = _verbosity(model, data.is_distributed)
        if is_continued:
            self.earlier_history = model.history_

    # --- data --------------------------------------------------------------------------------------

    def default_parts(self) -> int:
        return self.n_slots

    def read(self, executor: Executor | None, data: Columns, is_validation: bool = False) -> Rows:
        reset = not (is_validation or self.is_continued)
        try:
            if executor is None:
                return self._read_in_process(data, reset)
            check_columns(self.model, data.X, reset=reset)
            require_targets(self.model, data.y)
            # Validation rows have the dtype of the rows to train on.
            dtype = self._rows_dtype if is_validation else self._dtype or dtype_of(data.X)
            return self._read_partitions(executor, data, dtype)
        except (TypeError, ValueError) as error:
            if is_validation:
                error.add_note(
                    "This is about validation data, which a Pipeline passes to its last step as is. Let it "
                    "transform X_val: sklearn.set_config(enable_metadata_routing=True), "
                    f"{type(self.model).__name__}(...).set_fit_request(X_val=True, y_val=True), "
                    'make_pipeline(..., transform_input=["X_val"]).fit(X, y, X_val=X_val, y_val=y_val).'
                )
            raise

    def _read_partitions(self, executor: Executor, data: Columns, dtype: str) -> RowsOnWorkers:
        return read_partitions(
            executor,
            data,
            dtype,
            self.model._summarize().of,
            self.n_parts,
            shown=not self._bar_delay and (self._verbose > 1 or (self._verbose > 0 and progress.can_move())),
            stays=self.model.verbose == 2,
        )

    def _read_in_process(self, data: Columns, reset: bool) -> RowsInProcess:
        model = self.model
        y = checked_targets(*data)
        X, y = validated(
            model, data.X, y=y, multi_output=True, y_numeric=isinstance(model, RegressorMixin), reset=reset
        )
        if sparse.issparse(y):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        X = cast(X, self._dtype or X.dtype)
        return RowsInProcess(X, y, checked_weight(data.sample_weight, X, X.dtype))

    def look_at(self, rows: Rows) -> None:
        self._rows_dtype = rows.dtype
        is_distributed = self.data.is_distributed
        # L-BFGS uses the gradient over all rows, wherever they are; blocks of a stream may differ.
        if not self.model._uses_lbfgs and (is_distributed or not self.is_partial):
            rows.warn_of_skew(are_cut=not is_distributed)
        if self.is_continued:
            return
        # The name of a series y is kept, as scikit-learn keeps the names of the columns of X.
        y = self._given_y
        name = getattr(y, "name", None) if hasattr(y, "to_frame") else None
        if isinstance(name, str):
            self.model.target_name_ = name
        else:
            vars(self.model).pop("target_name_", None)

    def learn_targets(self, rows: Rows, held_out: Rows | None) -> Targets:
        model, summarize = self.model, self.model._summarize().of
        summary = rows.summary(summarize)
        if held_out is not None:
            of_held_out = held_out.summary(summarize)
            summary = self._all_targets(summary, of_held_out)
            summary.check_held_out(of_held_out)
            self._given["rows of validation_data"] = held_out.n_rows
        encoder = model._learn_targets(summary, rows.dtype, self.is_partial)
        weights = model._class_weights(summary, encoder, self.is_partial)
        network = model._network(encoder, rows.dtype)
        self._draw(rows, network)
        return Targets(encoder, weights, network)

    def _all_targets(self, summary: targets.Summary, of_held_out: targets.Summary) -> targets.Summary:
        """Return the summary of the targets that the model learns to predict."""
        return summary

    def _draw(self, rows: Rows, network: Network) -> None:
        """Draw in scikit-learn's order: parameters, held-out rows, orders of rows."""
        rng = check_random_state(self.model.random_state)
        is_continued = self.is_continued
        self._members = self._earlier_members(network) if is_continued else network.initial_params(rng)[None]
        self._kept: dict[str, Any] = {"earlier": self._earlier_attributes(), "n_parts": self.n_parts}
        if self.checkpoints is not None:
            rng = self._resumed_rng(rng, self.checkpoints)
            self._kept["random"] = random_memory(rng)
        self._seed = rows.draw_seed(rng)

    def _resumed_rng(self, rng: np.random.RandomState, checkpoints: Checkpoints) -> np.random.RandomState:
        """Return rng in the state that it had in the training that is resumed, if there is one."""
        kept = None if checkpoints.found is None else checkpoints.found.face.get("random")
        if kept is not None:
            # Without a seed, rng is the process's own, which must not be changed.
            rng = np.random.RandomState() if self.model.random_state is None else rng
            with schema.refusing("The checkpoint", "that of this training", ""):
                recall_random(rng, kept)
        return rng

    def hold_out(self, rows: Rows, targets_: Targets) -> Rows | None:
        model, encoder = self.model, targets_.encoder
        if not model.early_stopping or model._uses_lbfgs:
            return None
        if isinstance(encoder, targets.ClassEncoder) and encoder.n_outputs == 1:
            return rows.hold_out(model.validation_fraction, encoder)
        return rows.hold_out(model.validation_fraction, None)

    # --- how they are trained on -------------------------------------------------------------------

    def sizes(self, n_rows: int, network: Network) -> auto.Sizes:
        replicas = self.replicas or self.model._default_replicas(self.strategy, self.n_slots, n_rows)
        return self.model._sizes(network, n_rows, replicas, self.strategy)

    def choose(self, rows: Rows, sizes: auto.Sizes) -> tuple[Strategy, str]:
        if self.strategy is not None:
            return self.strategy, f"{self.strategy.name}: asked for"
        if isinstance(rows, RowsInProcess):
            return GradientAveraging(), "none: plain data trains in this process"
        return self.model._choose_by_rules(sizes)

    def transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        return self.model._transport(strategy, sizes)

    def begin(self, choice: Choice, targets_: Targets) -> tuple[TrainingJob, TrainState]:
        job = self.model._job(choice.sizes, self._seed)
        state = choice.strategy.init_state(job, self._members[0], choice.sizes.replicas)
        return self._continue(job, state) if self.is_continued else (job, state)

    # --- continuing an earlier fit -----------------------------------------------------------------

    def _earlier_members(self, network: Network) -> np.ndarray:
        """Return the fitted parameters (m, n_params). ValueError: they are of another network."""
        model = self.model
        if network.shapes != model._network_.shapes:
            fitted, wanted = ([W for W, _ in net.shapes] for net in (model._network_, network))
            raise ValueError(
                f"Expected to continue with the layers that were fitted, {fitted}, received parameters and "
                f"data for {wanted}. Use fit with warm_start=False to start again."
            )
        return model._predictor().members.astype(network.dtype, copy=False)

    def _earlier_attributes(self) -> dict[str, Any]:
        """Return the attributes of an earlier fit that this one extends."""
        names = ("t_", *conversion.ABSENT_AFTER_LBFGS) if self.is_continued else ()
        return {name: getattr(self.model, name) for name in names if hasattr(self.model, name)}

    def _continue(self, job: TrainingJob, state: TrainState) -> tuple[TrainingJob, TrainState]:
        """Return job and state with the weights of an earlier fit, and for partial_fit its optimizer."""
        if len(self._members) != len(np.atleast_2d(state.params)):
            raise ValueError(
                f"Expected to continue with {len(self._members)} members, as they were fitted, received a "
                f"strategy for {len(np.atleast_2d(state.params))}. Use the same strategy and replicas, or "
                "fit with warm_start=False."
            )
        state = replace(state, params=self._members.reshape(state.params.shape))
        kept: KeptOptimizer | None = getattr(self.model, "_kept_optimizer", None)
        if not self.is_partial or kept is None:
            return job, state
        # Strategies may have slots of their own behind the optimizer's.
        n_slots = min(kept.slots.shape[-2], state.slots.shape[-2])
        slots = state.slots.copy()
        slots[..., :n_slots, :] = kept.slots[..., :n_slots, :]
        state = replace(state, slots=slots, step=kept.step, learning_rate=kept.learning_rate)
        return replace(job, optimizer=kept.optimizer), state

    # --- training ----------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        return self.model.engine

    @property
    def n_epochs(self) -> int:
        return 1 if self.is_partial else self.model.max_iter

    def callbacks(self, job: TrainingJob, choice: Choice) -> list[cb.Callback]:
        model = self.model
        self._patience = self._make_patience()
        found: list[cb.Callback] = []
        if self._verbose == 1:
            found.append(progress.EpochLines())
        elif self._verbose:
            found.append(self._make_bar())
        if not model._uses_lbfgs:
            found.append(self._patience)
        if model.solver == "sgd" and model.learning_rate == "invscaling":
            rows_seen = model.t_ if self.is_continued else 0
            found.append(InverseScaling(job.optimizer.learning_rate, model.power_t, rows_seen))
        # Before the user's callbacks, which may save the model.
        return [*found, _Attributes(self._note), *cb.as_list(model.callbacks)]

    def _make_bar(self) -> progress.ProgressBar:
        # Thousands of calls of partial_fit should not leave thousands of bars.
        return progress.ProgressBar(stays=bool(self.model.verbose) or not self.is_partial)

    def _make_patience(self) -> Patience:
        model = self.model
        adaptive = model.solver == "sgd" and model.learning_rate == "adaptive"
        patience = Patience(
            model.tol, model.n_iter_no_change, adaptive, bool(model.verbose), model.early_stopping
        )
        if self.is_continued and hasattr(model, "_patience"):
            patience.resume_from(model._patience)
        return patience

    def hooks(self, job: TrainingJob, targets_: Targets, held_out: Rows | None) -> Hooks:
        return Hooks(
            validate=None if held_out is None else self._validator(held_out, targets_),
            validated=() if held_out is None else VALIDATED,
            publish=partial(self._publish, targets_),
            settings=self._settings(targets_) | self._given,
            kept=self._kept,
            check_kept=_KEPT,
        )

    def _validator(self, held_out: Rows, targets_: Targets) -> Callable[[TrainState], dict[str, float]]:
        """Return a function that scores a state on validation rows."""
        weights = self._weights_of_held_out(targets_)

        def validate(state: TrainState) -> dict[str, float]:
            predictor = Predictor(
                targets_.network, np.atleast_2d(state.params), targets_.encoder, self.model.engine_
            )
            found = held_out.validate(self.model._metric, predictor, weights)
            return dict(zip(VALIDATED, found, strict=True))

        return validate

    def _weights_of_held_out(self, targets_: Targets) -> targets.RowWeights | None:
        """Return the weights of classes, if validation rows have them."""
        # Rows that the user passed have weights that the user chose.
        return None if self.validation is not None else targets_.weights

    def _settings(self, targets_: Targets) -> dict[str, Any]:
        """Return the settings that a checkpoint must match, besides those of the job and the data."""
        model, weights = self.model, targets_.weights
        settings: dict[str, Any] = {
            "model": type(model).__name__,
            "classes": getattr(targets_.encoder, "classes", None),
            "weights of classes": weights.values if isinstance(weights, targets.ClassWeights) else None,
        }
        if isinstance(model.random_state, Integral):
            settings["random_state"] = int(model.random_state)
        if model._uses_lbfgs:
            return settings
        names = ["tol", "n_iter_no_change", "early_stopping"]
        if model.early_stopping:
            names.append("validation_fraction")
        if model.solver == "sgd":
            names += (
                ["learning_rate", "power_t"] if model.learning_rate == "invscaling" else ["learning_rate"]
            )
        return settings | {name: getattr(model, name) for name in names}

    def train(self, training: Training, targets_: Targets) -> None:
        self.model.history_ = training.history
        optimizer = training.transport.job.optimizer
        found = None
        try:
            if isinstance(optimizer, LBFGS):
                found = training.minimize(optimizer)
            else:
                training.run()
        except NonFiniteLossError:
            # The model keeps the weights of the last good epoch.
            self._learn(training, targets_)
            raise
        self._learn(training, targets_)
        if not (training.stop_training or training.interrupted or self.is_partial):
            self._warn_unless_converged(found)

    # --- results -----------------------------------------------------------------------------------

    def _publish(self, targets_: Targets, state: TrainState) -> None:
        """Give the model the weights of a state: callbacks may predict, score and save."""
        members = np.atleast_2d(state.params)
        self.model._set_predictor(Predictor(targets_.network, members, targets_.encoder, self.model.engine_))

    def _learn(self, training: Training, targets_: Targets) -> None:
        """Give the model the result of a training that has ended."""
        state, job = training.state, training.transport.job
        self._publish(targets_, state)
        self._note(training)
        self.model._kept_optimizer = None
        if not isinstance(job.optimizer, LBFGS):
            self.model._patience = self._patience
            self.model._kept_optimizer = KeptOptimizer(
                job.optimizer, state.slots, state.step, state.learning_rate
            )

    def _note(self, training: Training) -> None:
        """Set the fitted attributes, except for the weights, to those of a training so far."""
        model, state = self.model, training.state
        model.history_ = training.history
        epochs = training.history[training.n_before :]
        # L-BFGS may converge before its first iteration: then there is a loss, but no epoch.
        model.loss_ = model.history_[-1]["loss"] if model.history_ and not state.n_samples else state.loss
        model.n_iter_ = len(epochs)
        model.interrupted_ = training.interrupted
        model.t_ = 0
        for name in conversion.ABSENT_AFTER_LBFGS:
            vars(model).pop(name, None)
        vars(model).update(training.hooks.kept["earlier"])
        scores = [entry["validation_score"] for entry in epochs if "validation_score" in entry]
        if scores:
            model.validation_scores_ = [*(vars(model).get("validation_scores_") or []), *scores]
            # As in scikit-learn, NaN is never the best score.
            known = (score for score in model.validation_scores_ if not isnan(score))
            model.best_validation_score_ = max(known, default=float("-inf"))
        if isinstance(training.transport.job.optimizer, LBFGS):
            return
        if not scores:
            model.validation_scores_ = model.best_validation_score_ = None
        model.t_ += len(epochs) * training.n_samples
        model.loss_curve_ = [*vars(model).get("loss_curve_", []), *(entry["loss"] for entry in epochs)]
        model.best_loss_ = None if self._patience.early_stopping else self._patience.best_loss

    def _warn_unless_converged(self, found: OptimizeResult | None) -> None:
        model = self.model
        if found is not None:
            model.n_iter_ = _check_optimize_result("lbfgs", found, model.max_iter)
        elif model.n_iter_ == model.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=caller_stacklevel(),
            )


def _asked_replicas(model, strategy: Strategy | None, is_continued: bool) -> int | None:
    """Return the number of replicas that parameters or an earlier fit say, or None."""
    if strategy is None:
        return model.replicas
    if model.transport == auto.PEER and isinstance(strategy, PredictionAveraging):
        raise ValueError(
            "transport='peer' is for replicas that exchange gradients or weights; members of an ensemble "
            "exchange nothing. Use transport='auto'."
        )
    if model.transport == auto.TASKS and strategy.remembers:
        raise ValueError(
            "Compressed or delayed gradients are sent directly between workers, received transport='tasks'. "
            "Use transport='auto', or leave compression or delay out."
        )
    if model._uses_lbfgs and getattr(strategy, "delay", 0):
        raise ValueError(
            "solver='lbfgs' has no steps to delay, received delay=1. Leave delay out, or use solver='adam'."
        )
    if model._uses_lbfgs and not isinstance(strategy, GradientAveraging):
        raise ValueError(
            f"solver='lbfgs' needs the gradient over all rows in each iteration, received strategy "
            f"{strategy.name!r}. Use strategy='gradients', or solver='adam'."
        )
    wanted = strategy.replicas or model.replicas
    if model.replicas not in (None, wanted):
        raise ValueError(
            f"Expected replicas={wanted}, as the strategy says, received {model.replicas}. "
            "Leave replicas out."
        )
    if is_continued and isinstance(strategy, PredictionAveraging):
        return wanted or len(model._members)
    return wanted


def _verbosity(model, is_distributed: bool) -> int:
    """Return the level of output: 0 nothing, 1 lines, 2 bars."""
    if model.verbose is None:
        return 2 if is_distributed and progress.can_move() else 0
    return int(model.verbose)
