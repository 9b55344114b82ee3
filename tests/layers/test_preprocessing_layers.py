"""Keras's preprocessing layers: figures of its documentation, kinds of data, and their place in a model."""

import json
import pickle
from fractions import Fraction

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import Sequential, layers, load_model
from dasknn.layers import (
    CategoryEncoding,
    Dense,
    Discretization,
    Embedding,
    Flatten,
    Hashing,
    Input,
    Normalization,
    PiecewiseLinearEmbedding,
    StringLookup,
)


def kind_of(layer):
    """The name of a layer in the names of tests: its settings may hold functions, whose texts differ."""
    return type(layer).__name__


RNG = np.random.default_rng(0)
X = RNG.normal([3.0, -1.0, 100.0], [2.0, 1.0, 30.0], (600, 3))


def never(*_):
    raise AssertionError("computed")


def in_kinds(values, n_parts=3):
    """The same columns as data of each kind that layers take."""
    values = np.asarray(values)
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(values.shape[1])])
    size = -(-len(values) // n_parts)
    return {
        "list": values.tolist(),
        "array": values,
        "frame": frame,
        "dask array": da.from_array(values, chunks=(size, 1)),
        "dask frame": dd.from_pandas(frame, npartitions=n_parts),
    }


KINDS = ["list", "array", "frame", "dask array", "dask frame"]


# --- normalization -------------------------------------------------------------------------------------


def test_normalization_gives_the_figures_of_keras_documentation():
    layer = Normalization(axis=None)
    layer.adapt(np.array([1.0, 2, 3, 4, 5], "float32"))
    assert_allclose(layer(np.array([1, 2, 3], "float32")), [-1.4142135, -0.70710677, 0], rtol=1e-6)
    data = np.array([[0.0, 7, 4], [2, 9, 6], [0, 7, 4], [2, 9, 6]], "float32")
    assert_allclose(Normalization().adapt(data)(np.array([[0.0, 7, 4]])), [[-1, -1, -1]])
    given = Normalization(mean=3.0, variance=2.0)
    assert_allclose(given(np.array([[1.0], [2], [3]])), [[-1.4142135], [-0.70710677], [0]], rtol=1e-6)
    inverse = Normalization(invert=True).adapt(data)
    assert_allclose(inverse(np.array([[1.0, 2, 3]])), [[2, 10, 8]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-1, None])
def test_normalization_of_data_of_any_kind(axis, kind):
    data = in_kinds(X)[kind]
    layer = Normalization(axis=axis).adapt(data)
    along = None if axis is None else 0
    assert_allclose(layer.mean, X.mean(axis=along), rtol=1e-12)
    assert_allclose(layer.variance, X.var(axis=along), rtol=1e-12)
    (found,) = dask.compute(layer(data))
    assert_allclose(found, (X - X.mean(axis=along)) / X.std(axis=along), rtol=1e-9, atol=1e-12)
    if kind == "frame":
        assert list(found.columns) == ["c0", "c1", "c2"]


def test_the_moments_of_large_numbers_keep_their_digits():
    large = np.array([1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 7]).reshape(-1, 1)
    found = Normalization().adapt(da.from_array(large, chunks=(1, 1)))
    exact = [Fraction(int(x)) for x in large[:, 0]]
    mean = sum(exact) / 4
    assert_allclose(found.mean, [float(mean)], rtol=1e-15)
    assert_allclose(found.variance, [float(sum((x - mean) ** 2 for x in exact) / 4)], rtol=1e-12)


def test_a_constant_column_becomes_zeros():
    data = np.full((10, 1), 0.1)
    assert_array_equal(Normalization().adapt(data)(data.astype("float32")), np.zeros((10, 1)))


def test_normalization_in_a_model_learns_nothing_in_training():
    rows = X.astype("float32")
    layer = Normalization()
    layer.adapt(rows)
    model = Sequential([Input((3,)), layer, Dense(1)])
    assert model.count_params() == 4
    model.compile("sgd", "mse")
    model.fit(rows, rows[:, 0], verbose=0)
    assert model.layers[0].mean == layer.mean
    weights = model.get_weights()
    expected = layer(rows) @ weights[0] + weights[1]
    assert_allclose(model.predict(rows, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_a_model_can_adapt_its_own_layer():
    model = Sequential([Input((3,)), Normalization(), Dense(1)])
    kernel = model.layers[1].get_weights()[0]
    model.layers[0].adapt(X)
    assert_allclose(model.layers[0].mean, X.mean(axis=0))
    assert_array_equal(model.layers[1].get_weights()[0], kernel)
    model.compile("sgd", "mse")
    model.fit(X, X[:, 0], verbose=0)
    with pytest.raises(AttributeError, match="Dense has no adapt"):
        model.layers[1].adapt(X)


def test_a_layer_of_a_model_is_a_copy_so_adapting_the_original_raises():
    layer = Normalization()
    Sequential([Input((3,)), layer])
    with pytest.raises(ValueError, match=r"model.layers\[...\].adapt\(X\)"):
        layer.adapt(X)


def test_normalization_that_knows_nothing_raises():
    model = Sequential([Input((3,)), Normalization(), Dense(1)])
    with pytest.raises(ValueError, match=r"no mean and variance yet. Call adapt\(X\)"):
        model.predict(X, verbose=0)
    with pytest.raises(ValueError, match="no mean and variance yet"):
        Normalization()(X)


def test_weights_of_an_adapted_layer_in_a_file_of_keras_are_used(tmp_path):
    model = Sequential([Input((3,)), Normalization()])
    assert [weight.shape for weight in model.get_weights()] == [(3,), (3,), ()]
    model.set_weights([X.mean(axis=0), X.var(axis=0), np.zeros(())])
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    assert_allclose(again.predict(X, verbose=0), Normalization().adapt(X)(X), atol=1e-4)
    again.compile("sgd", "mse")
    again.fit(X, X, verbose=0)
    assert_array_equal(again.get_weights()[1], model.get_weights()[1])


# --- bins and codes ------------------------------------------------------------------------------------


def test_discretization_gives_the_figures_of_keras_documentation():
    data = np.array([[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]])
    assert_array_equal(Discretization([0.0, 1, 2])(data), [[0, 2, 3, 1], [1, 3, 2, 1]])
    layer = Discretization(num_bins=4, epsilon=0.01).adapt(data)
    assert_array_equal(layer(data), [[0, 2, 3, 2], [1, 3, 3, 1]])


def test_a_boundary_belongs_to_the_bin_above_it_in_any_dtype():
    layer = Discretization([0.7, 1.0])
    for dtype in ("float32", "float64"):
        assert_array_equal(layer(np.array([[0.69], [0.7], [1.0]], dtype)), [[0], [1], [2]])


@pytest.mark.parametrize("n_chunks", [1, 13])
def test_bins_hold_about_equally_many_numbers(n_chunks):
    numbers = RNG.standard_exponential((50_000, 1))
    data = da.from_array(numbers, chunks=(-(-50_000 // n_chunks), 1))
    layer = Discretization(num_bins=5).adapt(data)
    counts = np.bincount(layer(numbers)[:, 0])
    assert_allclose(counts / len(numbers), 0.2, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_discretization_of_data_of_any_kind(kind):
    (found,) = dask.compute(Discretization([0.0, 3.0])(in_kinds(X)[kind]))
    assert_array_equal(found, np.digitize(X, [0.0, 3.0]))


def test_category_encoding_gives_the_figures_of_keras_documentation():
    one_hot = CategoryEncoding(4, "one_hot")
    assert_array_equal(one_hot([3, 2, 0, 1]), np.eye(4)[[3, 2, 0, 1]])
    assert_array_equal(one_hot([[3], [2]]), np.eye(4)[[3, 2]])
    rows = [[0, 1], [0, 0], [1, 2], [3, 1]]
    assert_array_equal(CategoryEncoding(4)(rows), [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]])
    assert_array_equal(
        CategoryEncoding(4, "count")(rows), [[1, 1, 0, 0], [2, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    )


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("kind", ["list", "array", "dask array"])
def test_codes_are_encoded_outside_of_a_model_as_inside(mode, kind):
    codes = RNG.integers(0, 5, (40, 3))
    layer = CategoryEncoding(5, mode)
    (found,) = dask.compute(layer(in_kinds(codes)[kind]))
    shape = (3, 5) if mode == "one_hot" else (5,)
    assert found.shape == (40, *shape) == (40, *layer.output_shape((3,)))
    model = Sequential([Input((3,)), layer, Flatten()])
    model.add(Dense(1))
    inside = layer.outputs(codes.astype("float32"))
    assert_array_equal(found.reshape(40, -1), inside)
    assert_array_equal(layer.bind(40, 3, "float32").forward(codes, (), None), inside)
    assert inside.shape[1] == layer.n_outputs(3)


def test_dask_frames_are_encoded_row_by_row():
    codes = RNG.integers(0, 5, (40, 3))
    found = CategoryEncoding(5)(in_kinds(codes)["dask frame"])
    assert list(found.columns) == list(range(5))
    assert_array_equal(found.compute(), CategoryEncoding(5)(codes))


def test_codes_that_pass_through_a_table_are_flattened_to_vectors():
    codes = RNG.integers(0, 6, (20, 3))
    model = Sequential([Input((3,)), Embedding(6, 2), Flatten()])
    assert model.layers[0].output_shape == (None, 3, 2)
    (table,) = model.get_weights()
    assert_array_equal(model.predict(codes, verbose=0), table[codes].reshape(20, 6))


# --- text ----------------------------------------------------------------------------------------------

WORDS = np.array([["Rome", "Oslo"], ["Bern", "Rome"], ["Oslo", "Rome"], ["Rome", "Kiel"], ["Kiel", "Bern"]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_learned_and_looked_up_in_data_of_any_kind(kind):
    data = in_kinds(WORDS)[kind]
    layer = StringLookup().adapt(data)
    # Rome four times, the others twice: the last in the alphabet first, as in Keras.
    assert layer.get_vocabulary() == ["[UNK]", "Rome", "Oslo", "Kiel", "Bern"]
    found = layer(data)
    with dask.config.set(scheduler=never if "dask" not in kind else "sync"):
        (found,) = dask.compute(found)
    assert_array_equal(found, [[1, 2], [4, 1], [2, 1], [1, 3], [3, 4]])


def test_a_lookup_of_dask_data_computes_nothing():
    data = in_kinds(WORDS)
    layer = StringLookup(vocabulary=["Rome"])
    with dask.config.set(scheduler=never):
        layer(data["dask array"])
        layer(data["dask frame"])
        Hashing(7)(data["dask frame"]["c0"])


def test_a_series_stays_one_with_its_index_and_name():
    series = pd.Series(["b", "a", None], index=[7, 8, 9], name="city")
    found = StringLookup(vocabulary=["a", "b"])(series)
    pd.testing.assert_series_equal(found, pd.Series([2, 1, 0], index=[7, 8, 9], name="city"))
    lazy = StringLookup(vocabulary=["a", "b"])(dd.from_pandas(series, npartitions=2))
    pd.testing.assert_series_equal(lazy.compute(), found)


def test_the_order_of_codes_is_that_of_keras():
    layer = StringLookup(vocabulary=["a", "b"], mask_token="", num_oov_indices=2)
    assert layer.get_vocabulary() == ["", "[UNK]", "[UNK]", "a", "b"]
    assert layer.get_vocabulary(include_special_tokens=False) == ["a", "b"]
    assert layer.vocabulary_size() == 5
    codes = layer(["", "a", "b", None, *(f"unknown {i}" for i in range(50))])
    assert_array_equal(codes[:4], [0, 3, 4, 0])
    assert set(codes[4:]) == {1, 2}
    one_hot = StringLookup(vocabulary=["a", "b"], mask_token="", output_mode="one_hot")
    # Encodings leave the mask out.
    assert one_hot.get_vocabulary() == ["[UNK]", "a", "b"]
    assert_array_equal(one_hot(["", "z", "b"]), [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    with_special = StringLookup(vocabulary=["[UNK]", "a", "b"])
    assert with_special.vocabulary == ("a", "b")


@pytest.mark.parametrize(
    ("value", "code"), [(None, 0), (np.nan, 0), (pd.NA, 0), (b"a", 1), ("A", 0), (np.str_("a"), 1)]
)
def test_missing_values_and_bytes(value, code):
    values = np.array([value, "b"], object)
    assert_array_equal(StringLookup(vocabulary=["a", "b"])(values), [code, 2])


def test_a_vocabulary_is_cut_to_the_most_frequent_and_leaves_special_text_out():
    words = ["c"] * 3 + ["b"] * 2 + ["a"] + ["[UNK]"] * 9 + [""] * 9
    layer = StringLookup(max_tokens=4, mask_token="").adapt(words)
    assert layer.get_vocabulary() == ["", "[UNK]", "c", "b"]


def test_codes_become_text_again():
    layer = StringLookup(vocabulary=["a", "b"], mask_token="", invert=True)
    assert layer([[0, 1], [2, 3], [7, 2]]).tolist() == [["", "[UNK]"], ["a", "b"], ["[UNK]", "a"]]
    lazy = layer(da.from_array(np.array([[0, 1], [2, 3]]), chunks=1))
    assert lazy.compute().tolist() == [["", "[UNK]"], ["a", "b"]]


def test_hashes_are_the_same_in_every_process_and_kind_of_data():
    layer = Hashing(1000)
    assert layer(["Rome", "Oslo"]).tolist() == [24, 500]
    for kind, data in in_kinds(WORDS).items():
        (found,) = dask.compute(layer(data))
        assert_array_equal(found, layer(WORDS), err_msg=kind)
    assert_array_equal(layer([1, 2, 30]), layer(["1", "2", "30"]))
    assert len(set(layer([str(i) for i in range(100)]))) > 90
    salted = [Hashing(1000, salt=salt)(["Rome"]).item() for salt in (None, 1, 2, (1, 2), (1, 1))]
    assert salted[1] == salted[4]
    assert len(set(salted)) == 4


def test_a_masked_value_has_the_code_0_and_no_other_has():
    words = [f"word {i}" for i in range(200)]
    layer = Hashing(4, mask_value="")
    assert set(layer(words)) == {1, 2, 3}
    assert layer(["", None]).tolist() == [0, 0]
    assert Hashing(4, mask_value=-1)([-1, 5]).tolist()[0] == 0
    assert Hashing(1, mask_value="")(words).tolist() == [0] * 200


def test_hashes_of_integers_are_those_of_a_model():
    codes = RNG.integers(0, 10**6, (30, 2))
    model = Sequential([Input((2,)), Hashing(50, output_mode="one_hot"), Flatten()])
    assert_array_equal(
        model.predict(codes, verbose=0), Hashing(50, output_mode="one_hot")(codes).reshape(30, -1)
    )


def test_text_in_a_model_raises_and_says_what_to_do():
    with pytest.raises(ValueError, match=r"Call it on the text before fit, layer\(X\)"):
        Sequential([Input((2,)), StringLookup(vocabulary=["a"])])
    model = Sequential([StringLookup(vocabulary=["a"])])
    with pytest.raises(ValueError, match="Call it on the text before fit"):
        model.build((None, 2))


# --- in a model ----------------------------------------------------------------------------------------

IN_MODELS = [
    Normalization(mean=[3, -1, 100], variance=[4, 1, 900]),
    Normalization(mean=3.0, variance=4.0, invert=True),
    Normalization(axis=None, mean=3.0, variance=4.0),
    Discretization([0.0, 3.0, 50.0]),
    Discretization([0.0, 3.0, 50.0], output_mode="one_hot"),
    Discretization([0.0, 3.0, 50.0], output_mode="multi_hot"),
    Discretization([0.0, 3.0, 50.0], 4, output_mode="count"),
]
CODED = [
    CategoryEncoding(6),
    CategoryEncoding(6, "one_hot"),
    CategoryEncoding(6, "count"),
    Hashing(4),
    Hashing(4, 0, (1, 2), "multi_hot"),
]


@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
@pytest.mark.parametrize("layer", [*IN_MODELS, *CODED], ids=kind_of)
def test_a_model_with_the_layer_trains_and_survives_its_file(layer, ending, tmp_path):
    rows = (RNG.integers(0, 6, (600, 3)) if layer in CODED else X).astype("float32")
    model = Sequential([Input((3,)), layer, Flatten(), Dense(1)])
    model.compile("adam", "mse")
    model.fit(rows, rows[:, 0], verbose=0)
    text = []
    model.summary(print_fn=text.append)
    assert type(layer).__name__ in text[0]
    model.save(tmp_path / f"model{ending}")
    again = load_model(tmp_path / f"model{ending}")
    assert_array_equal(again.predict(rows, verbose=0), model.predict(rows, verbose=0))
    assert Sequential.from_config(model.get_config()).get_config() == model.get_config()


@pytest.mark.parametrize("layer", IN_MODELS, ids=kind_of)
def test_a_layer_in_the_middle_is_differentiated(layer):
    bound = layer.bind(5, 3, "float64")
    found = bound.forward(X[:5], (), None)
    assert_array_equal(found, layer.outputs(X[:5]))
    bound.dA[...] = cotangent = RNG.standard_normal(bound.dA.shape)
    dX = np.full((5, 3), np.nan)
    bound.backward(X[:5], (), (), dX)
    step = 1e-6
    direction = RNG.standard_normal((5, 3))
    ahead, behind = ((layer.outputs(X[:5] + sign * step * direction) * cotangent).sum() for sign in (1, -1))
    assert_allclose((dX * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "layer",
    [
        *IN_MODELS,
        *CODED,
        StringLookup(5, 2, "", "?", ["a", "b"]),
        StringLookup(vocabulary=["a"], invert=True),
    ],
    ids=str,
)
def test_a_layer_survives_its_configuration_and_pickling(layer):
    written = json.loads(json.dumps(layers.serialize(layer)))
    again = layers.deserialize(written)
    assert again.get_config() == layer.get_config()
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(pickle.loads(pickle.dumps(layer))) == hash(layer)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Normalization", {"axis": [-1], "invert": False, "mean": None, "variance": None}),
        ("Normalization", {"axis": [], "invert": True, "mean": 1.0, "variance": 2.0}),
        (
            "Discretization",
            {"bin_boundaries": [0.0], "num_bins": 2, "epsilon": 0.01, "output_mode": "int", "sparse": False},
        ),
        ("CategoryEncoding", {"num_tokens": 3, "output_mode": "count"}),
        (
            "Embedding",
            {
                **{"input_dim": 5, "output_dim": 4, "embeddings_regularizer": None, "mask_zero": False},
                **{"activity_regularizer": None, "embeddings_constraint": None},
            },
        ),
        ("Input", {"batch_shape": [None, 3], "dtype": "int64", "sparse": False, "ragged": False}),
        (
            "StringLookup",
            {
                **{"invert": False, "max_tokens": None, "num_oov_indices": 1, "oov_token": "[UNK]"},
                **{"mask_token": None, "output_mode": "int", "sparse": False, "pad_to_max_tokens": False},
                **{"vocabulary_dtype": "string", "idf_weights": None, "vocabulary": ["a"]},
                **{"vocabulary_size": 2, "oov_method": "floormod", "encoding": "utf-8"},
            },
        ),
    ],
)
def test_configurations_that_keras_writes_are_read(name, config):
    class_name = "InputLayer" if name == "Input" else name
    written = {"class_name": class_name, "config": {"name": "first", "trainable": True, **config}}
    assert type(layers.deserialize(written)).__name__ == name


def test_a_hashing_layer_of_keras_is_refused_since_its_codes_are_others():
    config = {"num_bins": 3, "salt": [1, 2], "mask_value": "", "output_mode": "int", "sparse": False}
    with pytest.raises(ValueError, match="received one of Keras, whose hashes are others"):
        layers.deserialize({"class_name": "Hashing", "config": config})


def test_discretization_writes_no_setting_that_keras_lacks():
    # Keras 3.15.1 raises for others.
    known = {"bin_boundaries", "num_bins", "epsilon", "output_mode", "sparse", "name", "dtype"}
    assert set(Discretization([0.0]).get_config()) <= known


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalization(axis=2), "expects axis -1 or None, as rows are flat; received 2"),
        (lambda: Normalization(mean=1.0), "both mean and variance, or neither"),
        (lambda: Normalization(mean=[1, 2], variance=[1]), "as many means as variances"),
        (lambda: Normalization(mean=[1, 2], variance=[1, -1]), "variances of at least 0"),
        (lambda: Normalization(axis=None, mean=[1, 2], variance=[1, 2]), "one for each column if axis=-1"),
        (lambda: Normalization(mean=[1, 2], variance=[1, 2])(X), "the mean of 2 columns, received 3"),
        (lambda: Normalization(mean=[1, 2], variance=[1, 2]).output_shape((3,)), "of 2 columns, received 3"),
        (lambda: Normalization().adapt([1.0, 2.0]), r"Use X.reshape\(-1, 1\)"),
        (lambda: Normalization().adapt([[1.0, np.inf]]), "received inf in column 1"),
        (lambda: Normalization().adapt([["a"]]), "Look text up with StringLookup"),
        (lambda: Normalization().adapt(da.zeros((0, 3))), "data with rows to adapt to"),
        (lambda: Normalization(mean=1, variance=1)([1.0]), "Use axis=None, or"),
        (lambda: Normalization(mean=1, variance=1)(3.0), "an array, dataframe, series or list of rows"),
        (lambda: Discretization(), "bin_boundaries or num_bins, received neither"),
        (lambda: Discretization([1, 0]), "ascending bin_boundaries"),
        (lambda: Discretization(num_bins=0), "num_bins to be at least 1"),
        (lambda: Discretization(num_bins=2, epsilon=0.0), r"epsilon to be in \(0, 1\)"),
        (lambda: Discretization([0.0]).adapt(X), "expects num_bins to adapt"),
        (lambda: Discretization(num_bins=3)(X), r"no boundaries yet. Call adapt\(X\)"),
        (lambda: Discretization([0.0], output_mode="binary"), "one of int, one_hot, multi_hot, count"),
        (lambda: CategoryEncoding(0), "num_tokens to be at least 1"),
        (lambda: CategoryEncoding(2, "int"), "output_mode to be one of one_hot, multi_hot, count"),
        (lambda: CategoryEncoding(2)([[0, 2]]), "integers from 0 to 1 in column 1, received 2"),
        (lambda: CategoryEncoding(2)([0, 1]), r"Use X.reshape\(-1, 1\) for rows of one value"),
        (
            lambda: CategoryEncoding(2, "one_hot")(pd.DataFrame({"a": [0], "b": [1]})),
            "several columns of each column",
        ),
        (lambda: Hashing(0), "num_bins to be at least 1"),
        (lambda: Hashing(2, salt="a"), "salt to be one or two integers"),
        (lambda: Hashing(2)([0.5]), "text or integers, received"),
        (lambda: Hashing(2)(np.array(["a", None])), "mask_value for columns with missing text"),
        (lambda: Hashing(2)(np.array([object()])), "expects text"),
        (lambda: StringLookup(1), "max_tokens to be at least 2"),
        (lambda: StringLookup(num_oov_indices=-1), "num_oov_indices to be at least 0"),
        (lambda: StringLookup(invert=True, output_mode="one_hot"), "output_mode='int' to turn codes"),
        (lambda: StringLookup(vocabulary="words.txt"), "Read the file before"),
        (lambda: StringLookup(vocabulary=[]), "at least one text"),
        (lambda: StringLookup(vocabulary=["a", "a"]), "each text of a vocabulary once"),
        (lambda: StringLookup(vocabulary=["a", ""], mask_token=""), "without mask_token"),
        (lambda: StringLookup(2, vocabulary=["a", "b"]), "at most max_tokens=2"),
        (lambda: StringLookup(vocabulary=[1]), "expects text, received 1"),
        (lambda: StringLookup()(["a"]), "no vocabulary yet"),
        (lambda: StringLookup().adapt([1, 2]), "expects text, received"),
        (lambda: StringLookup().adapt(np.array([None])), "text to adapt to, received none"),
        (lambda: StringLookup(num_oov_indices=0, vocabulary=["a"])(["b"]), "Use num_oov_indices=1"),
        (
            lambda: layers.deserialize({"class_name": "StringLookup", "config": {"pad_to_max_tokens": True}}),
            "does not implement pad_to_max_tokens",
        ),
        (lambda: PiecewiseLinearEmbedding(n_bins=2.5), "n_bins to be an integer"),
    ],
)
def test_what_makes_no_sense_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
