"""Keras's face: the listing people know, its words, and the same bits on any cluster."""

import inspect
import os
import pickle
import re
import signal
import warnings
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_class_weight

import dasknn
from dasknn import (
    GradientAveraging,
    MirroredStrategy,
    PredictionAveraging,
    Sequential,
    WeightAveraging,
    callbacks,
    losses,
    metrics,
    optimizers,
)
from dasknn.exceptions import NonFiniteLossError, PartitionError
from dasknn.layers import Activation, BatchNormalization, Dense, Dropout, Flatten, GaussianNoise, Input

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")


@pytest.fixture(scope="module")
def rows():
    """x (320, 10) float32, y (320,) of 0 and 1 that a line through x separates but for some noise."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((320, 10)).astype(np.float32)
    y = (x @ rng.standard_normal(10) + 0.5 * rng.standard_normal(320) > 0).astype(np.float32)
    return x, y


@pytest.fixture(scope="module")
def cluster_of_one(start_cluster):
    with start_cluster(1) as cluster:
        yield cluster


@pytest.fixture
def one_worker(cluster_of_one):
    with Client(cluster_of_one) as client:
        yield client


def on_dask(*arrays, chunks=(100, 20, 150, 50)):
    return [da.from_array(array, chunks=(chunks, *array.shape[1:])) for array in arrays]


def binary(*hidden, units=8, **compiled):
    dasknn.set_random_seed(3)
    model = Sequential([Input((10,)), Dense(units, "tanh"), *hidden, Dense(1, "sigmoid")])
    settings = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"]}
    model.compile(**(settings | compiled))
    return model


def bits(model):
    return model._members.tobytes()


# --- the listing ---------------------------------------------------------------------------------------

LISTING = """
from dasknn import Sequential, GradientAveraging
from dasknn.layers import Dense

strategy = GradientAveraging()
with strategy.scope():
    model = Sequential([
        Dense(10, activation="relu", input_shape=(10,)),
        Dense(10, activation="relu"),
        Dense(1, activation="sigmoid"),
    ])
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
with strategy.scope():
    model.fit(x_train, y_train, epochs=10)
predictions = model.predict(x_test)
"""


COMPILED_FIRST = """
from dasknn import MirroredStrategy, Sequential
from dasknn.layers import Dense

model = Sequential([
    Dense(10, activation="relu", input_shape=(10,)),
    Dense(10, activation="relu"),
    Dense(1, activation="sigmoid"),
])
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
strategy = MirroredStrategy()
with strategy.scope():
    model.fit(x_train, y_train, epochs=10)
