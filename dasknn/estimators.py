"""scikit-learn's MLPClassifier and MLPRegressor, for Dask data too."""

from __future__ import annotations

import json
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial, reduce
from numbers import Integral, Real
from operator import add
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from dasknn import callbacks as cb
from dasknn import optimizers, prediction, saving, strategies, targets
from dasknn.cluster import partitions
from dasknn.cluster.tasks import Graph, Tasks, connect
from dasknn.exceptions import ModelFileError, NonFiniteLossError
from dasknn.initializers import GlorotUniform
from dasknn.layers import Dense
from dasknn.losses import BinaryLogLoss, CategoricalLogLoss, HalfPoisson, Loss, SquaredError
from dasknn.metrics import R2, Accuracy
from dasknn.network import Network
from dasknn.regularizers import L2
from dasknn.strategies import Shard, Strategy, TrainingJob
from dasknn.training import InProcess, OnTasks, Training

# batch_size="auto": rows of one step of one replica.
_AUTO_BATCH = 200
# The default number of replicas leaves each at least so many rows of a step, and an epoch so many steps.
_LEAST_ROWS_OF_STEP = 32
_LEAST_STEPS = 10


class _MLP(BaseEstimator):
    """What the classifier and the regressor share."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto", "full"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "strategy": [StrOptions({"auto", "gradients", "weights", "predictions"}), Strategy],
        "replicas": [Interval(Integral, 1, None, closed="left"), None],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "callbacks": ["array-like", None],
    }

    #: The distributed client to train with; None stands for the current one, if there is one.
    client: Any = None

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        momentum=0.9,
        nesterovs_momentum=True,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        strategy="auto",
        replicas=None,
        dtype=None,
        callbacks=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.strategy = strategy
        self.replicas = replicas
        self.dtype = dtype
        self.callbacks = callbacks

    # --- what the two differ in --------------------------------------------------------------------

    _metric: Any

    @abstractmethod
    def _loss(self, encoder) -> Loss:
        """Return the loss for targets that this encoder makes."""

    @abstractmethod
    def _summarize(self):
        """Return the class of `targets` that summarizes parts of y."""

    @abstractmethod
    def _learn_targets(self, summary) -> None:
        """Set the attributes that come from y."""

    # --- fit ---------------------------------------------------------------------------------------

    def fit(self, X, y, sample_weight=None, *, validation_data=None):
        """Train on X (n, p), y (n,) or (n, k) and sample_weight (n,) or None; return self.

        Each may be a Dask array, dataframe or series, a numpy array, a pandas object, a list; X a scipy
        sparse matrix. With Dask collections, or an explicit strategy, training runs on the cluster of
        `self.client` or of the current client, else on Dask's local scheduler; plain data with
        strategy="auto" trains in this process.

        validation_data, (X, y) or (X, y, sample_weight), is scored after each epoch: accuracy, or R^2 for
        the regressor, goes into `validation_scores_` and `history_`.

        Raises ValueError (or its kind, PartitionError) for data that cannot be trained on, before training
        begins, and NonFiniteLossError when training diverges.
        """
        self._validate_params()
        for callback in self.callbacks or ():
            if not isinstance(callback, cb.Callback):
                raise ValueError(
                    f"Expected callbacks to be objects of subclasses of dasknn.callbacks.Callback, "
                    f"received {callback!r}."
                )
        sizes = self._hidden_sizes()
        if validation_data is not None and len(validation_data) not in (2, 3):
            raise ValueError(
                "Expected validation_data to be (X, y) or (X, y, sample_weight), received "
                f"{len(validation_data)} items."
            )
        # Until this fit has come to something, nothing is fitted.
        self.__dict__.pop("_members", None)
        distributed = partitions.is_distributed(X, y, sample_weight)
        if not distributed and self.strategy == "auto":
            return self._fit_in_process(X, y, sample_weight, sizes, validation_data)
        strategy = strategies.get("gradients" if self.strategy == "auto" else self.strategy)
        with connect(self.client, distributed) as tasks:
            return self._fit_on(tasks, strategy, X, y, sample_weight, sizes, validation_data)

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError("hidden_layer_sizes must be > 0, got %s." % sizes)
        return sizes

    def _fit_in_process(self, X, y, sample_weight, sizes, validation_data):
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=isinstance(self, RegressorMixin),
            dtype=self.dtype or (np.float64, np.float32),
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
            if not sample_weight.any():
                raise ValueError("Expected some rows to count, but all sample weights are zero.")
        summary = self._summarize().of(y)
        encoder = summary.encoder(X.dtype.name)
        self._learn_targets(summary)
        rng = check_random_state(self.random_state)
        network = self._network(encoder, sizes, X.dtype.name)
        batch_size = self._batch_size(X.shape[0], 1)
        job = self._job(network, batch_size, 1, 0)
        shard = Shard(partitions.cast(X, X.dtype), encoder.encode(y), sample_weight)
        params = network.initial_params(rng)
        state = strategies.GradientAveraging().init_state(job, params, 1)
        self.replicas_, self.strategy_ = 1, None
        validate = None
        if validation_data is not None:
            validate = self._validator_in_process(network, encoder, *validation_data)
        return self._train(job, InProcess(job, shard, rng), state, encoder, validate)

    def _fit_on(self, tasks: Tasks, strategy: Strategy, X, y, sample_weight, sizes, validation_data):
        wanted = getattr(strategy, "members", None) or self.replicas
        if self.replicas not in (None, wanted):
            raise ValueError(
                f"Expected replicas={wanted}, the members of the strategy, received {self.replicas}. "
                "Leave replicas out."
            )
        distributed = partitions.is_distributed(X)
        self._check_columns(X, reset=True)
        dtype = self.dtype or _dtype_of(X)
        n_parts = 1 if distributed else (wanted or len(tasks.slots()))
        names = list(X.columns) if partitions.is_dataframe(X) else None
        load = partial(
            partitions.load, tasks, dtype=dtype, summarize=self._summarize().of, feature_names=names
        )
        parts = partitions.parts(X, y, sample_weight, n_parts)
        with cb.loading_bar(len(parts), shown=self.verbose == 1) as on_partition:
            loaded = load(parts, on_partition=on_partition)
        summary = loaded.targets
        self._learn_targets(summary)
        encoder = summary.encoder(dtype)
        n_rows = loaded.n_rows
        replicas = wanted or self._default_replicas(len(tasks.slots()), n_rows)
        batch_size = self._batch_size(n_rows, strategy.replicas_in_step(replicas))

        rng = check_random_state(self.random_state)
        network = self._network(encoder, sizes, dtype)
        params = network.initial_params(rng)
        job = self._job(network, batch_size, replicas, int(rng.randint(2**31 - 1)))
        shards = partitions.shards(tasks, loaded, replicas, partial(_encode_shard, encoder))
        state = strategy.init_state(job, params, replicas)
        self.replicas_, self.strategy_ = replicas, strategy
        validate = None
        if validation_data is not None:
            self._check_columns(validation_data[0], reset=False)
            held_out = load(partitions.parts(*validation_data))
            validate = partial(self._score_on, tasks, network, encoder, held_out.add_blocks)
        return self._train(job, OnTasks(job, strategy, tasks, shards), state, encoder, validate)

    def _train(self, job, transport, state, encoder, validate):
        patience = cb.Patience(
            self.tol,
            self.n_iter_no_change,
            self.solver == "sgd" and self.learning_rate == "adaptive",
            self.verbose,
        )
        watchers: list[cb.Callback] = [cb.Clock(), patience]
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            watchers.append(cb.InverseScaling(self.learning_rate_init, self.power_t))
        if self.verbose:
            watchers.append(cb.ProgressBar() if self.verbose == 1 else cb.EpochLines())
        training = Training(
            self, transport, state, self.max_iter, watchers + list(self.callbacks or ()), validate
        )
        try:
            training.run()
        except NonFiniteLossError:
            # Whoever catches the error finds the weights of the last good epoch.
            self._learn(training, job, encoder, patience)
            raise
        self._learn(training, job, encoder, patience)
        if self.n_iter_ == self.max_iter and not training.stop_training:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    def _learn(self, training: Training, job: TrainingJob, encoder, patience) -> None:
        """Set the fitted attributes from what a training has come to."""
        state = training.state
        self._network_, self._encoder = job.network, encoder
        self._set_members(np.atleast_2d(state.params))
        self.history_ = training.history
        self.loss_curve_ = [entry["loss"] for entry in training.history]
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")
        self.best_loss_ = patience.best_loss
        self._set_validation_scores()
        self.interrupted_ = training.interrupted
        self.n_iter_ = len(training.history)
        self.t_ = self.n_iter_ * training.n_samples

    def _set_validation_scores(self) -> None:
        scores = [entry["validation_score"] for entry in self.history_ if "validation_score" in entry]
        self.validation_scores_ = scores or None
        self.best_validation_score_ = max(scores, default=None)

    def _set_members(self, members: np.ndarray) -> None:
        network = self._network_
        self.n_layers_ = len(network.layers) + 1
        self.n_outputs_ = network.n_outputs
        self.out_activation_ = network.layers[-1].activation
        self._members = members
        # An earlier fit may have left those of one network.
        for name in ("coefs_", "intercepts_"):
            self.__dict__.pop(name, None)
        if len(members) == 1:
            views = network.views(members[0])
            self.coefs_ = [W for W, _ in views]
            self.intercepts_ = [b for _, b in views]

    def _network(self, encoder, sizes: list[int], dtype: str) -> Network:
        loss = self._loss(encoder)
        # scikit-learn draws the biases, too, and takes a smaller bound for logistic units.
        glorot = GlorotUniform(2.0 if self.activation == "logistic" else 6.0)
        units = [(size, self.activation) for size in sizes]
        units.append((encoder.n_outputs, loss.canonical_activation))
        layers = tuple(Dense(int(n), name, glorot, glorot) for n, name in units)
        return Network(self.n_features_in_, layers, loss, dtype)

    def _job(self, network, batch_size, replicas, seed) -> TrainingJob:
        if self.solver == "adam":
            optimizer: optimizers.Optimizer = optimizers.Adam(
                self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon
            )
        else:
            optimizer = optimizers.SGD(self.learning_rate_init, self.momentum, self.nesterovs_momentum)
        regularizer = L2(float(self.alpha))
        return TrainingJob(network, optimizer, regularizer, batch_size, seed, replicas, self.shuffle)

    def _batch_size(self, n_rows: int, replicas: int) -> int | None:
        if self.batch_size == "full":
            return None
        if self.batch_size == "auto":
            return min(_AUTO_BATCH * replicas, n_rows)
        if self.batch_size > n_rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=4,
            )
        return int(min(self.batch_size, n_rows))

    def _default_replicas(self, n_slots: int, n_rows: int) -> int:
        if self.batch_size == "full":
            useful = n_rows // _LEAST_ROWS_OF_STEP
        elif self.batch_size == "auto":
            useful = n_rows // (_AUTO_BATCH * _LEAST_STEPS)
        else:
            useful = min(self.batch_size, n_rows) // _LEAST_ROWS_OF_STEP
        return max(1, min(n_slots, useful))

    # --- features ----------------------------------------------------------------------------------

    def _check_columns(self, X, reset: bool) -> None:
        """Check, and at fit learn, names and number of features of a collection, without computing it."""
        if partitions.is_dataframe(X):
            wrong = {
                str(name): str(kind)
                for name, kind in X.dtypes.items()
                if getattr(kind, "kind", "O") not in "biuf"
            }
            if wrong:
                raise ValueError(
                    "Expected columns of numbers, received "
                    + ", ".join(f"{name!r} ({kind})" for name, kind in wrong.items())
                    + ". Encode them first, for instance with dask_ml.preprocessing.OrdinalEncoder or "
                    "dask.dataframe.get_dummies, or drop them."
                )
            like = getattr(X, "_meta", X)
            validate_data(self, X=like, skip_check_array=True, reset=reset)
            return
        shape = np.shape(X)
        if len(shape) != 2:
            raise ValueError(
                f"Expected X of shape (n, p), received shape {shape}. Reshape your data with "
                "X.reshape(-1, 1) if it has a single feature."
            )
        if partitions.is_distributed(X):
            partitions.check_chunks(X)
        like = np.empty((1, int(shape[1])), dtype=np.float32)
        validate_data(self, X=like, skip_check_array=True, reset=reset)

    # --- predict -----------------------------------------------------------------------------------

    def _predictor(self) -> prediction.Predictor:
        check_is_fitted(self)
        members = self._members
        if len(members) == 1:
            # coefs_ and intercepts_ are the truth, since scikit-learn's users change them.
            parts = [*self.coefs_, *self.intercepts_]
            members = np.concatenate([np.ravel(part) for part in parts])[np.newaxis]
        return prediction.Predictor(self._network_, members, self._encoder)

    def _predict(self, method: str, X, columns: list | None):
        predictor = self._predictor()
        if partitions.is_distributed(X):
            self._check_columns(X, reset=False)
            return prediction.lazily(predictor, method, X, columns)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        return getattr(predictor, method)(X)

    def predict(self, X):
        """Return predictions for X (n, p): (n,), or (n, k) for several outputs.

        A numpy array for data in this process; for a Dask array a Dask array, for a Dask dataframe a
        Dask series (several outputs: a dataframe), not yet computed.
        """
        check_is_fitted(self)
        columns = None
        if self.n_outputs_ > 1 and not isinstance(self._encoder, targets.ClassEncoder):
            columns = list(range(self.n_outputs_))
        return self._predict("predict", X, columns)

    def _score_where_data_is(self, X, y, sample_weight) -> float:
        predictor = self._predictor()
        self._check_columns(X, reset=False)
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        to_block = partial(partitions.load_block, parts[0].names, predictor.network.dtype, names)

        def add_blocks(graph):
            return [graph.add("dasknn-load", to_block, *part.add_to(graph)) for part in parts]

        with connect(self.client, distributed=True) as tasks:
            return self._score_blocks(tasks, predictor, add_blocks)

    def _score_on(self, tasks: Tasks, network, encoder, add_blocks, state) -> float:
        members = np.atleast_2d(state.params)
        return self._score_blocks(tasks, prediction.Predictor(network, members, encoder), add_blocks)

    def _score_blocks(self, tasks: Tasks, predictor, add_blocks) -> float:
        graph = Graph()
        model = graph.add_value("dasknn-model", predictor)
        score = partial(prediction.score_block, self._metric)
        wanted = [graph.add("dasknn-score", score, model, block) for block in add_blocks(graph)]
        # In the order of partitions, whichever comes first.
        return reduce(add, tasks.run(graph, wanted)).result()

    def _validator_in_process(self, network, encoder, X, y, sample_weight=None):
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        y = targets.as_array(y)
        if len(y) != X.shape[0]:
            raise ValueError(f"validation_data: X has {X.shape[0]} rows, y has {len(y)}.")

        def validate(state) -> float:
            predictor = prediction.Predictor(network, np.atleast_2d(state.params), encoder)
            predicted = predictor.predict(X)
            return self._metric.of(y.reshape(predicted.shape), predicted, sample_weight).result()

        return validate

    # --- save --------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file; `dasknn.load` reads it."""
        predictor = self._predictor()
        description = {
            "kind": type(self).__name__,
            "parameters": {name: _to_json(value) for name, value in self.get_params().items()},
            "dtype": predictor.network.dtype,
            "layers": [[layer.units, layer.activation] for layer in predictor.network.layers],
            "n_features_in": self.n_features_in_,
            "feature_names_in": [str(name) for name in getattr(self, "feature_names_in_", [])],
            "targets": _describe_encoder(self._encoder),
            "fitted": {name: getattr(self, name) for name in _FITTED_NUMBERS},
            "strategy": _to_json(self.strategy_),
            "history": self.history_,
        }
        saving.write(path, description, {"members": predictor.members})

    def _restore(self, description, members: np.ndarray) -> None:
        encoder = _encoder_from(description["targets"], description["dtype"])
        layers = tuple(Dense(units, name) for units, name in description["layers"])
        self.n_features_in_ = description["n_features_in"]
        if description["feature_names_in"]:
            self.feature_names_in_ = np.array(description["feature_names_in"], dtype=object)
        network = Network(self.n_features_in_, layers, self._loss(encoder), description["dtype"])
        if members.ndim != 2 or members.shape[1] != network.n_params:
            raise ModelFileError(
                f"Expected parameters of shape (members, {network.n_params}) for the layers described, "
                f"received {members.shape}."
            )
        self._network_, self._encoder = network, encoder
        self._set_members(members)
        for name in _FITTED_NUMBERS:
            setattr(self, name, description["fitted"][name])
        self.strategy_ = _from_json(description["strategy"])
        self.history_ = description["history"]
        self.loss_curve_ = [entry["loss"] for entry in self.history_]
        self._set_validation_scores()
        if isinstance(encoder, targets.ClassEncoder | targets.MultilabelEncoder):
            self.classes_ = encoder.classes

    def __sklearn_is_fitted__(self):
        return "_members" in vars(self)

    def __getattr__(self, name):
        if name in ("coefs_", "intercepts_") and "_members" in vars(self):
            raise AttributeError(
                f"An ensemble of {len(self._members)} members has no {name} of its own: each member "
                "has. Predictions are the mean of theirs."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self):
        state = super().__getstate__()
        # A client belongs to its process.
        return {name: value for name, value in state.items() if name != "client"}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


