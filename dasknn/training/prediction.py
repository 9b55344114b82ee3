"""Predictions of fitted networks, in this process or lazily over Dask collections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import dask
import dask.array as da
import numpy as np
from scipy.special import entr

from dasknn.cluster.blas import single_blas_thread
from dasknn.data import loading, partitions
from dasknn.data.blocks import Block, cast
from dasknn.data.targets import (
    ClassEncoder,
    MultilabelEncoder,
    NumberEncoder,
    RowWeights,
    StandardEncoder,
    TargetEncoder,
    as_numbers,
)
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.metrics import MetricSet


class Score(ABC):
    """A score of predictions, mergeable: scores of parts of the rows add up to the score of all.

    Attributes
    ----------
    weight : float
        Weight of all rows.
    """

    weight: float

    @classmethod
    @abstractmethod
    def of(cls, y_true: np.ndarray, y_pred: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """Score predictions (n,) or (n, k), given the targets, of the same shape, and weights (n,)."""

    @abstractmethod
    def __add__(self, other: Self) -> Self: ...

    @abstractmethod
    def result(self) -> float:
        """Return the score; NaN for no rows."""


AnyScore = TypeVar("AnyScore", bound=Score)


@dataclass(frozen=True, eq=False)
class Predictor:
    """The part of a fitted model that predicts, small enough to send to workers.

    Parameters
    ----------
    network : Network
    members : array (m, n_params)
        One network, or those of an ensemble, whose outputs are averaged.
    encoder : TargetEncoder or None
        Decodes outputs; None where only `outputs` are asked for.
    engine : str, default="numpy"
        The engine that trained the network. Where it is missing, numpy gives the same outputs up to rounding.
    temperature : float, default=1.0
        What logits are divided by before they become probabilities.
    margin : float, default=0.0
        How far intervals reach beyond predictions.
    """

    network: Network
    members: np.ndarray
    encoder: TargetEncoder | None
    engine: str = engines.NUMPY
    temperature: float = 1.0
    margin: float = 0.0

    def outputs(self, X: Any) -> np.ndarray:
        """Return the mean of the members' outputs (n, n_outputs) for X (n, p), dense or CSR."""
        X = cast(X, self.network.dtype)
        predict = partial(engines.predict, self.engine, self.network)
        total = predict(self.members[0], X)
        for params in self.members[1:]:
            total += predict(params, X)
        if len(self.members) > 1:
            total /= len(self.members)
        return total

    def mean_and_std(self, X: Any) -> np.ndarray:
        """Return mean and standard deviation of the members' predictions, side by side (n, 2 * n_outputs).

        Of a network of quantiles, those of the prediction alone (n, 2).
        """
        X = cast(X, self.network.dtype)
        if self.network.n_members > 1:
            outputs = np.hstack([self.network.member_outputs(params, X) for params in self.members])
            mean, std = self.outputs(X), outputs.std(axis=1)
        else:
            outputs = np.stack(
                [engines.predict(self.engine, self.network, params, X) for params in self.members]
            )
            mean, std = self.outputs(X), outputs.std(axis=0)
        if isinstance(self.encoder, StandardEncoder):
            mean, std = self.encoder.numbers(mean), std * np.array(self.encoder.scale)
            if self.encoder.levels:
                place = self.encoder.place_of_median
                mean, std = mean[:, [place]], std[:, [place]]
        return np.hstack([mean, std])

    @property
    def n_members(self) -> int:
        """Number of members: of networks, times those that share each."""
        return len(self.members) * self.network.n_members

    def predictive_entropy(self, X: Any) -> np.ndarray:
        """Return the entropy (n,) of predict_proba in nats, for multi-label data summed over labels."""
        chances = self.predict_proba(X).astype(np.float64)
        if isinstance(self.encoder, MultilabelEncoder):
            chances = np.hstack([chances, 1 - chances])
        return entr(chances).sum(axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return labels or numbers (n,), or (n, k) for several outputs."""
        assert self.encoder is not None, "predictions need an encoder"
        return self.encoder.decode(self.outputs(X))

    def predict_quantiles(self, X: Any) -> np.ndarray:
        """Return the quantiles (n, n_levels) of a network of quantiles."""
        assert isinstance(self.encoder, StandardEncoder), "only standardized numbers have quantiles"
        return self.encoder.numbers(self.outputs(X))

    def predict_interval(self, X: Any) -> np.ndarray:
        """Return the lower and the upper end (n, 2) of an interval for the target of each row."""
        assert isinstance(self.encoder, StandardEncoder), "only standardized numbers have intervals"
        numbers = self.encoder.numbers(self.outputs(X))
        low, high = numbers[:, 0] - self.margin, numbers[:, -1] + self.margin
        # The range of quantiles may be too wide, and becomes smaller then, but not less than nothing.
        return np.column_stack([np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (n, n_classes), or of each label (n, k) for multi-label data."""
        assert isinstance(self.encoder, ClassEncoder | MultilabelEncoder), "only classes have probabilities"
        outputs = tempered(self.outputs(X), self.temperature, self.encoder)
        if len(self.encoder.classes) == 1 and self.network.n_outputs == 1:
            return np.ones_like(outputs)
        if self.network.n_outputs == 1:
            return np.hstack([1 - outputs, outputs])
        return outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of predict_proba."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


def tempered(
    outputs: np.ndarray, temperature: float, encoder: ClassEncoder | MultilabelEncoder
) -> np.ndarray:
    """Return probabilities (n, k) whose logits are divided by a temperature.

    They sum to 1 over k, except for single outputs and labels, which are probabilities by themselves.
    """
    if temperature == 1:
        return outputs
    least = np.finfo(outputs.dtype).tiny
    logs = np.log(np.maximum(outputs, least)) / outputs.dtype.type(temperature)
    if outputs.shape[1] == 1 or isinstance(encoder, MultilabelEncoder):
        others = np.log(np.maximum(1 - outputs, least)) / outputs.dtype.type(temperature)
        return 1 / (1 + np.exp(np.clip(others - logs, -80, 80)))
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def lazily(predictor: Predictor, method: str, X: Any, columns: Sequence | None) -> Any:
    """Apply a method of the predictor to every partition of a Dask collection X; compute nothing.

    Parameters
    ----------
    predictor : Predictor
    method : str
        Name of one of its methods, such as "predict".
    X : Dask array or dataframe (n, p)
    columns : sequence or None
        Names of the columns of a dataframe of results, as text, since files take no other names. None: the
        results of a dataframe are a series.

    Returns
    -------
    Dask array, dataframe or series
        With the chunks of rows, or the index, of X.
    """
    token = dask.base.tokenize(
        method,
        predictor.network,
        predictor.members,
        type(predictor.encoder),
        vars(predictor.encoder),
        predictor.engine,
        predictor.temperature,
        predictor.margin,
    )
    # One object for the whole graph, not one a partition.
    model = dask.delayed(predictor, name=f"dasknn-model-{token}")
    empty = getattr(predictor, method)(np.empty((0, predictor.network.n_inputs)))
    if not partitions.is_dataframe(X):
        wide = empty.ndim == 2
        return da.map_blocks(
            partial(_on_array, method),
            X,
            model,
            name=f"dasknn-{method}-{dask.base.tokenize(token, X)}",
            dtype=empty.dtype,
            meta=empty,
            chunks=(X.chunks[0], (empty.shape[1],)) if wide else (X.chunks[0],),
            drop_axis=None if wide else 1,
        )
    dtype = _dtype_of_labels(predictor.encoder) if method == "predict" else None
    columns = None if columns is None else [str(name) for name in columns]
    function: Callable = partial(_on_frame, method, columns, dtype, list(X.columns))
    return X.map_partitions(
        function, model, meta=_frame(empty, X._meta.index[:0], columns, dtype), enforce_metadata=False
    )


def _dtype_of_labels(encoder: TargetEncoder | None) -> Any:
    """Return the dtype of a series of labels, or None for the dtype of the values.

    From an empty series pandas could not tell that the labels are text.
    """
    import pandas as pd

    return pd.Series(encoder.classes).dtype if isinstance(encoder, ClassEncoder) else None


# Dask passes the number of the block or partition under the names block_id and partition_info.


def _on_array(method: str, X: Any, predictor: Predictor, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    return _on_block(method, None, block_id[0], X, predictor)


def _on_frame(
    method: str,
    columns: list[str] | None,
    dtype: Any,
    feature_names: list,
    X: Any,
    predictor: Predictor,
    partition_info: dict[str, Any] | None = None,
) -> Any:
    number = partition_info["number"] if partition_info else 0
    return _frame(_on_block(method, feature_names, number, X, predictor), X.index, columns, dtype)


def _on_block(
    method: str, feature_names: list | None, number: int, X: Any, predictor: Predictor
) -> np.ndarray:
    """Apply a method of the predictor to X with columns of these names. PartitionError: bad data."""
    block = loading.load_checked(number, (("X",),), predictor.network.dtype, feature_names, X)
    with single_blas_thread:
        return getattr(predictor, method)(block.X)


def _frame(values: np.ndarray, index: Any, columns: list[str] | None, dtype: Any) -> Any:
    import pandas as pd

    if columns is None:
        return pd.Series(values, index=index, dtype=dtype)
    return pd.DataFrame(values, index=index, columns=columns)


def score_block(
    metric: type[AnyScore], weights: RowWeights | None, predictor: Predictor, block: Block
) -> AnyScore:
    """Return the score of the predictions for one block. PartitionError: bad data.

    weights of classes, if any, are multiplied into the weights of the rows.
    """
    y, weight = block.y, block.weight
    assert y is not None, "a score needs targets"
    block.check()
    if weights is not None:
        weight = weights.rows(y, weight)
    return _score(metric, predictor, y, predictor.predict(block.X), weight)


def _score(
    metric: type[AnyScore],
    predictor: Predictor,
    y: np.ndarray,
    predicted: np.ndarray,
    weight: np.ndarray | None,
) -> AnyScore:
    true = as_numbers(y) if isinstance(predictor.encoder, NumberEncoder) else y
    if predicted.dtype.kind == "f":
        # As in scikit-learn, predictions that are not finite have no score.
        predicted = np.where(np.isfinite(predicted), predicted, np.nan)
    return metric.of(true.reshape(predicted.shape), predicted, weight)


@dataclass(frozen=True)
class Validation:
    """Score of validation rows, and the sums of their losses and weights; parts of the rows add up."""

    score: Score
    loss_sum: float
    weight: float

    def __add__(self, other: Validation) -> Validation:
        return Validation(
            self.score + other.score, self.loss_sum + other.loss_sum, self.weight + other.weight
        )

    def result(self) -> tuple[float, float]:
        """Return (score, mean loss); NaN for no rows."""
        return self.score.result(), self.loss_sum / self.weight if self.weight else float("nan")


def validate_block(
    metric: type[Score], weights: RowWeights | None, predictor: Predictor, block: Block
) -> Validation:
    """Return the Validation of one block; arguments as for `score_block`. PartitionError: bad data.

    The loss is the network's, without penalties, and NaN if the model does not know a label of the rows.
    """
    y, weight = block.y, block.weight
    assert y is not None, "a validation needs targets"
    block.check()
    if weights is not None:
        weight = weights.rows(y, weight)
    assert predictor.encoder is not None, "a validation needs an encoder"
    outputs = predictor.outputs(block.X)
    score = _score(metric, predictor, y, predictor.encoder.decode(outputs), weight)
    loss_sum = _loss_sum(predictor, outputs, y, weight) if len(outputs) else 0.0
    return Validation(score, loss_sum, float(len(outputs) if weight is None else weight.sum()))


def _loss_sum(predictor: Predictor, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> float:
    assert predictor.encoder is not None, "losses need an encoder"
    try:
        y = predictor.encoder.encode(y)
    except ValueError:
        return float("nan")
    network = predictor.network
    bound = network.loss.of_mean.bind(len(outputs), network.n_outputs, network.dtype, "")
    return bound(outputs, y, weight, np.empty_like(outputs))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and metrics of a Sequential, as sums over rows that add up."""

    predictor: Predictor
    metrics: MetricSet

    def sums(self, X: Any, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return (summed loss, its divisor, sums of metrics) of rows, float64.

        X (n, p); y as the loss takes it; weight (n,) or None.
        """
        network = self.predictor.network
        P = self.predictor.outputs(X)
        of_rows = network.loss.rows(y, P).astype(np.float64)
        loss_sum = float(of_rows.sum() if weight is None else of_rows @ weight)
        divisor = network.loss.divisor(len(P), weight)
        penalties = [network.activity_penalty(params, X) for params in self.predictor.members]
        loss_sum += float(np.mean(penalties)) * divisor / max(len(P), 1)
        metric_sums = self.metrics.sums(y, P, weight)
        return np.concatenate([[loss_sum, divisor], metric_sums])

    def results(self, sums: np.ndarray) -> dict[str, float]:
        """Return the loss, with the penalties of the network, and the metrics, given sums over all rows."""
        penalty = float(
            np.mean([self.predictor.network.penalty(params) for params in self.predictor.members])
        )
        loss = sums[0] / sums[1] if sums[1] else float("nan")
        return {"loss": float(loss) + penalty, **self.metrics.results(sums[2:])}


def evaluate_block(weights: RowWeights | None, evaluation: Evaluation, block: Block) -> np.ndarray:
    """Return `Evaluation.sums` of a block; weights of classes, or None. PartitionError: bad data."""
    block.check()
    y, weight = block.y, block.weight
    assert y is not None, "an evaluation needs targets"
    if weights is not None:
        weight = weights.rows(y, weight)
    encoder = evaluation.predictor.encoder
    assert encoder is not None, "an evaluation needs an encoder"
    return evaluation.sums(block.X, encoder.encode(y), weight)
