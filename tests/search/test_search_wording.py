"""Settings and scores as people read them."""

import pytest
from sklearn.metrics import make_scorer, median_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dasknn import MLPClassifier, MLPRegressor, TabularRegressor
from dasknn.search.wording import model_name, score_name, settings_text, value_text


def build(units):
    """Build nothing."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.000123"),
        (1e-7, "1e-07"),
        (3, "3"),
        (True, "True"),
        (None, "None"),
        ("relu", "relu"),
        ((64, 64), "(64, 64)"),
        (build, "build"),
        ("x" * 100, "x" * 39 + "…"),
    ],
)
def test_values_are_short(value, text):
    assert value_text(value) == text


def test_settings_are_named_without_the_steps_of_a_pipeline_and_cut():
    settings = {"mlpclassifier__alpha": 0.1, "solver": "adam"}
    assert settings_text(settings) == "alpha=0.1, solver=adam"
    assert settings_text(settings, 12) == "alpha=0.1, …"


@pytest.mark.parametrize(
    ("estimator", "scoring", "model", "score"),
    [
        (MLPClassifier(), None, "MLPClassifier", "accuracy"),
        (make_pipeline(StandardScaler(), MLPRegressor()), None, "MLPRegressor", "R²"),
        (TabularRegressor(), None, "TabularRegressor", "score"),
        (build, None, "build", "negative loss"),
        (MLPClassifier(), "roc_auc", "MLPClassifier", "roc auc"),
        (MLPRegressor(), make_scorer(median_absolute_error), "MLPRegressor", "median absolute error"),
        (MLPRegressor(), build, "MLPRegressor", "build"),
    ],
)
def test_models_and_scores_have_names_for_people(estimator, scoring, model, score):
    assert (model_name(estimator), score_name(estimator, scoring)) == (model, score)