predictions = model.predict(x_test)
"""


def run_listing(x, y, capsys, listing=LISTING):
    dasknn.set_random_seed(0)
    names = {"x_train": x, "y_train": y, "x_test": x}
    exec(listing, names)
    model, predictions = names["model"], np.asarray(names["predictions"])
    assert predictions.shape == (320, 1)
    loss = model.history.history["loss"]
    assert len(loss) == 10
    assert loss[-1] < 0.8 * loss[0]
    assert model.history.history["accuracy"][-1] > 0.6
    lines = capsys.readouterr().out.splitlines()
    assert lines[:1] == ["Epoch 1/10"]
    pattern = r"10/10 ━{20} \d+s \d+[mu]s/step - accuracy: 0\.\d{4} - loss: 0\.\d{4}"
    assert sum(re.fullmatch(pattern, line) is not None for line in lines) == 10
    return model


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_the_listing_runs_word_for_word_without_a_cluster(rows, kind, capsys):
    run_listing(*(rows if kind == "numpy" else on_dask(*rows)), capsys)


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_the_listing_runs_word_for_word_on_two_workers(rows, kind, capsys, client):
    model = run_listing(*(rows if kind == "numpy" else on_dask(*rows)), capsys)
    assert model.replicas_ == 2
    assert model.strategy_ == GradientAveraging()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_a_model_that_was_compiled_before_takes_the_strategy_of_the_scope_of_fit(rows, kind, capsys, client):
    data = rows if kind == "numpy" else on_dask(*rows)
    model = run_listing(*data, capsys, COMPILED_FIRST)
    assert (model.strategy_, model.replicas_) == (dasknn.MirroredStrategy(), 2)
    assert model.strategy_reason_ == "gradients: the model was fitted in its scope"
    assert bits(model) == bits(run_listing(*data, capsys))


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_the_listing_runs_word_for_word_on_one_worker(rows, kind, capsys, one_worker):
    model = run_listing(*(rows if kind == "numpy" else on_dask(*rows)), capsys)
    assert model.replicas_ == 1


# --- strategies ----------------------------------------------------------------------------------------


def test_a_scope_is_re_entrant_and_mixing_strategies_raises():
    strategy = GradientAveraging()
    with strategy.scope(), strategy.scope() as inner:
        assert inner is strategy
        with pytest.raises(RuntimeError, match="one strategy at a time"), WeightAveraging().scope():
            pass
        model = binary()
    with WeightAveraging().scope(), pytest.raises(RuntimeError, match="was created in the scope of Gradient"):
        model.compile("sgd", "mse")


@pytest.mark.parametrize("taken", ["compiled", "fitted"])
def test_a_model_keeps_the_strategy_that_it_has_taken(rows, taken):
    model = binary()
    with WeightAveraging(replicas=2).scope():
        if taken == "compiled":
            model.compile("adam", "binary_crossentropy")
        else:
            model.fit(*rows, verbose=0)
    model.fit(*rows, verbose=0)
    assert model.strategy_ == WeightAveraging(replicas=2)
    assert model.strategy_reason_ == f"weights: the model was {taken} in its scope"
    with (
        GradientAveraging().scope(),
        pytest.raises(RuntimeError, match=f"was {taken} in the scope of Weight"),
    ):
        model.fit(*rows, verbose=0)


def test_names_of_tensorflow_are_names_of_averaged_gradients():
    assert MirroredStrategy is dasknn.MultiWorkerMirroredStrategy is GradientAveraging


def test_replicas_in_sync_are_those_of_the_strategy_or_the_threads_of_the_cluster(client):
    assert GradientAveraging().num_replicas_in_sync == 2
    assert GradientAveraging(replicas=5).num_replicas_in_sync == 5
    assert PredictionAveraging().num_replicas_in_sync == 1


STRATEGIES = [
    GradientAveraging(replicas=3),
    WeightAveraging(every=2, replicas=3),
    WeightAveraging(every="epoch", outer=dasknn.OuterNesterov(), replicas=3),
    PredictionAveraging(members=3),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: f"{s.name}")
def test_all_transports_and_clusters_give_the_same_bits(rows, strategy, client):
    x, y = on_dask(*rows)
    settings = {"epochs": 2, "batch_size": 60, "verbose": 0}

    def fitted(transport):
        with strategy.scope():
            model = binary(
                BatchNormalization(),
                Dropout(0.3),
                GaussianNoise(0.1),
                transport=transport,
                metrics=["accuracy", "AUC"],
            )
        history = model.fit(x, y, **settings, validation_split=0.2)
        return bits(model), history.history

    transports = ["tasks", "auto"] if isinstance(strategy, PredictionAveraging) else ["tasks", "peer"]
    first, history = fitted(transports[0])
    second, again = fitted(transports[1])
    assert first == second
    assert history == again


def test_a_training_without_a_cluster_gives_the_same_bits(rows, cluster):
    x, y = on_dask(*rows)

    def fitted():
        with GradientAveraging(replicas=3).scope():
            model = binary(BatchNormalization(), Dropout(0.3))
        model.fit(x, y, epochs=2, batch_size=60, verbose=0)
        return bits(model)

    here = fitted()
    with Client(cluster):
        assert fitted() == here


def test_plain_data_without_a_strategy_trains_in_this_process_as_one_replica_would_anywhere(rows, client):
    model = binary()
    model.fit(*rows, epochs=2, verbose=0)
    assert (model.replicas_, model.strategy_reason_[:9]) == (1, "gradients")
    with GradientAveraging(replicas=1).scope():
        other = binary()
    other.fit(*rows, epochs=2, verbose=0)
    assert bits(other) == bits(model)


def test_averaged_gradients_are_those_of_one_machine_with_the_global_batch(rows):
    models = []
    for replicas in (1, 4):
        with GradientAveraging(replicas=replicas).scope():
            model = binary(optimizer=optimizers.SGD(0.5))
        model.fit(*rows, batch_size=320, epochs=3, verbose=0, shuffle=False)
        models.append(model)
    for one, four in zip(*(model.get_weights() for model in models), strict=True):
        assert_allclose(one, four, atol=1e-6)


def test_synchronized_statistics_are_those_of_the_whole_batch(rows, client):
    data = on_dask(*(column[:16] for column in rows), chunks=(4, 4, 4, 4))

    def fitted(replicas, transport="auto", synchronized=True):
        with GradientAveraging(replicas=replicas).scope():
            model = binary(
                BatchNormalization(synchronized=synchronized), transport=transport, optimizer="sgd"
            )
        model.fit(*data, batch_size=16, epochs=5, verbose=0, shuffle=False)
        return model

    one, many = fitted(1).get_weights(), fitted(4).get_weights()
    for a, b in zip(one, many, strict=True):
        assert_allclose(a, b, atol=1e-6)
    apart = fitted(4, synchronized=False).get_weights()
    assert np.abs(apart[0] - one[0]).max() > 1e-4
    with pytest.raises(ValueError, match=r"transport='peer'"):
        fitted(2, transport="tasks")


def test_a_network_with_moving_averages_can_average_weights_with_an_outer_step(rows):
    with WeightAveraging(every=1, outer=dasknn.OuterNesterov(), replicas=2).scope():
        model = binary(BatchNormalization())
    model.fit(*rows, epochs=8, batch_size=64, verbose=0)
    moving_variance = model.layers[1].get_weights()[3]
    assert (moving_variance > 0).all()
    assert_allclose(model.evaluate(*rows, verbose=0)[1], 0.9, atol=0.1)


def test_an_ensemble_predicts_the_mean_of_its_members(rows):
    x, y = rows
    with PredictionAveraging(members=3).scope():
        model = binary()
    model.fit(x, y, epochs=2, verbose=0)
    members = [member.predict(x, verbose=0) for member in model.members]
    assert len(members) == 3
    assert_allclose(model.predict(x, verbose=0), np.mean(members, axis=0), atol=1e-6)
    with pytest.raises(ValueError, match=r"model\.members"):
        model.get_weights()


# --- arguments of fit ----------------------------------------------------------------------------------


def test_arguments_stand_in_keras_order():
    fit = (
        "x y batch_size epochs verbose callbacks validation_split validation_data shuffle class_weight "
        "sample_weight initial_epoch steps_per_epoch validation_steps validation_batch_size validation_freq"
    )
    assert list(inspect.signature(Sequential.fit).parameters)[1:17] == fit.split()
    compile_ = (
        "optimizer loss loss_weights metrics weighted_metrics run_eagerly steps_per_execution jit_compile "
        "auto_scale_loss"
    )
    assert list(inspect.signature(Sequential.compile).parameters)[1:10] == compile_.split()
    evaluate = "x y batch_size verbose sample_weight steps callbacks return_dict"
    assert list(inspect.signature(Sequential.evaluate).parameters)[1:] == evaluate.split()
    assert list(inspect.signature(Sequential.predict).parameters)[1:] == [
        "x",
        "batch_size",
        "verbose",
        "steps",
        "callbacks",
    ]


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_validation_split_takes_the_last_rows(rows, kind):
    x, y = rows
    history = []
    for settings in ({"validation_split": 0.3}, {"validation_data": (x[224:], y[224:])}):
        model = binary(metrics=["accuracy", metrics.AUC(name="auc")])
        own = (x, y) if "validation_split" in settings else (x[:224], y[:224])
        if kind == "dask":
            own = on_dask(*own, chunks=(100, 20, len(own[0]) - 120))
        fitted = model.fit(*own, epochs=2, verbose=0, batch_size=len(x), shuffle=False, **settings)
        history.append(fitted.history)
    assert sorted(history[0]) == ["accuracy", "auc", "loss", "val_accuracy", "val_auc", "val_loss"]
    for name, values in history[0].items():
        assert_allclose(values, history[1][name], rtol=1e-4)


def test_validation_data_is_scored_in_the_epochs_that_validation_freq_names(rows):
    model = binary()
    history = model.fit(*rows, epochs=4, verbose=0, validation_data=rows, validation_freq=2)
    assert [len(history.history[name]) for name in ("loss", "val_loss")] == [4, 2]
    history = model.fit(*rows, epochs=4, verbose=0, validation_data=rows, validation_freq=[1, 2, 4])
    assert len(history.history["val_loss"]) == 3


def test_weights_of_rows_and_classes_count_as_rows_that_are_repeated(rows):
    x, y = rows
    twice = np.where(y == 1, 2.0, 1.0)

    def fitted(**settings):
        model = binary(optimizer=optimizers.SGD(0.1), weighted_metrics=["accuracy"])
        history = model.fit(x, y, epochs=2, batch_size=320, shuffle=False, verbose=0, **settings)
        return model, history.history

    by_class, of_class = fitted(class_weight={1: 2.0})
    by_row, of_row = fitted(sample_weight=twice)
    assert bits(by_class) == bits(by_row)
    assert of_class == of_row
    # As Keras has it, a loss is divided by the number of rows, not by the sum of their weights.
    _, of_plain = fitted()
    assert of_row["loss"][0] > of_plain["loss"][0] * 1.2
    assert of_row["weighted_accuracy"][0] != of_row["accuracy"][0] == of_plain["accuracy"][0]


def test_sparse_and_one_hot_labels_teach_the_same(rows):
    x, _ = rows
    labels = np.random.default_rng(0).integers(0, 3, len(x))
    found = []
    for y, loss in (
        (labels, "sparse_categorical_crossentropy"),
        (np.eye(3)[labels], "categorical_crossentropy"),
    ):
        dasknn.set_random_seed(5)
        model = Sequential([Input((10,)), Dense(3, "softmax")])
        model.compile("sgd", loss, metrics=["accuracy"])
        found.append((model.fit(x, y, epochs=2, verbose=0).history, model))
    (sparse, first), (one_hot, second) = found
    assert_allclose(sparse["loss"], one_hot["loss"], rtol=1e-5)
    assert sparse["accuracy"] == one_hot["accuracy"]
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        assert_allclose(a, b, atol=1e-5)


def test_steps_per_epoch_ends_epochs_early(rows):
    model = binary()
    model.fit(*rows, epochs=3, steps_per_epoch=4, verbose=0)
    assert model.optimizer.iterations == 12
    assert [entry["n_samples"] for entry in model.history.entries] == [128] * 3


def test_initial_epoch_counts_on(rows, capsys):
    history = binary().fit(*rows, epochs=5, initial_epoch=3, verbose=2)
    assert history.epoch == [3, 4]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 4/5"
    assert re.fullmatch(r"10/10 - \d+s - \d+[mu]s/step - accuracy: 0\.\d{4} - loss: \d\.\d{4}", lines[1])


def test_a_second_fit_goes_on_with_the_optimizer_in_new_orders(rows):
    model = binary()
    model.fit(*rows, epochs=1, verbose=0)
    assert model.optimizer.iterations == 10
    before = bits(model)
    model.fit(*rows, epochs=1, verbose=0)
    assert model.optimizer.iterations == 20
    assert bits(model) != before
    again = binary()
    for _ in range(2):
        again.fit(*rows, epochs=1, verbose=0)
    assert bits(again) == bits(model)


def test_dataframes_pandas_and_lists_train_like_arrays(rows):
    import dask.dataframe as dd
    import pandas as pd

    x, y = rows
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(10)])
    targets = pd.Series(y)
    expected = binary()
    expected.fit(x, y, epochs=1, verbose=0)
    for data in ((frame, targets), (x.tolist(), y.tolist())):
        model = binary()
        model.fit(*data, epochs=1, verbose=0)
        assert bits(model) == bits(expected)
    table = dd.from_pandas(frame.assign(y=y), npartitions=3)
    model = binary()
    model.fit(table.drop(columns="y"), table["y"], epochs=2, verbose=0)
    predicted = model.predict(table.drop(columns="y"))
    assert hasattr(predicted, "dask")
    assert_allclose(predicted.compute().to_numpy(), model.predict(x, verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="'word'"):
        model.fit(frame.assign(word="a"), targets)


def test_images_are_flattened_here_and_on_dask():
    rng = np.random.default_rng(0)
    x, y = rng.random((90, 4, 3), np.float32), rng.integers(0, 2, 90)
    outputs = []
    for data in (x, da.from_array(x, chunks=(30, 2, 3))):
        dasknn.set_random_seed(1)
        model = Sequential([Input((4, 3)), Flatten(), Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(data, y, epochs=1, verbose=0, batch_size=90)
        outputs.append(np.asarray(model.predict(data, verbose=0)))
    assert_allclose(*outputs, atol=1e-6)
    with pytest.raises(ValueError, match="Flatten"):
        Sequential([Input((4, 3)), Dense(2)])


def test_predict_on_a_dask_array_is_lazy_and_keeps_the_chunks(rows, client):
    x, y = rows
    model = binary()
    model.fit(x, y, epochs=1, verbose=0)
    lazy = model.predict(on_dask(x)[0])
    assert lazy.chunks == ((100, 20, 150, 50), (1,))
    assert_allclose(lazy.compute(), model.predict(x, verbose=0), atol=1e-6)


def test_evaluate_is_the_same_over_any_partitions(rows):
    x, y = rows
    model = binary(metrics=["accuracy", "AUC", "Precision"], weighted_metrics=["mse"])
    model.fit(x, y, epochs=2, verbose=0)
    weight = np.linspace(0, 1, len(x), dtype=np.float32)
    plain = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert next(iter(plain)) == "loss"
    assert len(plain) == 5
    parts = model.evaluate(*on_dask(x, y, weight)[:2], sample_weight=on_dask(weight)[0], verbose=0)
    assert_allclose(parts, list(plain.values()), rtol=1e-5)
    assert_allclose(model.test_on_batch(x, y, sample_weight=weight), parts, rtol=1e-5)


def test_train_on_batch_takes_the_step_of_fit(rows):
    x, y = rows
    one, other = binary(), binary()
    one.fit(x, y, batch_size=320, epochs=1, shuffle=False, verbose=0)
    logs = other.train_on_batch(x, y, return_dict=True)
    assert_allclose(logs["loss"], one.history.history["loss"][0], rtol=1e-6)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert_allclose(a, b, atol=1e-7)
    assert other.optimizer.iterations == 1
    assert_array_equal(other.predict_on_batch(x), other.predict(x, verbose=0))


# --- layers and weights --------------------------------------------------------------------------------


def test_layers_can_be_added_popped_and_taken_from_another_model(rows):
    dasknn.set_random_seed(0)
    model = Sequential()
    model.add(Dense(4, "relu", input_shape=(10,)))
    first = model.get_weights()
    model.add(Dense(3))
    model.add(Dense(2))
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "dense_2"]
    for a, b in zip(first, model.get_weights(), strict=False):
        assert_array_equal(a, b)
    model.pop()
    assert model.output_shape == (None, 3)
    other = Sequential([Input((10,)), *model.layers, Dense(1)])
    assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    with pytest.raises(ValueError, match=r"dasknn\.layers"):
        model.add("Dense")
    layer = Dense(3)
    model.add(layer)
    with pytest.raises(ValueError, match="Create a second one"):
        model.add(layer)


def test_weights_go_in_and_out_in_keras_order(rows):
    model = binary(BatchNormalization())
    shapes = [weight.shape for weight in model.get_weights()]
    assert shapes == [(10, 8), (8,), (8,), (8,), (8,), (8,), (8, 1), (1,)]
    weights = [np.full(shape, i, np.float32) for i, shape in enumerate(shapes)]
    model.set_weights(weights)
    for a, b in zip(model.get_weights(), weights, strict=True):
        assert_array_equal(a, b)
    assert_array_equal(model.layers[2].get_weights()[0], weights[6])
    with pytest.raises(ValueError, match=r"Expected weights of the model of shapes .* received"):
        model.set_weights(weights[:-1])
    with pytest.raises(ValueError, match="layer 'dense'"):
        model.layers[0].set_weights([np.ones((3, 3)), np.ones(3)])


def test_what_is_not_trainable_stays(rows):
    model = binary(BatchNormalization())
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    model.compile("adam", "binary_crossentropy")
    before = model.get_weights()
    model.fit(*rows, epochs=1, verbose=0)
    after = model.get_weights()
    for a, b in zip(before[:6], after[:6], strict=True):
        assert_array_equal(a, b)
    assert np.abs(after[6] - before[6]).max() > 0


def test_summary_is_the_table_of_keras(capsys, rows):
    dasknn.set_random_seed(0)
    model = Sequential([Input((4,)), Dense(3, "relu"), BatchNormalization(), Dropout(0.5), Dense(1)])
    model.summary()
    shown = capsys.readouterr().out
    assert shown == SUMMARY
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones(8), epochs=1, verbose=0)
    model.summary()
    shown = capsys.readouterr().out
    assert " Total params: 83 (332.00 B)" in shown
    assert " Optimizer params: 52 (208.00 B)" in shown
    reason = "there are no compiled steps for BatchNormalization"
    assert shown.endswith(f" Engine of the last fit: numpy ({reason})\n")


SUMMARY = """Model: "sequential"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ dense (Dense)                   │ (None, 3)              │            15 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ batch_normalization             │ (None, 3)              │            12 │
│ (BatchNormalization)            │                        │               │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dropout (Dropout)               │ (None, 3)              │             0 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dense_1 (Dense)                 │ (None, 1)              │             4 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 31 (124.00 B)
 Trainable params: 25 (100.00 B)
 Non-trainable params: 6 (24.00 B)
