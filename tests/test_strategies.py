"""The averages: sums over replicas are exact, and nothing that was given is written to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dasknn.cluster.tasks import merge_tree
from dasknn.initializers import GlorotUniform
from dasknn.layers import Dense
from dasknn.losses import CategoricalLogLoss
from dasknn.network import Network
from dasknn.optimizers import Adam
from dasknn.regularizers import L2
from dasknn.rounds import Piece, Shard, TrainingJob
from dasknn.strategies import GradientAveraging, PredictionAveraging, WeightAveraging, get

NETWORK = Network(
    6,
    (Dense(9, "tanh", GlorotUniform(), GlorotUniform()), Dense(3, "softmax")),
    CategoricalLogLoss(),
)
STRATEGIES = [GradientAveraging(), WeightAveraging(), PredictionAveraging()]


def job_of(replicas=1, batch_size=None, shuffle=True):
    return TrainingJob(NETWORK, Adam(), L2(1e-3), batch_size, 5, replicas, shuffle)


def rows(n, seed=0, weighted=True):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0, 2, n) if weighted else None
    shard = Shard(rng.standard_normal((n, 6)), rng.integers(0, 3, n), weight)
    for array in (shard.X, shard.y, shard.weight):
        if array is not None:
            array.setflags(write=False)
    return shard


def run_round(strategy, job, state, shards, pieces_of_replicas):
    """Carry out one round as the tasks do."""
    contributions = []
    for replica, pieces in enumerate(pieces_of_replicas):
        carry, share = None, strategy.share(state, replica)
        for piece in pieces:
            carry = strategy.visit(job, share, carry, shards[piece.shard], piece)
        if pieces:
            contributions.append(strategy.finish(job, share, carry))
    return merge_tree(strategy.merge, *contributions)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cuts", [[], [40], [1, 93], [0, 7, 7, 50, 93, 100]])
def test_uneven_and_empty_shards_give_the_single_array_gradient(cuts, weighted):
    whole = rows(100, weighted=weighted)
    edges = [0, *cuts, 100]
    bounds = list(pairwise(edges))
    shards = [
        Shard(whole.X[a:b], whole.y[a:b], None if whole.weight is None else whole.weight[a:b])
        for a, b in bounds
    ]
    job = job_of(replicas=len(shards))
    strategy = GradientAveraging()
    state = strategy.init_state(job, job.init_params(0), len(shards))
    of_replicas = [{number: len(shard)} for number, shard in enumerate(shards)]
    (pieces,) = strategy.rounds(job, of_replicas, epoch=0)
    total = run_round(strategy, job, state, shards, pieces)

    loss_sum, gradient = NETWORK.loss_and_grad(state.params, whole.X, whole.y, whole.weight)
    assert_allclose(total.vector, gradient, rtol=1e-10, atol=1e-12)
    assert total.loss_sum == pytest.approx(loss_sum, rel=1e-12)
    assert total.n_samples == 100
    assert total.weight_sum == pytest.approx(100 if not weighted else whole.weight.sum())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_states_shards_and_contributions_are_not_written_to(strategy):
    job = job_of(replicas=2, batch_size=10)
    state = strategy.init_state(job, job.init_params(0), 2)
    for array in (state.params, state.slots):
        array.setflags(write=False)
    shards = [rows(30, 1), rows(20, 2)]
    for pieces in strategy.rounds(job, [{0: 30}, {1: 20}], epoch=0):
        total = run_round(strategy, job, state, shards, pieces)
        total.vector.setflags(write=False)
        after = strategy.apply(job, state, total)
        assert not np.array_equal(after.params, state.params)


@given(
    sizes=st.lists(st.lists(st.integers(1, 40), max_size=4), min_size=1, max_size=5).filter(any),
    batch_size=st.integers(1, 200),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_an_epoch_visits_every_row_once_in_rounds_of_the_batch_size(sizes, batch_size, epoch, shuffle):
    numbers = iter(range(1000))
    shards = [{next(numbers): n for n in replica} for replica in sizes]
    of_shard = {shard: n for replica in shards for shard, n in replica.items()}
    n_samples = sum(of_shard.values())
    job = job_of(len(shards), batch_size, shuffle)
    visited = {shard: [] for shard in of_shard}
    sizes_of_rounds = []
    for pieces_of_replicas in GradientAveraging().rounds(job, shards, epoch):
        for replica, pieces in enumerate(pieces_of_replicas):
            assert all(piece.shard in shards[replica] for piece in pieces)
            for piece in pieces:
                visited[piece.shard] += range(piece.begin, piece.end)
        sizes_of_rounds.append(sum(p.end - p.begin for ps in pieces_of_replicas for p in ps))
    assert visited == {shard: list(range(n)) for shard, n in of_shard.items()}
    assert len(sizes_of_rounds) == -(-n_samples // min(batch_size, n_samples))
    assert all(abs(size - batch_size) <= len(shards) for size in sizes_of_rounds[:-1])


def test_a_replica_that_goes_on_in_its_next_shard_adds_up_both():
    first, second = rows(10, 1), rows(10, 2)
    job, strategy = job_of(shuffle=False), GradientAveraging()
    state = strategy.init_state(job, job.init_params(0), 1)
    pieces = [[Piece(0, 0, 5, 10), Piece(1, 0, 0, 5)]]
    total = run_round(strategy, job, state, [first, second], pieces)
    X, y = np.vstack([first.X[5:], second.X[:5]]), np.r_[first.y[5:], second.y[:5]]
    weight = np.r_[first.weight[5:], second.weight[:5]]
    _, gradient = NETWORK.loss_and_grad(state.params, X, y, weight)
    assert_allclose(total.vector, gradient, rtol=1e-10, atol=1e-12)


def test_averaged_weights_count_by_the_weight_of_their_rows():
    job, strategy = job_of(replicas=2, batch_size=20), WeightAveraging()
    state = strategy.init_state(job, job.init_params(0), 2)
    shards = [rows(60, 1), rows(20, 2)]
    alone = []
    for number, shard in enumerate(shards):
        carry = strategy.visit(job, state, None, shard, Piece(number, number, 0, len(shard)))
        alone.append((carry.params, shard.weight.sum()))
    pieces = [[Piece(0, 0, 0, 60)], [Piece(1, 1, 0, 20)]]
    after = strategy.apply(job, state, run_round(strategy, job, state, shards, pieces))
    expected = np.average([params for params, _ in alone], axis=0, weights=[w for _, w in alone])
    assert_allclose(after.params, expected, rtol=1e-12)
    assert after.n_samples == 80


def test_members_of_an_ensemble_differ_and_stay_in_the_order_of_replicas():
    job, strategy = job_of(replicas=3, batch_size=10), PredictionAveraging()
    params = job.init_params(0)
    state = strategy.init_state(job, params, 3)
    assert state.params.shape == (3, NETWORK.n_params)
    assert not np.array_equal(state.params[0], state.params[1])
    shards = [rows(20, seed) for seed in range(3)]
    pieces = [[Piece(r, r, 0, 20)] for r in range(3)]
    after = strategy.apply(job, state, run_round(strategy, job, state, shards, pieces))
    alone = strategy.visit(job, strategy.share(state, 1), None, shards[1], pieces[1][0])
    assert_array_equal(after.params[1], alone.params)
    assert_array_equal(after.slots[1], alone.slots)


def test_rows_that_do_not_count_change_nothing():
    shard = Shard(np.ones((4, 6)), np.zeros(4, int), np.zeros(4))
    for strategy in STRATEGIES:
        job = job_of(batch_size=2)
        state = strategy.init_state(job, job.init_params(0), 1)
        pieces = [[Piece(0, 0, 0, 4)]]
        after = strategy.apply(job, state, run_round(strategy, job, state, [shard], pieces))
        assert_array_equal(after.params, state.params)
        assert after.n_samples == 4


def test_orders_depend_on_seed_epoch_and_shard_only():
    job = job_of()
    assert_array_equal(job.row_order(1, 2, 50), job_of(replicas=9).row_order(1, 2, 50))
    assert not np.array_equal(job.row_order(1, 2, 50), job.row_order(2, 2, 50))
    assert not np.array_equal(job.row_order(1, 2, 50), job.row_order(1, 3, 50))


def test_the_tree_of_sums_is_fixed_by_the_number_of_items():
    def pair(left, right):
        return f"({left}{right})"

    assert merge_tree(pair, *"abcde") == "(((ab)(cd))e)"
    letters = "abcdefghijk"
    of_groups = [merge_tree(pair, *letters[i : i + 8]) for i in range(0, 11, 8)]
    assert merge_tree(pair, *of_groups) == merge_tree(pair, *letters)


def test_strategies_by_name():
    assert get("weights") == WeightAveraging()
    with pytest.raises(ValueError, match=r"Expected strategy to be 'auto', one of .* received 'mean'"):
        get("mean")
    with pytest.raises(ValueError, match="members to be at least 1, received 0"):
        PredictionAveraging(members=0)
    with pytest.raises(ValueError, match="every='epoch' or a number of steps, received 'step'"):
        WeightAveraging(every="step")
