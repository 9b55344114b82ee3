"""The base class of the classifier and the regressor."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dasknn import callbacks as cb
from dasknn._compat.sklearn import Interval, Options, StrOptions
from dasknn.data.targets import TargetEncoder
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob, WarmUp
from dasknn.estimators import conversion
from dasknn.estimators.base import NetworkEstimator
from dasknn.estimators.losses import SklearnLoss
from dasknn.exceptions import caller_stacklevel
from dasknn.initializers import VarianceScaling
from dasknn.layers import Dense
from dasknn.optimizers import LBFGS, SGD, Adam, Optimizer
from dasknn.regularizers import BatchL2
from dasknn.strategies import GradientAveraging, Strategy, auto
from dasknn.training.prediction import Predictor


def takes_steps(estimator) -> bool:
    """Return True if the solver trains on mini-batches. AttributeError, as in scikit-learn: it does not."""
    if estimator.solver == "lbfgs":
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


class BaseMLP(NetworkEstimator):
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

    def __init__(self, **parameters):
        for name, value in parameters.items():
            setattr(self, name, value)

    @abstractmethod
    def _loss(self, encoder: TargetEncoder) -> SklearnLoss:
        """Return the loss for targets of this encoder."""

    def _check_settings(self, validation_data, is_partial: bool) -> None:
        self._hidden_sizes()
        super()._check_settings(validation_data, is_partial)
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

    @property
    def _uses_lbfgs(self) -> bool:
        return self.solver == "lbfgs"

    def _transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        return auto.TASKS if self._uses_lbfgs else super()._transport(strategy, sizes)

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
        super()._set_predictor(predictor)
        network, members = predictor.network, predictor.members
        # An earlier fit may have left those of one network.
        for name in ("coefs_", "intercepts_"):
            self.__dict__.pop(name, None)
        if len(members) == 1:
            views = network.views(members[0])
            self.coefs_ = [W for W, _ in views]
            self.intercepts_ = [b for _, b in views]

    def _predictor(self) -> Predictor:
        check_is_fitted(self)
        members = self._members
        if len(members) == 1:
            # From coefs_ and intercepts_, since users of scikit-learn change them.
            parts = [*self.coefs_, *self.intercepts_]
            members = np.concatenate([np.ravel(part) for part in parts])[np.newaxis]
        return Predictor(self._network_, members, self._encoder, vars(self).get("engine_", engines.NUMPY))

    # --- other forms -------------------------------------------------------------------------------

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
