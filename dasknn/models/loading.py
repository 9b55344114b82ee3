"""Sequential models from files, from JSON and from Keras."""

from __future__ import annotations

import os
from functools import partial

from dasknn.models import keras_format
from dasknn.models.persistence import (
    MODEL,
    REMEDY,
    described,
    from_config,
    from_parts,
    load_by_layer,
    restore_optimizer,
)
from dasknn.models.sequential import Sequential
from dasknn.saving import safetensors_file, schema


def load_model(filepath, custom_objects=None, compile: bool = True, safe_mode: bool = True) -> Sequential:
    """Read a model that `Sequential.save` or Keras wrote. Reading a file executes nothing.

    Parameters
    ----------
    filepath : str, path or fsspec URL
    custom_objects : dict or None, default=None
        Functions and classes of your own losses and metrics, by name.
    compile : bool, default=True
        Whether to compile the model as it was, and to restore the optimizer's state.
    safe_mode : bool, default=True
        Has no effect: it is always safe.

    Returns
    -------
    Sequential

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelFileError
        The file is damaged, or has unknown layers or settings, or weights of other shapes.
    """
    path = os.fspath(filepath)
    if path.endswith(".safetensors"):
        return from_parts(Sequential, *safetensors_file.read(path), path, compile, custom_objects)
    found = keras_format.read(path)
    with schema.refusing(path, MODEL, REMEDY):
        check = partial(keras_format.check_shapes, by_layer=found.weights)
        model = from_config(Sequential, found.config, compile, check, custom_objects)
        if model.built:
            load_by_layer(model, found.weights)
            restore_optimizer(model, found.optimizer)
        model._learn_names(found.columns)
    return model


def model_from_json(json_string: str, custom_objects=None) -> Sequential:
    """Create a model with new weights from JSON that `Sequential.to_json` or Keras's `to_json` returned.

    Parameters
    ----------
    json_string : str
    custom_objects : None
        Has no effect, since all layers are dasknn's.

    Returns
    -------
    Sequential
        Not compiled.

    Raises
    ------
    ModelFileError
        Not JSON of a Sequential, or unknown layers or settings.
    """
    with schema.refusing("The string", MODEL, "Use to_json of a Sequential."):
        return from_config(Sequential, schema.parse(json_string), compile=False)


def from_keras(model) -> Sequential:
    """Convert a Sequential of Keras.

    Parameters
    ----------
    model : keras.Sequential

    Returns
    -------
    Sequential
        With the same layers, weights and arguments of `compile`.

    Raises
    ------
    ModelFileError
        dasknn does not have one of its layers, losses or metrics.
    """
    config = {"class_name": type(model).__name__, "config": model.get_config()}
    if getattr(model, "compiled", False):
        config["compile_config"] = model.get_compile_config()
    found = from_config(Sequential, config)
    if found.built:
        load_by_layer(found, {layer.name: layer.get_weights() for layer in model.layers})
    return found


def to_keras(model: Sequential):
    """Convert a model to a Sequential of Keras.

    Parameters
    ----------
    model : Sequential
        A built model.

    Returns
    -------
    keras.Sequential
        With the same layers, weights and arguments of `compile`.

    Raises
    ------
    ImportError
        Keras is not installed.
    ValueError
        The model is not built, or is an ensemble.
    """
    return keras_format.to_keras(described(model), model.get_compile_config(), model.get_weights())
