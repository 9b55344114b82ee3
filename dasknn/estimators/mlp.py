"""The base class of the classifier and the regressor."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

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
from dasknn.data.targets import ClassSummary, ClassWeights, NumberSummary, TargetEncoder
from dasknn.engine import engines
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
from dasknn.training.prediction import Predictor, Score

# Attributes that describe the data of fit. _numbered: columns that are named by integers.
_OF_THE_DATA = ("n_features_in_", "feature_names_in_", "_numbered", "target_name_", "classes_")


def takes_steps(estimator) -> bool:
    """Return True if the solver trains on mini-batches. AttributeError, as in scikit-learn: it does not."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


class BaseMLP(Placed, BaseEstimator):
    """Multi-layer perceptron: what the classifier and the regressor share."""

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
        "engine": [StrOptions(set(engines.NAMES))],
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

    # --- differences between the two ---------------------------------------------------------------

    _metric: type[Score]

    @abstractmethod
    def _loss(self, encoder: TargetEncoder) -> SklearnLoss:
        """Return the loss for targets of this encoder."""

    @abstractmethod
    def _summarize(self) -> type[ClassSummary] | type[NumberSummary]:
        """Return the class that summarizes parts of y."""

    @abstractmethod
    def _learn_targets(self, summary, dtype: str, is_partial: bool) -> TargetEncoder:
        """Return the encoder of y; set the attributes that describe y. ValueError: y does not fit."""

    def _class_weights(self, summary, encoder: TargetEncoder, is_partial: bool) -> ClassWeights | None:
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
        """Fit the model to data.

        Dask collections, or an explicit strategy, train on the cluster of `self.client` or of the current
        client, else on Dask's local scheduler. Plain data with strategy="auto" trains in this process.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe, sparse matrix or list, (n, p)
        y : Dask array or series, array, series or list, (n,) or (n, k)
        sample_weight : Dask array or series, array, series, list or None, (n,), default=None
        X_val, y_val, sample_weight_val : as X, y and sample_weight, default=None
            Rows to score after each epoch, instead of held-out rows. In a Pipeline,
            transform_input=["X_val"] sends X_val through the steps before.
        validation_data : (X, y) or (X, y, sample_weight), default=None
            The same rows in one argument.
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
        self

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

        Notes
        -----
        Scores of validation rows are in `validation_scores_`. `history_`, and the logs of callbacks, have
        them as "validation_score", beside "val_loss", the mean loss without the penalty.

        With solver="lbfgs", a resumed training has other bits: SciPy's estimate of the curvature is not in
        checkpoints, and is built up again.
        """
        if X_val is not None or y_val is not None or sample_weight_val is not None:
            validation_data = one_validation(validation_data, X_val, y_val, sample_weight_val)
        found = checkpoints.begin(checkpoint, resume)
        return self._fit(X, y, sample_weight, validation_data, checkpoints=found, max_faults=max_faults)

    def _fit(
        self,
        X,
        y,
        sample_weight=None,
        validation_data=None,
        *,
        is_partial: bool = False,
        checkpoints: Checkpoints | None = None,
        max_faults: int = MAX_FAULTS,
    ) -> Self:
        self._validate_params()
        self._check_settings(validation_data, is_partial)
        is_continued = self.__sklearn_is_fitted__() and (self.warm_start or is_partial)
        if not is_continued:
            # Until this fit has trained an epoch, the model is not fitted.
            self.__dict__.pop("_members", None)
        data = Columns(*inputs.admit(X, y, sample_weight))
        validation = None if validation_data is None else Columns(*inputs.admit(*validation_data))
        EstimatorFit(
            self,
            data,
            validation,
            None if self.strategy == "auto" else strategies.get(self.strategy),
            checkpoints,
            max_faults,
            is_partial=is_partial,
            is_continued=is_continued,
        ).run()
        return self

    def _connect(self, distributed: bool, data: tuple, max_faults: int = MAX_FAULTS):
        return connect(self.client, distributed, max_faults, workers=self.workers, data=data)

    def _check_settings(self, validation_data, is_partial: bool) -> None:
        self._hidden_sizes()
        for callback in cb.as_list(self.callbacks):
            if isinstance(callback, cb.ModelCheckpoint):
                check_path(os.fspath(callback.filepath))
                if callback.save_weights_only:
                    raise ValueError(
                        f"{type(self).__name__} is saved as a whole, received "
                        "ModelCheckpoint(save_weights_only=True). Leave save_weights_only out."
                    )
        if validation_data is not None and len(validation_data) not in (2, 3):
            raise ValueError(
                "Expected validation_data to be (X, y) or (X, y, sample_weight), received "
                f"{len(validation_data)} items."
            )
        if self.solver == "lbfgs" and self.transport == auto.PEER:
            raise ValueError(
                "solver='lbfgs' averages gradients through the client, received transport='peer'. Use "
                "transport='auto'."
            )
        if is_partial and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError("hidden_layer_sizes must be > 0, got %s." % sizes)
        return sizes

    def _network(self, encoder, dtype: str) -> Network:
        loss = self._loss(encoder)
        # As in scikit-learn, biases are drawn, too, and logistic units have a smaller bound.
        glorot = VarianceScaling(1 / 3 if self.activation == "logistic" else 1.0, "fan_avg", "uniform")
        units = [(size, self.activation) for size in self._hidden_sizes()]
        units.append((encoder.n_outputs, loss.canonical_activation))
        layers = tuple(
            Dense(int(n), name, kernel_initializer=glorot, bias_initializer=glorot) for n, name in units
        )
        return Network(self.n_features_in_, layers, loss, dtype)

    def _choose_by_rules(self, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy for strategy='auto' and Dask data, and the reason for it."""
        transport = auto.TASKS if self.transport == auto.TASKS else auto.PEER
        return auto.choose_strategy(sizes, transport)

    def _transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        if self.solver == "lbfgs":
            return auto.TASKS
        return auto.choose_transport(strategy, sizes) if self.transport == "auto" else self.transport

    def _job(self, sizes: auto.Sizes, seed: int) -> TrainingJob:
        """Return the job; if the batch grows with the number of replicas, so does the learning rate."""
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
            # From coefs_ and intercepts_, since users of scikit-learn change them.
            parts = [*self.coefs_, *self.intercepts_]
            members = np.concatenate([np.ravel(part) for part in parts])[np.newaxis]
        return Predictor(self._network_, members, self._encoder, vars(self).get("engine_", engines.NUMPY))

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
        with self._connect(True, (X, y, sample_weight)) as executor:
            return score_parts(executor, self._metric, predictor, parts, names).result()

    @property
    def members_(self) -> list[Self]:
        """The members of an ensemble, each a fitted estimator; one network is its own only member."""
        predictor = self._predictor()
        return [
            self._member(replace(predictor, members=member[np.newaxis].copy()))
            for member in predictor.members
        ]

    def _member(self, predictor: Predictor) -> Self:
        member = clone(self).set_params(strategy="auto", replicas=None)
        for name in (*_OF_THE_DATA, "n_iter_", "t_"):
            if hasattr(self, name):
                setattr(member, name, getattr(self, name))
        # Losses of the ensemble are means over members, so a member's own are not known.
        member.history_, member.loss_curve_, member.best_loss_ = [], [], float("inf")
        member.replicas_, member.strategy_, member.interrupted_ = 1, None, self.interrupted_
        member.transport_, member.strategy_reason_ = self.transport_, "a member of an ensemble"
        member.engine_, member.engine_reason_ = self.engine_, self.engine_reason_
        member._set_predictor(predictor)
        return member

    # --- other forms -------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file, which `dasknn.load` reads.

        The file does not hold the optimizer's state: partial_fit of a loaded model begins with a new one.

        Parameters
        ----------
        path : str, path or fsspec URL

        Raises
        ------
        NotFittedError
            The model is not fitted.
        ValueError
            The path ends in `.keras` or `.h5`, as Keras's files do.
        """
        check_path(os.fspath(path))
        safetensors_file.write(path, *conversion.parts_of(self))

    def to_sklearn(self):
        """Convert the model to scikit-learn's estimator, for tools that expect one.

        Returns
        -------
        sklearn.neural_network.MLPClassifier or MLPRegressor
            Fitted, with the same predictions, and with those parameters that scikit-learn has.

        Raises
        ------
        NotFittedError
            The model is not fitted.
        ValueError
            The model is an ensemble, which scikit-learn does not have.
        """
        return conversion.to_sklearn(self)

    def __sklearn_is_fitted__(self):
        return "_members" in vars(self)

    def __getattr__(self, name):
        if name in ("coefs_", "intercepts_") and "_members" in vars(self):
            raise AttributeError(
                f"An ensemble of {len(self._members)} members has no {name} of its own; each of its members_ "
                "has, and its predictions are the mean of theirs."
            )
        return super().__getattribute__(name)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
