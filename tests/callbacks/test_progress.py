"""Long work shows a bar where somebody looks at it, and is silent elsewhere."""

import os
import sys
import types

import dask.array as da
import numpy as np
import pytest
from sklearn.base import clone

import dasknn
from dasknn import MLPClassifier, TabularClassifier
from dasknn.callbacks import progress
from dasknn.estimators import tabular_fitting
from dasknn.layers import Dense, Input


@pytest.fixture
def in_terminal(capsys, monkeypatch):
    """Call a function with streams that say that they are a terminal; return what they were told."""

    def call(function, *args, **settings):
        with monkeypatch.context() as patch:
            for stream in (sys.stdout, sys.stderr):
                patch.setattr(stream, "isatty", lambda: True)
            function(*args, **settings)
        return capsys.readouterr()

    return call


@pytest.fixture
def rows():
    """X (400, 3), y (400,) of two classes."""
    X = np.random.default_rng(0).standard_normal((400, 3))
    return X, (X[:, 0] > 0).astype(int)


def lazily(X, y):
    return da.from_array(X, chunks=(100, -1)), da.from_array(y, chunks=100)


def classifier(**settings):
    return MLPClassifier((3,), max_iter=2, random_state=0, tol=0, **settings)


def sequential():
    model = dasknn.Sequential([Input((3,)), Dense(2, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


def test_nothing_is_shown_where_nobody_looks(rows, capfd):
    classifier().fit(*lazily(*rows))
    classifier().partial_fit(*lazily(*rows), classes=[0, 1])
    sequential().fit(*lazily(*rows), verbose=0)
    assert capfd.readouterr() == ("", "")


def test_dask_data_shows_bars_in_a_terminal(rows, in_terminal):
    X, y = lazily(*rows)
    lines, shown = in_terminal(classifier().fit, X, y, X_val=X, y_val=y)
    assert lines == ""
    assert "\rloading partitions: " in shown
    assert " 0/4 [" in shown
    assert "epoch 2/2: 100%" in shown
    assert "validation=" in shown
    # The bar of the training stays, that of the loading does not.
    assert shown.endswith("\n")
    assert shown.count("\n") == 1


def test_calls_of_partial_fit_leave_no_bars(rows, in_terminal):
    model = classifier()
    for _ in range(2):
        shown = in_terminal(model.partial_fit, *lazily(*rows), classes=[0, 1]).err
        assert "rows/s" in shown
        assert "\n" not in shown


def test_plain_data_and_who_wants_silence_see_nothing_in_a_terminal(rows, in_terminal):
    data = lazily(*rows)
    assert in_terminal(classifier().fit, *rows) == ("", "")
    assert in_terminal(classifier(strategy="gradients", replicas=2).fit, *rows) == ("", "")
    for silence in (False, 0):
        assert in_terminal(classifier(verbose=silence).fit, *data) == ("", "")
    assert in_terminal(sequential().fit, *data, verbose=0) == ("", "")


def test_a_long_training_on_a_plain_table_shows_a_bar_and_the_score_it_keeps(
    rows, in_terminal, monkeypatch, capsys
):
    X, y = rows
    model = TabularClassifier(members=2, hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    monkeypatch.setattr(tabular_fitting, "BAR_SECONDS", 1e-9)
    lines, shown = in_terminal(model.fit, X, y)
    assert lines == ""
    assert "epoch 2/2: 100%" in shown
    assert "loading" not in shown
    scores, best = model.validation_scores_, model.best_epoch_
    line = f"accuracy {scores[best - 1]:.4f} on validation rows in epoch {best}, the best of 2"
    assert shown.endswith(f"\n{line}\n")
    assert in_terminal(clone(model).set_params(verbose=0).fit, X, y) == ("", "")
    assert line not in in_terminal(clone(model).set_params(early_stopping=False).fit, X, y).err
    # Nobody looks at a file.
    clone(model).fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_a_short_training_on_a_plain_table_shows_nothing(rows, in_terminal, monkeypatch):
    monkeypatch.setattr(tabular_fitting, "BAR_SECONDS", 1e9)
    model = TabularClassifier(members=2, hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    assert in_terminal(model.fit, *rows) == ("", "")


def test_lines_come_with_a_bar_for_the_loading(rows, in_terminal):
    lines, shown = in_terminal(classifier(verbose=True).fit, *lazily(*rows))
    assert "Iteration 2, loss = " in lines
    assert "loading partitions" in shown
    assert "epoch" not in shown


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_sequential_shows_that_data_is_loading(rows, in_terminal, verbose):
    model = sequential()
    for work in (model.fit, model.evaluate):
        assert "loading partitions" in in_terminal(work, *lazily(*rows), verbose=verbose).err
        assert in_terminal(work, *rows, verbose=verbose).err == ""


def test_a_terminal_without_a_size_shows_bars_too(rows, monkeypatch):
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        classifier().fit(*lazily(*rows))
        monkeypatch.undo()
        shown = b""
        # The bar that stays ends a line.
        while not shown.endswith(b"\n"):
            shown += os.read(reader, 2**16)
    os.close(reader)
    assert b"epoch 2/2: 100%" in shown


def test_a_notebook_is_one_by_its_kernel_not_by_what_is_imported(monkeypatch):
    assert not progress.can_move()
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert not progress.can_move()
    kernel = types.SimpleNamespace(kernel=object())
    for shell, is_notebook in ((None, False), (object(), False), (kernel, True)):
        found = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", found)
        assert progress.can_move() == is_notebook


def test_the_default_is_a_parameter_like_any_other(rows):
    model = clone(classifier())
    assert model.get_params()["verbose"] is None
    assert not model.verbose
    assert "verbose" not in repr(model)
    assert model.fit(*rows).to_sklearn().verbose is False
    with pytest.raises(ValueError, match="'verbose' parameter"):
        classifier(verbose="yes").fit(*rows)
