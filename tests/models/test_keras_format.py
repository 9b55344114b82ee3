"""A Sequential on disk is the model, or a clear error; and Keras's own file opens here."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dasknn
from dasknn import Input, Sequential, layers, losses, optimizers, schedules
from dasknn.exceptions import ModelFileError
from dasknn.models import keras_format, persistence

GOLDEN = Path(__file__).parents[1] / "golden"
LAYERS = {
    "dense": [layers.Dense(4, activation="relu", use_bias=False, kernel_regularizer="l2")],
    "dense with settings of its function": [layers.Dense(4, activation=layers.LeakyReLU(0.2))],
    "activation": [layers.Activation("tanh")],
    "relu": [layers.ReLU(1.0, 0.1, 0.2)],
    "leaky relu": [layers.LeakyReLU(0.2)],
    "elu": [layers.ELU(0.5)],
    "softmax": [layers.Softmax()],
    "dropout": [layers.Dropout(0.3)],
    "gaussian dropout": [layers.GaussianDropout(0.3)],
    "gaussian noise": [layers.GaussianNoise(0.3)],
    "batch normalization": [layers.BatchNormalization(momentum=0.5), layers.BatchNormalization(scale=False)],
    "layer normalization": [layers.LayerNormalization(), layers.LayerNormalization(center=False)],
    "not trainable": [layers.Dense(4, trainable=False), layers.BatchNormalization(trainable=False)],
}
OPTIMIZERS = [
    optimizers.SGD(0.1),
    optimizers.SGD(0.1, momentum=0.9, use_ema=True, gradient_accumulation_steps=2),
    optimizers.RMSprop(0.01),
    optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    optimizers.Adam(0.01, amsgrad=True, gradient_accumulation_steps=3),
    optimizers.AdamW(schedules.ExponentialDecay(0.1, 3, 0.5)),
    optimizers.Adamax(),
    optimizers.Nadam(0.01),
    optimizers.Adagrad(0.1),
    optimizers.Adadelta(1.0),
    optimizers.Lion(0.01, clipnorm=1.0),
]
ENDINGS = [".keras", ".safetensors"]


@pytest.fixture
def rows():
    """X (30, 5) float32, y (30,) of 3 classes."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((30, 5)).astype(np.float32), rng.integers(0, 3, 30)


