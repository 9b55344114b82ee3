"""Sequential models out of files, JSON and Keras's own."""

from __future__ import annotations

import os
from functools import partial

from dasknn.models import keras_format
from dasknn.models.persistence import (
    MODEL,
    REMEDY,
    from_config,
    from_parts,
    load_by_layer,
    restore_optimizer,
)
from dasknn.models.sequential import Sequential
from dasknn.saving import safetensors_file, schema


def load_model(filepath, custom_objects=None, compile: bool = True, safe_mode: bool = True) -> Sequential:
    """Return the model that `Sequential.save` or Keras's `model.save` wrote, compiled as it was.

    custom_objects: names to functions and classes that losses and metrics of it are made of.

    FileNotFoundError: no such file. ModelFileError, a ValueError: a damaged file, layers or settings that are
    not known, weights that are missing or of another shape.
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
    """Return a model with the layers that `to_json` described, and new weights."""
    with schema.refusing("The string", MODEL, "Use to_json of a Sequential."):
        return from_config(Sequential, schema.parse(json_string), compile=False)


def from_keras(model) -> Sequential:
    """Return a Sequential with the layers, weights and compiled settings of one of Keras's.

    ModelFileError: layers that dasknn does not have.
    """
    config = {"class_name": type(model).__name__, "config": model.get_config()}
    if getattr(model, "compiled", False):
        config["compile_config"] = model.get_compile_config()
    found = from_config(Sequential, config)
    if found.built:
        load_by_layer(found, {layer.name: layer.get_weights() for layer in model.layers})
    return found


def to_keras(model: Sequential):
    """Return one of Keras's models with the same layers, weights and compiled settings.

    ImportError: no Keras.
    """
    return keras_format.to_keras(model._described(), model.get_compile_config(), model.get_weights())
