"""Targets: summaries of y, and encoders that turn it into the form that losses need.

    part of y ── summary ──┐
    part of y ── summary ──┴── sum ── encoder

The summaries of all parts are added, and the sum makes the encoder. So all parts are encoded alike, whatever
labels they have, and y is never collected in one place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from math import prod
from typing import Any, Self

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from dasknn.seeds import same_each_time

# A target with more distinct values in one part does not have classes.
_MOST_CLASSES = 100_000
# Size of the sample of numbers of each part that the client gets, and the most columns in it.
_SAMPLE_SIZE = 1_000
_SAMPLE_COLUMNS = 4


def as_array(y: Any) -> np.ndarray:
    """Return y (array, Series, DataFrame, list) as an array; categories become values, decimals floats."""
    if not hasattr(y, "to_numpy"):
        y = np.asarray(y)
        return _as_floats(y) if has_decimals(y) else y
    if getattr(y, "ndim", 1) == 2 and y.shape[1]:
        return np.column_stack([as_array(y.iloc[:, i]) for i in range(y.shape[1])])
    if has_decimals(y):
        return _as_floats(y.to_numpy(dtype=object))
    plain_dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    if plain_dtype is not None and not y.isna().any():
        # pandas' nullable numbers would become objects.
        return y.to_numpy(dtype=plain_dtype)
    return y.to_numpy()


def is_decimal(dtype: Any) -> bool:
    """Return whether it is the dtype of decimals in Arrow, which Parquet files may have."""
    return str(dtype).startswith("decimal")


def has_decimals(column: Any) -> bool:
    """Return whether an array or series holds decimals, by its dtype or, for objects, its first value."""
    dtype = getattr(column, "dtype", None)
    if getattr(dtype, "kind", None) != "O" or not isinstance(dtype, np.dtype):
        return is_decimal(dtype)
    values = column.to_numpy() if hasattr(column, "to_numpy") else column
    known = (value for value in values.flat if not is_missing(value))
    return isinstance(next(known, None), Decimal)


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Return decimals as float64 with NaN for missing ones; unchanged if a value is not a number."""
    flat = (np.nan if is_missing(value) else value for value in values.flat)
    try:
        return np.fromiter(map(float, flat), np.float64, values.size).reshape(values.shape)
    except (TypeError, ValueError):
        return values


def first_missing(y: np.ndarray) -> int | None:
    """Return the first row of y with NaN, infinity or a missing value, None if there is none."""
    if y.dtype.kind == "f":
        bad = ~np.isfinite(y)
    elif y.dtype.kind in "mM":
        bad = np.isnat(y)
    elif y.dtype.kind == "O":
        flat = [
            is_missing(value) or (isinstance(value, float) and not np.isfinite(value))
            for value in y.reshape(-1)
        ]
        bad = np.array(flat, dtype=bool).reshape(y.shape)
    else:
        return None
    rows = bad if bad.ndim == 1 else bad.any(axis=tuple(range(1, bad.ndim)))
    return int(rows.argmax()) if rows.any() else None


def _kind(labels: np.ndarray) -> str:
    if labels.dtype.kind in "mM":
        return "dates"
    return "text" if labels.dtype.kind in "US" or isinstance(labels.tolist()[0], str) else "numbers"


def as_numbers(y: np.ndarray) -> np.ndarray:
    """Return y as numbers. ValueError: y holds something else."""
    if y.dtype.kind in "biuf":
        return y
    try:
        if y.dtype.kind in "mMc":
            # numpy would convert them silently.
            raise TypeError
        return y.astype(np.float64)
    except (TypeError, ValueError):
        value = y.reshape(-1)[0]
        shown = str(value) if isinstance(value, str) else value
        raise ValueError(
            f"Expected numbers in y, received dtype {y.dtype}, such as {shown!r}. "
            "Use a classifier for classes."
        ) from None


def is_missing(value: Any) -> bool:
    """Return whether a value of an array of objects is None, NaN, NaT or pandas.NA."""
    # NaT differs from itself; the comparison of pandas.NA has no truth value, nor has that of an array.
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True
    except ValueError:
        return False


