"""Files go from here to Keras and back, and mean the same: predictions, and trainings that go on."""

import os

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dasknn
from dasknn import optimizers, schedules

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 hands its tensors to numpy in a way of numpy 1.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)

N_ROWS, N_INPUTS, N_CLASSES = 24, 5, 3
LAYERS = {
    "Dense": [{"units": 4, "use_bias": False}],
    "Activation": [{"activation": "tanh"}],
    "ReLU": [{}, {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}],
    "LeakyReLU": [{"negative_slope": 0.2}],
    "ELU": [{"alpha": 0.5}],
    "Softmax": [{}],
    "Dropout": [{"rate": 0.3}, {"rate": 0.3, "seed": 1}],
    "GaussianDropout": [{"rate": 0.3}],
    "GaussianNoise": [{"stddev": 0.3}],
    "BatchNormalization": [{"momentum": 0.5}, {"scale": False}, {"center": False, "epsilon": 0.1}],
    "LayerNormalization": [{}, {"center": False}, {"scale": False}],
    "Flatten": [{}],
    "Normalization": [
        {"mean": 0.5, "variance": 2.0},
        {"mean": [1.0] * 5, "variance": [4.0] * 5, "invert": True},
    ],
    "Discretization": [{"bin_boundaries": [-0.5, 0.0, 0.7]}],
}
ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "sigmoid", "tanh",
    "softmax", "log_softmax", "softplus", "softsign", "exponential", "linear", "hard_sigmoid", "hard_silu",
    "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink", "squareplus", "log_sigmoid",
    "sparse_plus", "sparse_sigmoid",
]  # fmt: skip
OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.1}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "use_ema": True, "gradient_accumulation_steps": 3}),
    ("RMSprop", {"learning_rate": 0.01}),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True}),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9, "centered": True}),
    ("Adam", {"learning_rate": 0.01}),
    ("Adam", {"learning_rate": 0.01, "amsgrad": True, "use_ema": True, "ema_momentum": 0.5}),
    ("Adam", {"learning_rate": 0.01, "gradient_accumulation_steps": 2}),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ("Adamax", {"learning_rate": 0.01}),
    ("Nadam", {"learning_rate": 0.01}),
    ("Nadam", {"learning_rate": 0.01, "gradient_accumulation_steps": 2}),
    ("Adagrad", {"learning_rate": 0.1}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Lion", {"learning_rate": 0.01}),
]
SCHEDULES = [
    ("ExponentialDecay", (0.1, 3, 0.5)),
    ("PiecewiseConstantDecay", ([1, 3], [0.1, 0.05, 0.01])),
    ("PolynomialDecay", (0.1, 5)),
    ("InverseTimeDecay", (0.1, 2, 0.5)),
    ("CosineDecay", (0.1, 5)),
    ("CosineDecayRestarts", (0.1, 3)),
]
LOSSES = [
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy",
    "categorical_focal_crossentropy", "kl_divergence", "mean_squared_error", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "huber", "log_cosh", "poisson",
    "cosine_similarity", "hinge", "squared_hinge", "categorical_hinge",
]  # fmt: skip
FILES = [".keras", ".weights.h5"]


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)
    dasknn.set_random_seed(0)


