"""What scikit-learn's classifier and regressor have in common, for Dask data too."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from dasknn import callbacks as cb
from dasknn import strategies
from dasknn._compat.sklearn import Interval, Options, StrOptions
from dasknn.callbacks import checkpoints
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions, targets
from dasknn.data.columns import check_columns, validated
from dasknn.data.targets import ClassWeights
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, WarmUp
from dasknn.estimators import conversion
from dasknn.estimators.fitting import EstimatorFit, check_path, one_validation, require_targets
from dasknn.estimators.losses import SklearnLoss
from dasknn.exceptions import caller_stacklevel
from dasknn.initializers import VarianceScaling
from dasknn.layers import Dense
from dasknn.optimizers import LBFGS, SGD, Adam, Optimizer
from dasknn.regularizers import BatchL2
from dasknn.saving import safetensors_file
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.training import prediction
from dasknn.training.datasets import score_parts
from dasknn.training.fit import Columns
from dasknn.training.prediction import Predictor

# Attributes that say what was learned of the data, besides the weights. _numbered: columns named by integers.
_OF_THE_DATA = ("n_features_in_", "feature_names_in_", "_numbered", "target_name_", "classes_")


def takes_steps(estimator) -> bool:
    """Return whether the solver trains on mini-batches; AttributeError, in scikit-learn's words, if not."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


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
            validation_data = one_validation(validation_data, X_val, y_val, sample_weight_val)
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
        is_continued = self.__sklearn_is_fitted__() and (self.warm_start or incremental)
        if not is_continued:
            # Until this fit has trained an epoch, nothing is fitted.
            self.__dict__.pop("_members", None)
        data = Columns(*inputs.admit(X, y, sample_weight))
        validation = None if validation_data is None else Columns(*inputs.admit(*validation_data))
        EstimatorFit(
            self,
            data,
            validation,
            None if self.strategy == "auto" else strategies.get(self.strategy),
            keeper,
            max_faults,
            is_partial=incremental,
            is_continued=is_continued,
        ).run()
        return self

    def _connect(self, distributed: bool, data: tuple, max_faults: int = MAX_FAULTS):
        return connect(self.client, distributed, max_faults, workers=self.workers, data=data)

    def _check_settings(self, validation_data, incremental: bool) -> None:
        self._hidden_sizes()
        for callback in cb.as_list(self.callbacks):
            if isinstance(callback, cb.ModelCheckpoint):
                check_path(os.fspath(callback.filepath))
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

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError("hidden_layer_sizes must be > 0, got %s." % sizes)
        return sizes

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
                stacklevel=caller_stacklevel(),
            )
            batch_size = n_rows
        return auto.Sizes(network, n_rows, replicas, None if batch_size is None else int(batch_size))

    def _wanted_batch(self) -> int | str | None:
        """Return the rows of a step: a number, "auto", or None for all of them."""
        return None if self.batch_size == "full" or self.solver == "lbfgs" else self.batch_size

    def _default_replicas(self, strategy: Strategy | None, n_slots: int, n_rows: int) -> int:
        return auto.default_replicas(strategy or GradientAveraging(), n_slots, n_rows, self._wanted_batch())

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
        require_targets(self, y)
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
        check_path(os.fspath(path))
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
