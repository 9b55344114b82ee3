"""Recommendations for the estimators for tables: of the network that a fit would train, on as many rows."""

import dask.dataframe as dd
import numpy as np
import pytest

import dasknn
from dasknn import TabularClassifier, TabularRegressor
from tests.data.tables.raw_tables import mixed

FRAME = mixed(240)
LABELS = np.where(FRAME["age"] > 50, "old", "young")
SMALL = {"members": 2, "hidden_layer_sizes": (8,), "batch_size": 64, "max_iter": 2, "random_state": 0}


@pytest.fixture
def data(client):
    """The table on the workers, and labels."""
    whole = dd.from_pandas(FRAME.assign(label=LABELS), npartitions=3)
    return whole[list(FRAME.columns)], whole["label"]


def test_the_network_is_that_of_a_fit(client, data, capsys):
    model = TabularClassifier(replicas=2, **SMALL)
    first = dasknn.recommend(client, model, data[0])
    printed = capsys.readouterr().out
    # It has learned nothing itself.
    assert not model.__sklearn_is_fitted__()
    assert not hasattr(model, "_table")
    model.fit(*data)
    n_params = model._network_.n_params
    rows = "204 of 240 rows x 11 columns"
    assert f"{rows}, {n_params:,} parameters (as for 2 classes), 2 replicas, 32 rows of each" in printed
    # Measurements stand beside the predictions for as many rows.
    found = dasknn.recommend(client, model, data[0])
    assert f"{rows}, {n_params:,} parameters, 2 replicas" in str(found)
    measured = [row for row in found.rows if row.measured_seconds is not None]
    assert [(row.strategy.name, row.transport) for row in measured] == [("gradients", "peer")]
    sent = {row.transport: row.bytes_sent for row in first.rows if row.strategy.name == "gradients"}
    assert sent["peer"] == measured[0].bytes_sent == measured[0].measured_bytes
    # A member has no history of its own.
    assert f"{rows}, " in str(dasknn.recommend(client, model.members_[0], data[0]))


@pytest.mark.parametrize(
    "model",
    [
        TabularRegressor(**SMALL),
        TabularRegressor(**SMALL, quantiles=[0.1, 0.5, 0.9]),
        TabularRegressor(**SMALL, embedding="encoding", early_stopping=False),
        TabularClassifier(**SMALL, embedding=None, bins="tree", categorical_features=["age"]),
        TabularClassifier(members="auto", dropout=0.2, embedding="periodic", hidden_layer_sizes=(8,)),
    ],
    ids=str,
)
def test_each_kind_of_network_is_measured(client, data, model, capsys):
    found = dasknn.recommend(client, model, data[0])
    assert found.measured.step > 0
    assert found.engine == "numpy"
    rows = "240 rows" if model.early_stopping is False else "204 of 240 rows"
    assert f"{rows} x 11 columns, " in str(found)


def test_the_recipe_is_that_of_so_many_rows(client, capsys):
    few, many = (
        dd.from_pandas(FRAME[["age"]].sample(n, replace=True, random_state=0), npartitions=2)
        for n in (200, 60_000)
    )
    model = TabularClassifier(hidden_layer_sizes=(2,), embedding="encoding", early_stopping=False, replicas=1)
    # Rows of a step follow the recipe: 64 in a small table, 256 in this one.
    assert "64 rows of each in a step, 4 steps an epoch" in str(dasknn.recommend(client, model, few))
    assert "256 rows of each in a step, 235 steps an epoch" in str(dasknn.recommend(client, model, many))
