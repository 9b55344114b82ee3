"""Models whose predictions are columns of X already, rows for them, and what scikit-learn says of these."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
from sklearn import metrics as skm
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from dasknn import Buckets, MLPClassifier

N = 1200


class Given(ClassifierMixin, BaseEstimator):
    """Probabilities that are in the columns of X already."""

    def __init__(self, first=0, k=2, labels=None):
        self.first, self.k, self.labels = first, k, labels

    def fit(self, X=None, y=None):
        self.classes_ = np.arange(self.k) if self.labels is None else np.array(self.labels)
        return self

    def predict_proba(self, X):
        return np.asarray(X, dtype=np.float64)[:, self.first : self.first + self.k]

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class GivenNumbers(RegressorMixin, BaseEstimator):
    """Predictions that are in the columns of X already."""

    def __init__(self, q=1):
        self.q = q

    def fit(self, X=None, y=None):
        self.is_fitted_ = True
        return self

    def predict(self, X):
        X = np.asarray(X)[:, : self.q]
        return X[:, 0] if self.q == 1 else X


def probabilities(k, n=N, seed=0):
    """Return P (n, k), y (n,) that go together somewhat, weight (n,) with zeros."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * (y[:, np.newaxis] == np.arange(k))
    # Few digits, so that there are ties.
    P = np.exp(logits).round(1) + 0.1
    weight = rng.uniform(0, 2, n) * (rng.random(n) > 0.1)
    return P / P.sum(axis=1, keepdims=True), y, weight


def columns_to_slice_by(n=N, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "region": rng.choice(["EU", "US", "Asia", None], n, p=[0.5, 0.3, 0.1, 0.1]),
            "member": rng.random(n) < 0.3,
            "level": rng.choice([1.0, 2.5, np.nan], n),
            "size": pd.Categorical(rng.choice(["small", "large"], n), ["small", "large"], ordered=True),
            "age": rng.integers(17, 91, n),
        }
    )


SLICES = ["region", "member", "level", "size", ("region", "member"), Buckets("age", [18, 40, 65])]


def blobs():
    """Return X (600, 4) float32, y (600,) of 3 classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    return (rng.normal(size=(600, 4)) + y[:, np.newaxis]).astype("float32"), y


def y_of(y, n):
    return dd.from_pandas(pd.Series(y), npartitions=n)


def mlp_and_frame():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd"))
    return MLPClassifier((4,), max_iter=2, random_state=0).fit(frame, y), frame, y


def expected_of_classes(name, y, P, labels, weight, k):
    """Return scikit-learn's metric of these rows."""
    if name == "positive_rate":
        return np.average(labels == 1, weights=weight)
    if name == "calibration_error":
        chance, happened = (P[:, 1], y == 1) if k == 2 else (P.max(axis=1), y == labels)
        bins = np.minimum((chance * 10).astype(int), 9)
        weight = np.ones(len(y)) if weight is None else weight
        gaps = [abs(weight[bins == b] @ (happened - chance)[bins == b]) for b in range(10)]
        return sum(gaps) / weight.sum()
    if name in ("accuracy", "balanced_accuracy"):
        return getattr(skm, f"{name}_score")(y, labels, sample_weight=weight)
    if name in ("roc_auc", "average_precision"):
        return getattr(skm, f"{name}_score")(y, P[:, 1], sample_weight=weight)
    if name in ("log_loss", "brier_score_loss"):
        scores = P[:, 1] if k == 2 and name == "brier_score_loss" else P
        labels = {} if scores.ndim == 1 else {"labels": np.arange(k)}
        return getattr(skm, name)(y, scores, sample_weight=weight, **labels)
    if name == "roc_auc_ovr":
        of_classes = [skm.roc_auc_score(y == j, P[:, j], sample_weight=weight) for j in range(k)]
        return np.mean(of_classes) if k > 2 else of_classes[1]
    name, _, average = name.partition("_")
    score = getattr(skm, f"{name}_score")
    return score(y, labels, average=average or "binary", sample_weight=weight, zero_division=0)


OF_LABELS = ["accuracy", "balanced_accuracy"] + [
    f"{score}_{average}"
    for score in ("precision", "recall", "f1")
    for average in ("macro", "micro", "weighted")
]


OF_CLASSES = [*OF_LABELS, "roc_auc_ovr", "log_loss", "brier_score_loss", "calibration_error"]


BINARY = [*OF_CLASSES, "precision", "recall", "f1", "roc_auc", "average_precision", "positive_rate"]
