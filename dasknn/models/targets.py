"""Encoding of targets for Keras's losses, and the weights of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from numbers import Real
from typing import Any

import numpy as np

from dasknn.data.targets import (
    EXPECTED_WEIGHTS,
    ClassSummary,
    NumberSummary,
    RowWeights,
    TargetEncoder,
    as_array,
    labels_of,
)


@dataclass(frozen=True, eq=False)
class LossEncoder(TargetEncoder):
    """Encodes y for one of Keras's losses: numbers (n, n_outputs), or labels (n,) in [0, n_outputs)."""

    loss: Any
    n_outputs: int
    dtype: str
    #: Whether summaries count labels, for weights of labels, even if the loss takes numbers.
    counts_labels: bool = False

    @property
    def n_labels(self) -> int | None:
        """The number of labels, [0, n_labels); None if targets may be any numbers."""
        if self.loss.takes_labels or self.n_outputs > 1:
            return self.n_outputs
        return 2 if getattr(self.loss, "targets_in", None) == (0, 1) else None

    def encode(self, y: np.ndarray) -> np.ndarray:
        y = as_array(y)
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"Expected numbers in y, received dtype {y.dtype}, such as {y.reshape(-1)[:1].tolist()}. "
                "Encode labels as 0, 1, ..., for instance with sklearn.preprocessing.LabelEncoder."
            )
        if self.loss.takes_labels:
            if y.ndim == 2 and y.shape[1] == 1:
                y = y[:, 0]
            if y.dtype.kind != "i" and (whole := y.astype(np.int64)).shape == y.shape and np.all(whole == y):
                y = whole
        else:
            y = np.ascontiguousarray(y.reshape(len(y), prod(y.shape[1:])), dtype=self.dtype)
        self.loss.check_targets(y, self.n_outputs)
        return y

    def summarize(self, y: np.ndarray, weight: np.ndarray | None = None) -> ClassSummary | NumberSummary:
        """Summarize a part of y. ValueError: targets that the loss cannot take."""
        y = self.encode(y)
        if self.loss.takes_labels:
            return ClassSummary.of_labels(y, weight, np.unique(y))
        summary = NumberSummary.of(y, weight)
        if not self.counts_labels:
            return summary
        labels = labels_of(y)
        return replace(summary, labels=ClassSummary.of_labels(labels, weight, np.unique(labels)))

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the outputs unchanged, which are what Keras predicts."""
        return outputs


@dataclass(frozen=True, eq=False)
class LabelWeights(RowWeights):
    """Keras's class_weight: factors of the weights of rows by label; 1 for other labels.

    If a row has several numbers, its label is the position of the greatest.
    """

    weights: dict[int, float]
    dtype: str

    @classmethod
    def of(cls, class_weight, summary: ClassSummary | NumberSummary, dtype: str) -> LabelWeights:
        """Make weights from a dict, or from "balanced": `rows / (n_labels * rows of the label)`.

        Rows count by their weights. summary: of y, with its labels. ValueError: the dict has a label that is
        not in y, and lacks one that is.
        """
        found = summary if isinstance(summary, ClassSummary) else summary.labels
        assert found is not None, "the encoder has not counted labels"
        if isinstance(class_weight, str):
            if class_weight != "balanced":
                raise ValueError(EXPECTED_WEIGHTS + f"{class_weight!r}.")
            present = found.counts > 0
            labels, counts = found.labels[present], found.counts[present]
            balanced = counts.sum() / (len(counts) * counts)
            return cls(dict(zip((int(label) for label in labels), balanced.tolist(), strict=True)), dtype)
        weights = cls.checked(class_weight, dtype)
        labels = found.labels.tolist()
        strange = [label for label in weights.weights if label not in labels]
        # As in scikit-learn: weights for all labels of y may have others besides.
        if strange and any(label not in weights.weights for label in labels):
            raise ValueError(
                f"class_weight has weights for labels {strange}, which are not in y: it has {labels[:20]}."
            )
        return weights

    @classmethod
    def checked(cls, class_weight, dtype: str, n_labels: int | None = None) -> LabelWeights:
        """Make weights from a dict alone. ValueError: not a dict, or labels outside [0, n_labels)."""
        if not isinstance(class_weight, Mapping):
            remedy = ""
            if isinstance(class_weight, list | tuple | np.ndarray):
                remedy = " Pass dict(enumerate(weights))."
            elif class_weight == "balanced":
                remedy = " One batch does not show how frequent labels are."
            raise ValueError(EXPECTED_WEIGHTS + f"{class_weight!r:.80}.{remedy}")
        weights = cls(dict(class_weight), dtype)
        if n_labels is not None and (strange := sorted(set(weights.weights) - set(range(n_labels)))):
            raise ValueError(
                f"class_weight has weights for labels {strange}, which the model does not have: expected "
                f"labels in [0, {n_labels})."
            )
        return weights

    def __post_init__(self):
        for label, weight in self.weights.items():
            is_number = isinstance(weight, Real) and weight >= 0
            if not (isinstance(label, int | np.integer) and is_number):
                raise ValueError(
                    f"Expected class_weight to map labels 0, 1, ... to weights >= 0, received {label!r}: "
                    f"{weight}."
                )

    def rows(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        labels = labels_of(as_array(y))
        of_class = np.ones(len(labels), self.dtype)
        for label, factor in self.weights.items():
            of_class[labels == label] = factor
        return of_class if weight is None else of_class * weight
