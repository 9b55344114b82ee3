"""Compiled steps against those of numpy: gradients, steps, updates and predictions, of whatever comes in."""

import threading
from itertools import pairwise

import numpy as np
import pytest
from given_jobs import (
    ACTIVATIONS,
    DTYPES,
    ENGINES,
    GRADIENT_TOLERANCE,
    LOSSES,
    N_INPUTS,
    N_ROWS,
    STEPS_TOLERANCE,
    assert_near,
    assert_same_training,
    first_state,
    gradient,
    job_of,
    on,
    params_of,
    shard_of,
    trained,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from dasknn import metrics
from dasknn.engine import engines, network
from dasknn.engine.compiled import cache, crew
from dasknn.engine.compiled import steps as compiled_steps
from dasknn.engine.state import Shard, Totals, WarmUp
from dasknn.estimators.losses import CategoricalLogLoss
from dasknn.layers import ELU, Activation, Dense, Dropout, LeakyReLU, ReLU, Softmax
from dasknn.losses import MeanSquaredError
from dasknn.metrics import MetricSet
from dasknn.optimizers import SGD, Adam, AdamW
from dasknn.regularizers import L1, L1L2, L2
from dasknn.schedules import ExponentialDecay, PiecewiseConstantDecay
from dasknn.strategies.local_trainer import batch_bounds

# The first test of a process compiles, if it is the first of this machine.
pytestmark = pytest.mark.timeout(600)

OPTIMIZERS = [
    Adam(),
    Adam(amsgrad=True),
    AdamW(weight_decay=0.1),
    SGD(0.05),
    SGD(0.05, 0.9),
    SGD(0.05, 0.9, nesterov=True, weight_decay=0.1),
]
NOISY = (Dropout(0.2), Dense(7, "relu"), Dropout(0.5), Dense(3, "softmax"))
QUIET = (Dense(7, "relu"), Dense(3, "softmax"))
LABELS = CategoricalLogLoss()
METRICS = MetricSet(
    (
        ("accuracy", metrics.SparseCategoricalAccuracy(), False),
        ("weighted", metrics.SparseCategoricalAccuracy(), True),
        ("entropy", metrics.SparseCategoricalCrossentropy(), True),
    ),
    3,
)


def signatures():
    """How many signatures have been compiled."""
    functions = (cache.serve, cache.apply_gradient)
    return [len(function._compiled.signatures) if function._compiled else 0 for function in functions]


@pytest.fixture(autouse=True, scope="module")
def two_signatures():
    """Whatever comes in, there are no more signatures than dtypes, since each takes seconds to compile."""
    yield
    assert max(signatures()) <= len(DTYPES)


def check(job, shard, tolerance=None, **settings):
    """Fail unless gradients, steps, updates and predictions of both engines agree."""
    dtype = job.network.dtype
    (expected, divisor), (found, other_divisor) = (gradient(job, engine, shard) for engine in ENGINES)
    assert_near(found.vector, expected.vector, GRADIENT_TOLERANCE[dtype])
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=GRADIENT_TOLERANCE[dtype])
    assert other_divisor == pytest.approx(divisor, rel=1e-6 if dtype == "float32" else 1e-14)
    expected_state, state = (trained(job, engine, shard, **settings) for engine in ENGINES)
    assert_same_training(state, expected_state, tolerance or STEPS_TOLERANCE[dtype])
    outputs = [engines.get(engine).predict(job.network, params_of(job), shard.X) for engine in ENGINES]
    assert_near(outputs[1], outputs[0], GRADIENT_TOLERANCE[dtype])
    assert outputs[1].dtype == outputs[0].dtype == dtype


def updated(job, engine, grad, step=3):
    state = first_state(job)
    params, slots = state.params.copy(), state.slots.copy()
    updater = engines.get(engine).updater(on(job, engine), params, slots)
    return params, slots, updater.apply(grad.copy(), 7.0, step, 0.01)


