"""The regressor for tables."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from sklearn.utils.validation import check_is_fitted

from dasknn.data import targets
from dasknn.estimators.answers import NetworkRegressor
from dasknn.estimators.calibration import margin, sketch_errors
from dasknn.estimators.tabular import BaseTabular
from dasknn.estimators.tabular_losses import HalfSquares, Pinball


class TabularRegressor(NetworkRegressor, BaseTabular):
    """@@DOC@@"""

    _parameter_constraints: ClassVar[dict] = {
        **{
            name: value
            for name, value in BaseTabular._parameter_constraints.items()
            if name != "label_smoothing"
        },
        "quantiles": ["array-like", None],
    }

    def __init__(
        self,
        *,
        quantiles=None,
        hidden_layer_sizes="auto",
        activation="relu",
        members="auto",
        adapters="first",
        embedding="auto",
        embedding_dim=16,
        n_bins=48,
        bins="greedy",
        categorical_features=None,
        min_frequency=None,
        max_categories=1000,
        learning_rate_init=0.05,
        learning_rate="coslog4",
        beta_2=0.95,
        weight_decay=0.02,
        dropout="auto",
        clipnorm=None,
        batch_size="auto",
        max_iter="auto",
        early_stopping="auto",
        validation_fraction=0.15,
        n_iter_no_change="auto",
        random_state=None,
        verbose=None,
        strategy="auto",
        replicas=None,
        transport="auto",
        engine="auto",
        dtype="float32",
        callbacks=None,
    ):
        self.quantiles = quantiles
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.members = members
        self.adapters = adapters
        self.embedding = embedding
        self.embedding_dim = embedding_dim
        self.n_bins = n_bins
        self.bins = bins
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.beta_2 = beta_2
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.clipnorm = clipnorm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose
        self.strategy = strategy
        self.replicas = replicas
        self.transport = transport
        self.engine = engine
        self.dtype = dtype
        self.callbacks = callbacks

    @property
    def _monitor(self):
        return "validation_score" if self.quantiles is None else "val_loss"

    def _summarize(self):
        return targets.SpreadSummary

    def _learn_targets(self, summary, dtype, is_partial):
        encoder = summary.encoder(dtype)
        if self.quantiles is None:
            return encoder
        if summary.n_outputs > 1:
            raise ValueError(
                f"quantiles are those of one target, received y with {summary.n_outputs} columns. Fit a "
                "model for each."
            )
        self._levels = _checked_levels(self.quantiles)
        return replace(encoder, levels=self._levels)

    def _learn_from_held_out(self, rows):
        if isinstance(self._encoder, targets.StandardEncoder) and self._encoder.n_outputs == 1:
            self._errors = sketch_errors(rows, self._predictor())

    def predict_interval(self, X, coverage=0.9):
        """Predict an interval that holds the target of a new row with a given probability.

        Intervals are as long as the errors on the rows that were held out say (split-conformal prediction).
        They have the same length for all rows; with `quantiles`, whose range they begin from, each row has
        its own.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)
        coverage : float, default=0.9
            Share of new rows whose target lies in its interval, in (0, 1): on average, for rows like those
            that were held out.

        Returns
        -------
        array (n, 2)
            Lower and upper end. For a Dask array a Dask array, for a Dask dataframe a dataframe with columns
            "lower" and "upper"; not yet computed.

        Raises
        ------
        ValueError
            No rows were held out, too few for the coverage, or there are several targets.

        References
        ----------
        - Lei et al. (2018), "Distribution-free predictive inference for regression".
        - Romano, Patterson and Candes (2019), "Conformalized quantile regression".
        """
        check_is_fitted(self)
        if not 0 < coverage < 1:
            raise ValueError(f"Expected coverage between 0 and 1, received {coverage!r}.")
        if self.n_outputs_ > 1 and self.quantiles is None:
            raise ValueError("Intervals are for one target, received a model of several. Fit one for each.")
        if vars(self).get("_errors") is None:
            raise ValueError(
                "Intervals need rows that were held out in fit, and there were none. Fit with "
                "early_stopping=True, or with X_val and y_val."
            )
        predictor = replace(self._predictor(), margin=margin(self._errors, coverage))
        return self._predict("predict_interval", X, ["lower", "upper"], predictor)

    def _units(self, encoder):
        return len(encoder.levels) or encoder.n_outputs

    def _loss(self, encoder):
        return Pinball(encoder.levels) if encoder.levels else HalfSquares()

    def predict_quantiles(self, X):
        """Predict the quantiles of the target of each row, at the levels of the parameter `quantiles`.

        Parameters
        ----------
        X : Dask array or dataframe, array, dataframe or sparse matrix, (n, p)

        Returns
        -------
        array (n, n_quantiles), in ascending order of the levels
            For a Dask array a Dask array, for a Dask dataframe a dataframe with a column for each level; not
            yet computed.
        """
        if self.quantiles is None:
            raise ValueError(
                "Expected a model of quantiles, received one of the mean. Fit with quantiles=[0.05, 0.5, "
                "0.95]."
            )
        check_is_fitted(self)
        columns = [f"{level:g}" for level in self._levels]
        return self._predict("predict_quantiles", X, columns)


def _checked_levels(quantiles) -> tuple[float, ...]:
    """Return levels of quantiles in ascending order. ValueError: none, or some that are not in (0, 1)."""
    levels = tuple(sorted({float(level) for level in quantiles}))
    if not levels or not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError(
            f"Expected quantiles between 0 and 1, such as [0.05, 0.5, 0.95], received {quantiles}."
        )
    return levels