@pytest.fixture
def rows():
    """X (24, 5) float32, Y (24, 3) one-hot."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, N_INPUTS)).astype(np.float32)
    return X, np.eye(N_CLASSES, dtype=np.float32)[rng.integers(0, N_CLASSES, N_ROWS)]


def make(library, inner, optimizer="sgd", loss="categorical_crossentropy", **settings):
    """Return a model of one of the libraries, compiled, with layers of a class and settings in the middle."""
    model = library.Sequential(
        [
            library.Input((N_INPUTS,)),
            *(getattr(library.layers, name)(**given) for name, given in inner),
            library.layers.Dense(N_CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer, loss, **settings)
    return model


def deep(library, optimizer):
    """Return a model whose weights differ in shape and kind."""
    inner = [("Dense", {"units": 4, "activation": "tanh"}), ("BatchNormalization", {"momentum": 0.5})]
    return make(library, inner, optimizer)


def step(model, rows, n_steps=2):
    """Take steps on all rows."""
    model.fit(*rows, batch_size=N_ROWS, epochs=n_steps, shuffle=False, verbose=0)
    return model


def assert_same_weights(model, other, atol=1e-5):
    for weight, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        assert_allclose(weight, expected, rtol=0, atol=atol)


def assert_same_predictions(model, other, X):
    assert_allclose(model.predict(X, verbose=0), other.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


# --- layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_ours_predict_the_same_in_keras(kind, rows, tmp_path):
    model = step(make(dasknn, [(kind, given) for given in LAYERS[kind]]), rows)
    model.save(tmp_path / "model.keras")
    assert_same_predictions(keras.models.load_model(tmp_path / "model.keras"), model, rows[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_keras_predict_the_same_here(kind, rows, tmp_path):
    model = step(make(keras, [(kind, given) for given in LAYERS[kind]]), rows)
    model.save(tmp_path / "model.keras")
    assert_same_predictions(dasknn.load_model(tmp_path / "model.keras"), model, rows[0])


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("axis", [-1, None])
def test_what_normalization_has_learned_goes_both_ways(axis, invert, rows, tmp_path):
    X, _ = rows
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        layer = library.layers.Normalization(axis=axis, invert=invert)
        if library is keras:
            layer.build((None, N_INPUTS))
        layer.adapt(X)
        model = library.Sequential([library.Input((N_INPUTS,)), layer])
        model.save(tmp_path / "model.keras")
        assert_same_predictions(load(tmp_path / "model.keras"), model, X)
        expected = X * X.std(axis=axis and 0) + X.mean(axis=axis and 0)
        if not invert:
            expected = (X - X.mean(axis=axis and 0)) / X.std(axis=axis and 0)
        assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_bins", [2, 3, 7])
def test_bins_that_are_learned_are_those_of_keras(n_bins, rows):
    X = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    ours = dasknn.layers.Discretization(num_bins=n_bins).adapt(X)
    theirs = keras.layers.Discretization(num_bins=n_bins)
    # `adapt` itself asks TensorFlow whether it was given its data.
    theirs.update_state(X)
    theirs.finalize_state()
    assert_allclose(ours.bin_boundaries, theirs.bin_boundaries, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Embedding", {"input_dim": 6, "output_dim": 4}),
        *(("CategoryEncoding", {"num_tokens": 6, "output_mode": mode}) for mode in ("one_hot", "multi_hot")),
        *(
            ("Discretization", {"bin_boundaries": [1.0, 3.0], "output_mode": mode})
            for mode in ("int", "one_hot", "multi_hot")
        ),
    ],
)
def test_layers_of_codes_go_both_ways(name, settings, tmp_path):
    codes = np.random.default_rng(0).integers(0, 6, (N_ROWS, N_INPUTS))
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = library.Sequential(
            [
                library.Input((N_INPUTS,), dtype="int32"),
                getattr(library.layers, name)(**settings),
                library.layers.Flatten(),
                library.layers.Dense(2),
            ]
        )
        model.save(tmp_path / "model.keras")
        assert_same_predictions(load(tmp_path / "model.keras"), model, codes)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_go_both_ways(name, rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = make(
            library, [("Dense", {"units": 4, "activation": name}), ("Activation", {"activation": name})]
        )
        model.save(tmp_path / "model.keras")
        assert_same_predictions(load(tmp_path / "model.keras"), model, rows[0])


def test_functions_with_settings_go_both_ways(rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = make(
            library, [("Dense", {"units": 4, "activation": library.layers.LeakyReLU(negative_slope=0.3)})]
        )
        model.save(tmp_path / "model.keras")
        assert_same_predictions(load(tmp_path / "model.keras"), model, rows[0])


def test_rows_of_more_dimensions_go_both_ways(tmp_path):
    X = np.random.default_rng(0).random((6, 4, 3), np.float32)
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        of = library.layers
        model = library.Sequential([library.Input((4, 3)), of.ReLU(), of.Flatten(), of.Dense(2)])
        model.save(tmp_path / "model.keras")
        assert_same_predictions(load(tmp_path / "model.keras"), model, X)


def test_what_layers_are_made_with_goes_both_ways(rows, tmp_path):
    settings = {
        "kernel_initializer": "he_normal",
        "bias_initializer": "ones",
        "kernel_regularizer": "l1l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
        "kernel_constraint": "max_norm",
        "bias_constraint": "non_neg",
    }
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = make(
            library, [("Dense", {"units": 4, **settings}), ("Dense", {"units": 2, "trainable": False})]
        )
        model.save(tmp_path / "model.keras")
        again = load(tmp_path / "model.keras")
        assert_same_weights(step(again, rows), step(model, rows))


# --- trainings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_a_training_of_ours_goes_on_in_keras(kind, settings, rows, tmp_path):
    model = step(deep(dasknn, getattr(optimizers, kind)(**settings)), rows)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(again, model, atol=0)
    assert_same_weights(step(again, rows), step(model, rows))


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_a_training_of_keras_goes_on_here(kind, settings, rows, tmp_path):
    model = step(deep(keras, getattr(keras.optimizers, kind)(**settings)), rows)
    model.save(tmp_path / "model.keras")
    again = dasknn.load_model(tmp_path / "model.keras")
    assert_same_weights(again, model, atol=0)
    assert_same_weights(step(again, rows), step(model, rows))


@pytest.mark.parametrize(("kind", "arguments"), SCHEDULES)
def test_schedules_go_on_both_ways(kind, arguments, rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        of = schedules if library is dasknn else keras.optimizers.schedules
        model = step(deep(library, library.optimizers.SGD(getattr(of, kind)(*arguments), momentum=0.9)), rows)
        model.save(tmp_path / "model.keras")
        again = load(tmp_path / "model.keras")
        assert_same_weights(step(again, rows), step(model, rows))


def test_the_rate_that_training_has_come_to_goes_both_ways(rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = step(deep(library, "adam"), rows)
        model.optimizer.learning_rate = 0.0123
        model.save(tmp_path / "model.keras")
        again = load(tmp_path / "model.keras")
        assert_allclose(float(again.optimizer.learning_rate), 0.0123, rtol=1e-6)
        assert int(again.optimizer.iterations) == 2


def test_models_that_were_not_trained_go_both_ways(rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = deep(library, "nadam")
        model.save(tmp_path / "model.keras")
        assert_same_weights(step(load(tmp_path / "model.keras"), rows), step(model, rows))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_go_both_ways(loss, rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = make(library, [], loss=loss)
        model.save(tmp_path / "model.keras")
        found = load(tmp_path / "model.keras").evaluate(*rows, verbose=0)
        assert_allclose(found, model.evaluate(*rows, verbose=0), rtol=1e-5)


def test_losses_with_settings_and_metrics_go_both_ways(rows, tmp_path):
    for library, load in ((dasknn, keras.models.load_model), (keras, dasknn.load_model)):
        model = make(
            library,
            [],
            loss=library.losses.CategoricalCrossentropy(label_smoothing=0.1),
            metrics=["accuracy", "mae", library.metrics.Precision(thresholds=0.4, name="p"), "auc"],
            weighted_metrics=["mse"],
        )
        model.evaluate(*rows, verbose=0)
        model.save(tmp_path / "model.keras")
        again = load(tmp_path / "model.keras")
        found, expected = (m.evaluate(*rows, return_dict=True, verbose=0) for m in (again, model))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_allclose(found[name], value, rtol=1e-5)


def test_functions_of_keras_are_known_by_name(rows):
    model = make(keras, [], loss=keras.losses.mean_squared_error, metrics=[keras.metrics.mean_absolute_error])
    found = dasknn.from_keras(model).evaluate(*rows, verbose=0)
    assert_allclose(found, model.evaluate(*rows, verbose=0), rtol=1e-5)


# --- weights, and models in memory -----------------------------------------------------------------------


@pytest.mark.parametrize("ending", FILES)
def test_weights_go_both_ways_whatever_names_layers_have(ending, rows, tmp_path):
    for library, other in ((dasknn, keras), (keras, dasknn)):
        inner = [("Dense", {"units": 4}), ("BatchNormalization", {}), ("Dense", {"units": 2})]
        model = step(make(library, inner), rows)
        path = str(tmp_path / f"model{ending}")
        model.save(path) if ending == ".keras" else model.save_weights(path)
        found = make(other, [("Dense", {"units": 4, "name": "a"}), *inner[1:]])
        if other is keras:
            # Without variables of its own, Keras's optimizer warns of those in the file.
            found.optimizer.build(found.trainable_variables)
        found.load_weights(path)
        assert_same_predictions(found, model, rows[0])


def test_models_go_to_keras_and_back_in_memory(rows):
    inner = [
        ("Dense", {"units": 4, "activation": "relu", "kernel_regularizer": "l2"}),
        ("BatchNormalization", {}),
    ]
    model = step(make(dasknn, inner, metrics=["accuracy"]), rows)
    there = dasknn.to_keras(model)
    assert isinstance(there, keras.Sequential)
    assert_same_predictions(there, model, rows[0])
    back = dasknn.from_keras(there)
    assert_array_equal(back.predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))
    for other in (there, back):
        assert_allclose(other.evaluate(*rows, verbose=0), model.evaluate(*rows, verbose=0), rtol=1e-5)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert back.get_config()["layers"] == model.get_config()["layers"]


def test_models_that_were_not_compiled_or_built_come_from_keras():
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.ReLU()])
    assert not dasknn.from_keras(model).built
    model.build((None, 3))
    found = dasknn.from_keras(model)
    assert not found.compiled
    assert_same_weights(found, model, atol=0)


def test_what_keras_has_and_we_have_not_is_refused_by_name():
    model = keras.Sequential([keras.Input((4, 4)), keras.layers.Conv1D(2, 2), keras.layers.Flatten()])
    with pytest.raises(dasknn.exceptions.ModelFileError, match="Conv1D"):
        dasknn.from_keras(model)


def test_a_callback_of_keras_files_restores_what_it_saved(rows, tmp_path):
    model = deep(dasknn, "adam")
    step(model, rows).save(tmp_path / "model.keras")
    there = keras.models.load_model(tmp_path / "model.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "kept.keras"))
    there.fit(*rows, batch_size=N_ROWS, epochs=1, shuffle=False, verbose=0, callbacks=[checkpoint])
    back = dasknn.load_model(tmp_path / "kept.keras")
    assert back.optimizer.iterations == 3
    assert_same_weights(back, step(model, rows, 1))