# --- every kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: f"{a.name}{[*a.settings] or ''}")
def test_an_activation_in_the_middle_and_at_the_end(activation, dtype):
    layers = [Dense(5, activation=activation), Dense(3, "softmax")]
    check(job_of(layers, LABELS, Adam(), dtype), shard_of(LABELS, 3, dtype))
    layers = [Dense(4, "tanh"), Dense(2, activation=activation)]
    loss = MeanSquaredError()
    check(job_of(layers, loss, SGD(0.01, 0.9, True), dtype), shard_of(loss, 2, dtype, weighted=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layer",
    [ReLU(6.0, 0.1), LeakyReLU(), ELU(0.5), Activation("gelu")],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_of_activations(layer, dtype):
    layers = [Activation("tanh"), Dense(5), layer, Dense(3), Softmax()]
    check(job_of(layers, LABELS, Adam(), dtype), shard_of(LABELS, 3, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "last", "k"), LOSSES, ids=repr)
def test_a_loss_with_every_optimizer_penalties_and_dropout(loss, last, k, weighted, dtype):
    layers = [
        Dropout(0.2),
        Dense(7, "relu", kernel_regularizer=L1L2(0.01, 0.02), bias_regularizer=L1(0.1)),
        Dropout(0.5),
        Dense(6, use_bias=False, kernel_regularizer=L2(0.03)),
        Activation("tanh"),
        Dense(k, last),
    ]
    for optimizer in OPTIMIZERS:
        check(job_of(layers, loss, optimizer, dtype), shard_of(loss, k, dtype, weighted))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: repr(o)[:40])
def test_an_update_with_a_gradient_of_many_rows(optimizer, dtype):
    layers = [Dense(7, kernel_regularizer=L1L2(0.01, 0.02), bias_regularizer=L1(0.1)), Dense(3, "softmax")]
    job = job_of(layers, LABELS, optimizer, dtype)
    grad = np.random.default_rng(0).standard_normal(job.network.n_params).astype(dtype)
    for step in (1, 2, 1000):
        for found, expected in zip(
            *(updated(job, engine, grad, step) for engine in ENGINES[::-1]), strict=True
        ):
            assert_near(found, expected, GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("optimizer", [Adam(), SGD(0.05, 0.9)], ids=["adam", "sgd"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_layers_that_are_not_trained_stay(frozen, optimizer):
    penalty = {"kernel_regularizer": L2(0.1), "bias_regularizer": L1(0.1)}
    layers = [Dense(units, "tanh", trainable=i != frozen, **penalty) for i, units in enumerate((5, 4))]
    layers.append(Dense(3, "softmax", trainable=frozen != 2))
    job, shard = job_of(layers, LABELS, optimizer), shard_of(LABELS, 3, "float64")
    check(job, shard)
    before, after = (job.network.views(s.params) for s in (first_state(job), trained(job, "numba", shard)))
    for number in range(3):
        for left, right in zip(before[number], after[number], strict=True):
            assert np.array_equal(left, right) == (number == frozen)


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    n_inputs=st.integers(1, 40),
    n=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_networks_of_any_shape(widths, n_inputs, n, dtype, data):
    layers = []
    for width in widths:
        if data.draw(st.booleans()):
            layers.append(Dropout(data.draw(st.sampled_from([0.1, 0.9]))))
        activation = data.draw(st.sampled_from([a.name for a in ACTIVATIONS if a.name != "exp"]))
        layers.append(Dense(width, activation, use_bias=data.draw(st.booleans())))
    loss = MeanSquaredError()
    layers.append(Dense(2))
    job = job_of(layers, loss, SGD(1e-3, 0.9), dtype, n_inputs)
    shard = shard_of(loss, 2, dtype, data.draw(st.booleans()), n, n_inputs)
    (expected, divisor), (found, other_divisor) = (gradient(job, engine, shard) for engine in ENGINES)
    # A slope that jumps may do so between two results that differ by rounding.
    assert_near(found.vector, expected.vector, 1e-10 if dtype == "float64" else 1e-4)
    assert divisor == pytest.approx(other_divisor)
    edges = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=5))})
    expected, found = (trained(job, engine, shard, bounds=edges) for engine in ENGINES)
    assert_same_training(found, expected, 1e-9 if dtype == "float64" else 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [Adam(), SGD(0.02, 0.9, True)], ids=["adam", "sgd"])
