"""Intervals hold what they promise, and sums of parts add up."""

import dask
import numpy as np
import pandas as pd
import pytest
from given_models import Given, N, expected_of_classes, probabilities
from numpy.testing import assert_array_equal
from scipy.special import expit
from scipy.stats import binomtest, norm

import dasknn
from dasknn.evaluation.bootstrap import Draws, Ranking, draws, sum_slices
from dasknn.evaluation.score_sketch import keys_of_probabilities

# --- intervals ------------------------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truths = {
        "accuracy": norm.cdf(0.5),
        "roc_auc": norm.cdf(1 / np.sqrt(2)),
        "accuracy_difference": norm.cdf(0.5) - norm.cdf(0.3),
        "roc_auc_difference": norm.cdf(1 / np.sqrt(2)) - norm.cdf(0.6 / np.sqrt(2)),
    }
    n_held, n_sets = dict.fromkeys(truths, 0), 200
    model_a, model_b = Given(0).fit(), Given(2).fit()
    for i in range(n_sets):
        y = rng.random(500) < 0.5
        noise = rng.normal(size=500)
        a = noise + y
        b = 0.8 * noise + 0.6 * rng.normal(size=500) + 0.6 * y
        p_a, p_b = expit(a - 0.5), expit(b - 0.3)
        X = np.stack([1 - p_a, p_a, 1 - p_b, p_b], axis=1)
        names = ["accuracy", "roc_auc"]
        with dask.config.set(scheduler="synchronous"):
            one = dasknn.evaluate(model_a, X, y.astype(int), names, random_state=i).iloc[0]
            two = dasknn.compare(model_a, model_b, X, y.astype(int), names, random_state=i).iloc[0]
        found = pd.concat([one, two])
        for name, truth in truths.items():
            n_held[name] += found[f"{name}_low"] <= truth <= found[f"{name}_high"]
    for name, n in n_held.items():
        assert binomtest(n, n_sets, 0.95).pvalue > 0.001, f"{name}: {n} of {n_sets}"


def test_replicates_are_as_wide_as_those_of_resampled_rows():
    P, y, weight = probabilities(2)
    names = ["roc_auc", "average_precision", "log_loss", "f1"]
    found = dasknn.evaluate(Given().fit(), P, y, names, sample_weight=weight, n_bootstrap=1000).iloc[0]
    rng = np.random.default_rng(0)
    labels = (P[:, 1] > P[:, 0]).astype(int)
    resampled = []
    for _ in range(150):
        rows = rng.integers(0, N, N)
        resampled.append(
            [expected_of_classes(name, y[rows], P[rows], labels[rows], weight[rows], 2) for name in names]
        )
    for name, values in zip(names, np.transpose(resampled), strict=True):
        width = found[f"{name}_high"] - found[f"{name}_low"]
        assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.25), name
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_intervals_lie_around_the_exact_value_where_cells_are_coarse():
    rng = np.random.default_rng(0)
    # Tiny scores of all sizes take the cells from the many that lie together.
    scores = np.concatenate([2.0 ** -np.arange(3, 903), rng.uniform(0.25, 0.26, 2000)])
    y = np.concatenate([rng.random(900) < 0.3, scores[900:] + rng.normal(size=2000) * 0.003 > 0.255])
    P = np.stack([1 - scores, scores], axis=1)
    found = dasknn.evaluate(Given().fit(), P, y.astype(int), ["roc_auc", "average_precision"]).iloc[0]
    for name in ("roc_auc", "average_precision"):
        assert found[name] == pytest.approx(expected_of_classes(name, y, P, None, None, 2))
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_a_share_of_all_or_none_is_not_taken_for_certain():
    P = np.tile([0.1, 0.9], (100, 1))
    y = np.ones(100, dtype=int)
    found = dasknn.evaluate(Given().fit(), P, y, ["accuracy", "precision", "positive_rate"]).iloc[0]
    # Clopper and Pearson: 0.025 ** (1 / 100).
    assert found["accuracy_low"] == found["precision_low"] == pytest.approx(0.9638, abs=1e-4)
    assert found["accuracy_high"] == found["accuracy"] == 1
    none = dasknn.evaluate(Given().fit(), P, 1 - y, ["accuracy", "recall"]).iloc[0]
    assert none["accuracy_high"] == pytest.approx(1 - 0.9638, abs=1e-4)
    # No row is of the class that is looked for: its share of recalled ones may be any.
    assert (none["recall_low"], none["recall_high"]) == (0, 1)


def test_fewer_replicates_than_a_confidence_needs_are_refused():
    P, y, _ = probabilities(2, 200)
    with pytest.raises(ValueError, match="n_bootstrap of 199 or more"):
        dasknn.evaluate(Given().fit(), P, y, confidence=0.99, n_bootstrap=198)
    dasknn.evaluate(Given().fit(), P, y, confidence=0.99, n_bootstrap=199)


# --- draws and sums -------------------------------------------------------------------------------


def test_draws_are_poisson_with_mean_1_and_belong_to_their_row():
    counts = draws(0, 3, 0, 4096, 200)
    assert counts.mean() == pytest.approx(1, abs=0.005)
    assert counts.var() == pytest.approx(1, abs=0.01)
    for n, probability in enumerate(np.exp(-1) / np.array([1, 1, 2, 6, 24])):
        assert (counts == n).mean() == pytest.approx(probability, rel=0.02)
    assert_array_equal(draws(0, 3, 0, 100, 200), counts[:100])
    for other in (draws(1, 3, 0, 4096, 200), draws(0, 4, 0, 4096, 200), draws(0, 3, 1, 4096, 200)):
        assert abs(np.corrcoef(counts.ravel(), other.ravel())[0, 1]) < 0.01


def part_sums(number, n=700):
    """Return the sums of a part with everything in it: blocks, rankings, two ways of slicing."""
    rng = np.random.default_rng(number)
    codes = rng.integers(0, 3, n)
    # Whole numbers add up to the same bits in any order.
    block = rng.integers(0, 5, (n, 4)).astype(float)
    keys = keys_of_probabilities(rng.random(n))
    ranking = Ranking(keys, rng.random(n) < 0.3, rng.integers(0, 3, n).astype(float))
    values = [(f"{number % 2}{code}",) for code in range(3)]
    groups = [(np.zeros(n, dtype=int), [()]), (codes, values)]
    return sum_slices(lambda rows: [block[rows]], [ranking], groups, Draws(0, number, 10))


def test_merging_is_associative():
    a, b, c = map(part_sums, range(3))
    for left, right in zip(((a + b) + c).slices, (a + (b + c)).slices, strict=True):
        assert set(left) == set(right)
        for values, one in left.items():
            other = right[values]
            assert one.n_rows == other.n_rows
            assert_array_equal(one.sums[0], other.sums[0])
            for tallies in ("tallies", "resampled"):
                mine, theirs = getattr(one, tallies)[0], getattr(other, tallies)[0]
                assert mine.level == theirs.level
                assert_array_equal(mine.keys, theirs.keys)
                assert_array_equal(mine.weights, theirs.weights)
