"""Docstrings of the two APIs: they describe each parameter, and what both APIs have in the same words."""

import inspect
import re

import pytest

import dasknn
from dasknn import EnsembleClassifier, EnsembleRegressor, MLPClassifier, MLPRegressor, Sequential

FUNCTIONS = [
    "from_keras",
    "from_sklearn",
    "load_model",
    "model_from_json",
    "recommend",
    "set_random_seed",
    "to_keras",
]
METHODS = {
    MLPClassifier: [
        "fit",
        "partial_fit",
        "predict",
        "predict_proba",
        "predictive_entropy",
        "score",
        "save",
        "to_sklearn",
    ],
    MLPRegressor: ["fit", "partial_fit", "predict", "score", "save", "to_sklearn"],
    EnsembleClassifier: ["fit", "predict", "predict_proba", "predictive_entropy", "score", "save"],
    EnsembleRegressor: ["fit", "predict", "score", "save"],
    Sequential: [
        *("add", "build", "compile", "compile_from_config", "evaluate", "fit", "from_config", "get_layer"),
        *(
            "load_weights",
            "pop",
            "predict",
            "predict_on_batch",
            "save",
            "save_weights",
            "set_weights",
            "summary",
        ),
        *("test_on_batch", "to_json", "train_on_batch"),
    ],
}
DESCRIBED = {
    **{name: getattr(dasknn, name) for name in FUNCTIONS},
    **{kind.__name__: kind for kind in METHODS},
    **{f"{kind.__name__}.{name}": getattr(kind, name) for kind, names in METHODS.items() for name in names},
}


def section(described, title):
    """Descriptions in a section of a docstring, by name; several names may share one."""
    text = inspect.getdoc(described)
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w[^\n]*\n-+\n|\Z)", text, re.DOTALL | re.MULTILINE)
    entries = re.split(r"\n(?=\S)", found[1]) if found else []
    descriptions = {}
    for entry in entries:
        names, _, rest = entry.partition(" : ") if " : " in entry.split("\n")[0] else entry.partition("\n")
        descriptions |= {name.strip().lstrip("*"): " ".join(rest.split()) for name in names.split(",")}
    return descriptions


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_docstring_describes_each_parameter(name):
    parameters = set(inspect.signature(DESCRIBED[name]).parameters) - {"self"}
    assert set(section(DESCRIBED[name], "Parameters")) == parameters


@pytest.mark.parametrize("title", ["Parameters", "Attributes"])
def test_classifier_and_regressor_describe_what_they_share_in_the_same_words(title):
    classifier, regressor = (section(kind, title) for kind in (MLPClassifier, MLPRegressor))
    shared = set(classifier) & set(regressor) - {"validation_scores_"}
    assert len(shared) > 15
    assert {name: classifier[name] for name in shared} == {name: regressor[name] for name in shared}


def test_both_apis_describe_faults_and_checkpoints_of_fit_in_the_same_words():
    for name in ("sample_weight", "checkpoint", "resume", "max_faults"):
        assert section(MLPClassifier.fit, "Parameters")[name] == section(Sequential.fit, "Parameters")[name]
    assert section(MLPClassifier.fit, "Raises") == section(Sequential.fit, "Raises")


def test_fitted_attributes_are_those_that_are_described(digits):
    X, y = digits
    for kind in (MLPClassifier, MLPRegressor):
        model = kind(hidden_layer_sizes=(8,), max_iter=2, early_stopping=True)
        fitted = {name for name in vars(model.fit(X, y)) if name.endswith("_") and not name.startswith("_")}
        described = set(section(kind, "Attributes"))
        assert fitted <= described
        assert described - fitted == {"members_", "feature_names_in_", "target_name_"}
