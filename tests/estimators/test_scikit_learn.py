"""What scikit-learn's MLPs do, ours do: the installed version is the reference."""

import re
import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.neural_network as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_linnerud,
    load_wine,
    make_friedman1,
    make_multilabel_classification,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator

import dasknn
from dasknn.engine.workspace import Workspace

KINDS = ("MLPClassifier", "MLPRegressor")


def table(name):
    """Return (kind of estimator, X scaled, y)."""
    loaders = {
        "iris": load_iris,
        "wine": load_wine,
        "cancer": load_breast_cancer,
        "digits": load_digits,
        "diabetes": load_diabetes,
        "linnerud": load_linnerud,
    }
    if name in loaders:
        X, y = loaders[name](return_X_y=True)
    elif name == "friedman":
        X, y = make_friedman1(400, random_state=0)
    else:
        X, y = make_multilabel_classification(300, 12, n_classes=4, random_state=0)
    return KINDS[name in ("diabetes", "linnerud", "friedman")], scale(X), y


TABLES = ("iris", "cancer", "digits", "diabetes", "linnerud", "friedman", "multilabel")


def both(kind, **settings):
    return getattr(dasknn, kind)(**settings), getattr(reference, kind)(**settings)


def weights_of(model):
    return [*model.coefs_, *model.intercepts_]


def assert_same_weights(ours, theirs, tolerance=1e-8):
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        assert mine.dtype == other.dtype
        assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


ATTRIBUTES = ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_")
CURVES = ("loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_")


def assert_same_fit(ours, theirs, X):
    assert_same_weights(ours, theirs)
    assert {name: getattr(ours, name) for name in ATTRIBUTES} == {
        name: getattr(theirs, name) for name in ATTRIBUTES
    }
    for name in CURVES:
        assert hasattr(ours, name) == hasattr(theirs, name), name
        mine, other = getattr(ours, name, None), getattr(theirs, name, None)
        if other is None:
            assert mine is None, name
        else:
            assert_allclose(mine, other, rtol=1e-8, err_msg=name)
    assert_array_equal(ours.predict(X), theirs.predict(X)) if hasattr(ours, "classes_") else None


# --- training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", TABLES)
def test_training_in_process_has_scikit_learns_numbers(name, solver):
    kind, X, y = table(name)
    rate = {"learning_rate_init": 1e-4} if solver == "sgd" else {}
    ours, theirs = both(kind, hidden_layer_sizes=(20,), solver=solver, random_state=1, max_iter=150, **rate)
    ours.fit(X, y)
    theirs.fit(X, y)
    assert_same_fit(ours, theirs, X)