class Summary(ABC):
    """What a part of y holds; summaries of parts add up to the summary of the whole."""

    @abstractmethod
    def __add__(self, other: Self) -> Self: ...

    @abstractmethod
    def check_held_out(self, other: Self) -> None:
        """Raise ValueError if a model of these targets cannot be scored on those of validation rows."""

    @abstractmethod
    def encoder(self, dtype: str) -> TargetEncoder:
        """Return an encoder of y for a network of that dtype."""


#: summarize(y, weight) of one part of the rows.
Summarize = Callable[[np.ndarray, np.ndarray | None], Summary]


@dataclass(frozen=True)
class ClassSummary(Summary):
    """The labels in a part of y.

    labels: sorted and distinct. multilabel: y is (n, k) of 0 and 1. counts: weight of the rows with each
    label. rows: their number. Both are zeros for multi-label data.
    """

    labels: np.ndarray
    n_outputs: int
    multilabel: bool
    n_rows: int
    counts: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, weight: np.ndarray | None = None) -> ClassSummary:
        """Summarize y (n,) or (n, k) and weight (n,) or None. ValueError: targets that are not classes."""
        if len(y) == 0:
            n_outputs = 1 if y.ndim == 1 else y.shape[1]
            return cls(np.empty(0, y.dtype), n_outputs, y.ndim == 2, 0, np.empty(0), np.empty(0))
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim == 2:
            if not set(np.unique(y).tolist()) <= {0, 1}:
                raise ValueError(
                    "Multioutput target data is not supported with label binarization: expected "
                    f"columns of 0 and 1, received {np.unique(y)[:5]}."
                )
            zeros = np.zeros(y.shape[1])
            return cls(np.arange(y.shape[1]), y.shape[1], True, len(y), zeros, zeros)
        if y.dtype.kind == "f" and np.any(y != np.floor(y)):
            # The rule of scikit-learn's type_of_target, whose warnings are not safe in threads.
            raise ValueError(
                "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects "
                "discrete classes, on a regression target with continuous values. Use a regressor for "
                "numbers, or encode the classes as integers or strings."
            )
        try:
            labels = np.unique(y)
        except TypeError:
            raise ValueError(
                "Unknown label type: expected labels of one kind, received several, such as "
                f"{y[:5].tolist()}."
            ) from None
        if len(labels) > _MOST_CLASSES:
            raise ValueError(
                f"Expected classes in y, received more than {_MOST_CLASSES} distinct values. "
                "Use a regressor for numbers."
            )
        return cls.of_labels(y, weight, labels)

    @classmethod
    def of_labels(cls, y: np.ndarray, weight: np.ndarray | None, labels: np.ndarray) -> ClassSummary:
        """Summarize labels y (n,). labels: the same, sorted and distinct."""
        numbers = np.searchsorted(labels, y)
        rows = np.bincount(numbers, minlength=len(labels)).astype(np.float64)
        if weight is None:
            return cls(labels, 1, False, len(y), rows, rows)
        counts = np.bincount(numbers, weights=weight.astype(np.float64), minlength=len(labels))
        return cls(labels, 1, False, len(y), counts, rows)

    def __add__(self, other: ClassSummary) -> ClassSummary:
        if not self.n_rows or not other.n_rows:
            return self if self.n_rows else other
        if (self.multilabel, self.n_outputs) != (other.multilabel, other.n_outputs):
            raise ValueError(
                "Expected y with the same columns in all partitions, received one column of labels in some "
                "and several in others."
            )
        kinds = sorted({_kind(self.labels), _kind(other.labels)}, reverse=True)
        if len(kinds) > 1:
            raise ValueError(
                f"y has labels of {kinds[0]} in some partitions and of {kinds[1]} in others, such as "
                f"{self.labels.tolist()[0]!r} and {other.labels.tolist()[0]!r}. Use one kind."
            )
        labels = np.union1d(self.labels, other.labels)
        counts, rows = np.zeros(len(labels)), np.zeros(len(labels))
        for part in (self, other):
            at = np.searchsorted(labels, part.labels)
            counts[at] += part.counts
            rows[at] += part.rows
        n_rows = self.n_rows + other.n_rows
        return ClassSummary(labels, self.n_outputs, self.multilabel, n_rows, counts, rows)

    def check_held_out(self, other: ClassSummary) -> None:
        """Raise ValueError for held-out labels of which a model trained on these labels knows none."""
        if (self.multilabel, self.n_outputs) != (other.multilabel, other.n_outputs):
            raise ValueError(
                f"validation_data: expected y with {self.n_outputs} columns of labels, as for training, "
                f"received {other.n_outputs}."
            )
        if not set(self.labels.tolist()) & set(other.labels.tolist()):
            raise ValueError(
                f"validation_data: expected labels among {self.labels[:10]}, as for training, received "
                f"{other.labels[:10]}."
            )

    def encoder(self, dtype: str) -> MultilabelEncoder | ClassEncoder:
        """Return the encoder of y for a network of a dtype."""
        if self.multilabel:
            return MultilabelEncoder(self.labels, dtype)
        return ClassEncoder(self.labels, dtype)


