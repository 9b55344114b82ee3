"""Rounds: each row is trained on once an epoch, whoever carries them out, and steps are of the batch size."""

from itertools import product

import numpy as np
import pytest
from counted_rows import Fit
from hypothesis import given, settings
from hypothesis import strategies as st
from test_strategies import STRATEGIES, job_of, rows, run_round

from dasknn.engine.state import in_proportion
from dasknn.strategies import GradientAveraging, OuterNesterov, PredictionAveraging, WeightAveraging
from dasknn.training.peers import OnPeers

# Two epochs, and nothing to learn.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

AVERAGES = [
    GradientAveraging(),
    WeightAveraging(),
    WeightAveraging(every=2, outer=OuterNesterov()),
    PredictionAveraging(hop=False),
]


def ways():
    """Every strategy by every transport, streamed or held, with batches below and above the replicas."""
    apis = 0
    for strategy, transport, streamed, batch in product(AVERAGES, ("peer", "tasks"), (True, False), (2, 7)):
        if not (isinstance(strategy, PredictionAveraging) and transport == "peer"):
            apis += 1
            yield Fit(("estimator", "sequential")[apis % 2], strategy, transport, streamed, batch)


@pytest.mark.parametrize("fit", list(ways()), ids=str)
def test_each_row_is_trained_on_once_an_epoch(client, fit):
    fit.check()


@pytest.mark.parametrize("fit", [Fit("sequential", batch_size=2), Fit("sequential", replicas=16)], ids=str)
def test_there_are_as_many_steps_as_batches_however_many_replicas_there_are(client, fit):
    model = fit.check()
    assert model.optimizer.iterations == 2 * -(-fit.n_rows // fit.batch_size)


def test_waves_of_one_round_train_on_each_row(client, monkeypatch):
    monkeypatch.setattr(OnPeers, "_FIRST_WAVE", 1)
    monkeypatch.setattr(OnPeers, "_WAVE_SECONDS", 0.0)
    Fit(batch_size=2, chunks=(3, 5)).check()


# --- how rows are dealt out to rounds ------------------------------------------------------------------


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40).filter(any))
@settings(max_examples=200, deadline=None)
def test_rows_are_dealt_out_one_by_one_in_proportion(rows):
    n_rows = sum(rows)
    before = in_proportion(rows, 0)
    assert before == [0] * len(rows)
    for n in range(1, min(n_rows, 400) + 1):
        parts = in_proportion(rows, n)
        # The next row is one replica's; nobody gives one back.
        assert sorted(part - past for part, past in zip(parts, before, strict=True))[-2:] in ([0, 1], [1])
        assert max(abs(part - own * n / n_rows) for part, own in zip(parts, rows, strict=True)) < 4
        before = parts
    assert in_proportion(rows, n_rows) == rows


def test_even_shares_of_a_batch_are_exact():
    assert in_proportion([500] * 8, 256) == [32] * 8


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_epochs_of_a_few_steps_have_rows_also_where_there_are_more_replicas(strategy, replicas):
    job = job_of(replicas, batch_size=2, steps_per_epoch=1)
    state = strategy.init_state(job, job.init_params(0), replicas)
    shards = [rows(10, seed) for seed in range(replicas)]
    for pieces in strategy.rounds(job, [{shard: 10} for shard in range(replicas)], epoch=0):
        state = strategy.apply(job, state, run_round(strategy, job, state, shards, pieces))
    # Members of an ensemble take steps of their own.
    assert state.n_samples == 2 * (replicas if isinstance(strategy, PredictionAveraging) else 1)


# --- one order of sums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_tasks_and_learners_add_up_to_the_same_bits(weighted):
    # More rows than are gone through at a time, in each of two shards.
    shards = [rows(20_000, seed, weighted) for seed in (0, 1)]
    strategy, job = GradientAveraging(), job_of()
    state = strategy.init_state(job, job.init_params(0), 1)
    (pieces,) = strategy.rounds(job, [{0: 20_000, 1: 20_000}], epoch=0)
    by_tasks = run_round(strategy, job, state, shards, pieces)
    by_learner = strategy.learner(job, state).contribute(0, pieces[0], shards)
    np.testing.assert_array_equal(by_tasks.vector, by_learner.vector)
    np.testing.assert_array_equal(by_tasks.numbers, by_learner.numbers)


@pytest.mark.parametrize("again", [False, True])
def test_orders_that_threads_share_cannot_be_written_to(again):
    order = job_of().row_order(epoch=0, shard=0, n_rows=10, again=again)
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 1
