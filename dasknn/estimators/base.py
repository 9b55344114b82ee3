"""The base class of all estimators: what they share, whatever their network and their columns are."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from dasknn import callbacks as cb
from dasknn import strategies
from dasknn.callbacks import checkpoints
from dasknn.callbacks.checkpoints import Checkpoints
from dasknn.cluster.connect import connect
from dasknn.cluster.executor import MAX_FAULTS, Executor
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions, targets
from dasknn.data.columns import check_columns, dtype_of, validated
from dasknn.data.targets import ClassSummary, ClassWeights, NumberSummary, TargetEncoder
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.estimators import conversion
from dasknn.estimators.fitting import EstimatorFit, check_path, one_validation, require_targets
from dasknn.saving import safetensors_file
from dasknn.strategies import Strategy, auto
from dasknn.training import prediction
from dasknn.training.datasets import score_parts
from dasknn.training.fit import Columns
from dasknn.training.prediction import Predictor, Score
from dasknn.training.recommend import Measurable

# Attributes that describe the data of fit. _numbered: columns that are named by integers.
_OF_THE_DATA = ("n_features_in_", "feature_names_in_", "_numbered", "target_name_", "classes_")
# What estimators for tables have learned of it.
_OF_THE_TABLE = ("_table", "recipe_")


class NetworkEstimator(Placed, BaseEstimator):
    """An estimator of scikit-learn's API that trains a network."""

    _fit_class: ClassVar[type[EstimatorFit]] = EstimatorFit

    history_: list[dict[str, Any]]
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None

    # --- differences between estimators ------------------------------------------------------------

    _metric: type[Score]

    @abstractmethod
    def _network(self, encoder: Any, dtype: str) -> Network:
        """Return the network for targets of this encoder."""

    @abstractmethod
    def _job(self, sizes: auto.Sizes, seed: int) -> TrainingJob:
        """Return the settings of the training."""

    @abstractmethod
    def _sizes(self, network: Network, n_rows: int, replicas: int, strategy: Strategy | None) -> auto.Sizes:
        """Return the sizes that rules decide by."""

    @abstractmethod
    def _default_replicas(self, strategy: Strategy | None, n_slots: int, n_rows: int) -> int:
        """Return the number of replicas, if nobody chose it."""

    @abstractmethod
    def _summarize(self) -> type[ClassSummary] | type[NumberSummary]:
        """Return the class that summarizes parts of y."""

    @abstractmethod
    def _learn_targets(self, summary, dtype: str, is_partial: bool) -> TargetEncoder:
        """Return the encoder of y; set the attributes that describe y. ValueError: y does not fit."""

    def _class_weights(self, summary, encoder: TargetEncoder, is_partial: bool) -> ClassWeights | None:
        """Return the weights of classes, if there are any."""
        return None

    @abstractmethod
    def _assumed_targets(self, dtype: str) -> tuple[TargetEncoder, str]:
        """Return an encoder of targets that nobody has seen yet, and what it assumes, in words."""

    @property
    def _uses_lbfgs(self) -> bool:
        """Whether SciPy's L-BFGS trains, which has no steps of mini-batches."""
        return False

    def _choose_by_rules(self, sizes: auto.Sizes) -> tuple[Strategy, str]:
        """Return the strategy for strategy='auto' and Dask data, and the reason for it."""
        transport = auto.TASKS if self.transport == auto.TASKS else auto.PEER
        return auto.choose_strategy(sizes, transport)

    def _transport(self, strategy: Strategy, sizes: auto.Sizes) -> str:
        return auto.choose_transport(strategy, sizes) if self.transport == "auto" else self.transport

    def _set_predictor(self, predictor: Predictor) -> None:
        network, members = predictor.network, predictor.members
        self._network_, self._encoder = network, predictor.encoder
        self.n_layers_ = len(network.layers) + 1
        self.n_outputs_ = network.n_outputs
        self.out_activation_ = network.layers[-1].activation_name
        self._members = members

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
        return self._fit_from(checkpoint, resume, X, y, sample_weight, validation_data, max_faults=max_faults)

    def _fit_from(self, checkpoint, resume: bool, *data: Any, **settings: Any) -> Self:
        """Fit from a checkpoint, if one is asked for and there is one."""
        return self._fit(*data, checkpoints=checkpoints.begin(checkpoint, resume), **settings)

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
        **settings: Any,
    ) -> Self:
        self._validate_params()
        self._check_settings(validation_data, is_partial)
        is_continued = self.__sklearn_is_fitted__() and (self.warm_start or is_partial)
        if not is_continued:
            # Until this fit has trained an epoch, the model is not fitted.
            self.__dict__.pop("_members", None)
        data = Columns(*inputs.admit(X, y, sample_weight))
        validation = None if validation_data is None else Columns(*inputs.admit(*validation_data))
        self._fit_class(
            self,
            data,
            validation,
            None if self.strategy == "auto" else strategies.get(self.strategy),
            checkpoints,
            max_faults,
            is_partial=is_partial,
            is_continued=is_continued,
            **settings,
        ).run()
        return self

    def _connect(self, distributed: bool, data: tuple, max_faults: int = MAX_FAULTS):
        return connect(self.client, distributed, max_faults, workers=self.workers, data=data)

    def _check_settings(self, validation_data, is_partial: bool) -> None:
        """Raise ValueError for parameters that do not fit together."""
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

    def _measurable(self, X, n_rows: int, executor: Executor) -> Measurable:
        """Return what a fit to X would train, for `recommend`. n_rows: of X."""
        model: Any = self
        encoder: Any
        if hasattr(self, "_network_"):
            network, encoder, assumed = self._network_, self._encoder, ""
        else:
            model = clone(self)
            model.n_features_in_ = X.shape[1]
            dtype = self.dtype or dtype_of(X)
            encoder, assumed = self._assumed_targets(dtype)
            network = model._network(encoder, dtype)
        described = f"{n_rows:,} rows x {network.n_inputs} features"
        return Measurable(model, network, encoder, n_rows, described, assumed)

    # --- predict -----------------------------------------------------------------------------------

    def _predictor(self) -> Predictor:
        check_is_fitted(self)
        engine = vars(self).get("engine_", engines.NUMPY)
        return Predictor(self._network_, self._members, self._encoder, engine)

    def _predict(self, method: str, X, columns: list | None = None, predictor: Predictor | None = None):
        predictor = predictor or self._predictor()
        (X,) = inputs.admit(X)
        is_distributed = partitions.is_distributed(X)
        X = self._network_inputs(X)
        if is_distributed:
            return prediction.lazily(predictor, method, X, columns)
        return getattr(predictor, method)(X)

    def _network_inputs(self, X):
        """Return X, plain or a Dask collection, as the network takes it. ValueError: other columns."""
        if partitions.is_distributed(X):
            check_columns(self, X, reset=False)
            return X
        return validated(self, X, reset=False)

    def _columns_of_outputs(self) -> list | None:
        """Return the names of the columns of predictions in a dataframe, None for a series."""
        check_is_fitted(self)
        several = self._n_targets > 1 and not isinstance(self._encoder, targets.ClassEncoder)
        return list(range(self._n_targets)) if several else None

    @property
    def _n_targets(self) -> int:
        """Numbers that predictions have for each row; several quantiles are those of one target."""
        return 1 if getattr(self._encoder, "levels", ()) else self.n_outputs_

    def _score_where_data_is(self, X, y, sample_weight) -> float:
        predictor = self._predictor()
        require_targets(self, y)
        X = self._network_inputs(X)
        parts = partitions.parts(X, y, sample_weight)
        names = list(X.columns) if partitions.is_dataframe(X) else None
        with self._connect(True, (X, y, sample_weight)) as executor:
            return score_parts(executor, self._metric, predictor, parts, names).result()

    @property
    def members_(self) -> list[Self]:
        """The members of an ensemble, each a fitted estimator; one network is its own only member."""
        predictor = self._predictor()
        network = predictor.network
        if network.n_members == 1:
            members = [(network, params.copy()) for params in predictor.members]
        else:
            members = [
                network.with_members(params, [number])
                for params in predictor.members
                for number in range(network.n_members)
            ]
        return [
            self._member(replace(predictor, network=own, members=params[np.newaxis]))
            for own, params in members
        ]

    def _member(self, predictor: Predictor) -> Self:
        member = clone(self).set_params(strategy="auto", replicas=None)
        for name in (*_OF_THE_DATA, *_OF_THE_TABLE, "n_iter_", "best_epoch_", "t_"):
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
        safetensors_file.write(path, *self._parts())

    def _parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return (description in JSON's types, arrays) of the fitted model, which its file holds."""
        return conversion.parts_of(self)

    def __sklearn_is_fitted__(self):
        return "_members" in vars(self)