@dataclass(frozen=True)
class NumberSummary(Summary):
    """The shape, minimum, weighted sums and a sample of the numbers in a part of y.

    weight: of all rows. total (k,): sum of weight times y. sample (m, j): some rows of some columns; None in
    a sum of summaries. labels: the summary of `labels_of` the rows, where it was requested.
    """

    n_outputs: int
    n_rows: int
    least: float
    weight: float
    total: np.ndarray
    sample: np.ndarray | None = None
    labels: ClassSummary | None = None

    @classmethod
    def of(cls, y: np.ndarray, weight: np.ndarray | None = None) -> NumberSummary:
        """Summarize y (n,) or (n, k) and weight (n,) or None. ValueError: y that is not numbers."""
        y = as_numbers(y)
        least = float(y.min()) if y.size else float("inf")
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        wide = y.reshape(len(y), n_outputs)
        if weight is None:
            sums = float(len(y)), wide.sum(axis=0, dtype=np.float64)
        else:
            sums = float(weight.sum(dtype=np.float64)), weight.astype(np.float64) @ wide
        return cls(n_outputs, len(y), least, *sums, _sample(y))

    @property
    def center(self) -> tuple[float, ...] | None:
        """The weighted mean of each column; None if all weights are 0."""
        return tuple((self.total / self.weight).tolist()) if self.weight else None

    def __add__(self, other: NumberSummary) -> NumberSummary:
        if not self.n_rows or not other.n_rows:
            return self if self.n_rows else other
        if self.n_outputs != other.n_outputs:
            raise ValueError(
                f"Expected y with the same columns in all partitions, received {self.n_outputs} in some and "
                f"{other.n_outputs} in others."
            )
        return NumberSummary(
            self.n_outputs,
            self.n_rows + other.n_rows,
            min(self.least, other.least),
            self.weight + other.weight,
            self.total + other.total,
            labels=None if self.labels is None or other.labels is None else self.labels + other.labels,
        )

    def check_held_out(self, other: NumberSummary) -> None:
        """Raise ValueError for held-out targets with another number of columns."""
        if self.n_outputs != other.n_outputs:
            raise ValueError(
                f"validation_data: expected y with {self.n_outputs} columns, as for training, received "
                f"{other.n_outputs}."
            )

    def encoder(self, dtype: str) -> NumberEncoder:
        """Return the encoder of y for a network of a dtype."""
        return NumberEncoder(self.n_outputs, dtype)


@dataclass(frozen=True)
class SpreadSummary(NumberSummary):
    """A NumberSummary with what it takes to standardize y.

    Rows of weight 0 do not count. mean, m2, lowest, highest (k,): of each column, the mean, the weighted sum
    of squared deviations from it, and the range.
    """

    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    m2: np.ndarray = field(default_factory=lambda: np.zeros(0))
    lowest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    highest: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, y: np.ndarray, weight: np.ndarray | None = None) -> SpreadSummary:
        plain = NumberSummary.of(y, weight)
        wide = as_numbers(y).reshape(len(y), plain.n_outputs).astype(np.float64)
        if weight is not None:
            wide, weight = wide[weight > 0], weight[weight > 0].astype(np.float64)
        if not len(wide):
            empty = np.zeros(plain.n_outputs)
            mean, m2, lowest, highest = empty, empty, empty + np.inf, empty - np.inf
        else:
            mean = np.average(wide, axis=0, weights=weight)
            squares = np.square(wide - mean)
            m2 = squares.sum(axis=0) if weight is None else weight @ squares
            lowest, highest = wide.min(axis=0), wide.max(axis=0)
        return cls(**vars(plain), mean=mean, m2=m2, lowest=lowest, highest=highest)

    def __add__(self, other: NumberSummary) -> SpreadSummary:
        assert isinstance(other, SpreadSummary), "summaries of one kind add up"
        if not self.n_rows or not other.n_rows:
            return self if self.n_rows else other
        plain = super().__add__(other)
        share = other.weight / plain.weight if plain.weight else 0.0
        gap = other.mean - self.mean
        # As by Chan, Golub and LeVeque (1979).
        return SpreadSummary(
            **vars(plain),
            mean=self.mean + gap * share,
            m2=self.m2 + other.m2 + gap**2 * self.weight * share,
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
        )

    def encoder(self, dtype: str) -> StandardEncoder:
        scale = np.sqrt(self.m2 / self.weight) if self.weight else np.ones(self.n_outputs)
        scale = np.where(scale > 0, scale, 1.0)
        parts = (self.mean, scale, self.lowest, self.highest)
        return StandardEncoder(self.n_outputs, dtype, *(tuple(part.tolist()) for part in parts))


