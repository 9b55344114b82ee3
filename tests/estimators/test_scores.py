"""Scores of parts add up to the score of the whole."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

from dasknn.estimators.scores import R2, Accuracy

EDGES = [(0, 7), (7, 7), (7, 60), (60, 100)]


def merged(metric, y, predicted, weight):
    parts = [metric.of(y[a:b], predicted[a:b], None if weight is None else weight[a:b]) for a, b in EDGES]
    return reduce(add, parts).result()


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_of_parts_is_scikit_learns_accuracy_of_all(weighted):
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 3, 100), rng.integers(0, 3, 100)
    weight = rng.uniform(0, 2, 100) if weighted else None
    expected = accuracy_score(y, predicted, sample_weight=weight)
    assert merged(Accuracy, y, predicted, weight) == pytest.approx(expected, rel=1e-12)


def test_accuracy_of_multilabel_rows_asks_for_all_labels():
    y = np.array([[1, 0], [1, 1]])
    assert Accuracy.of(y, np.array([[1, 0], [1, 0]])).result() == 0.5


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(100,), (100, 3)])
def test_r2_of_parts_is_scikit_learns_r2_of_all(weighted, shape):
    rng = np.random.default_rng(0)
    y = 1e6 + rng.standard_normal(shape)
    predicted = y + 0.3 * rng.standard_normal(shape)
    weight = rng.uniform(0.1, 2, 100) if weighted else None
    expected = r2_score(y, predicted, sample_weight=weight)
    assert merged(R2, y, predicted, weight) == pytest.approx(expected, rel=1e-9)


def test_r2_of_a_constant_target_is_scikit_learns():
    y = np.full(10, 3.0)
    assert R2.of(y, y).result() == 1.0
    assert R2.of(y, y + 1).result() == 0.0
