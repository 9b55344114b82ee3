"""EnsembleClassifier and EnsembleRegressor: estimators whose members are fitted already."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar, NoReturn

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags, get_tags

from dasknn import descriptions
from dasknn.cluster.connect import connect
from dasknn.cluster.graph import Graph
from dasknn.cluster.origins import Placed
from dasknn.data import inputs, partitions
from dasknn.data.blocks import in_partition, load_targets
from dasknn.data.targets import as_numbers
from dasknn.ensembles.members import Member, check_alike, is_member
from dasknn.ensembles.mixture import Mixture, combined
from dasknn.estimators.answers import ScoredClassifier, ScoredRegressor
from dasknn.estimators.fitting import check_path, require_targets
from dasknn.estimators.scores import R2
from dasknn.saving import safetensors_file
from dasknn.training.prediction import Score


class BaseEnsemble(Placed, BaseEstimator):
    """What the classifier and the regressor share."""

    _metric: ClassVar[type[Score]]

    def __init__(self, members, weights=None):
        self.members = members
        self.weights = weights

    def _check_kind(self, number: int, member: Member) -> None:
        """Raise ValueError for a member that predicts something else than the ensemble does."""
        raise NotImplementedError

    # --- members -----------------------------------------------------------------------------------

    def _given(self) -> list[Any]:
        """Return the members. TypeError: others than fitted models of dasknn. ValueError: none."""
        if not isinstance(self.members, list | tuple):
            raise TypeError(f"Expected members to be a list of models, received {self.members!r:.80}.")
        for number, model in enumerate(self.members):
            if not is_member(model):
                raise TypeError(
                    "Expected members that are an MLPClassifier, MLPRegressor, TabularClassifier, "
                    "TabularRegressor or Sequential, or a Pipeline of a TablePreprocessor and an MLP or "
                    f"Sequential, received {type(model).__name__} as members[{number}]. For other estimators "
                    "use sklearn.ensemble.VotingClassifier or VotingRegressor."
                )
        if not self.members:
            raise ValueError("Expected at least one member, received none. Pass fitted models.")
        return list(self.members)

    def _council(self) -> tuple[list[Member], Mixture]:
        """Return the members, checked, and how their predictions are combined.

        TypeError, ValueError: members or weights that do not go together. NotFittedError: one is not fitted.
        """
        models = self._given()
        try:
            members = [Member.of(model) for model in models]
        except NotFittedError as error:
            raise NotFittedError(
                f"This {type(self).__name__} has members that are not fitted. Pass fitted ones; a clone has "
                "clones of them."
            ) from error
        for number, member in enumerate(members):
            self._check_kind(number, member)
        check_alike(members)
        return members, Mixture.of(members, self._checked_weights(len(members)))

    def _checked_weights(self, n_members: int) -> np.ndarray:
        """Return a weight for each member. ValueError: others than numbers above 0."""
        if self.weights is None:
            return np.ones(n_members)
        try:
            weights = np.asarray(self.weights, dtype=np.float64)
        except (TypeError, ValueError):
            weights = np.empty(0)
        if weights.shape != (n_members,) or not (weights > 0).all() or not np.isfinite(weights.sum()):
            raise ValueError(
                f"Expected weights above 0, one for each of {n_members} members, received "
                f"{self.weights!r:.80}. Leave members without a weight out."
            )
        return weights

    @property
    def members_(self) -> list[Any]:
        """The members, fitted models."""
        self._council()
        return list(self.members)

    @property
    def weights_(self) -> np.ndarray:
        """The share of each member (n_members,); shares sum to 1."""
        weights = self._council()[1].weights
        return weights / weights.sum()

    @property
    def n_features_in_(self) -> int:
        """Number of columns of X."""
        return self._council()[0][0].n_features

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of X, if a member knows them."""
        return np.array(
            self._first("feature_names_in_", [member.feature_names for member in self._council()[0]]),
            dtype=object,
        )

    @property
    def target_name_(self) -> str:
        """Name of y, if a member knows it."""
        names = [getattr(member.network, "target_name_", None) for member in self._council()[0]]
        return self._first("target_name_", names)

    def _first(self, name: str, found: list[Any]) -> Any:
        """Return the first that is known. AttributeError: none is."""
        known = [one for one in found if one is not None]
        if not known:
            raise AttributeError(f"This {type(self).__name__} has no {name}, since no member has one.")
        return known[0]

    # --- estimator ---------------------------------------------------------------------------------

    def fit(self, X=None, y=None, sample_weight=None) -> NoReturn:
        """Raise an error: members are fitted already, and their mean has nothing to learn.

        Parameters
        ----------
        X, y, sample_weight
            Not used.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} averages models that are fitted, and has nothing to fit. Fit the "
            "members, or search for some, and make an ensemble of these. Where something else calls fit, "
            "pass sklearn.frozen.FrozenEstimator(ensemble)."
        )

    def _answer(self, method: str, X, columns: list | None = None):
        """Return what a method of the mixture makes of the members' predictions for X, plain or lazy."""
        return self._answers((method,), X, columns)[0]

    def _answers(self, methods: tuple[str, ...], X, columns: list | None) -> tuple[Any, ...]:
        """Return what each of these methods makes of the members' predictions; each member is asked once."""
        members, mixture = self._council()
        (X,) = inputs.admit(X)
        answers = [member.answer(X) for member in members]
        return tuple(combined(mixture, method, members, answers, columns) for method in methods)

    def _score_where_data_is(self, X, y, sample_weight) -> float:
        require_targets(self, y)
        # predicted: labels or numbers, in the place of X
        parts = partitions.parts(self.predict(X), y, sample_weight)

        def add_scores(graph: Graph) -> list[Any]:
            return [
                graph.add(
                    "dasknn-score", partial(_score_of_part, self._metric, part.names, n), *part.add_to(graph)
                )
                for n, part in enumerate(parts)
            ]

        with connect(self.client, True, workers=self.workers, data=(X, y, sample_weight)) as tasks:
            # In the order of partitions.
            found = reduce(add, tasks.values_of(add_scores))
        if not found.weight:
            raise ValueError(
                f"Expected at least one row with a weight above 0 to score, found 0 samples in {len(parts)} "
                "partitions."
            )
        return found.result()

    def save(self, path: str | os.PathLike) -> None:
        """Write all members to one safetensors file, which `dasknn.load` reads.

        The file does not hold the states of optimizers.

        Parameters
        ----------
        path : str, path or fsspec URL

        Raises
        ------
        NotFittedError
            A member is not fitted.
        ValueError
            The path ends in `.keras` or `.h5`, as Keras's files do.
        """
        check_path(os.fspath(path))
        safetensors_file.write(path, *self._parts())

    def _parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return (description in JSON's types, arrays by number of the member and name)."""
        described: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for number, model in enumerate(self.members_):
            description, own = descriptions.parts_of(model, include_optimizer=False)
            described.append(description)
            arrays |= {f"{number}.{name}": array for name, array in own.items()}
        weights = None if self.weights is None else self._checked_weights(len(described)).tolist()
        whole = {"kind": type(self).__name__, "members": described, "weights": weights}
        return whole | {"versions": descriptions.versions()}, arrays

    def __sklearn_is_fitted__(self) -> bool:
        try:
            for model in self._given():
                Member.of(model)
        except NotFittedError:
            return False
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        models = self.members if isinstance(self.members, list | tuple) else ()
        if models and all(map(is_member, models)):
            taken = [get_tags(model).input_tags for model in models]
            for name in ("sparse", "allow_nan", "string", "categorical"):
                setattr(tags.input_tags, name, all(getattr(one, name) for one in taken))
        return tags

    def __repr__(self, N_CHAR_MAX=700) -> str:
        members = self.members if isinstance(self.members, list | tuple) else ()
        kinds = Counter(type(model).__name__ for model in members)
        told = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none"
        weights = (
            "" if self.weights is None else f", weights={reprlib.repr(np.asarray(self.weights).tolist())}"
        )
        return f"{type(self).__name__}(<{told}>{weights})"


def _score_of_part(
    metric: type[Score], names: tuple[tuple[str, ...], ...], number: int, *values: Any
) -> Score:
    """Return the score of the predictions of a partition, which stand in the place of X."""
    columns = partitions.columns_of(names, values)
    predicted = np.asarray(columns["X"])
    block = load_targets(len(predicted), columns["y"], columns["weight"])
    block.check(number)
    y = block.y
    assert y is not None, "a score needs targets"
    with in_partition(number):
        true = as_numbers(y) if metric is R2 else y
        return metric.of(true.reshape(predicted.shape), predicted, block.weight)


class EnsembleClassifier(ScoredClassifier, BaseEnsemble):
    """Average the probabilities of fitted classifiers of any shapes.

    There is nothing to fit: members are fitted already. A clone has clones of them, which are not fitted.

    Parameters
    ----------
    members : list of fitted models
        MLPClassifier, TabularClassifier, Sequential with probabilities as outputs, or Pipelines of a
        TablePreprocessor and an MLPClassifier or Sequential; fitted to the same columns and the same classes.
    weights : array-like (n_members,) or None, default=None
        Share of each member, above 0. None: the same for all.

    Attributes
    ----------
    members_ : list of fitted models
        The members.
    weights_ : array (n_members,)
        The share of each member; shares sum to 1.
    classes_ : array (n_classes,)
        Labels of the classes, in the order of the first member. Of a Sequential they are 0, 1, ...
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array (n_features_in_,)
        Names of the columns of X, if a member knows them.
    target_name_ : str
        Name of y, if a member knows it.

    See Also
    --------
    MLPClassifier : with strategy="predictions" trains an ensemble of networks of one shape.
    TabularClassifier : trains members that share most of their weights.

    Examples
    --------
    >>> import numpy as np
    >>> from dasknn import EnsembleClassifier, MLPClassifier
    >>> X = np.linspace(-1, 1, 100)[:, np.newaxis]
    >>> y = X[:, 0] > 0
    >>> members = [MLPClassifier((n,), solver="lbfgs", random_state=0).fit(X, y) for n in (4, 8)]
    >>> EnsembleClassifier(members).predict([[-0.5], [0.5]])
    array([False,  True])
    """

    @property
    def classes_(self) -> np.ndarray:
        """Labels of the classes."""
        classes = self._council()[1].classes
        assert classes is not None, "members of a classifier have classes"
        return classes

    def _check_kind(self, number: int, member: Member) -> None:
        if member.classes is None:
            raise ValueError(
                f"Expected members that predict classes, received {type(member.network).__name__} as "
                f"members[{number}], which predicts numbers. Use EnsembleRegressor, or give a Sequential the "
                "last activation 'sigmoid' or 'softmax'."
            )

    def predict(self, X):
        """Predict the label of each row.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n,), or of 0 and 1 (n, k) for multi-label data
            For a Dask array a Dask array, for a Dask dataframe a Dask series (multi-label: a dataframe), not
            yet computed.

        Raises
        ------
        NotFittedError
            A member is not fitted.
        ValueError
            Members predict different things, or X has other columns than they know.
        """
        first = self._council()[0][0]
        return self._answer("labels", X, list(range(first.n_targets)) if first.is_multilabel else None)

    def predict_proba(self, X):
        """Predict the probability of each class: the weighted mean of the members' probabilities.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n, n_classes), in the order of `classes_`
            For a Dask array a Dask array, for a Dask dataframe a dataframe with a column for each class,
            named by its label as text; not yet computed.
        """
        return self._answer("mean", X, list(self.classes_))

    def predict_log_proba(self, X):
        """Predict the logarithm of the probability of each class; see `predict_proba`."""
        return self._answer("log_mean", X, list(self.classes_))

    def predictive_entropy(self, X):
        """Predict how uncertain the prediction of each row is: the entropy of `predict_proba`.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n,)
            In nats; for multi-label data summed over labels. Not yet computed for Dask collections.
        """
        return self._answer("entropy", X)


class EnsembleRegressor(ScoredRegressor, BaseEnsemble):
    """Average the predictions of fitted regressors of any shapes.

    There is nothing to fit: members are fitted already. A clone has clones of them, which are not fitted.

    Parameters
    ----------
    members : list of fitted models
        MLPRegressor, TabularRegressor, Sequential with numbers as outputs, or Pipelines of a
        TablePreprocessor and an MLPRegressor or Sequential; fitted to the same columns and targets.
    weights : array-like (n_members,) or None, default=None
        Share of each member, above 0. None: the same for all.

    Attributes
    ----------
    members_ : list of fitted models
        The members.
    weights_ : array (n_members,)
        The share of each member; shares sum to 1.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array (n_features_in_,)
        Names of the columns of X, if a member knows them.
    target_name_ : str
        Name of y, if a member knows it.

    See Also
    --------
    MLPRegressor : with strategy="predictions" trains an ensemble of networks of one shape.
    TabularRegressor : trains members that share most of their weights.

    Examples
    --------
    >>> import numpy as np
    >>> from dasknn import EnsembleRegressor, MLPRegressor
    >>> X = np.linspace(-1, 1, 100)[:, np.newaxis]
    >>> members = [
    ...     MLPRegressor(hidden_layer_sizes=(n,), solver="lbfgs", random_state=0).fit(X, 3 * X[:, 0])
    ...     for n in (4, 8)
    ... ]
    >>> EnsembleRegressor(members, weights=[1, 2]).predict([[0.5]]).round(1)
    array([1.5])
    """

    def _check_kind(self, number: int, member: Member) -> None:
        if member.classes is not None:
            raise ValueError(
                f"Expected members that predict numbers, received {type(member.network).__name__} as "
                f"members[{number}], which predicts classes. Use EnsembleClassifier."
            )

    def predict(self, X, return_std=False):
        """Predict the target of each row: the weighted mean of the members' predictions.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)
        return_std : bool, default=False
            Whether to return the standard deviation of the members' predictions, too, weighted as they are.

        Returns
        -------
        array (n,), or (n, k) for several outputs
            For a Dask array a Dask array, for a Dask dataframe a Dask series (several outputs: a dataframe),
            not yet computed. With return_std, a tuple of two: predictions and standard deviations.

        Raises
        ------
        NotFittedError
            A member is not fitted.
        ValueError
            return_std=True for one member, which has no such deviation; members predict different things; or
            X has other columns than they know.
        """
        members, _ = self._council()
        n_targets = members[0].n_targets
        columns = list(range(n_targets)) if n_targets > 1 else None
        if not return_std:
            return self._answer("numbers", X, columns)
        if len(members) == 1:
            raise ValueError("return_std=True needs two members or more, received one. Leave it out.")
        return self._answers(("numbers", "deviations"), X, columns)
