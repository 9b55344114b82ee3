"""Which strategy and transport are chosen, and what is said about them."""

import numpy as np
import pandas as pd
import pytest
from conftest import assert_nothing_left

import dasknn
from dasknn import (
    GradientAveraging,
    MLPClassifier,
    MLPRegressor,
    OuterNesterov,
    PredictionAveraging,
    WeightAveraging,
)
from dasknn.engine.network import Network
from dasknn.estimators.losses import CategoricalLogLoss
from dasknn.estimators.tabular_losses import HalfSquares
from dasknn.initializers import GlorotUniform
from dasknn.layers import Dense, MemberDense, MemberHeads, MemberScale
from dasknn.losses import MemberLoss
from dasknn.strategies import auto

PEER, TASKS = auto.PEER, auto.TASKS


def sizes(units=100, n_rows=100_000, replicas=2, batch_size=400):
    layers = (
        Dense(units, "relu", kernel_initializer=GlorotUniform(), bias_initializer=GlorotUniform()),
        Dense(5, "softmax"),
    )
    return auto.Sizes(Network(50, layers, CategoricalLogLoss(), "float32"), n_rows, replicas, batch_size)


@pytest.mark.parametrize(
    ("of", "transport", "reason", "says_what_exchanges_less"),
    [
        (sizes(replicas=1, batch_size=200), PEER, "there is one replica", False),
        (sizes(batch_size=None), PEER, "all rows", False),
        (sizes(), PEER, "exchanging 0.022 MB takes 0.12 ms", False),
        (sizes(units=200_000, batch_size=8), PEER, "exchanging 45 MB", True),
        (sizes(), TASKS, "takes 15 ms", True),
    ],
)
def test_gradients_are_averaged_unless_something_else_is_asked_for(
    of, transport, reason, says_what_exchanges_less
):
    strategy, said = auto.choose_strategy(of, transport)
    assert strategy == GradientAveraging()
    assert said.startswith("gradients: ")
    assert reason in said
    assert ("WeightAveraging(every=16" in said) == says_what_exchanges_less


def test_short_rounds_go_between_workers():
    assert auto.choose_transport(GradientAveraging(), sizes()) == PEER
    assert auto.choose_transport(GradientAveraging(), sizes(units=300_000)) == TASKS
    assert auto.choose_transport(WeightAveraging(), sizes(n_rows=10**7)) == TASKS
    assert auto.choose_transport(WeightAveraging(), sizes(n_rows=10**4)) == PEER
    assert auto.choose_transport(GradientAveraging("float16"), sizes(units=300_000)) == PEER


@pytest.mark.parametrize(
    ("solver", "replicas", "factor"),
    [("adam", 1, 1), ("adam", 4, 2), ("adam", 0.25, 1), ("sgd", 32, 32), ("sgd", 0.5, 1)],
)
def test_the_learning_rate_grows_with_the_batch(solver, replicas, factor):
    assert auto.rate_factor(solver, replicas) == factor


@pytest.mark.parametrize(
    ("strategy", "n_rows", "replicas", "batch_size", "default"),
    [
        # Epochs of one process, as long as they are short.
        (GradientAveraging(), 50_000, 8, 200, 6),
        (GradientAveraging(), 1_000_000, 8, 1600, 8),
        (GradientAveraging(), 465_000, 100, 1800, 56),
        (GradientAveraging(), 120, 2, 120, 2),
        (WeightAveraging(), 50_000, 8, 1600, 8),
        (WeightAveraging(), 5_000, 8, 1600, 2),
        (PredictionAveraging(), 50_000, 8, 200, 8),
    ],
)
def test_automatic_batches_grow_where_epochs_stay_long(strategy, n_rows, replicas, batch_size, default):
    assert auto.auto_batch_size(strategy, n_rows, replicas) == batch_size
    assert auto.default_replicas(strategy, replicas, n_rows, "auto") == default


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_automatic_batches_scale_the_rate_and_numbers_do_not(client, dask_digits, solver):
    def rates(**settings):
        model = MLPClassifier((8,), solver=solver, max_iter=2, replicas=4, random_state=0, **settings)
        return {entry["learning_rate"] for entry in model.fit(*dask_digits).history_}

    # Steps of as many rows as one process takes are as long as its steps.
    assert rates() == {0.001}
    assert rates(strategy="weights") == {{"adam": 0.002, "sgd": 0.004}[solver]}
    # Members of an ensemble take steps of their own.
    assert rates(strategy="predictions") == {0.001}
    assert rates(batch_size=800) == {0.001}


def test_the_reason_is_on_the_model(client, dask_digits):
    model = MLPClassifier((8,), max_iter=1, replicas=2).fit(*dask_digits)
    assert (model.transport_, model.strategy_) == ("peer", GradientAveraging())
    assert model.strategy_reason_.startswith(
        "gradients: they learn what one machine would; 100 rows a replica"
    )
    X, y = dask_digits
    model.fit(X.compute(), y.compute())
    assert (model.transport_, model.strategy_) == ("process", None)
    assert model.strategy_reason_ == "none: plain data trains in this process"


def test_strategies_with_settings_are_saved(tmp_path, dask_digits):
    for strategy in (
        WeightAveraging(every=4, outer=OuterNesterov(0.5, 0.8)),
        GradientAveraging(compression=dasknn.PowerSGD(rank=3, start_after=7)),
        GradientAveraging(compression="float16"),
    ):
        model = MLPClassifier((8,), max_iter=1, strategy=strategy).fit(*dask_digits)
        model.save(tmp_path / "model")
        loaded = dasknn.load(tmp_path / "model")
        assert loaded.strategy_ == loaded.strategy == strategy
        assert loaded.transport_ == "peer"


