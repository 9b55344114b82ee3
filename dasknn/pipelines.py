"""Fitted models in files: estimators, and pipelines that prepare a table for one.

A file of a pipeline holds the arrays of its estimator, and a description of its steps: what
`TablePreprocessor` has learned, and what the file of the estimator alone would say.
"""

from __future__ import annotations

import os
from importlib.metadata import version

from sklearn.pipeline import Pipeline

from dasknn import estimators, saving
from dasknn.estimators import MLPClassifier, MLPRegressor
from dasknn.exceptions import ModelFileError
from dasknn.preprocessing import TablePreprocessor
from dasknn.sequential import Sequential

PIPELINE = "Pipeline"


def save(model, path: str | os.PathLike) -> None:
    """Write a fitted model to a path or fsspec URL: one safetensors file, which `load` reads.

    model: MLPClassifier, MLPRegressor, or a Pipeline of a TablePreprocessor and one of them; a Sequential is
    written as its own `save` does, and read by `dasknn.load_model`. TypeError: another model.
    NotFittedError: a model that is not fitted.
    """
    if isinstance(model, MLPClassifier | MLPRegressor | Sequential):
        model.save(path)
        return
    table, estimator = steps_of(model)
    description, arrays = estimators.parts_of(estimator)
    names = [name for name, _ in model.steps]
    steps = [
        {"name": names[0], "kind": TablePreprocessor.__name__, **table.describe()},
        {"name": names[1], **description},
    ]
    saving.write(path, {"kind": PIPELINE, "steps": steps, "versions": _versions()}, arrays)


def load(path: str | os.PathLike) -> MLPClassifier | MLPRegressor | Pipeline:
    """Return the fitted model that `save`, or the model's own, wrote. Executes no code from the file.

    FileNotFoundError: no such file. ModelFileError: a file that is damaged, not ours, or too new; a
    Sequential, which `dasknn.load_model` reads.
    """
    description, arrays = saving.read(path)
    kind = description.get("kind")
    if kind == Sequential.__name__:
        raise ModelFileError(f"{path} holds a Sequential. Use dasknn.load_model.")
    if kind != PIPELINE:
        return estimators.load(path)
    try:
        table, estimator = description["steps"]
        names = [str(table["name"]), str(estimator["name"])]
        kinds = table["kind"], estimator["kind"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"Expected a table and an estimator in {path}, received other steps. Use the version of dasknn "
            "that wrote it."
        ) from error
    if kinds[0] != TablePreprocessor.__name__:
        raise ModelFileError(
            f"Expected a TablePreprocessor and an estimator in {path}, received {kinds[0]} and {kinds[1]}. "
            "Use the version of dasknn that wrote it."
        )
    prepared, model = (
        TablePreprocessor.from_description(table),
        estimators.from_parts(estimator, arrays, path),
    )
    if len(prepared.get_feature_names_out()) != model.n_features_in_:
        raise ModelFileError(
            f"The table in {path} has {len(prepared.get_feature_names_out())} columns, and its network takes "
            f"{model.n_features_in_}. Save the model again."
        )
    return Pipeline([(names[0], prepared), (names[1], model)])


def steps_of(model) -> tuple[TablePreprocessor, MLPClassifier | MLPRegressor]:
    """Return the two steps of a pipeline. TypeError: another model."""
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps]
        if (
            len(steps) == 2
            and isinstance(steps[0], TablePreprocessor)
            and isinstance(steps[1], MLPClassifier | MLPRegressor)
        ):
            return steps[0], steps[1]
        received = f"a Pipeline of {', '.join(type(step).__name__ for step in steps)}"
    else:
        received = type(model).__name__
    raise TypeError(
        "Expected MLPClassifier, MLPRegressor, or a Pipeline of TablePreprocessor and one of them, received "
        f"{received}. Save the network alone, or the whole with joblib.dump."
    )


def _versions() -> dict[str, str]:
    """Return what a file was written with, for whoever looks into it later."""
    return {name: version(name) for name in ("dasknn", "dask", "numpy", "scikit-learn")}