@pytest.mark.parametrize("settings", [
    {"activation": "tanh"}, {"activation": "logistic"}, {"alpha": 0}, {"hidden_layer_sizes": (9, 8)},
    {"tol": 1e-2},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["iris", "cancer", "linnerud", "multilabel"])
def test_lbfgs_takes_scikit_learns_iterations(name, settings, weighted):
    kind, X, y = table(name)
    weight = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weighted else None
    settings = {"hidden_layer_sizes": (8,), "solver": "lbfgs", "random_state": 1, **settings}
    ours, theirs = both(kind, **settings)
    ours.fit(X, y, weight)
    theirs.fit(X, y, weight)
    assert_same_fit(ours, theirs, X)


def test_lbfgs_that_finds_nothing_to_do_has_a_loss():
    _, X, y = table("iris")
    ours, theirs = both("MLPClassifier", solver="lbfgs", tol=10.0, random_state=1)
    assert_same_fit(ours.fit(X, y), theirs.fit(X, y), X)
    assert ours.n_iter_ == 0


@pytest.mark.parametrize("kind_of_x", ["csr", "float32"])
def test_lbfgs_on_other_kinds_of_x(kind_of_x):
    _, X, y = table("iris")
    dense = dasknn.MLPClassifier((8,), solver="lbfgs", random_state=1, alpha=1.0).fit(X, y)
    X = X.astype(np.float32) if kind_of_x == "float32" else sparse.csr_matrix(X)
    model = dasknn.MLPClassifier((8,), solver="lbfgs", random_state=1, alpha=1.0).fit(X, y)
    assert {array.dtype for array in weights_of(model)} == {X.dtype}
    assert model.loss_ == pytest.approx(dense.loss_, rel=1e-3 if kind_of_x == "float32" else 1e-8)


def test_lbfgs_makes_few_csr_rows_dense_at_a_time(monkeypatch):
    _, X, y = table("iris")
    monkeypatch.setattr("dasknn.engine.workspace._SPARSE_ELEMENTS_AT_ONCE", 7 * X.shape[1])
    sizes = set()
    make = Workspace.__init__

    def record(self, network, n_rows, metrics=None):
        sizes.add(n_rows)
        make(self, network, n_rows, metrics)

    monkeypatch.setattr(Workspace, "__init__", record)
    dasknn.MLPClassifier((3,), solver="lbfgs", max_iter=2).fit(sparse.csr_matrix(X), y)
    assert max(sizes) == 7


def partitioned(X, n_partitions):
    chunks = tuple(len(part) for part in np.array_split(X, n_partitions))
    return da.from_array(X, (chunks, -1)[: X.ndim])


# To the end where few iterations lead there; where hundreds do, they magnify the rounding of sums.
@pytest.mark.parametrize("settings", [
    {"hidden_layer_sizes": ()}, {"hidden_layer_sizes": (20,), "max_iter": 25},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("n_partitions", [1, 4, 13])
@pytest.mark.parametrize("name", TABLES)
def test_lbfgs_on_partitions_has_scikit_learns_loss(name, n_partitions, settings):
    kind, X, y = table(name)
    ours, theirs = both(kind, solver="lbfgs", random_state=1, alpha=0.1, **settings)
    ours.fit(partitioned(X, n_partitions), partitioned(y, n_partitions))
    theirs.fit(X, y)
    assert abs(ours.loss_ - theirs.loss_) < 1e-6
    assert not hasattr(ours, "loss_curve_")
    assert len(ours.history_) == ours.n_iter_


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["cancer", "iris", "multilabel", "diabetes", "linnerud"])
def test_early_stopping_has_scikit_learns_numbers(name, weighted, solver):
    kind, X, y = table(name)
    weight = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weighted else None
    ours, theirs = both(
        kind,
        hidden_layer_sizes=(9,),
        solver=solver,
        learning_rate_init=1e-4 if solver == "sgd" else 1e-2,
        early_stopping=True,
        n_iter_no_change=3,
        random_state=1,
        max_iter=60,
        validation_fraction=0.2,
    )
    ours.fit(X, y, weight)
    theirs.fit(X, y, weight)
    assert_same_fit(ours, theirs, X)
    # The weights are those of the best epoch, not of the last.
    assert max(ours.validation_scores_) == ours.best_validation_score_


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("solver", "rate"), [("sgd", 1e10), ("sgd", 1e-3), ("adam", 1e300)])
def test_early_stopping_brings_the_best_weights_back_from_a_training_that_diverges(solver, rate):
    X = 1e3 * np.random.default_rng(0).standard_normal((200, 4))
    ours, theirs = both(
        "MLPRegressor", hidden_layer_sizes=(8,), solver=solver, learning_rate_init=rate,
        early_stopping=True, max_iter=14, random_state=0,
    )  # fmt: skip
    for model in (ours, theirs):
        model.fit(X, 1e3 * X[:, 0])
        assert np.isnan(model.validation_scores_).any()
    assert ours.n_iter_ == theirs.n_iter_
    assert_allclose(ours.validation_scores_, theirs.validation_scores_)
    assert_allclose(ours.loss_curve_, theirs.loss_curve_)
    for one, two in zip(weights_of(ours), weights_of(theirs), strict=True):
        assert_allclose(one, two)
    ours.set_params(callbacks=[dasknn.callbacks.TerminateOnNaN()]).fit(X, 1e3 * X[:, 0])
    assert ours.n_iter_ < 14


@pytest.mark.parametrize("settings", [
    {}, {"solver": "sgd", "learning_rate": "invscaling"}, {"solver": "lbfgs"},
    {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.5},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["iris", "cancer", "diabetes"])
def test_a_warm_start_goes_on_as_in_scikit_learn(name, settings):
    kind, X, y = table(name)
    ours, theirs = both(
        kind, hidden_layer_sizes=(9,), warm_start=True, random_state=1, max_iter=7,
        learning_rate_init=1e-4, **settings,
    )  # fmt: skip
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ours.fit(X, y)
            theirs.fit(X, y)
        assert_same_fit(ours, theirs, X)
    assert [entry["epoch"] for entry in ours.history_] == list(range(1, len(ours.history_) + 1))


def test_a_warm_start_with_early_stopping_keeps_the_best_weights():
    # scikit-learn goes on training the very arrays that it has kept as the best.
    _, X, y = table("iris")
    settings = {"early_stopping": True, "warm_start": True, "max_iter": 100, "learning_rate_init": 0.02}
    ours, theirs = both("MLPClassifier", hidden_layer_sizes=(9,), random_state=1, **settings)
    ours.fit(X, y)
    theirs.fit(X, y)
    best, score = [array.copy() for array in weights_of(ours)], ours.best_validation_score_
    ours.fit(X, y)
    theirs.fit(X, y)
    for name in CURVES[2:]:
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8)
    assert ours.best_validation_score_ == score, "the second fit should find nothing better"
    for mine, other in zip(weights_of(ours), best, strict=True):
        assert_array_equal(mine, other)


@pytest.mark.parametrize("settings", [
    {}, {"solver": "sgd"}, {"solver": "sgd", "learning_rate": "invscaling"}, {"shuffle": False},
    {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.5}, {"warm_start": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["iris", "cancer", "multilabel", "diabetes"])
def test_partial_fit_goes_on_as_in_scikit_learn(name, settings):
    kind, X, y = table(name)
    ours, theirs = both(kind, hidden_layer_sizes=(9,), random_state=1, learning_rate_init=1e-4, **settings)
    labels = np.arange(y.shape[1]) if y.ndim > 1 else np.unique(y)
    first = {"classes": labels} if kind == "MLPClassifier" else {}
    for model in (ours, theirs):
        model.partial_fit(X, y, **first)
        for _ in range(5):
            model.partial_fit(X, y)
    assert_same_fit(ours, theirs, X)
    ours.fit(X, y)
    theirs.fit(X, y)
    assert_same_fit(ours, theirs, X)


def test_verbose_prints_scikit_learns_lines(capsys):
    _, X, y = table("iris")
    for settings in (
        {"max_iter": 3},
        {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.1},
        {"n_iter_no_change": 2, "tol": 1.0},
        {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 1.0},
        {"warm_start": True, "max_iter": 2},
    ):
        printed = []
        for model in both("MLPClassifier", hidden_layer_sizes=(5,), random_state=0, verbose=True, **settings):
            model.fit(X, y)
            if settings.get("warm_start"):
                model.fit(X, y)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
        assert "Iteration 1, loss = " in printed[0]


def test_one_class_is_predicted():
    X, y = np.random.default_rng(0).random((9, 2)), np.repeat("a", 9)
    for data in ((X, y), (da.from_array(X, (3, -1)), da.from_array(y, 3))):
        ours, theirs = both("MLPClassifier", hidden_layer_sizes=(3,), max_iter=3, random_state=0)
        assert_array_equal(ours.fit(*data).predict(X), theirs.fit(X, y).predict(X))
        # scikit-learn has two columns here.
        assert_array_equal(ours.predict_proba(X), np.ones((9, 1)))
        assert_array_equal(ours.predictive_entropy(X), np.zeros(9))


def test_csr_labels_train_as_dense_ones():
    _, X, y = table("multilabel")
    ours, theirs = both("MLPClassifier", hidden_layer_sizes=(3,), max_iter=3, random_state=0)
    ours.fit(X, sparse.csr_matrix(y))
    theirs.fit(X, sparse.csr_matrix(y))
    assert_same_weights(ours, theirs)
    # scikit-learn's are sparse.
    assert_array_equal(ours.predict(X), theirs.predict(X).toarray())


# --- words ------------------------------------------------------------------------------------------


def outcome(model, action):
    """Return what an action on a model raises and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            action(model)
            raised = None
        except Exception as error:
            raised = error
    return raised, sorted((warning.category.__name__, str(warning.message)) for warning in caught)


X, Y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


def fit_then(act, **settings):
    def action(model):
        model.set_params(hidden_layer_sizes=(3,), max_iter=2, **settings).fit(X, Y)
        act(model)

    return action


WORDS = {
    "iterations": lambda m: m.set_params(max_iter=2).fit(X, Y),
    "lbfgs iterations": lambda m: m.set_params(max_iter=2, solver="lbfgs").fit(X, Y),
    "lbfgs evaluations": lambda m: m.set_params(max_fun=2, solver="lbfgs").fit(X, Y),
    "a layer of no units": lambda m: m.set_params(hidden_layer_sizes=(0,)).fit(X, Y),
    "an unknown solver": lambda m: m.set_params(alpha=-1.0).fit(X, Y),
    "a batch that is too large": lambda m: m.set_params(batch_size=50, max_iter=2).fit(X, Y),
    "a validation set that is too small": lambda m: m.set_params(
        early_stopping=True, validation_fraction=0.05
    ).fit(X, np.arange(20)),
    "partial_fit with early stopping": lambda m: m.set_params(early_stopping=True).partial_fit(
        X, Y, **({"classes": [0, 1]} if hasattr(m, "predict_proba") else {})
    ),
    "not fitted": lambda m: m.predict(X),
    "NaN": lambda m: m.fit(np.full((3, 2), np.nan), [0, 1, 0]),
    "lengths": lambda m: m.fit(X, Y[:5]),
    "features": fit_then(lambda m: m.predict(X[:, :2])),
    "one row": fit_then(lambda m: m.predict(X[0])),
    "complex": lambda m: m.fit(X * 1j, Y),
    "weights of another length": lambda m: m.fit(X, Y, np.ones(3)),
    "a column vector": lambda m: m.set_params(max_iter=500).fit(X, Y[:, np.newaxis]),
    "other names": lambda m: m.set_params(max_iter=500).fit(FRAME, Y).predict(FRAME.add_prefix("z")),
    "no names": lambda m: m.set_params(max_iter=500).fit(FRAME, Y).predict(X),
}  # fmt: skip
CLASSIFIERS_WORDS = {
    "continuous labels": lambda m: m.fit(X, X[:, 0]),
    "classes first": lambda m: m.partial_fit(X, Y),
    "other classes": lambda m: m.partial_fit(X, Y, classes=[0, 1]).partial_fit(X, Y, classes=[0, 2]),
    "an unknown class": lambda m: m.partial_fit(X, Y, classes=[0, 1]).partial_fit(X, Y + 1),
    "warm start with other classes": fit_then(lambda m: m.fit(X, Y + 1), warm_start=True),
    "partial_fit with lbfgs": lambda m: m.set_params(solver="lbfgs").partial_fit(X, Y),
    "several columns of classes": lambda m: m.fit(X, np.column_stack([Y, Y + 1])),
}
# scikit-learn's text, then more of ours.
OURS_SAY_MORE = {"continuous labels", "several columns of classes"}


@pytest.mark.parametrize(
    ("kind", "case"),
    [*((kind, case) for kind in KINDS for case in WORDS), *((KINDS[0], case) for case in CLASSIFIERS_WORDS)],
)
def test_errors_and_warnings_are_in_scikit_learns_words(kind, case):
    action = {**WORDS, **CLASSIFIERS_WORDS}[case]
    (raised, warned), (expected, expected_warnings) = (
        outcome(model, action) for model in both(kind, random_state=0)
    )
    assert isinstance(raised, type(expected)), (raised, expected)
    if case in OURS_SAY_MORE:
        assert str(raised)[:20] == str(expected)[:20]
    else:
        assert str(raised) == str(expected)
    assert warned == expected_warnings
    assert raised is not None or warned, "the case says nothing"


def test_diverging_begins_in_scikit_learns_words():
    settings = {"hidden_layer_sizes": (5,), "solver": "sgd", "learning_rate_init": 1e200, "max_iter": 50}
    said = []
    for model in both("MLPRegressor", random_state=0, **settings):
        raised, _ = outcome(model, lambda model: model.fit(X, Y))
        assert isinstance(raised, ValueError)
        said.append(str(raised))
    assert said[0].startswith(said[1])
    assert re.search(r"in epoch \d", said[0])


# --- conformance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_check_estimator_passes_in_full(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(getattr(dasknn, kind)(), on_fail="raise", on_skip=None)
    statuses = {result["status"] for result in results}
    skipped = [result["check_name"] for result in results if result["status"] == "skipped"]
    assert statuses <= {"passed", "skipped"}
    # These skip themselves for scikit-learn's own MLP, too.
    assert set(skipped) <= {
        "check_array_api_input",
        "check_classifiers_multilabel_output_format_decision_function",
    }
    assert len(results) - len(skipped) >= 50


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_every_public_name_of_scikit_learn_is_there(kind, solver):
    _, X, y = table("iris")
    settings = {"max_iter": 10, "solver": solver, "early_stopping": solver == "adam"}
    ours, theirs = both(kind, **settings)
    assert set(theirs.get_params()) <= set(ours.get_params())
    # None shows a bar for Dask data, and is silent for plain data, as False.
    defaults = type(theirs)().get_params() | {"verbose": None}
    assert {name: type(ours)().get_params()[name] for name in defaults} == defaults
    frame = pd.DataFrame(X, columns=list("abcd"))
    theirs.fit(frame, y)
    ours.fit(frame, y)
    public = {name for name in dir(theirs) if not name.startswith("_")} - {"loss"}
    assert public - {"partial_fit"} <= set(dir(ours))
    assert {name for name in vars(theirs) if not name.startswith("_")} - {"loss"} <= set(vars(ours))


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_have_scikit_learns_names_and_order(kind):
    import inspect

    for method in ("__init__", "fit", "partial_fit", "predict", "score"):
        ours, theirs = (
            list(inspect.signature(getattr(getattr(module, kind), method)).parameters)
            for module in (dasknn, reference)
        )
        assert [name for name in ours if name in theirs] == theirs, method


def test_what_was_not_fitted_has_no_members():
    with pytest.raises(NotFittedError):
        dasknn.MLPClassifier().predictive_entropy(X)
    assert re.match("MLPClassifier", repr(dasknn.MLPClassifier()))