def test_partial_fit_goes_on_with_the_optimizer_whatever_the_strategy(dask_digits):
    X, y = dask_digits
    model = MLPClassifier((8,), replicas=2, random_state=0, strategy=WeightAveraging(2, OuterNesterov()))
    model.partial_fit(X, y, classes=np.arange(10))
    model.set_params(strategy="gradients").partial_fit(X, y)
    model.set_params(strategy=WeightAveraging(2, OuterNesterov())).partial_fit(X, y)
    assert model.t_ == 3 * 1797


# --- recommend --------------------------------------------------------------------------------------


def test_recommend_prints_what_each_strategy_would_take_and_what_one_took(client, dask_digits, capsys):
    X, y = dask_digits
    model = MLPClassifier((16,), max_iter=3, replicas=2, strategy="gradients", random_state=0)
    first = dasknn.recommend(client, model, X)
    printed = capsys.readouterr().out
    assert "1,797 rows x 64 features, 1,057 parameters (as for 2 classes), 2 replicas" in printed
    assert all(row.measured_seconds is None for row in first.rows)
    model.fit(X, y)
    found = dasknn.recommend(client, model, X)
    printed = capsys.readouterr().out
    # The engine is the one that a fit takes.
    assert (found.engine, found.engine_reason) == (model.engine_, model.engine_reason_)
    assert f"steps are computed by {model.engine_reason_}\n" in printed
    measured = [row for row in found.rows if row.measured_seconds is not None]
    assert [(row.strategy, row.transport) for row in measured] == [(GradientAveraging(), "peer")]
    assert measured[0].measured_bytes == model.history_[0]["bytes_sent"]
    assert measured[0].bytes_sent == measured[0].measured_bytes
    names = {(row.strategy.name, row.transport) for row in found.rows}
    assert names >= {
        ("gradients", "peer"),
        ("gradients", "tasks"),
        ("weights", "peer"),
        ("predictions", "tasks"),
    }
    assert [row.seconds for row in found.rows] == sorted(row.seconds for row in found.rows)
    assert sum(row.is_default for row in found.rows) == 1
    assert "* the default, strategy='auto': gradients" in printed
    assert_nothing_left(client)


def test_recommend_counts_the_bytes_of_workers_however_many_replicas_they_have(client, dask_digits, capsys):
    model = MLPClassifier((16,), max_iter=1, replicas=4, strategy="gradients", transport="peer")
    model.fit(*dask_digits)
    (measured,) = [r for r in dasknn.recommend(client, model, dask_digits[0]).rows if r.measured_bytes]
    assert measured.bytes_sent == measured.measured_bytes


def test_recommend_counts_rows_that_are_not_known(client, capsys):
    import dask.dataframe as dd

    frame = dd.from_pandas(pd.DataFrame(np.random.default_rng(0).random((500, 3))), npartitions=4)
    dasknn.recommend(None, MLPRegressor(hidden_layer_sizes=(4,)), frame)
    assert "500 rows x 3 features, 21 parameters (as for 1 output)" in capsys.readouterr().out
    del frame


def test_recommend_keeps_to_the_transport_of_the_model(client, dask_digits, capsys):
    found = dasknn.recommend(client, MLPClassifier((4,), replicas=2, transport="tasks"), dask_digits[0])
    (default,) = [row for row in found.rows if row.is_default]
    assert (default.strategy, default.transport) == (found.strategy, "tasks")


def test_recommend_on_one_process(dask_digits, capsys, monkeypatch):
    monkeypatch.setattr("dasknn.cluster.connect._current_client", lambda: None)
    found = dasknn.recommend(None, MLPClassifier((4,), batch_size=512), dask_digits[0])
    assert found.measured.step > 0


def test_members_that_share_a_kernel_take_as_many_products():
    def step_seconds(members):
        layers = (MemberScale(members), MemberDense(100, members, "relu"), MemberHeads(1, members))
        network = Network(50, layers, MemberLoss(HalfSquares(), members), "float32")
        return auto.Sizes(network, 10_000, 2, 256).step_seconds

    assert step_seconds(16) == pytest.approx(16 * step_seconds(1))


def test_recommend_predicts_clusters_that_are_not_there(client, dask_digits, capsys):
    model = MLPClassifier((16,), random_state=0)
    found = dasknn.recommend(client, model, dask_digits[0], workers=[1, 2, 64], workers_per_host=2)
    assert [(s.n_workers, s.n_hosts) for s in found.scaling] == [(1, 1), (2, 1), (64, 32)] * 2
    assert [s.strategy.name for s in found.scaling] == ["gradients"] * 3 + ["weights"] * 3
    assert all(0 < s.computing <= 1 and s.worker_seconds == s.n_workers * s.seconds for s in found.scaling)
    printed = capsys.readouterr().out
    assert "cost: seconds of all workers together, an epoch" in printed
    assert_nothing_left(client)


@pytest.mark.parametrize("wrong", [{"workers": [0]}, {"workers": [1.5]}, {"workers_per_host": 0}], ids=str)
def test_numbers_of_workers_are_checked(client, dask_digits, wrong):
    with pytest.raises(ValueError, match="Expected numbers of workers from 1"):
        dasknn.recommend(client, MLPClassifier((4,)), dask_digits[0], **wrong)


def test_recommend_says_in_which_order_it_takes_what(client, dask_digits):
    with pytest.raises(TypeError, match=r"recommend\(client, model, X\).*received Array"):
        dasknn.recommend(MLPClassifier((4,)), *dask_digits)


def test_what_a_cluster_costs_is_measured_once_for_its_client(client, dask_digits, capsys, monkeypatch):
    first = dasknn.recommend(client, MLPClassifier((4,)), dask_digits[0]).measured.cluster
    assert dasknn.recommend(client, MLPClassifier((8,)), dask_digits[0]).measured.cluster is first
