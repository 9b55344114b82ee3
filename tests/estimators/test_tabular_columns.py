"""What the estimators for tables say of the recipe and of the columns of a table."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from dasknn import TabularClassifier
from tests.data.tables.raw_tables import mixed

FRAME = mixed(120)
LABELS = np.where(FRAME["age"] > 50, "old", "young")


def fitted(X=FRAME, **settings):
    small = {"members": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "batch_size": 32, "random_state": 0}
    return TabularClassifier(**{**small, **settings}).fit(X, LABELS)


@pytest.fixture(scope="module")
def columns():
    return {column.name: column for column in fitted().columns_}


def test_the_recipe_says_what_was_chosen_and_what_was_given():
    found = fitted(batch_size="auto", dropout=0.3).recipe_
    assert found._asdict() == {
        "members": 2,
        "hidden": (8,),
        "embeds": True,
        "epochs": 2,
        "batch_size": 64,
        "dropout": 0.3,
        "weight_decay": 0.1,
    }


def test_columns_are_a_table_with_a_row_for_each(columns):
    frame = pd.DataFrame(columns.values())
    assert frame["name"].tolist() == FRAME.columns.tolist()
    kinds = "number number number binary binary category category date duration ignored ignored"
    assert frame["kind"].tolist() == kinds.split()


def test_columns_say_where_values_were_missing(columns):
    assert {name: column.has_missing for name, column in columns.items()} == {
        name: bool(FRAME[name].isna().any()) for name in FRAME
    }


def test_columns_have_their_bins_and_categories(columns):
    assert (columns["age"].n_bins, columns["age"].n_categories) == (6, 0)
    assert columns["seen"].n_bins > columns["age"].n_bins
    assert (columns["job"].n_bins, columns["job"].n_categories, columns["job"].n_shared_codes) == (0, 3, 0)
    words = pd.DataFrame({"word": [f"word {row % 40}" for row in range(120)]})
    (rare,) = fitted(words, min_frequency=3, max_categories=10).columns_
    assert (rare.kind, rare.n_categories, rare.n_shared_codes) == ("hashed category", 10, 30)
    assert rare.becomes == "a vector of 8"


def test_columns_say_what_the_network_gets(columns):
    assert columns["age"].becomes == "a vector of 16"
    assert columns["income"].becomes == "a vector of 16, 1 where missing"
    assert columns["member"].becomes == "-1 or 1"
    assert columns["owner"].becomes == "-1 or 1, 1 where missing"
    assert columns["job"].becomes == "3 one-hot inputs"
    assert columns["constant"].becomes == "nothing"


@pytest.mark.parametrize(
    ("embedding", "becomes"),
    [
        (None, "1 scaled number"),
        ("encoding", "6 inputs of bins"),
        ("periodic", "a vector of 5"),
        ("pbld", "a vector of 5"),
    ],
)
def test_the_embedding_decides_what_numbers_become(embedding, becomes):
    model = fitted(FRAME[["age", "job"]], embedding=embedding, embedding_dim=5)
    assert [column.becomes for column in model.columns_] == [becomes, "3 one-hot inputs"]
    # What was trained counts, not what is asked for later.
    assert model.set_params(embedding_dim=3).columns_[0].becomes == becomes


def test_a_model_that_was_not_fitted_has_no_columns():
    with pytest.raises(NotFittedError):
        print(TabularClassifier().columns_)
