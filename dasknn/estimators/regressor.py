"""scikit-learn's MLPRegressor, for Dask data too."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from dasknn._compat.sklearn import InvalidParameterError, StrOptions
from dasknn.data import inputs, partitions, targets
from dasknn.data.blocks import refuse_kinds
from dasknn.estimators.fitting import checked_targets
from dasknn.estimators.losses import HalfPoisson, SquaredError
from dasknn.estimators.mlp import BaseMLP, takes_steps
from dasknn.estimators.scores import R2


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multi-layer perceptron regressor: scikit-learn's, for data on a Dask cluster too.

    loss : {'squared_error', 'poisson'}, default='squared_error'. The other parameters and attributes are
    those of MLPClassifier, but for `class_weight` and `classes_`.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }
    _metric = R2
    _twin = "MLPRegressor"

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
        verbose=None,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        strategy="auto",
        replicas=None,
        transport="auto",
        dtype=None,
        callbacks=None,
    ):
        super().__init__(
            loss=loss,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
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
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            strategy=strategy,
            replicas=replicas,
            transport=transport,
            dtype=dtype,
            callbacks=callbacks,
        )

    @available_if(takes_steps)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch on X (n, p), y and sample_weight, going on from what was learned; return self.

        Data as for fit. The optimizer goes on where it was, and the learning rate with it.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X, return_std=False):
        """Return predictions for X (n, p): (n,), or (n, k) for several outputs.

        A numpy array for data in this process; for a Dask array a Dask array, for a Dask dataframe a
        Dask series (several outputs: a dataframe), not yet computed.

        return_std: of an ensemble, return (predictions, standard deviation of the members' predictions),
        two of a kind. ValueError: one network, which has no such deviation.
        """
        columns = self._columns_of_outputs()
        if not return_std:
            return self._predict("predict", X, columns)
        if len(self._members) == 1:
            raise ValueError(
                "return_std=True needs an ensemble, received one network. Fit with "
                "strategy=PredictionAveraging(members=5)."
            )
        both = self._predict("mean_and_std", X, list(range(2 * self.n_outputs_)))
        return tuple(self._part_of(both, first) for first in (0, self.n_outputs_))

    def _part_of(self, both, first: int):
        """Return one output as a vector, several as a table, from columns side by side."""
        several = self.n_outputs_ > 1
        if not partitions.is_dataframe(both):
            return both[:, first : first + self.n_outputs_] if several else both[:, first]
        if not several:
            return both[str(first)].rename(None)
        names = {str(first + number): str(number) for number in range(self.n_outputs_)}
        return both[list(names)].rename(columns=names)

    def score(self, X, y, sample_weight=None):
        """Return R^2 on X (n, p), y and sample_weight; Dask collections are scored where they are."""
        X, y, sample_weight = inputs.admit(X, y, sample_weight)
        if partitions.is_distributed(X, y, sample_weight):
            return self._score_where_data_is(X, y, sample_weight)
        refuse_kinds("y", y)
        refuse_kinds("sample_weight", sample_weight)
        y = checked_targets(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def _validate_params(self):
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            if isinstance(self.loss, str):
                raise
            raise InvalidParameterError(
                f"{error} The first argument of MLPRegressor is its loss, as in scikit-learn. Name that of "
                f"layers: MLPRegressor(hidden_layer_sizes={self.loss!r})."
            ) from None

    def _loss(self, encoder):
        return HalfPoisson() if self.loss == "poisson" else SquaredError()

    def _summarize(self):
        return targets.NumberSummary

    def _learn_targets(self, summary, dtype, incremental):
        if self.loss == "poisson" and summary.least < 0:
            raise ValueError(f"loss='poisson' expects y >= 0, received {summary.least}.")
        return summary.encoder(dtype)