def _sample(y: np.ndarray) -> np.ndarray:
    """Return a sample of the rows and columns of y (n,) or (n, k), the same in each call."""
    y = y.reshape(len(y), prod(y.shape[1:]))
    columns = np.linspace(0, y.shape[1] - 1, min(y.shape[1], _SAMPLE_COLUMNS)).astype(np.intp)
    n_wanted = _SAMPLE_SIZE // max(len(columns), 1)
    if len(y) <= n_wanted:
        return y[:, columns]
    # Not every n-th row, since data may be periodic.
    rows = same_each_time().choice(len(y), n_wanted, replace=False)
    return y[np.ix_(rows, columns)]


class TargetEncoder(ABC):
    """Encodes y for a loss, and decodes the outputs of a network."""

    @abstractmethod
    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return y (n,) or (n, k) as the loss takes it. ValueError: targets that the loss cannot take."""

    @abstractmethod
    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return predictions (n,) or (n, k) for outputs (n, n_outputs) of a network."""


class RowWeights(ABC):
    """Weights of classes or labels, as factors of the weights of rows."""

    @abstractmethod
    def rows(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the weight of each row (n,), for targets y and the weights of rows (n,) or None."""


@dataclass(frozen=True, eq=False)
class ClassEncoder(TargetEncoder):
    """Encodes labels: two classes as (n, 1) of 0 and 1, more as the number of the class (n,)."""

    classes: np.ndarray
    dtype: str

    @property
    def n_outputs(self) -> int:
        """Units of the last layer."""
        return 1 if len(self.classes) <= 2 else len(self.classes)

    def numbers(self, y: np.ndarray) -> np.ndarray:
        """Return the number of the class of each row (n,). ValueError: an unknown label."""
        if y.ndim == 2 and y.shape[1] != 1:
            raise ValueError(f"Expected labels in one column, received {y.shape[1]} columns.")
        y = y.reshape(-1)
        try:
            numbers = np.searchsorted(self.classes, y)
        except TypeError:
            raise ValueError(
                f"Expected labels among {self.classes}, received labels of another kind."
            ) from None
        numbers[numbers == len(self.classes)] = 0
        strange = self.classes[numbers] != y
        if np.any(strange):
            raise ValueError(f"Expected labels among {self.classes}, received {y[strange].tolist()[0]!r}.")
        return numbers

    def encode(self, y: np.ndarray) -> np.ndarray:
        numbers = self.numbers(y)
        if self.n_outputs == 1:
            # With one class all rows are negative, as in scikit-learn.
            return (numbers[:, np.newaxis] == 1).astype(self.dtype)
        return numbers

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        if self.n_outputs > 1:
            return self.classes[outputs.argmax(axis=1)]
        if len(self.classes) == 1:
            return np.repeat(self.classes, len(outputs))
        return self.classes[(outputs[:, 0] > 0.5).astype(np.intp)]


@dataclass(frozen=True, eq=False)
class MultilabelEncoder(TargetEncoder):
    """Checks indicators of any number of labels for each row: y (n, k) of 0 and 1."""

    classes: np.ndarray
    dtype: str

    @property
    def n_outputs(self) -> int:
        """Units of the last layer."""
        return len(self.classes)

    def encode(self, y: Any) -> np.ndarray:
        y = np.ascontiguousarray(y.toarray() if hasattr(y, "toarray") else y, dtype=self.dtype)
        if y.ndim != 2 or y.shape[1] != self.n_outputs or not np.all((y == 0) | (y == 1)):
            raise ValueError(
                f"Expected y with {self.n_outputs} columns of 0 and 1, received shape {y.shape}."
            )
        return y

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs > 0.5).astype(np.intp)


@dataclass(frozen=True)
class NumberEncoder(TargetEncoder):
    """Casts numbers to y (n, k)."""

    n_outputs: int
    dtype: str

    def encode(self, y: np.ndarray) -> np.ndarray:
        y = np.ascontiguousarray(as_numbers(y), dtype=self.dtype).reshape(len(y), prod(y.shape[1:]))
        if y.shape[1] != self.n_outputs:
            raise ValueError(f"Expected y with {self.n_outputs} columns, received {y.shape[1]}.")
        return y

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0] if self.n_outputs == 1 else outputs


@dataclass(frozen=True)
class StandardEncoder(NumberEncoder):
    """Standardizes numbers y (n, k), and keeps predictions within the range that they had.

    mean, scale, lowest, highest: of each column. levels: with some quantiles of one column as outputs, their
    levels; else ().
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    levels: tuple[float, ...] = ()

    def encode(self, y: np.ndarray) -> np.ndarray:
        y = as_numbers(y).astype(np.float64).reshape(len(y), prod(y.shape[1:]))
        if y.shape[1] != self.n_outputs:
            raise ValueError(f"Expected y with {self.n_outputs} columns, received {y.shape[1]}.")
        return ((y - self.mean) / self.scale).astype(self.dtype)

    def numbers(self, outputs: np.ndarray) -> np.ndarray:
        """Return the numbers that outputs (n, k) mean, within the range; quantiles in ascending order."""
        numbers = outputs * np.array(self.scale) + np.array(self.mean)
        if self.levels:
            # Quantiles of a network may cross. In order, they are at least as good ones (Chernozhukov,
            # Fernandez-Val and Galichon 2010).
            numbers.sort(axis=1)
        return np.clip(numbers, self.lowest, self.highest)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        numbers = self.numbers(outputs)
        if self.levels:
            # The prediction is the quantile that is nearest to the median.
            return numbers[:, self.place_of_median]
        return super().decode(numbers)

    @property
    def place_of_median(self) -> int:
        """Place of the quantile that is nearest to the median among the outputs."""
        return int(np.abs(np.array(self.levels) - 0.5).argmin())


@dataclass(frozen=True, eq=False)
class ClassWeights(RowWeights):
    """Weights of classes, which multiply the weights of rows. values (n_classes,): as encoder.classes."""

    encoder: ClassEncoder
    values: np.ndarray

    @classmethod
    def of(cls, class_weight: dict | str, summary: ClassSummary, encoder: ClassEncoder) -> ClassWeights:
        """Return the weights of a dict of label to weight, or of "balanced".

        Balanced weights are rows / (n_classes * rows of the class), where rows count by their weights.
        ValueError: labels of the dict that are not classes, or negative weights.
        """
        if class_weight == "balanced":
            # A class whose rows all weigh 0 counts as absent.
            present = summary.counts > 0
            values = np.ones(len(present))
            values[present] = summary.counts.sum() / (present.sum() * summary.counts[present])
        else:
            values = compute_class_weight(class_weight, classes=encoder.classes, y=encoder.classes)
        if values.min() < 0:
            raise ValueError(f"class_weight expects numbers >= 0, received {class_weight}.")
        return cls(encoder, values.astype(encoder.dtype))

    def rows(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Return the weight of each row (n,)."""
        of_class = self.values[self.encoder.numbers(y)]
        return of_class if weight is None else of_class * weight


EXPECTED_WEIGHTS = "Expected class_weight to be a dict of label to weight, 'balanced' or None, received "


def labels_of(y: np.ndarray) -> np.ndarray:
    """Return the label that Keras assigns to each row of y (n,) or (n, k): the column of the greatest number.

    For y with one column, the nearest integer.
    """
    return y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else np.round(y.reshape(-1)).astype(np.int64)