def test_the_losses_of_20_epochs(optimizer, dtype):
    job = job_of([Dense(16, "tanh"), Dense(3, "softmax")], LABELS, optimizer, "float64")
    job = job if dtype == "float64" else job_of(job.network.layers, LABELS, optimizer, dtype)
    shard = shard_of(LABELS, 3, dtype, n=500)
    losses = {}
    for engine in ENGINES:
        state, losses[engine] = first_state(job), []
        for epoch in range(20):
            order = job.row_order(epoch, 0, len(shard))
            state = trained(job, engine, shard, order, state=state.begin_epoch(epoch))
            losses[engine].append(state.loss)
    assert losses["numpy"][-1] < 0.98 * losses["numpy"][0]
    np.testing.assert_allclose(losses["numba"], losses["numpy"], rtol=1e-6 if dtype == "float64" else 1e-4)
    assert losses["numba"] != losses["numpy"]


# --- arrays as they come -----------------------------------------------------------------------------


def unaligned(array):
    """The same numbers, beginning at an odd address."""
    memory = bytearray(array.nbytes + 1)
    found = np.frombuffer(memory, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    assert not found.flags.aligned
    return found


def read_only(array):
    found = array.copy()
    found.setflags(write=False)
    return found


def every_second(array):
    found = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
    found[::2] = array
    return found[::2]


SHAPES = {
    "read-only": read_only,
    "unaligned": unaligned,
    "unaligned and read-only": lambda array: read_only_view(unaligned(array)),
    "Fortran order": np.asfortranarray,
    "strided": every_second,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
}


def read_only_view(array):
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("loss", [LABELS, MeanSquaredError()], ids=["labels", "numbers"])
def test_arrays_in_any_layout_give_the_same_bits(change, loss):
    last = "softmax" if loss is LABELS else None
    job = job_of([Dense(7, "relu"), Dense(3, last)], loss, Adam())
    shard = shard_of(loss, 3, "float64", weighted=True)
    changed = Shard(change(shard.X), change(shard.y), change(shard.weight))
    order = np.random.default_rng(1).permutation(N_ROWS)
    for shape in (slice(0, N_ROWS), order, order.astype(np.int32), read_only(order), every_second(order)):
        plain = order if isinstance(shape, np.ndarray) else shape
        expected, found = trained(job, "numba", shard, plain), trained(job, "numba", changed, shape)
        assert_array_equal(found.params, expected.params)
        assert found.loss_total == expected.loss_total
        rows = plain if isinstance(plain, slice) else plain[5:40]
        expected, found = gradient(job, "numba", shard, rows)[0], gradient(job, "numba", changed, rows)[0]
        assert_array_equal(found.vector, expected.vector)
    engine, params = engines.get("numba"), params_of(job)
    expected, found = (engine.predict(job.network, params, X) for X in (shard.X, changed.X))
    assert_array_equal(found, expected)
    assert_array_equal(engine.predict(job.network, change(params), shard.X), expected)
    total = engine.gradient_sum(on(job, "numba"), change(params))
    total.add(shard.X, shard.y, shard.weight, slice(0, N_ROWS))
    assert_array_equal(total.vector, gradient(job, "numba", shard)[0].vector)
    assert max(signatures()) <= len(DTYPES)


def test_what_is_read_only_is_not_written_to_and_not_copied():
    X = read_only(np.arange(12.0).reshape(3, 4))
    assert np.shares_memory(crew.flat(X, "float64"), X)
    job = job_of(NOISY, LABELS, Adam())
    shard = shard_of(LABELS, 3, "float64", weighted=True)
    copy = Shard(*(array.copy() for array in (shard.X, shard.y, shard.weight)))
    trained(job, "numba", shard, slice(0, N_ROWS))
    gradient(job, "numba", shard)
    for name in ("X", "y", "weight"):
        assert_array_equal(getattr(shard, name), getattr(copy, name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
def test_a_slice_is_the_rows_in_their_order(layers, dtype):
    job, shard = job_of(layers, LABELS, Adam(), dtype), shard_of(LABELS, 3, dtype, weighted=True)
    rows, bounds = slice(4, 44), [0, 8, 9, 40]
    by_slice = trained(job, "numba", shard, rows, bounds)
    by_array = trained(job, "numba", shard, np.arange(4, 44), bounds)
    assert_array_equal(by_slice.params, by_array.params)
    assert by_slice.loss_total == by_array.loss_total
    assert_same_training(by_slice, trained(job, "numpy", shard, rows, bounds), STEPS_TOLERANCE[dtype])
    # Not from the first bound on.
    parts = [np.arange(4, 44), rows]
    found = [trained(job, "numba", shard, part, bounds[1:]) for part in parts]
    assert_array_equal(found[0].params, found[1].params)
    assert_same_training(found[0], trained(job, "numpy", shard, rows, bounds[1:]), STEPS_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows", [None, slice(3, 50), np.arange(3, 50)[::-1].copy()], ids=["all", "slice", "order"]
)
@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
def test_csr_rows_give_the_bits_of_dense_ones(layers, rows, dtype, monkeypatch):
    job = job_of(layers, LABELS, Adam(), dtype, metrics=METRICS)
    dense = shard_of(LABELS, 3, dtype, weighted=True)
    dense.X[np.abs(dense.X) < 0.7] = 0
    csr = Shard(sparse.csr_matrix(dense.X), dense.y, dense.weight)
    rows = slice(0, N_ROWS) if rows is None else rows
    n = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
    bounds = [0, 10, 11, n]
    expected, found = (trained(job, "numba", shard, rows, bounds) for shard in (dense, csr))
    assert_array_equal(found.params, expected.params)
    np.testing.assert_allclose(found.metric_sums, expected.metric_sums)
    assert found.loss_total == pytest.approx(expected.loss_total, rel=1e-12)
    assert_same_training(found, trained(job, "numpy", csr, rows, bounds), STEPS_TOLERANCE[dtype])
    found = gradient(job, "numba", csr, rows)
    expected = gradient(job, "numpy", csr, rows)
    assert_near(found[0].vector, expected[0].vector, GRADIENT_TOLERANCE[dtype])
    assert found[1] == pytest.approx(expected[1])
    predict = engines.get("numba").predict
    network_, params = job.network, params_of(job)
    assert_array_equal(predict(network_, params, csr.X), predict(network_, params, dense.X))
    # Wide CSR rows become dense some at a time.
    monkeypatch.setattr("dasknn.engine.workspace._SPARSE_ELEMENTS_AT_ONCE", 7 * N_INPUTS)
    if layers is QUIET:
        found = gradient(job, "numba", csr, rows)
        assert_near(found[0].vector, expected[0].vector, GRADIENT_TOLERANCE[dtype])
    assert_near(predict(network_, params, csr.X), predict(network_, params, dense.X), 1e-6)


def test_no_rows_contribute_nothing():
    job, shard = job_of(QUIET, LABELS, Adam(), metrics=METRICS), shard_of(LABELS, 3, "float64")
    for nothing in (slice(5, 5), np.empty(0, np.int64)):
        for engine in ENGINES:
            total, divisor = gradient(job, engine, shard, nothing)
            assert (divisor, total.loss_sum) == (0, 0), engine
            assert not total.vector.any()
    for engine in ENGINES:
        assert engines.get(engine).predict(job.network, params_of(job), shard.X[:0]).shape == (0, 3)
        assert trained(job, engine, shard, bounds=[0]).step == 0


def test_arrays_that_take_the_place_of_others_in_memory_are_not_confused():
    job = job_of(QUIET, LABELS, Adam())
    total = engines.get("numba").gradient_sum(on(job, "numba"), params_of(job))
    for seed in range(30):
        # Each has the identity of one before, as soon as that is gone; float32 is copied.
        shard = shard_of(LABELS, 3, "float32", seed=seed)
        total.begin()
        total.add(shard.X, shard.y, None, slice(0, N_ROWS))
        assert_array_equal(total.vector, gradient(job, "numba", shard)[0].vector)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_of_another_dtype_are_converted(dtype):
    job, shard = job_of(QUIET, LABELS, Adam(), dtype), shard_of(LABELS, 3, dtype)
    other = params_of(job).astype("float32").astype(DTYPES[dtype == "float64"])
    expected = engines.get("numba").predict(job.network, other.astype(dtype), shard.X)
    assert_array_equal(engines.get("numba").predict(job.network, other, shard.X), expected)


# --- threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_steps_of_replicas_side_by_side_have_the_bits_of_each_alone(n_threads, make, layers):
    job = on(job_of(layers, LABELS, Adam(), metrics=METRICS), "numba")
    engine, state = engines.get("numba"), first_state(job)
    shards = [shard_of(LABELS, 3, "float64", weighted=True, n=n, seed=n) for n in (40, 3, 53, 20)]
    shards[2].weight[8:16] = 0
    shards = [Shard(make(shard.X), shard.y, shard.weight) for shard in shards]

    def replicas():
        for number, shard in enumerate(shards):
            params, slots = state.params.copy(), state.slots.copy()
            shuffled = np.random.default_rng(0).permutation(len(shard))
            order = slice(0, len(shard)) if number % 2 else shuffled
            yield engine.steps(job, params, slots), params, slots, shard, order, Totals.of(state)

    found, expected = list(replicas()), list(replicas())
    side_by_side = engine.side_by_side(job, n_threads)
    try:
        # Longer batches in later rounds need more room.
        for size in (2, 3, 17):
            arguments = [
                (shard, order, batch_bounds(len(shard), size), number, 0.01)
                for number, (_, _, _, shard, order, _) in enumerate(found)
            ]
            side_by_side.take(
                [
                    engines.StepsToTake(steps, *own, totals)
                    for (steps, *_, totals), own in zip(found, arguments, strict=True)
                ]
            )
            for (steps, *_, totals), own in zip(expected, arguments, strict=True):
                steps.take(*own, totals)
            for (_, params, slots, *_, totals), (_, own_params, own_slots, *_, own_totals) in zip(
                found, expected, strict=True
            ):
                assert_array_equal(params, own_params)
                assert_array_equal(slots, own_slots)
                assert_array_equal(totals.metric_sums, own_totals.metric_sums)
                assert (totals.step, totals.loss_total) == (own_totals.step, own_totals.loss_total)
    finally:
        side_by_side.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "dasknn-replica"]


# --- batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
@pytest.mark.parametrize("rows", ["order", "slice"])
@pytest.mark.parametrize(
    "optimizer",
    [Adam(ExponentialDecay(0.01, 2, 0.5)), SGD(PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.2]), 0.9)],
    ids=["adam", "sgd"],
)
def test_batches_of_weight_0_are_no_steps(optimizer, rows, layers, dtype):
    job = job_of(layers, LABELS, optimizer, dtype, metrics=METRICS)
    shard = shard_of(LABELS, 3, dtype, weighted=True)
    order = np.random.default_rng(1).permutation(N_ROWS)
    for first, last in ((0, 8), (16, 32), (48, N_ROWS)):
        shard.weight[order[first:last] if rows == "order" else slice(first, last)] = 0
    order = order if rows == "order" else slice(0, N_ROWS)
    check(job, shard, order=order)
    # Of the 7 batches, 4 have no weight.
    assert trained(job, "numba", shard, order).step == 3
    assert trained(job, "numba", shard, order).n_samples == N_ROWS


