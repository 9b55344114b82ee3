"""Predictions of epochs, from measurements that are made up: what depends on what, and the words about it."""

import logging
from dataclasses import replace

import pytest

from dasknn.cluster.collective import Settings
from dasknn.cluster.costs import ClusterCosts
from dasknn.cluster.reduction import LinkCosts
from dasknn.engine.network import Network
from dasknn.engine.state import TrainingJob
from dasknn.estimators.tabular_losses import HalfSquares
from dasknn.layers import Dense
from dasknn.optimizers import Adam
from dasknn.regularizers import BatchL2
from dasknn.strategies import GradientAveraging, PredictionAveraging, WeightAveraging
from dasknn.training import spent
from dasknn.training.cost_model import CostModel, Layout
from dasknn.training.pace import Pace, seconds_with_fewer_exchanges
from dasknn.training.probing import OFTEN, Measured, RoundTimes

ROWS, BATCH = 64_000, 400
NETWORK = Network(50, (Dense(100, "relu"), Dense(1, "identity")), HalfSquares(), "float32")
JOB = TrainingJob(NETWORK, Adam(), BatchL2(0.0), BATCH, 0, 4)
HERE = Layout(n_workers=4, n_hosts=4, threads=1, replicas=4, rows_of_step=100)
N_STEPS = ROWS // BATCH
CLUSTER = ClusterCosts(
    links=LinkCosts(latency=1e-3, overhead=1e-4, per_byte=1e-8),
    wave=0.04,
    wave_of_one=0.01,
    task_round=0.02,
    connecting=0.1,
    n_workers=4,
    n_hosts=4,
    n_processors=2,
)
MEASURED = Measured(
    cluster=CLUSTER,
    gradients=RoundTimes(whole=5e-3, computing=2e-3, exchange=2.5e-3),
    fewer_rows=RoundTimes(whole=3e-3, computing=1.25e-3, exchange=1.5e-3),
    weights=RoundTimes(whole=40e-3, computing=32e-3, exchange=6e-3),
    wave=0.05,
    task_round=0.03,
    question=5e-3,
    homes=("a", "b", "c", "d"),
    hosts=(0, 1, 2, 3),
    settings=Settings(),
)
MODEL = CostModel(MEASURED, HERE, HERE)
# Weights and the two slots of Adam come back.
STATE = 3 * 4 * NETWORK.n_params * 1e-8
FIXED = 0.05 + 2 * 5e-3


def epoch(strategy, transport="peer", model=MODEL, **there):
    return model.epoch(strategy, transport, JOB, ROWS, replace(HERE, **there))


def test_on_the_cluster_that_was_measured_an_epoch_is_its_rounds_and_a_fixed_part():
    gradients = epoch(GradientAveraging())
    assert gradients.seconds == pytest.approx(N_STEPS * 5e-3 + FIXED)
    assert gradients.computing == pytest.approx(N_STEPS * 2e-3)
    assert epoch(OFTEN).seconds == pytest.approx(N_STEPS / 16 * 40e-3 + FIXED)
    # One exchange, and no less computing and waiting.
    assert epoch(WeightAveraging()).seconds == pytest.approx(N_STEPS / 16 * 34e-3 + 6e-3 + FIXED)
    by_tasks = epoch(GradientAveraging(), "tasks")
    assert by_tasks.seconds == pytest.approx(N_STEPS * 0.03 + 0.01 + 5 * 5e-3 + STATE)


def test_a_long_epoch_has_a_fixed_part_for_each_wave():
    slow = replace(MEASURED, gradients=RoundTimes(0.1, 0.08, 0.01))
    model = CostModel(slow, HERE, HERE)
    # 16 s, in waves of 2 s.
    assert epoch(GradientAveraging(), model=model).seconds == pytest.approx(N_STEPS * 0.1 + 8 * FIXED)


def test_one_worker_exchanges_nothing_and_computes_all_rows():
    alone = epoch(GradientAveraging(), n_workers=1, n_hosts=1, replicas=1, rows_of_step=400)
    # 1 ms and 10 us a row
    assert alone.computing == pytest.approx(N_STEPS * 5e-3)
    assert alone.seconds == pytest.approx(alone.computing + 0.02 + 2 * 5e-3)


def test_workers_that_share_a_processor_share_its_time():
    apart = epoch(GradientAveraging(), n_workers=8, n_hosts=8, replicas=8, rows_of_step=50)
    together = epoch(GradientAveraging(), n_workers=8, n_hosts=2, replicas=8, rows_of_step=50)
    # 4 on a host of 2 processors.
    assert together.computing == pytest.approx(2 * apart.computing)
    assert together.seconds > apart.seconds


def test_more_workers_than_pay_off_take_longer():
    sizes = [1, 2, 4, 8, 16, 64, 256]
    found = [
        epoch(GradientAveraging(), n_workers=n, n_hosts=n, replicas=n, rows_of_step=BATCH / n).seconds
        for n in sizes
    ]
    best = found.index(min(found))
    assert 0 < best < len(sizes) - 1
    assert found == [*sorted(found[: best + 1], reverse=True), *sorted(found[best + 1 :])]