"""


def test_configurations_make_the_same_layers(rows):
    model = binary(BatchNormalization(momentum=0.8), Dropout(0.2))
    for other in (Sequential.from_config(model.get_config()), dasknn.model_from_json(model.to_json())):
        assert other._layers == model._layers
        assert other.get_config() == model.get_config()
        other.set_weights(model.get_weights())
        assert_array_equal(other.predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))


def test_a_model_survives_pickling(rows):
    model = binary()
    model.fit(*rows, epochs=1, verbose=0)
    other = pickle.loads(pickle.dumps(model))
    for each in (model, other):
        each.fit(*rows, epochs=1, verbose=0)
    assert bits(model) == bits(other)


def test_moving_averages_of_weights_take_their_place_at_the_end(rows):
    model = binary(optimizer=optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9))
    seen = []
    model.fit(*rows, epochs=2, verbose=0, callbacks=[callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0]))])  # fmt: skip
    assert np.abs(model.get_weights()[0] - seen[-1]).max() > 1e-4


# --- errors --------------------------------------------------------------------------------------------


def test_errors_say_what_was_expected_and_what_came(rows):
    x, y = rows
    model = Sequential([Dense(1)])
    with pytest.raises(ValueError, match=r"You must call `compile\(\)` before calling `fit\(\)`\."):
        model.fit(x, y)
    with pytest.raises(ValueError, match="not been built"):
        model.get_weights()
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        model.compile("adamm", "mse")
    with pytest.raises(ValueError, match="Did you mean"):
        model.compile("adam", "binary_crosentropy")
    model = binary()
    with pytest.raises(ValueError, match=r"Expected x of shape \(None, 10\).*received \(None, 4\)"):
        model.fit(x[:, :4], y)
    with pytest.raises(ValueError, match="X has 320 rows, y has 319"):
        model.fit(x, y[:-1])
    bad = x.copy()
    bad[7, 2] = np.nan
    with pytest.raises(PartitionError, match="row 7, column 2"):
        model.fit(bad, y)
    for settings in ({"batch_size": 0}, {"epochs": -1}, {"validation_split": 1.0}, {"steps_per_epoch": 0}):
        with pytest.raises(ValueError, match=f"Expected {next(iter(settings))}"):
            model.fit(x, y, **settings)
    with pytest.raises(ValueError, match="validation_split"):
        model.fit(x[:1], y[:1], validation_split=0.1)
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(x, y, class_weight={0: -1.0})
    with pytest.raises(ValueError, match="callbacks"):
        model.fit(x, y, callbacks=[print])


def test_labels_that_do_not_go_with_the_loss_are_refused_before_training(rows):
    x, _ = rows
    model = Sequential([Input((10,)), Dense(3, "softmax")])
    model.compile("adam", "categorical_crossentropy")
    with pytest.raises(ValueError, match="sparse_categorical_crossentropy"):
        model.fit(x, np.arange(320) % 3)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="3"):
        model.fit(x, np.arange(320) % 4)


def test_input_shape_works_with_a_hint_to_prefer_input():
    with pytest.warns(UserWarning, match="prefer using an `Input"):
        Sequential([Dense(1, input_shape=(3,))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sequential([Input((3,)), Dense(1)])


def test_a_training_that_diverges_says_so_and_keeps_good_weights(rows):
    x, y = rows
    dasknn.set_random_seed(0)
    model = Sequential([Input((10,)), Dense(4), Dense(1)])
    model.compile(optimizers.SGD(10.0), "mse")
    with pytest.raises(NonFiniteLossError, match="epoch"), np.errstate(all="ignore"):
        model.fit(x, y, epochs=5, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_a_function_is_no_loss_but_may_be_a_metric(rows):
    def largest_error(y_true, y_pred):
        return np.abs(y_true - y_pred).max(axis=-1)

    with pytest.raises(ValueError, match="cannot differentiate"):
        binary(loss=lambda y, p: 0)
    model = binary(metrics=[largest_error])
    model.fit(*rows, epochs=1, verbose=0)
    assert 0 < model.history.history["largest_error"][0] < 1


@dataclass(frozen=True)
class HalfSquared(losses.RowLoss):
    name: str = "half_squared"

    def rows(self, y, P):
        return 0.5 * np.square(P - y).mean(axis=1)

    def slopes(self, y, P):
        return (P - y) / P.shape[1]


def test_losses_of_users_take_part(rows):
    half, whole = binary(loss=HalfSquared(), optimizer="sgd"), binary(loss="mse", optimizer="sgd")
    half.optimizer.learning_rate = 0.02
    for model in (half, whole):
        model.fit(*rows, epochs=2, verbose=0)
    assert_allclose(2 * np.array(half.history.history["loss"]), whole.history.history["loss"], rtol=1e-5)


# --- faults --------------------------------------------------------------------------------------------


def test_a_worker_that_dies_changes_no_bit(rows, new_cluster):
    client = new_cluster(2)
    x, y = on_dask(*rows)

    def fitted(**settings):
        with GradientAveraging(replicas=2).scope():
            model = binary(BatchNormalization())
        model.fit(x, y, epochs=30, verbose=0, **settings)
        return bits(model)

    calm = fitted()
    killed = []

    def kill(epoch, logs):
        if epoch == 3:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    assert fitted(callbacks=[callbacks.LambdaCallback(on_epoch_end=kill)]) == calm
    assert killed


# --- weights of other shapes, targets far from 0 ---------------------------------------------------


def four_outputs(**compiled):
    dasknn.set_random_seed(1)
    model = Sequential([Input((10,)), Dense(4, "softmax")])
    model.compile(
        **({"loss": "categorical_crossentropy", "weighted_metrics": ["mse", "accuracy"]} | compiled)
    )
    return model


USES = {
    "fit": lambda model, x, y, w: model.fit(x, y, sample_weight=w, verbose=0),
    "validation_data": lambda model, x, y, w: model.fit(x, y, validation_data=(x, y, w), verbose=0),
    "evaluate": lambda model, x, y, w: model.evaluate(x, y, sample_weight=w, verbose=0),
    "train_on_batch": lambda model, x, y, w: model.train_on_batch(x, y, w),
    "test_on_batch": lambda model, x, y, w: model.test_on_batch(x, y, w),
}


@pytest.mark.parametrize("shape", [(1, 4), (4, 4), (2, 2)])
@pytest.mark.parametrize(
    ("use", "kind"),
    [*((use, "numpy") for use in USES), *((use, "dask") for use in USES if not use.endswith("on_batch"))],
)
def test_weights_of_another_shape_are_refused_everywhere(rows, use, kind, shape):
    x, y, weight = rows[0][:4], np.eye(4, dtype=np.float32), np.ones(shape, np.float32)
    if kind == "dask":
        x, y = da.from_array(x, chunks=(2, -1)), da.from_array(y, chunks=(2, -1))
        weight = da.from_array(weight, chunks=(1 if shape[0] < 4 else 2, -1))
    with pytest.raises(ValueError, match=r"sample_weight (of shape \(n,\)|has [12])"):
        USES[use](four_outputs(), x, y, weight)


@pytest.mark.parametrize("use", USES)
def test_weights_in_a_column_are_weights_of_rows(rows, use):
    x, y = rows[0][:4], np.eye(4, dtype=np.float32)
    flat, column = (
        USES[use](four_outputs(), x, y, weight) for weight in (np.arange(4.0), np.arange(4.0)[:, np.newaxis])
    )
    if isinstance(flat, callbacks.History):
        flat, column = list(flat.history.values()), list(column.history.values())
    assert_array_equal(flat, column)


def test_r2_keeps_its_digits_far_from_0_on_every_path(rows):
    rng = np.random.default_rng(0)
    x = rows[0]
    y = (4096 + x[:, 0] / 2048 + rng.standard_normal(320) / 8192).astype(np.float32)
    model = Sequential([Input((10,)), Dense(1)])
    model.compile(optimizers.SGD(1e-30), "mse", metrics=["r2_score"], weighted_metrics=["r2_score"])
    model.set_weights([np.eye(10, 1, dtype=np.float32) / 2048, np.array([4096], np.float32)])
    weight = rng.uniform(0, 2, 320).astype(np.float32)
    predicted, truth = model.predict(x, verbose=0)[:, 0].astype(np.float64), y.astype(np.float64)
    # Sums of squares of float64 alone would be off by a hundredth.
    expected = [r2_score(truth, predicted), r2_score(truth, predicted, sample_weight=weight)]
    logs = model.fit(x, y, sample_weight=weight, validation_data=(x, y, weight), verbose=0).history
    assert_allclose([logs["r2_score"][0], logs["weighted_r2_score"][0]], expected, rtol=1e-5)
    assert_allclose([logs["val_r2_score"][0], logs["val_weighted_r2_score"][0]], expected, rtol=1e-5)
    for x_, y_, weight_ in ((x, y, weight), on_dask(x, y, weight)):
        assert_allclose(model.evaluate(x_, y_, sample_weight=weight_, verbose=0)[1:], expected, rtol=1e-5)
    assert_allclose(model.test_on_batch(x, y, weight)[1:], expected, rtol=1e-5)
    assert_allclose(model.train_on_batch(x, y, weight)[1:], expected, rtol=1e-5)


# --- what Keras's users write -------------------------------------------------------------------------


def test_predict_builds_a_model(rows):
    x = rows[0]
    models = [Sequential([Dense(3, "tanh"), Dense(2)]) for _ in range(3)]
    plain, lazy, called = models
    assert plain.predict(x, verbose=0).shape == (320, 2)
    assert lazy.predict(on_dask(x)[0]).shape == (320, 2)
    assert called(x).shape == (320, 2)
    assert {model.output_shape for model in models} == {(None, 2)}


def test_predictions_have_the_shape_that_output_shape_says(rows):
    x = rows[0].reshape(320, 5, 2)
    model = Sequential([Input((5, 2)), Activation("tanh")])
    assert model.output_shape == (None, 5, 2)
    for predicted in (model.predict(x, verbose=0), model.predict(on_dask(x)[0]), model(x)):
        assert predicted.shape == (320, 5, 2)
        assert_allclose(np.asarray(predicted), np.tanh(x), rtol=1e-6)
    model.compile("sgd", "mse")
    for data in ((x, x), on_dask(x, x)):
        found = model.evaluate(*data, verbose=0)
        assert found == pytest.approx(np.mean((np.tanh(x) - x) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    ("units", "shape", "kind"),
    [
        (1, (320,), losses.BinaryCrossentropy),
        (1, (320, 1), losses.BinaryCrossentropy),
        (3, (320,), losses.SparseCategoricalCrossentropy),
        (3, (320, 1), losses.SparseCategoricalCrossentropy),
        (3, (320, 3), losses.CategoricalCrossentropy),
    ],
)
@pytest.mark.parametrize("use", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_crossentropy_is_the_one_that_the_targets_ask_for(rows, units, shape, kind, use):
    y = np.zeros(shape, np.float32)
    if shape == (320, 3):
        y[:, 1] = 1
    model = Sequential([Input((10,)), Dense(units, "sigmoid" if units == 1 else "softmax")])
    model.compile(loss="crossentropy", metrics=["accuracy"])
    x = rows[0]
    if use == "evaluate":
        x, y = on_dask(x, y)
    settings = {} if use.endswith("on_batch") else {"verbose": 0}
    getattr(model, use)(x, y, **settings)
    assert type(model.loss) is kind


def test_a_model_whose_targets_are_not_known_yet_is_saved(rows, tmp_path):
    model = Sequential([Input((10,)), Dense(1, "sigmoid")])
    model.compile(loss="ce")
    model.save(tmp_path / "model.safetensors")
    loaded = dasknn.load_model(tmp_path / "model.safetensors")
    loaded.fit(*rows, verbose=0)
    assert type(loaded.loss) is losses.BinaryCrossentropy


def test_no_epochs_are_an_empty_history(rows):
    model = binary()
    before = model.get_weights()
    assert model.fit(*rows, epochs=0, validation_data=rows, verbose=0).history == {}
    for now, then in zip(model.get_weights(), before, strict=True):
        assert_array_equal(now, then)


def test_a_single_epoch_has_no_number(rows, capsys):
    binary().fit(*rows, verbose=2)
    assert "Epoch" not in capsys.readouterr().out
    binary().fit(*rows, epochs=2, verbose=2)
    assert "Epoch 1/2" in capsys.readouterr().out


@pytest.mark.parametrize("frequency", [0, -1, 1.5, "2", [0], None])
def test_a_frequency_of_validation_that_is_none_is_refused(rows, frequency):
    with pytest.raises(ValueError, match="Expected validation_freq to be an integer of at least 1"):
        binary().fit(*rows, validation_data=rows, validation_freq=frequency, verbose=0)


@pytest.mark.parametrize("name", ["nope.keras", "nope.safetensors"])
def test_a_file_that_is_not_there_is_keras_value_error_and_everybodys_file_not_found(name, tmp_path):
    for error in (ValueError, FileNotFoundError):
        with pytest.raises(error, match="found none"):
            dasknn.load_model(tmp_path / name)


def test_a_layer_of_a_model_has_its_weights(rows):
    model = Sequential([Dense(3), BatchNormalization(), Flatten()])
    assert [layer.weights for layer in model.layers] == [[], [], []]
    model.build((None, 10))
    dense, normalization, flatten = model.layers
    assert [weight.shape for weight in dense.weights] == [(10, 3), (3,)]
    assert (len(normalization.weights), len(normalization.trainable_weights)) == (4, 2)
    assert len(normalization.non_trainable_weights) == 2
    assert flatten.weights == flatten.trainable_weights == []
    dense.trainable = False
    assert (dense.trainable_weights, len(dense.non_trainable_weights)) == ([], 2)


# --- weights of classes -------------------------------------------------------------------------------


def three_classes(loss):
    dasknn.set_random_seed(1)
    model = Sequential([Input((10,)), Dense(3, "softmax")])
    model.compile(loss=loss)
    return model


def labels_of(rows, loss):
    labels = np.digitize(rows[0][:, 0], [-0.5, 1.5])
    return np.eye(3, dtype=np.float32)[labels] if loss == "categorical_crossentropy" else labels


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_balanced_weights_of_classes_are_scikit_learns(rows, loss, kind):
    x, labels = rows[0], labels_of(rows, "sparse")
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    data = [x, labels_of(rows, loss)]
    data = on_dask(*data) if kind == "dask" else data
    by_name, by_number = three_classes(loss), three_classes(loss)
    by_name.fit(*data, class_weight="balanced", verbose=0)
    by_number.fit(*data, class_weight=dict(enumerate(weights)), verbose=0)
    assert_allclose(by_name.get_weights()[0], by_number.get_weights()[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({5: 3.0}, r"weights for labels \[5\], which are not in y: it has \[0, 1, 2\]"),
        ({0: 1.0, 5: 3.0}, r"weights for labels \[5\], which are not in y"),
        ([1.0, 2.0, 3.0], r"received \[1.0, 2.0, 3.0\]\. Pass dict\(enumerate\(weights\)\)"),
        ("even", "dict of label to weight, 'balanced' or None, received 'even'"),
        ({0: "a"}, "received 0: a"),
    ],
)
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_weights_of_classes_that_are_not_there_are_refused(rows, loss, class_weight, message):
    with pytest.raises(ValueError, match=message):
        three_classes(loss).fit(rows[0], labels_of(rows, loss), class_weight=class_weight, verbose=0)


def test_weights_for_more_classes_than_the_rows_have_are_taken_as_in_scikit_learn(rows):
    y = np.minimum(labels_of(rows, "sparse"), 1)
    model = three_classes("sparse_categorical_crossentropy")
    model.fit(rows[0], y, class_weight={0: 1.0, 1: 2.0, 2: 3.0}, verbose=0)


@pytest.mark.parametrize("class_weight", [{5: 3.0}, "balanced", [1.0, 2.0, 3.0]])
def test_one_batch_takes_weights_of_the_labels_of_the_model_alone(rows, class_weight):
    model = three_classes("sparse_categorical_crossentropy")
    model.train_on_batch(rows[0][:4], np.zeros(4), class_weight={2: 3.0})
    with pytest.raises(ValueError, match="class_weight"):
        model.train_on_batch(rows[0][:4], np.zeros(4), class_weight=class_weight)


# --- losses that cannot be meant -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "activation"),
    [("categorical_crossentropy", "softmax"), ("binary_crossentropy", "softmax"), ("mse", "softmax"),
     ("categorical_crossentropy", "sigmoid"), ("sparse_categorical_crossentropy", "sigmoid")],
)  # fmt: skip
@pytest.mark.parametrize("use", ["fit", "train_on_batch"])
def test_a_single_output_of_several_classes_draws_a_warning(rows, loss, activation, use):
    model = Sequential([Input((10,)), Dense(1, activation)])
    model.compile(loss=loss)
    with pytest.warns(UserWarning, match="so this model cannot learn"):
        getattr(model, use)(rows[0], 0 * rows[1], **({"verbose": 0} if use == "fit" else {}))


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("labels", [(1, 2), (-1, 1), (0, 2)])
@pytest.mark.parametrize("from_logits", [False, True])
def test_labels_outside_of_0_and_1_are_refused_before_training(rows, labels, kind, from_logits):
    y = np.where(rows[1] > 0, *labels[::-1]).astype(np.float32)
    model = binary(loss=losses.BinaryCrossentropy(from_logits=from_logits))
    data = on_dask(rows[0], y) if kind == "dask" else (rows[0], y)
    expected = rf"expects targets in \[0, 1\], received {labels[0]} to {labels[1]}\. Encode two classes"
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=expected):
            use(*data, verbose=0)


# --- columns by their names ---------------------------------------------------------------------------


def frame_of(rows, kind):
    """The rows as a dataframe, and as one whose columns stand in another order; and targets."""
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame(rows[0], columns=range(10) if "numbers" in kind else [f"c{i}" for i in range(10)])
    frames = frame, frame[frame.columns[::-1]], pd.Series(rows[1])
    return [dd.from_pandas(each, npartitions=2) if "Dask" in kind else each for each in frames]


KINDS = ["pandas", "Dask", "pandas, numbers", "Dask, numbers"]
IN_ANOTHER_ORDER = "Expected the columns in the same order as they were in fit"
USES_OF_NAMES = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "validation_data": lambda model, x, y: model.fit(in_order(x), y, validation_data=(x, y), verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "predict": lambda model, x, y: model.predict(x, verbose=0),
    "dasknn.evaluate": lambda model, x, y: dasknn.evaluate(model, x, y),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
}


def in_order(x):
    return x[sorted(x.columns)]


@pytest.mark.parametrize(
    ("use", "kind"),
    [(use, kind) for use in USES_OF_NAMES for kind in KINDS if not ("batch" in use and "Dask" in kind)],
)
def test_columns_in_another_order_than_they_were_fitted_in_are_refused(rows, use, kind):
    x, turned, y = frame_of(rows, kind)
    model = binary()
    model.fit(x, y, verbose=0)
    before = bits(model)
    with pytest.raises(ValueError, match=IN_ANOTHER_ORDER):
        USES_OF_NAMES[use](model, turned, y)
    assert bits(model) == before
    USES_OF_NAMES[use](model, x, y)


def test_names_are_learned_from_a_batch_and_an_array_has_none(rows, tmp_path):
    x, turned, y = frame_of(rows, "pandas")
    model = binary()
    model.fit(*rows, verbose=0)
    assert not hasattr(model, "feature_names_in_")
    model.predict(turned, verbose=0)
    model.train_on_batch(x, y)
    assert model.feature_names_in_.tolist() == list(x.columns)
    model.predict(rows[0], verbose=0)
    with pytest.raises(ValueError, match=IN_ANOTHER_ORDER):
        pickle.loads(pickle.dumps(model)).predict(turned, verbose=0)
    model.save(tmp_path / "model.safetensors")
    for again in (dasknn.load_model(tmp_path / "model.safetensors"), *model.members):
        with pytest.raises(ValueError, match=IN_ANOTHER_ORDER):
            again.predict(turned, verbose=0)
    with pytest.raises(ValueError, match=r"Missing: \['c0'\]; unknown: \['z'\]"):
        model.predict(x.rename(columns={"c0": "z"}), verbose=0)


@pytest.mark.parametrize("kind", ["pandas", "Dask"])
def test_a_first_fit_compares_the_names_of_its_validation_data(rows, kind):
    x, turned, y = frame_of(rows, "pandas")
    _, turned, y_val = frame_of(rows, kind)
    with pytest.raises(ValueError, match=IN_ANOTHER_ORDER):
        binary().fit(x, y, validation_data=(turned, y_val), verbose=0)


def test_validation_data_on_a_cluster_is_evaluated_there(rows, client):
    x, _, y = frame_of(rows, "pandas")
    x_val, _, y_val = frame_of(rows, "Dask")
    x_val, y_val = client.persist([x_val, y_val])
    model = binary()
    history = model.fit(x, y, validation_data=(x_val, y_val), verbose=0)
    assert_allclose(history.history["val_loss"][0], model.evaluate(x, y, verbose=0)[0], rtol=1e-5)


def test_chunks_of_columns_are_refused_at_predict_as_at_fit(rows):
    x, y = on_dask(*rows)
    x = x.rechunk({1: 5})
    model = binary()
    for use in (model.predict, lambda x: model.fit(x, y, verbose=0), lambda x: model.evaluate(x, y)):
        with pytest.raises(ValueError, match=r"received 2 chunks of columns\. Use X\.rechunk"):
            use(x)


def test_predictions_in_a_dataframe_go_to_parquet(rows, tmp_path):
    import pandas as pd

    four_outputs().predict(frame_of(rows, "Dask")[0]).to_parquet(tmp_path)
    assert list(pd.read_parquet(tmp_path).columns) == ["0", "1", "2", "3"]


def test_a_clone_is_told_what_the_model_was_and_has_learned_nothing(digits):
    X, y = digits
    model = Sequential([Dense(8, "relu"), Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, y, epochs=2, verbose=0)
    twin = clone(model)
    assert not twin.built
    # Rows of another shape, as a table makes them of other rows.
    twin.fit(X[:, :40], y, epochs=1, verbose=0)
    assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
    assert [layer.units for layer in twin.layers] == [8, 10]
    told = clone(Sequential([Input((64,)), Dense(10, "softmax")]))
    assert told.input_shape == (None, 64)
    assert not np.array_equal(clone(told).get_weights()[0], told.get_weights()[0])