@pytest.mark.parametrize("warmup", [None, WarmUp(4.0, 5)])
@pytest.mark.parametrize("engine_of_first_half", ENGINES)
def test_calls_of_one_shard_after_the_other_continue_schedules_and_noise(warmup, engine_of_first_half):
    job = job_of(NOISY, LABELS, Adam(ExponentialDecay(0.01, 2, 0.5)), warmup=warmup)
    shard = shard_of(LABELS, 3, "float64", weighted=True)
    order = np.random.default_rng(1).permutation(N_ROWS)
    half = trained(job, engine_of_first_half, shard, order, [0, 8, 16, 24])
    found = trained(job, "numba", shard, order, [24, 32, 40, N_ROWS], state=half)
    whole = trained(job, "numba", shard, order, [0, 8, 16, 24, 32, 40, N_ROWS])
    assert_same_training(found, whole, STEPS_TOLERANCE["float64"])
    if engine_of_first_half == "numba":
        assert_array_equal(found.params, whole.params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
def test_metrics_in_training(layers, dtype, monkeypatch):
    job = job_of(layers, LABELS, Adam(), dtype, metrics=METRICS)
    shard = shard_of(LABELS, 3, dtype, weighted=True)
    expected, found = (trained(job, engine, shard) for engine in ENGINES)
    assert METRICS.results(found.metric_sums) == pytest.approx(
        METRICS.results(expected.metric_sums), rel=1e-5
    )
    assert expected.metric_sums.any()
    sums = [gradient(job, engine, shard)[0].metric_sums for engine in ENGINES]
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)
    # Outputs are kept for some batches at a time, which changes no step.
    for numbers in (1, 3 * 17, 3 * 24):
        monkeypatch.setattr(compiled_steps, "_NUMBERS_FOR_METRICS", numbers)
        again = trained(job, "numba", shard)
        assert_array_equal(again.params, found.params)
        np.testing.assert_allclose(again.metric_sums, found.metric_sums, rtol=1e-12)
    unwatched = job_of(layers, LABELS, Adam(), dtype)
    assert_array_equal(trained(unwatched, "numba", shard).params, found.params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", [QUIET, NOISY], ids=["quiet", "dropout"])
def test_a_contribution_of_more_rows_than_go_at_once(layers, dtype):
    n = network.ROWS_AT_ONCE + 1000
    job, shard = job_of(layers, LABELS, Adam(), dtype), shard_of(LABELS, 3, dtype, weighted=True, n=n)
    for rows in (slice(7, n), np.random.default_rng(0).permutation(n)):
        (expected, divisor), (found, other_divisor) = (gradient(job, e, shard, rows) for e in ENGINES)
        assert_near(found.vector, expected.vector, GRADIENT_TOLERANCE[dtype])
        assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-6)
        assert other_divisor == pytest.approx(divisor, rel=1e-6)
    outputs = [engines.get(engine).predict(job.network, params_of(job), shard.X) for engine in ENGINES]
    assert_near(outputs[1], outputs[0], GRADIENT_TOLERANCE[dtype])