_FITTED_NUMBERS = ("loss_", "best_loss_", "n_iter_", "t_", "replicas_", "interrupted_")


class MLPClassifier(ClassifierMixin, _MLP):
    """Multi-layer perceptron classifier: scikit-learn's, for data on a Dask cluster too.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Activation of the hidden layers.
    solver : {'sgd', 'adam'}, default='adam'
        Optimizer.
    alpha : float, default=0.0001
        Strength of the L2 penalty.
    batch_size : int, 'auto' or 'full', default='auto'
        Rows of one step over all replicas. 'auto': 200 for each replica, or all rows if fewer. 'full': all
        rows, one step an epoch. Members of an ensemble take steps of batch_size rows each.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of the learning rate, for solver='sgd'.
    learning_rate_init : float, default=0.001
        Initial learning rate.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs.
    shuffle : bool, default=True
        Whether rows are visited in a new order in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and of the order of rows.
    tol : float, default=1e-4
        Training stops when the loss has not fallen by tol for n_iter_no_change epochs.
    verbose : {0, 1, 2}, default=0
        1: a progress bar. 2: a line an epoch.
    momentum, nesterovs_momentum : float, default=0.9; bool, default=True
        For solver='sgd'.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999, 1e-8
        For solver='adam'.
    n_iter_no_change : int, default=10
        See tol.
    strategy : 'auto', 'gradients', 'weights', 'predictions' or an object of `dasknn.strategies`
        What replicas average. 'auto': plain data trains in this process, Dask data by 'gradients'.
    replicas : int or None, default=None
        Number of replicas that train side by side. For given partitions, replicas and random_state, the
        result is the same to the last bit on any cluster. None: one for each thread of the cluster, but no
        more than leave each 32 rows of a step, or, with batch_size='auto', an epoch ten steps.
    dtype : 'float32', 'float64' or None, default=None
        Numbers to compute in. None: float32 if X is, else float64.
    callbacks : list of `dasknn.callbacks.Callback` or None, default=None
        Told what happens; they run in the process that called fit.

    Attributes
    ----------
    classes_ : array (n_classes,); labels, sorted.
    coefs_, intercepts_ : lists of arrays; weights and biases, layer by layer (not for an ensemble).
    loss_, best_loss_, loss_curve_ : mean training loss of the last, the best and of each epoch.
    history_ : list of dicts, one an epoch: epoch, loss, learning_rate, n_samples, seconds, ...
    n_iter_, t_ : epochs, and rows seen.
    validation_scores_, best_validation_score_ : accuracy on validation_data, of each epoch and the best.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_ : as in scikit-learn.
    interrupted_ : whether Ctrl-C ended training before max_iter or the stopping rule did.
    replicas_, strategy_ : what training used; strategy_ is None for training in this process.
    """

    _metric = Accuracy

    def _loss(self, encoder):
        if isinstance(encoder, targets.MultilabelEncoder) or encoder.n_outputs == 1:
            return BinaryLogLoss()
        return CategoricalLogLoss()

    def _summarize(self):
        return targets.ClassSummary

    def _learn_targets(self, summary):
        if not summary.multilabel and len(summary.labels) < 2:
            raise ValueError(
                f"Expected at least 2 classes in y, received 1 class: {summary.labels.tolist()[0]!r}."
            )
        self.classes_ = summary.labels

    def score(self, X, y, sample_weight=None):
        """Return accuracy on X (n, p), y and sample_weight; Dask collections are scored where they are."""
        if partitions.is_distributed(X, y, sample_weight):
            return self._score_where_data_is(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def predict_proba(self, X):
        """Return the probability of each class, (n, n_classes) in the order of classes_.

        As for predict, lazily for Dask collections; for a dataframe, a dataframe with a column a class.
        """
        check_is_fitted(self)
        return self._predict("predict_proba", X, list(self.classes_))

    def predict_log_proba(self, X):
        """Return the logarithm of predict_proba."""
        check_is_fitted(self)
        return self._predict("predict_log_proba", X, list(self.classes_))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _MLP):
    """Multi-layer perceptron regressor: scikit-learn's, for data on a Dask cluster too.

    loss : {'squared_error', 'poisson'}, default='squared_error'. The other parameters and attributes are
    those of MLPClassifier, but for `classes_`.
    """

    _parameter_constraints: ClassVar[dict] = {
        **_MLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }
    _metric = R2

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        momentum=0.9,
        nesterovs_momentum=True,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        strategy="auto",
        replicas=None,
        dtype=None,
        callbacks=None,
    ):
        self.loss = loss
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            strategy=strategy,
            replicas=replicas,
            dtype=dtype,
            callbacks=callbacks,
        )

    def score(self, X, y, sample_weight=None):
        """Return R^2 on X (n, p), y and sample_weight; Dask collections are scored where they are."""
        if partitions.is_distributed(X, y, sample_weight):
            return self._score_where_data_is(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def _loss(self, encoder):
        return HalfPoisson() if self.loss == "poisson" else SquaredError()

    def _summarize(self):
        return targets.NumberSummary

    def _learn_targets(self, summary):
        pass


def load(path: str | os.PathLike) -> MLPClassifier | MLPRegressor:
    """Return the fitted model that `save` wrote. Executes no code from the file.

    FileNotFoundError: no such file. ModelFileError: a file that is damaged, not ours, or too new.
    """
    description, arrays = saving.read(path)
    kinds = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor)}
    kind = kinds.get(description.get("kind"))
    if kind is None or "members" not in arrays:
        raise ModelFileError(
            f"Expected a model of kind {' or '.join(kinds)} in {path}, received "
            f"{description.get('kind')!r}. Use the version of dasknn that wrote it."
        )
    parameters = {name: _from_json(value) for name, value in description["parameters"].items()}
    model = kind(**parameters)
    model._restore(description, arrays["members"])
    return model


