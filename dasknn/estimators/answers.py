"""What classifiers and regressors answer, whatever their network is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from dasknn.data import inputs, partitions, targets
from dasknn.data.blocks import refuse_kinds
from dasknn.data.targets import ClassWeights
from dasknn.estimators.base import NetworkEstimator
from dasknn.estimators.fitting import checked_targets
from dasknn.estimators.scores import R2, Accuracy
from dasknn.training.prediction import Score


class _Scored:
    """Scores where the data is, by `_score_where_data_is`; plain data as scikit-learn's mixins do."""

    _metric: ClassVar[type[Score]]
    _score_where_data_is: Callable[..., float]

    def _refuse_targets(self, y) -> None:
        """Raise PartitionError for targets of a dtype that none of them may have."""
        raise NotImplementedError

    def score(self, X, y, sample_weight=None):
        """Score predictions: classes by accuracy, numbers by R^2. Dask collections are scored where they are.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)
        y : Dask array or series, array or series, (n,) or (n, k)
        sample_weight : Dask array or series, array or series, or None, (n,), default=None

        Returns
        -------
        float
        """
        X, y, sample_weight = inputs.admit(X, y, sample_weight)
        if partitions.is_distributed(X, y, sample_weight):
            return self._score_where_data_is(X, y, sample_weight)
        self._refuse_targets(y)
        refuse_kinds("sample_weight", sample_weight)
        y = checked_targets(X, y, sample_weight)
        return super().score(X, y, sample_weight)  # type: ignore[misc]


class ScoredClassifier(_Scored, ClassifierMixin):
    """A classifier that is scored where the data is."""

    _metric: ClassVar[type[Score]] = Accuracy

    def _refuse_targets(self, y) -> None:
        refuse_kinds("y", y, "cV")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class ScoredRegressor(_Scored, RegressorMixin):
    """A regressor that is scored where the data is."""

    _metric: ClassVar[type[Score]] = R2

    def _refuse_targets(self, y) -> None:
        refuse_kinds("y", y)


class NetworkClassifier(ScoredClassifier, NetworkEstimator):
    """A classifier that trains a network."""

    def _summarize(self):
        return targets.ClassSummary

    def _learn_targets(self, summary, dtype, is_partial):
        # They may be set already, by the check of the first call of partial_fit.
        known = vars(self).get("classes_")
        if known is None or not (self.warm_start or is_partial):
            self.classes_ = summary.labels
            return summary.encoder(dtype)
        if self.warm_start and set(summary.labels) != set(known):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {known}, `y` has {summary.labels}"
            )
        if not set(summary.labels) <= set(known):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has "
                f"{summary.labels}."
            )
        kind = targets.MultilabelEncoder if summary.multilabel else targets.ClassEncoder
        return kind(known, dtype)

    def _assumed_targets(self, dtype):
        return targets.ClassEncoder(np.arange(2), dtype), "as for 2 classes"

    def _class_weights(self, summary, encoder, is_partial):
        if self.class_weight is None:
            return None
        if not isinstance(encoder, targets.ClassEncoder):
            raise ValueError(
                "class_weight needs data with one label per row, received multi-label data. Use "
                "sample_weight."
            )
        if is_partial and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all of y, and partial_fit sees a part of it. Pass a dict: "
                "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y) of all y."
            )
        return ClassWeights.of(self.class_weight, summary, encoder)

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
        """
        return self._predict("predict", X, self._columns_of_outputs())

    def predict_proba(self, X):
        """Predict the probability of each class.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n, n_classes), in the order of `classes_`
            For a Dask array a Dask array, for a Dask dataframe a dataframe with a column for each class,
            named by its label as text; not yet computed.
        """
        check_is_fitted(self)
        return self._predict("predict_proba", X, list(self.classes_))

    def predict_log_proba(self, X):
        """Predict the logarithm of the probability of each class; see `predict_proba`."""
        check_is_fitted(self)
        return self._predict("predict_log_proba", X, list(self.classes_))

    def predictive_entropy(self, X):
        """Predict how uncertain the prediction of each row is: the entropy of `predict_proba`.

        The entropy of an ensemble grows if its members disagree.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n,)
            In nats; for multi-label data summed over labels. Not yet computed for Dask collections.

        References
        ----------
        Lakshminarayanan et al. (2017), "Simple and scalable predictive uncertainty estimation using deep
        ensembles".
        """
        return self._predict("predictive_entropy", X)


class NetworkRegressor(ScoredRegressor, NetworkEstimator):
    """A regressor that trains a network."""

    #: The setting that makes an ensemble, for errors.
    _ensemble_by: ClassVar[str] = "strategy=PredictionAveraging(members=5)"

    def _assumed_targets(self, dtype):
        return targets.NumberEncoder(1, dtype), "as for 1 output"

    def predict(self, X, return_std=False):
        """Predict the target of each row.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)
        return_std : bool, default=False
            Whether to return the standard deviation of the members' predictions, too. For an ensemble only.

        Returns
        -------
        array (n,), or (n, k) for several outputs
            For a Dask array a Dask array, for a Dask dataframe a Dask series (several outputs: a dataframe),
            not yet computed. With return_std, a tuple of two: predictions and standard deviations.

        Raises
        ------
        ValueError
            return_std=True for one network, which has no such deviation.
        """
        columns = self._columns_of_outputs()
        if not return_std:
            return self._predict("predict", X, columns)
        if self._predictor().n_members == 1:
            raise ValueError(
                f"return_std=True needs an ensemble, received one network. Fit with {self._ensemble_by}."
            )
        both = self._predict("mean_and_std", X, list(range(2 * self._n_targets)))
        return tuple(self._part_of(both, first) for first in (0, self._n_targets))

    def _part_of(self, both, first: int):
        """Return the columns of the outputs from `first` on: one as a vector, several as a table."""
        several = self._n_targets > 1
        if not partitions.is_dataframe(both):
            return both[:, first : first + self._n_targets] if several else both[:, first]
        if not several:
            return both[str(first)].rename(None)
        names = {str(first + number): str(number) for number in range(self._n_targets)}
        return both[list(names)].rename(columns=names)
