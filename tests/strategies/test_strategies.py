"""The averages: sums over replicas are exact, and nothing that was given is written to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dasknn.cluster.graph import merge_tree
from dasknn.engine.network import Network
from dasknn.engine.schedule import Piece, Rounds, Route
from dasknn.engine.state import Contribution, Shard, TrainingJob, WarmUp
from dasknn.engine.workspace import loss_and_grad
from dasknn.estimators.losses import CategoricalLogLoss
from dasknn.initializers import GlorotUniform
from dasknn.layers import Dense
from dasknn.optimizers import Adam
from dasknn.regularizers import BatchL2
from dasknn.strategies import GradientAveraging, OuterNesterov, PredictionAveraging, WeightAveraging, get
from dasknn.strategies.compression import Float16, PowerSGD
from dasknn.strategies.gradients import GradientLearner
from dasknn.strategies.learner import Exchange, LinkSpeed
from dasknn.strategies.overlap import EarlySum

NETWORK = Network(
    6,
    (
        Dense(9, "tanh", kernel_initializer=GlorotUniform(), bias_initializer=GlorotUniform()),
        Dense(3, "softmax"),
    ),
    CategoricalLogLoss(),
)
STRATEGIES = [GradientAveraging(), WeightAveraging(), PredictionAveraging()]


def job_of(replicas=1, batch_size=None, shuffle=True, **others):
    return TrainingJob(NETWORK, Adam(), BatchL2(1e-3), batch_size, 5, replicas, shuffle, **others)


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

    loss_sum, gradient = loss_and_grad(NETWORK, state.params, whole.X, whole.y, whole.weight)
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
    assert len(sizes_of_rounds) == -(-n_samples // batch_size)
    assert all(size == batch_size for size in sizes_of_rounds[:-1])


def test_a_replica_that_goes_on_in_its_next_shard_adds_up_both():
    first, second = rows(10, 1), rows(10, 2)
    job, strategy = job_of(shuffle=False), GradientAveraging()
    state = strategy.init_state(job, job.init_params(0), 1)
    pieces = [[Piece(0, 0, 5, 10), Piece(1, 0, 0, 5)]]
    total = run_round(strategy, job, state, [first, second], pieces)
    X, y = np.vstack([first.X[5:], second.X[:5]]), np.r_[first.y[5:], second.y[:5]]
    weight = np.r_[first.weight[5:], second.weight[:5]]
    _, gradient = loss_and_grad(NETWORK, state.params, X, y, weight)
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


# --- weights every some steps -------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2, 7, 1000])
@pytest.mark.parametrize("rows_of_replicas", [[100, 100], [103, 55, 200], [40, 0, 3]])
def test_rounds_of_weights_are_of_about_every_steps_and_visit_every_row(every, rows_of_replicas):
    job, strategy = job_of(len(rows_of_replicas), 10 * len(rows_of_replicas)), WeightAveraging(every=every)
    shards = [{number: n} if n else {} for number, n in enumerate(rows_of_replicas)]
    rounds = list(strategy.rounds(job, shards, epoch=0))
    for replica, n in enumerate(rows_of_replicas):
        sizes = [sum(p.end - p.begin for p in pieces[replica]) for pieces in rounds]
        assert sum(sizes) == n
        assert max(sizes) <= 10 * every
        # Whole steps, but for the end of the rows.
        assert all(size % 10 == 0 for size in sizes[:-1])
    n_steps = -(-max(rows_of_replicas) // 10)
    assert len(rounds) == -(-n_steps // every)


def test_batches_of_a_round_are_of_nearly_one_size(monkeypatch):
    from dasknn.engine.steps import Steps

    sizes = []
    take_one = Steps._take_one
    monkeypatch.setattr(
        Steps, "_take_one", lambda self, w, *args: (sizes.append(w.n_rows), take_one(self, w, *args))[1]
    )
    job, strategy = job_of(1, 10), WeightAveraging()
    state = strategy.init_state(job, job.init_params(0), 1)
    strategy.visit(job, state, None, rows(101), Piece(0, 0, 0, 101))
    # One row that is left over does not make a step of its own.
    assert sorted(sizes) == [10] * 9 + [11]


def test_the_outer_step_is_nesterovs():
    outer = OuterNesterov(learning_rate=0.5, momentum=0.8)
    params, velocity = np.array([1.0, 2.0]), np.array([0.5, 0.0])
    mean = np.array([0.8, 2.4])
    outer.update(params, mean, velocity)
    # d = [0.2, -0.4]; v = 0.8 v + d; params - 0.5 (d + 0.8 v)
    assert_allclose(velocity, [0.6, -0.4])
    assert_allclose(params, [1 - 0.5 * (0.2 + 0.48), 2 - 0.5 * (-0.4 - 0.32)])


def test_an_outer_step_of_rate_one_without_momentum_is_the_plain_mean():
    plain, outer = WeightAveraging(every=2), WeightAveraging(every=2, outer=OuterNesterov(1.0, 0.0))
    shards = [rows(30, 1), rows(20, 2)]
    found = []
    for strategy in (plain, outer):
        job = job_of(replicas=2, batch_size=10)
        state = strategy.init_state(job, job.init_params(0), 2)
        for pieces in strategy.rounds(job, [{0: 30}, {1: 20}], epoch=0):
            state = strategy.apply(job, state, run_round(strategy, job, state, shards, pieces))
        found.append(state)
    assert_allclose(found[0].params, found[1].params, rtol=1e-12)
    assert found[1].slots.shape[0] == found[0].slots.shape[0] + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightAveraging(every=0), "number of steps, received 0"),
        (lambda: OuterNesterov(learning_rate=0), "learning_rate > 0"),
        (lambda: GradientAveraging(compression="zip"), "received 'zip'"),
        (lambda: PowerSGD(rank=0), "rank >= 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- compression --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [Float16(), PowerSGD(rank=2)])
def test_what_compression_leaves_out_comes_with_later_steps(compression):
    """Error feedback: sent so far + what is remembered = all that was to be sent."""
    job = job_of(replicas=1, batch_size=20)
    compressor = compression.begin(job, epoch=0)
    rng = np.random.default_rng(0)
    wanted, sent = 0.0, 0.0
    for step in range(6):
        vector = rng.standard_normal(NETWORK.n_params)
        wanted = wanted + vector
        found = {0: Contribution.of(vector.copy(), 1.0, 10, 10)}

        def total(parts, like):
            assert parts[0].vector.shape == like.shape
            return parts[0]

        summed = compressor.total(found, step, total)
        sent = sent + summed.vector
        assert summed.n_samples == 10
    assert not np.allclose(sent, wanted, rtol=0, atol=1e-6)
    assert_allclose(sent + compressor._memory[0], wanted, rtol=0, atol=1e-10)


def test_power_sgd_is_exact_for_matrices_of_low_rank():
    job = job_of(replicas=1)
    compressor = PowerSGD(rank=2).begin(job, epoch=0)
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal(NETWORK.n_params)
    for span, shape in ((slice(0, 54), (6, 9)), (slice(54, 81), (9, 3))):
        thin = rng.standard_normal((shape[0], 2)) @ rng.standard_normal((2, shape[1]))
        gradient[span] = thin.ravel()
    found = {0: Contribution.of(gradient.copy(), 1.0, 10, 10)}
    total = compressor.total(found, 0, lambda parts, like: parts[0])
    assert_allclose(total.vector, gradient, atol=1e-10)


# --- learning rates -----------------------------------------------------------------------------------


def test_warm_up_rises_evenly_to_the_full_rate():
    warm_up = WarmUp(factor=4, steps=10)
    rates = [warm_up.rate(0.4, step) for step in range(1, 13)]
    assert rates[9:] == [0.4] * 3
    assert_allclose(np.diff(rates[:10]), 0.03)
    assert rates[0] == pytest.approx(0.13)


# --- exchanges while replicas compute ----------------------------------------------------------------


class OneMember(Exchange):
    """An exchange with nobody, whose sums are there as late as possible."""

    def each(self, function, items):
        return [function(item) for item in items]

    def total(self, contributions, like):
        (found,) = contributions.values()
        return found

    def start(self, contributions, like):
        self.started = {replica: c._replace(vector=c.vector) for replica, c in contributions.items()}

    def finish(self):
        return self.total(self.started, None)


@pytest.mark.parametrize("n_rounds", [1, 2, 5])
def test_a_delayed_step_applies_the_gradient_of_the_step_before(n_rounds):
    job, shard = job_of(batch_size=20, shuffle=False), rows(20 * n_rounds)
    strategy = GradientAveraging(delay=1)
    state = strategy.init_state(job, job.init_params(0), 1)
    learner = strategy.learner(job, state)
    schedule = strategy.schedule(job, [len(shard)])
    rounds = Rounds(schedule, {0: Route(job, 0, {0: len(shard)}, 0)}, 0, schedule.n_rounds)
    learner.run(rounds, {0: shard}, OneMember())
    # The same by hand: gradients at the parameters of one step earlier.
    plain, waiting = GradientLearner(job, state), None
    for k in range(n_rounds):
        found = plain.contribute(0, [Piece(0, 0, 20 * k, 20 * (k + 1))], {0: shard})
        found = Contribution(found.vector.copy(), found.numbers)
        if waiting is not None:
            plain.apply(waiting)
        waiting = found
    plain.apply(waiting)
    assert_array_equal(learner.state().params, plain.state().params)
    assert learner.state().step == n_rounds
    assert learner.state().loss == plain.state().loss
    # With more than one step, another network than without delay.
    undelayed = GradientLearner(job, state)
    undelayed.run(rounds, {0: shard}, OneMember())
    assert np.array_equal(undelayed.state().params, plain.state().params) == (n_rounds == 1)


@pytest.mark.parametrize("delay", [2, -1, True, "1"])
def test_other_delays_are_refused(delay):
    with pytest.raises(ValueError, match="Expected delay to be 0 or 1, received"):
        GradientAveraging(delay=delay)


def test_compressed_gradients_are_not_delayed():
    with pytest.raises(ValueError, match="Leave delay or compression out"):
        GradientAveraging(compression="float16", delay=1)


WIDE = Network(
    784, (Dense(1024, "relu"), Dense(1024, "relu"), Dense(10, "softmax")), CategoricalLogLoss(), "float32"
)
LAN, FAR = LinkSpeed(33e-6, 1e-9), LinkSpeed(10e-3, 1e-9)


@pytest.mark.parametrize(
    ("network", "speed", "expected"),
    [(WIDE, LAN, 1), (WIDE, LinkSpeed(33e-6, 1e-8), 1), (WIDE, FAR, None), (NETWORK, LAN, None)],
    ids=["wide", "slow links", "far links", "small"],
)
def test_sums_start_early_where_that_hides_more_than_another_message_takes(network, speed, expected):
    assert EarlySum(network, 256, speed).first_layer == expected