def test_a_sum_continues_from_one_before():
    job, shard = job_of(QUIET, LABELS, Adam(), metrics=METRICS), shard_of(LABELS, 3, "float64", weighted=True)
    whole = gradient(job, "numba", shard)[0]
    first = gradient(job, "numba", shard, slice(0, 20))[0]
    engine = engines.get("numba")
    total = engine.gradient_sum(
        on(job, "numba"), params_of(job), first.vector.copy(), first.loss_sum, first.metric_sums
    )
    total.add(shard.X, shard.y, shard.weight, slice(20, N_ROWS))
    assert_near(total.vector, whole.vector, 1e-12)
    assert total.loss_sum == pytest.approx(whole.loss_sum, rel=1e-12)
    np.testing.assert_allclose(total.metric_sums, whole.metric_sums)
    total.begin()
    total.add(shard.X, shard.y, shard.weight, slice(0, N_ROWS))
    assert_array_equal(total.vector, whole.vector)


def test_one_call_has_the_bits_of_one_call_a_batch():
    job, shard = job_of(NOISY, LABELS, AdamW(), "float32"), shard_of(LABELS, 3, "float32", weighted=True)
    bounds = [0, 3, 20, 21, N_ROWS]
    whole = trained(job, "numba", shard, bounds=bounds)
    state = first_state(job)
    for pair in pairwise(bounds):
        state = trained(job, "numba", shard, bounds=pair, state=state)
    assert_array_equal(state.params, whole.params)
    assert_array_equal(state.slots, whole.slots)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_not_finite_are_seen_in_the_loss(value):
    job, shard = job_of(QUIET, LABELS, SGD(0.1)), shard_of(LABELS, 3, "float64")
    shard.X[20, 2] = value
    for engine in ENGINES:
        with np.errstate(all="ignore"):
            state = trained(job, engine, shard)
        assert not np.isfinite(state.params).all() or not np.isfinite(state.loss), engine