def _to_json(value):
    if isinstance(value, Strategy):
        return {"strategy": value.name, **asdict(value)}
    if isinstance(value, np.ndarray | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    try:
        json.dumps(value)
    except TypeError:
        # A RandomState or a callback is not part of the fitted model.
        return None
    return value


def _from_json(value):
    if isinstance(value, dict):
        settings = dict(value)
        return type(strategies.get(settings.pop("strategy")))(**settings)
    return tuple(value) if isinstance(value, list) else value


def _describe_encoder(encoder) -> dict[str, Any]:
    if isinstance(encoder, targets.NumberEncoder):
        return {"kind": "numbers", "n_outputs": encoder.n_outputs}
    kind = "multilabel" if isinstance(encoder, targets.MultilabelEncoder) else "classes"
    dtype = "object" if encoder.classes.dtype.kind == "O" else encoder.classes.dtype.str
    return {"kind": kind, "classes": encoder.classes.tolist(), "classes_dtype": dtype}


def _encoder_from(description: dict[str, Any], dtype: str):
    if description["kind"] == "numbers":
        return targets.NumberEncoder(description["n_outputs"], dtype)
    classes = np.array(description["classes"], dtype=description["classes_dtype"])
    if description["kind"] == "multilabel":
        return targets.MultilabelEncoder(classes, dtype)
    return targets.ClassEncoder(classes, dtype)


def _encode_shard(encoder, X, y, weight) -> Shard:
    return Shard(X, encoder.encode(y), weight)


def _dtype_of(X) -> str:
    """Return float32 if all of X is, else float64: scikit-learn's rule."""
    kinds = set(X.dtypes) if partitions.is_dataframe(X) else {np.dtype(getattr(X, "dtype", "O"))}
    return "float32" if kinds == {np.dtype("float32")} else "float64"