def test_replicas_that_take_turns_take_as_much_longer():
    turns = epoch(GradientAveraging(), n_workers=2, n_hosts=2, replicas=4)
    assert turns.computing == pytest.approx(2 * epoch(GradientAveraging()).computing)


def test_networks_that_visit_all_rows_compute_what_all_replicas_do():
    found = epoch(PredictionAveraging(), "hop")
    # A step of 400 rows: 1 ms and 10 us a row. Workers have one network each.
    assert found.computing == pytest.approx(N_STEPS * 5e-3)
    assert epoch(PredictionAveraging(), "hop", replicas=8).computing == pytest.approx(2 * N_STEPS * 5e-3)


# --- in a fit ----------------------------------------------------------------------------------------


class Running:
    """A training, as callbacks see it."""

    n_before = 0

    def __init__(self):
        self.history = []


def entry(seconds, compute, communication):
    worker = {"compute": compute, "communication": communication, "waiting": 0.0}
    return {"seconds": seconds, "workers": {"a": worker, "b": worker}}


def slow_entry(slow, seconds=1.0, usual=0.4):
    """An epoch in which one of four workers computes for as long as it takes."""
    computing = dict.fromkeys("abcd", usual) | {"c": slow}
    times = {
        at: {"compute": c, "communication": 0.01, "waiting": max(0.0, slow - c)}
        for at, c in computing.items()
    }
    return {"seconds": seconds, "workers": times}


def told(caplog, strategy, *entries):
    pace, caplog.records[:] = Pace(JOB, strategy), []
    pace.training = Running()
    with caplog.at_level(logging.WARNING, logger="dasknn"):
        for number, found in enumerate(entries):
            pace.training.history.append(found)
            pace.on_epoch_done(number)
    return [record.getMessage() for record in caplog.records]


def test_a_fit_says_once_that_another_strategy_takes_less_than_half_as_long(caplog):
    slow = entry(1.67, 0.2, 1.4)
    (line,) = told(caplog, GradientAveraging(), slow, slow, slow)
    assert line.startswith(
        "An epoch takes 1.67 s; for 1.4 s of them workers exchange gradients. With strategy="
    )
    # Weights and the two slots of Adam, every 16 steps: 1.4 * 3 / 16 s are left.
    assert seconds_with_fewer_exchanges(slow, JOB) == (pytest.approx(0.27 + 1.4 * 3 / 16), 1.4)
    assert "about 0.53 s" in line


@pytest.mark.parametrize(
    ("strategy", "found"),
    [
        (GradientAveraging(), entry(1.67, 1.0, 0.6)),
        (GradientAveraging(), entry(0.17, 0.02, 0.14)),
        (WeightAveraging(), entry(1.67, 0.2, 1.4)),
        (GradientAveraging(), {"seconds": 3.0, "workers": {}}),
    ],
    ids=["computes", "is short", "averages weights", "in this process"],
)
def test_a_fit_says_nothing_where_there_is_nothing_to_gain(caplog, strategy, found):
    assert not told(caplog, strategy, found, found, found)


def test_the_first_epoch_is_not_judged(caplog):
    slow = entry(1.67, 0.2, 1.4)
    assert not told(caplog, GradientAveraging(), slow, entry(0.1, 0.1, 0.0))


def test_a_fit_says_once_for_which_worker_the_others_wait(caplog):
    slow = slow_entry(0.96)
    (line,) = told(caplog, GradientAveraging(), slow, slow, slow, slow)
    assert line.startswith("Workers wait for c, which takes 2.4 times as long as the others")
    assert "0.56 s of an epoch of 1 s" in line
    assert "balance='speed'" in line


@pytest.mark.parametrize(
    ("strategy", "entries"),
    [
        (GradientAveraging(), [slow_entry(0.5)] * 4),
        (GradientAveraging(), [slow_entry(0.96), slow_entry(0.4), slow_entry(0.96), slow_entry(0.4)]),
        (GradientAveraging(), [slow_entry(0.1, 0.1, 0.04)] * 4),
        (GradientAveraging(balance="speed"), [slow_entry(0.96)] * 4),
        (PredictionAveraging(), [slow_entry(0.96)] * 4),
    ],
    ids=["not much slower", "for a moment", "short", "dealt by speed", "nobody waits"],
)
def test_a_fit_says_nothing_of_workers_that_are_not_worth_a_word(caplog, strategy, entries):
    assert not told(caplog, strategy, *entries)


def test_shares_of_the_time_of_workers():
    entries = [slow_entry(0.96), {"seconds": 1.0}, slow_entry(0.96)]
    workers = spent.total(entries)
    assert workers["c"] == {"compute": 1.92, "communication": 0.02, "waiting": 0.0}
    assert sum(spent.shares(workers).values()) == pytest.approx(1)
    assert spent.straggler(workers) == ("c", pytest.approx(2.4))
    assert spent.shares({}) == {}
    assert spent.straggler({"a": workers["c"]}) is None