def make(inner, optimizer="adam"):
    """Return a model of 5 inputs and 3 classes, compiled."""
    model = Sequential([Input((5,)), *inner, layers.Dense(3, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(model, rows, epochs=2):
    model.fit(*rows, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.fixture
def saved(tmp_path, rows):
    """A trained model, and its .keras file."""
    model = train(make([layers.Dense(4, name="first"), layers.BatchNormalization(name="second")]), rows)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


# --- the same model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_loaded_model_predicts_the_same_bits(kind, ending, rows, tmp_path):
    model = train(make(LAYERS[kind]), rows)
    model.save(tmp_path / f"model{ending}")
    again = dasknn.load_model(tmp_path / f"model{ending}")
    assert_array_equal(again.predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))
    assert again.get_config() == model.get_config()
    assert again.get_compile_config() == model.get_compile_config()
    assert again.evaluate(*rows, verbose=0) == model.evaluate(*rows, verbose=0)


def test_rows_of_more_dimensions_are_kept(tmp_path):
    X = np.random.default_rng(0).random((6, 4, 3), np.float32)
    model = Sequential([Input((4, 3)), layers.ReLU(), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    again = dasknn.load_model(tmp_path / "model.keras")
    assert again.input_shape == (None, 4, 3)
    assert not again.compiled
    assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_training_goes_on_from_a_file_as_if_it_had_not_stopped(optimizer, ending, rows, tmp_path):
    model = train(make([layers.Dense(4), layers.BatchNormalization()], optimizer), rows)
    model.save(tmp_path / f"model{ending}")
    again = dasknn.load_model(tmp_path / f"model{ending}")
    assert again.optimizer.iterations == model.optimizer.iterations == 8
    for weight, expected in zip(train(again, rows).weights, train(model, rows).weights, strict=True):
        assert_array_equal(weight, expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_training_goes_on_with_the_rate_that_callbacks_had_set(ending, rows, tmp_path):
    model = train(make([layers.Dense(4)]), rows)
    model.optimizer.learning_rate = 0.0123
    model.save(tmp_path / f"model{ending}")
    again = dasknn.load_model(tmp_path / f"model{ending}")
    assert again.optimizer.learning_rate == 0.0123
    for weight, expected in zip(train(again, rows).weights, train(model, rows).weights, strict=True):
        assert_array_equal(weight, expected)


def test_a_file_without_the_optimizer_or_without_compiling_trains_from_its_beginning(rows, tmp_path):
    model = train(make([layers.Dense(4)]), rows)
    model.save(tmp_path / "model.keras", include_optimizer=False)
    assert dasknn.load_model(tmp_path / "model.keras").optimizer.iterations == 0
    model.save(tmp_path / "model.keras")
    assert not dasknn.load_model(tmp_path / "model.keras", compile=False).compiled


def test_a_model_that_was_not_trained_is_saved_with_an_optimizer_at_its_beginning(rows, tmp_path):
    make([layers.Dense(4)], optimizers.Adagrad()).save(tmp_path / "model.keras")
    again = dasknn.load_model(tmp_path / "model.keras")
    assert again.optimizer.iterations == 0
    assert_array_equal(again._slots, np.full_like(again._slots, 0.1))


def test_weights_go_to_a_model_with_other_names_by_class_and_order(rows, tmp_path, saved):
    model, whole = saved
    model.save_weights(tmp_path / "model.weights.h5")
    for path in (tmp_path / "model.weights.h5", whole):
        other = make([layers.Dense(4), layers.Dropout(0.5), layers.BatchNormalization()])
        other.load_weights(path)
        assert_array_equal(other.predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))


def bias(y, P):
    return (P - y).mean(axis=-1)


@dataclass(frozen=True)
class HalfSquared(losses.RowLoss):
    name: str = "half_squared"

    def rows(self, y, P):
        return 0.5 * np.square(P - y).mean(axis=1)

    def slopes(self, y, P):
        return (P - y) / P.shape[1]


@pytest.mark.parametrize("ending", ENDINGS)
def test_losses_and_metrics_of_users_are_found_among_custom_objects(ending, rows, tmp_path):
    model = Sequential([Input((5,)), layers.Dense(1)])
    model.compile("sgd", HalfSquared(), metrics=[bias])
    train(model, rows).save(tmp_path / f"model{ending}")
    with pytest.raises(ModelFileError, match=r"received 'HalfSquared'.* custom_objects"):
        dasknn.load_model(tmp_path / f"model{ending}")
    ours = {"HalfSquared": HalfSquared, "bias": bias}
    again = dasknn.load_model(tmp_path / f"model{ending}", custom_objects=ours)
    assert again.evaluate(*rows, verbose=0) == model.evaluate(*rows, verbose=0)


def test_an_ensemble_is_not_for_keras(rows, tmp_path):
    with dasknn.PredictionAveraging(2).scope():
        model = make([layers.Dense(4)])
    model._members = np.repeat(model._members, 2, axis=0)
    with pytest.raises(ValueError, match="ensemble of 2 networks"):
        model.save(tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_as_a_whole_or_not_at_all(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# --- Keras's own file ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    """What Keras said of its file."""
    return json.loads((GOLDEN / "made_by_keras.json").read_text())


def test_a_file_of_keras_gives_the_predictions_of_keras(golden):
    model = dasknn.load_model(GOLDEN / "made_by_keras.keras")
    X, y = np.array(golden["X"], np.float32), np.array(golden["y"])
    assert_allclose(model.predict(X, verbose=0), golden["predictions"], rtol=1e-5)
    loss, accuracy = model.evaluate(X, y, verbose=0)
    assert_allclose(loss, golden["loss"], rtol=1e-5)
    assert_allclose(accuracy, golden["accuracy"], rtol=1e-6)


def test_a_file_of_keras_gives_the_state_of_its_optimizer(golden):
    model = dasknn.load_model(GOLDEN / "made_by_keras.keras")
    assert model.optimizer.iterations == golden["iterations"]
    assert model.optimizer.learning_rate == golden["learning_rate"]
    for slot, kind in zip(model._slots, ("momentum", "velocity"), strict=True):
        found = {
            f"{model._network.layers[variable.layer].name}_{variable.name}": variable.view(slot)
            for variable in persistence.ordered_variables(model)
        }
        assert list(found) == list(golden["slots"][kind])
        for name, expected in golden["slots"][kind].items():
            assert_array_equal(found[name], np.array(expected, np.float32))


# --- files that are not the model ----------------------------------------------------------------------


def rewrite(path, config=None, h5=None, without=(), extra=None):
    """Write a .keras file again: config(dict) and h5(h5py.File) change its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        described = json.loads(parts["config.json"])
        parts["config.json"] = json.dumps(config(described) or described)
    buffer = io.BytesIO(parts["model.weights.h5"])
    if h5 is not None:
        with h5py.File(buffer, "a") as file:
            h5(file)
    parts["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in {**parts, **(extra or {})}.items():
            if name not in without:
                archive.writestr(name, part)


def layer(config, number):
    return config["config"]["layers"][number]


def replace_array(file, path, array):
    del file[path]
    file[path] = array


def test_no_file_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model file at .*, found none"):
        dasknn.load_model(tmp_path / "model.keras")


def test_a_file_rewritten_without_changes_is_the_model(saved, rows):
    model, path = saved
    rewrite(path)
    assert_array_equal(dasknn.load_model(path).predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))


@pytest.mark.parametrize(
    ("h5", "message"),
    [
        (lambda h5: h5.pop("layers/dense/vars/1"), r"2 weights of layer 'first'.* received 1"),
        (lambda h5: h5.pop("layers/dense/vars/0"), r"Expected arrays \['0'\] in layers/dense/vars"),
        (lambda h5: h5.pop("layers/batch_normalization"), r"4 weights of layer 'second'.* received 0"),
        (lambda h5: h5.pop("layers"), "Expected weights of Keras 3 under 'layers', received none"),
        (
            lambda h5: replace_array(h5, "layers/dense/vars/0", np.zeros((5, 3), np.float32)),
            r"weight 0 of layer 'first' to be of shape \(5, 4\), received \(5, 3\)",
        ),
        (lambda h5: h5.update({"layers/dense/vars/2": 1.0}), "2 weights of layer 'first'.* received 3"),
        (lambda h5: h5.update({"layers/dense_7/vars/0": 1.0}), "received some of .*layers/dense_7"),
        (
            lambda h5: replace_array(h5, "layers/dense/vars/1", np.array([b"a", b"b", b"c", b"d"])),
            "Expected numbers at .*layers/dense/vars/1",
        ),
        (
            lambda h5: replace_array(h5, "layers/dense/vars/1", h5py.SoftLink("/layers/dense_1/vars/1")),
            "in the file itself, received a link",
        ),
        (
            lambda h5: replace_array(h5, "layers/dense/vars/1", h5py.ExternalLink("/etc/passwd", "x")),
            "in the file itself, received a link",
        ),
        (
            lambda h5: (
                h5.pop("layers/dense/vars/1"),
                h5.create_dataset("layers/dense/vars/1", (4,), "f4", external=[("/dev/zero", 0, 16)]),
            ),
            "Expected an array in the file itself",
        ),
        (
            lambda h5: (
                h5.pop("layers/dense/vars/1"),
                h5.create_dataset("layers/dense/vars/1", (2**40,), "f4", chunks=(2**10,), compression="gzip"),
            ),
            "Expected arrays no larger than the file",
        ),
        (
            # Four numbers, in a chunk of 4 GB that HDF5 would unpack.
            lambda h5: (
                h5.pop("layers/dense/vars/1"),
                h5.create_dataset(
                    "layers/dense/vars/1",
                    (4,),
                    "f4",
                    chunks=(2**30 - 1,),
                    maxshape=(None,),
                    compression="gzip",
                ),
            ),
            "in chunks of",
        ),
        (lambda h5: h5.pop("optimizer/vars/13"), "Expected 14 variables of Adam, received 13"),
        (
            lambda h5: replace_array(h5, "optimizer/vars/2", np.zeros(3, np.float32)),
            r"a variable of Adam of shape \(5, 4\)",
        ),
        (
            lambda h5: replace_array(h5, "optimizer/vars/0", -1),
            "Expected the number of steps taken, received -1",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_layers_are_refused_by_name(saved, h5, message):
    _, path = saved
    rewrite(path, h5=h5)
    with pytest.raises(ModelFileError, match=message):
        dasknn.load_model(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda config: [1], "Expected a Sequential model, received 'list'"),
        (lambda config: {**config, "class_name": "Functional"}, "received 'Functional': dasknn has no other"),
        (lambda config: {**config, "config": 3}, "not a .keras file of Keras 3"),
        (lambda config: layer(config, 1).update(class_name="Conv2D"), "Expected a layer among .* 'Conv2D'"),
        (lambda config: layer(config, 1)["config"].update(units=7), r"'first' to be of shape \(5, 7\)"),
        # As many as 100 TB of weights, which are never made.
        (lambda config: layer(config, 1)["config"].update(units=10**12), "to be of shape"),
        (lambda config: layer(config, 1)["config"].update(strange=1), "Dense expects settings among"),
        (
            lambda config: layer(config, 1)["config"].update(name=["a"]),
            r"expected text at layers\[0\].config.name",
        ),
        (
            lambda config: layer(config, 2)["config"].update(name="first"),
            "Expected unique names of layers",
        ),
        (
            lambda config: layer(config, 1)["config"].update(
                dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
            ),
            "expects dtype None or 'float32', received 'mixed_float16'",
        ),
        (
            lambda config: layer(config, 1)["config"].update(
                activation={"class_name": "Lambda", "config": {"code": "4wEAAAA="}}
            ),
            "The model in the file cannot be created",
        ),
        (
            lambda config: config["compile_config"]["optimizer"].update(class_name="Ftrl"),
            "Expected an optimizer, received 'Ftrl'.* compile=False",
        ),
        (lambda config: config["compile_config"].update(loss="my_loss"), "'my_loss'.* compile=False"),
        (lambda config: config["compile_config"].update(optimizer=3), "cannot be created"),
    ],
)
def test_descriptions_of_other_models_are_refused(saved, config, message):
    _, path = saved
    rewrite(path, config)
    with pytest.raises(ModelFileError, match=message):
        dasknn.load_model(path)


def test_a_compression_bomb_is_not_unpacked(saved):
    _, path = saved
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 10**8)
    with pytest.raises(ModelFileError, match=r"config\.json claims to be 100000000 bytes"):
        dasknn.load_model(path)


def test_what_others_compressed_is_read_and_a_bomb_of_json_is_not(saved):
    model, path = saved
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert_array_equal(dasknn.load_model(path).weights[0], model.weights[0])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        # Of 60 MB of empty objects 24 times as many bytes would be made.
        archive.writestr("config.json", b"[" + b"{}," * 20_000_000 + b"{}]")
        archive.writestr("padding", np.random.default_rng(0).bytes(700_000))
    with pytest.raises(ModelFileError, match=r"config\.json claims to be 60000004 bytes"):
        dasknn.load_model(path)


def test_foreign_files_are_refused(saved, tmp_path):
    _, path = saved
    whole = path.read_bytes()
    rewrite(path, without=["config.json"])
    with pytest.raises(ModelFileError, match=r"Expected config.json in the archive"):
        dasknn.load_model(path)
    path.write_bytes(whole)
    rewrite(path, without=["model.weights.h5"])
    with pytest.raises(ModelFileError, match=r"Expected model.weights.h5 in the archive"):
        dasknn.load_model(path)
    path.write_bytes(whole)
    rewrite(path, without=["model.weights.h5"], extra={"model.weights.npz": b"pickles"})
    with pytest.raises(ModelFileError, match=r"received model.weights.npz, whose pickles"):
        dasknn.load_model(path)
    for content in (b"", b"PK", b'{"class_name": "Sequential"}', b"\x89HDF\r\n\x1a\n" + bytes(2000)):
        for name in ("foreign.keras", "foreign.weights.h5"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ModelFileError, match="damaged, or not a"):
                saved[0].load_weights(tmp_path / name)
    for part in (b"{", b"[" * 100_000, b"\xff", b"null"):
        path.write_bytes(whole)
        rewrite(path, extra={"config.json": part})
        with pytest.raises(ModelFileError):
            dasknn.load_model(path)


def same_or_refused(load, path, weights, content):
    """Whether a file is refused; fail if it is taken and is not the model."""
    path.write_bytes(content)
    try:
        model = load()
    except ModelFileError:
        return True
    for found, expected in zip(model.weights, weights, strict=True):
        assert_array_equal(found, expected)
    return False


def damaged(whole, n_cuts, n_flips):
    """Yield contents that are cut, and contents with a byte changed."""
    rng = np.random.default_rng(0)
    for length in [0, 1, 30, *rng.integers(0, len(whole), n_cuts), len(whole) - 1]:
        yield whole[:length]
    # The directory of an archive is at its end.
    for place in [*rng.integers(0, len(whole), n_flips), *range(len(whole) - 200, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        yield bytes(changed)


def test_a_keras_file_that_is_cut_or_changed_anywhere_is_refused_or_the_same_model(saved):
    model, path = saved
    whole, weights = path.read_bytes(), model.weights
    refused = [
        same_or_refused(lambda: dasknn.load_model(path), path, weights, content)
        for content in damaged(whole, 100, 300)
    ]
    assert all(refused[:104])
    # What may change: dates, attributes and versions in the directory.
    assert np.mean(refused) > 0.8
    assert not same_or_refused(lambda: dasknn.load_model(path), path, weights, whole)


def test_a_weights_file_that_is_cut_or_changed_anywhere_is_refused_or_the_same_model(saved, tmp_path):
    model, _ = saved
    weights, path = model.weights, tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = make([layers.Dense(4), layers.BatchNormalization()])

    def load():
        other.load_weights(path)
        return other

    whole = path.read_bytes()
    refused = [same_or_refused(load, path, weights, content) for content in damaged(whole, 100, 300)]
    assert np.mean(refused) > 0.9
    assert not same_or_refused(load, path, weights, whole)


def test_weights_that_do_not_fit_change_nothing_and_may_be_skipped(saved, tmp_path):
    model, _ = saved
    model.save_weights(tmp_path / "model.weights.h5")
    other = Sequential([Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    before = other.get_weights()
    with pytest.raises(ModelFileError, match=r"weight 0 of layer 'dense_1' to be of shape \(4, 2\)"):
        other.load_weights(tmp_path / "model.weights.h5")
    for weight, expected in zip(other.weights, before, strict=True):
        assert_array_equal(weight, expected)
    with pytest.warns(UserWarning, match="Skipped a layer: .*'dense_1'"):
        other.load_weights(tmp_path / "model.weights.h5", skip_mismatch=True)
    for weight, expected in zip(other.weights, [*model.weights[:-2], *before[-2:]], strict=True):
        assert_array_equal(weight, expected)


def test_who_has_no_h5py_is_told_what_to_install(saved, monkeypatch):
    model, path = saved
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'dasknn\[keras\]'"):
        dasknn.load_model(path)
    with pytest.raises(ImportError, match=r"pip install 'dasknn\[keras\]'"):
        model.save(path)


# --- names and order -----------------------------------------------------------------------------------


def test_groups_are_named_by_class_and_number_not_by_layer(tmp_path):
    model = Sequential(
        [
            Input((5,)),
            layers.Dense(4, name="b"),
            layers.LeakyReLU(name="dense"),
            layers.Dense(3, name="a"),
            layers.ELU(),
        ]
    )
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert set(file["layers"]) == {"dense", "leaky_re_lu", "dense_1", "elu"}
        assert file["layers/dense_1/vars"].attrs["name"] == "a"
        assert file["layers/dense_1/vars/0"].shape == (4, 3)


def test_what_follows_from_the_step_is_written_for_keras():
    product = np.prod([0.9 * (1 - 0.5 * 0.96**step) for step in (1, 2, 3)])
    *_, found = keras_format.optimizer_variables(optimizers.Nadam(), [], np.zeros((2, 0)), 3, 0.001)
    assert_allclose(found, product, rtol=1e-6)


@pytest.mark.parametrize("place", [2, 2 + 2 * 2], ids=["Keras 3.9", "Keras 3.15"])
def test_what_follows_from_the_step_may_stand_first_or_last(place, rows):
    model = train(make([], optimizers.Nadam()), rows)
    state, slots = persistence.optimizer_state(model), model._slots.copy()
    state.insert(place, state.pop())
    found = np.zeros_like(slots)
    variables = persistence.ordered_variables(model)
    step, rate = keras_format.restore_optimizer(model.optimizer.settings, variables, found, state)
    assert (step, rate) == (8, None)
    assert_array_equal(found, slots)


def test_names_of_columns_are_kept(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).random((40, 2)), columns=["income", "age"])
    model = Sequential([layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    model.fit(frame, frame["age"].round(), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = dasknn.load_model(tmp_path / "model.keras")
    assert again.feature_names_in_.tolist() == ["income", "age"]
    with pytest.raises(ValueError, match="same order"):
        again.predict(frame[["age", "income"]], verbose=0)
