"""Embeddings of numbers in the estimators for tables."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import dasknn
from dasknn import TabularRegressor
from dasknn.layers import ColumnGroups, Omit, PBLDEmbedding, PeriodicEmbedding

RNG = np.random.default_rng(0)
X = pd.DataFrame(
    {"a": RNG.normal(size=400), "b": RNG.normal(size=400), "c": RNG.choice(["x", "y", "z"], 400)}
)
Y = np.sin(3 * X["a"]) + X["b"] + (X["c"] == "x")


@pytest.mark.parametrize(("name", "kind"), [("periodic", PeriodicEmbedding), ("pbld", PBLDEmbedding)])
def test_waves_take_the_numbers_alone_and_survive_a_file(name, kind, tmp_path):
    model = TabularRegressor(embedding=name, embedding_dim=5, max_iter=3, members=2, random_state=0).fit(X, Y)
    table = model._predictor().network.layers[0]
    assert isinstance(table, ColumnGroups)
    (width, waves), (n_left_out, left_out), *_ = table.groups
    assert isinstance(waves, kind)
    assert waves.embedding_dim == 5
    assert isinstance(left_out, Omit)
    assert width == n_left_out == 2
    dasknn.save(model, tmp_path / "model.safetensors")
    assert_array_equal(dasknn.load(tmp_path / "model.safetensors").predict(X), model.predict(X))
