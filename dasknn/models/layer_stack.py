"""The layers of a `Sequential`: their names and shapes, and their weights in one flat vector."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from dasknn import layers as layer_kinds
from dasknn.engine.network import Network
from dasknn.exceptions import caller_stacklevel
from dasknn.layers import Input, Layer
from dasknn.layers.adapting import Adaptable
from dasknn.models import summary
from dasknn.models.views import LayerHandle
from dasknn.saving.serialization import snake_case
from dasknn.seeds import Stream, generator

DTYPE = "float32"
_HINT = (
    "Do not pass an `input_shape`/`input_dim` argument to a layer. When using Sequential models, prefer "
    "using an `Input(shape)` object as the first layer in the model instead."
)


class Stack:
    """Layers that are applied one after the other, and their weights if the shape of a row is known."""

    def __init__(self, layers, trainable: bool, name: str | None, seed: int):
        self.name = name or "sequential"
        self.trainable = trainable
        self._seed = seed
        self._input_shape: tuple[int, ...] | None = None
        self._layers: list[Layer] = []
        self._given: list[Any] = []
        # Weights of layers that were added from other models, by number of the layer.
        self._brought: dict[int, list[np.ndarray]] = {}
        # Shape of a row before each layer, and behind the last.
        self._shapes: list[tuple[int, ...]] = []
        self._loss: Any = None
        self._network: Network | None = None
        # (members, n_params)
        self._members: np.ndarray | None = None
        for layer in layers or ():
            self.add(layer, rebuild=False)
        if self._input_shape is not None:
            self._rebuild()

    # --- layers ------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[LayerHandle]:
        """The layers, without `Input`, as live views of the model."""
        return [LayerHandle(self, number) for number in range(len(self._layers))]

    def get_layer(self, name: str | None = None, index: int | None = None) -> LayerHandle:
        """Return a live view of one layer.

        Parameters
        ----------
        name : str or None, default=None
        index : int or None, default=None
            Number of the layer, from 0, without `Input`. It takes precedence.

        Raises
        ------
        ValueError
            There is no such layer.
        """
        if index is not None:
            if not -len(self._layers) <= index < len(self._layers):
                raise ValueError(
                    f"Expected the number of one of {len(self._layers)} layers, received {index}."
                )
            return self.layers[index]
        for number, layer in enumerate(self._layers):
            if layer.name == name:
                return LayerHandle(self, number)
        raise ValueError(
            f"Expected a layer among {[layer.name for layer in self._layers]}, received {name!r}."
        )

    def add(self, layer, rebuild: bool = True) -> None:
        """Add a layer at the end; a layer of another model is added with a copy of its weights.

        Parameters
        ----------
        layer : Layer, or a layer of another model
        rebuild : bool, default=True
            Whether to make its weights now, if the shape of its input is known.

        Raises
        ------
        ValueError
            Not a layer of dasknn, one that the model already has, or one that cannot take such rows.
        """
        weights = None
        if isinstance(layer, LayerHandle):
            weights, layer = (layer.get_weights() if layer._model.built else None), layer.settings
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Only layers of dasknn.layers can be added to a Sequential model, received {layer!r} of "
                f"type {type(layer).__name__}. Convert a model of Keras with dasknn.from_keras(model)."
            )
        if any(layer is given for given in self._given):
            raise ValueError(f"Expected each layer once, received {layer} again. Create a second one.")
        if isinstance(layer, Input):
            if self._layers or self._input_shape is not None:
                raise ValueError(f"Expected Input as the first layer alone, received {layer} behind others.")
            self._given.append(layer)
            self._input_shape = layer.shape
            return
        if layer.input_shape is not None and not self._layers and self._input_shape is None:
            if weights is None:
                warnings.warn(_HINT, stacklevel=caller_stacklevel())
            self._input_shape = layer.input_shape
        if self._input_shape is not None:
            # Raises, before anything is changed, if the layer cannot take such rows.
            layer.output_shape(self._shape_behind())
        self._given.append(layer)
        if isinstance(layer, Adaptable):
            layer.note_copy()
        if weights:
            self._brought[len(self._layers)] = weights
        settings: dict[str, Any] = dict.fromkeys(layer.shape_settings)
        self._layers.append(replace(layer, name=self._free_name(layer), **settings))
        if self._input_shape is not None and rebuild:
            self._rebuild()

    def _shape_behind(self) -> tuple[int, ...]:
        shape = self._input_shape
        assert shape is not None
        for layer in self._layers:
            shape = layer.output_shape(shape)
        return shape

    def _free_name(self, layer: Layer) -> str:
        taken = {other.name for other in self._layers}
        if layer.name is not None:
            if layer.name in taken:
                raise ValueError(
                    "All layers added to a `Sequential` model should have unique names, received a second "
                    f"layer named {layer.name!r}."
                )
            return layer.name
        stem = snake_case(type(layer).__name__)
        names = (stem if i == 0 else f"{stem}_{i}" for i in range(len(taken) + 1))
        return next(name for name in names if name not in taken)

    def pop(self, rebuild: bool = True) -> Layer:
        """Remove the last layer.

        Parameters
        ----------
        rebuild : bool, default=True
            Has no effect.

        Returns
        -------
        Layer
            The settings of the layer.

        Raises
        ------
        ValueError
            There is no layer.
        """
        if not self._layers:
            raise ValueError("Expected a model with layers, received one without.")
        removed = self._layers.pop()
        self._given = [layer for layer in self._given if isinstance(layer, Input)] + list(self._layers)
        self._brought.pop(len(self._layers), None)
        if self._input_shape is not None:
            self._rebuild()
        return removed

    def _adapt(self, number: int, data: Any) -> None:
        layer = self._layers[number]
        if not isinstance(layer, Adaptable):
            raise AttributeError(f"{type(layer).__name__} has no adapt: it learns in training.")
        self._layers[number] = replace(layer).adapt(data)
        if self.built:
            self._rebuild()

    def _set_trainable(self, number: int, value: bool) -> None:
        self._layers[number] = replace(self._layers[number], trainable=value)
        if self.built:
            self._rebuild()

    # --- shapes ------------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether the layers have weights, since the shape of a row is known."""
        return self._network is not None

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the inputs, (None, ...), where None is the number of rows; None if it is not known yet."""
        return None if self._input_shape is None else (None, *self._input_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of the outputs, (None, ...), where None is the number of rows. ValueError: not built yet."""
        self._check_built()
        return (None, *self._shapes[-1])

    def build(self, input_shape=None) -> None:
        """Make the weights of the layers.

        Parameters
        ----------
        input_shape : tuple or None, default=None
            Shape of the inputs, (None, ...), where None is the number of rows. None: that of `Input`.

        Raises
        ------
        ValueError
            The shape is not known, or not that of a built model, or layers do not fit it.
        """
        if input_shape is not None:
            shape = tuple(input_shape)
            if len(shape) < 2:
                raise ValueError(
                    f"Expected input_shape with the number of rows first, (None, 10), received {shape}."
                )
            shape = shape[1:]
            if self.built and shape != self._input_shape:
                raise ValueError(f"Expected rows of shape {self._input_shape}, as built, received {shape}.")
            self._input_shape = Input(shape=shape).shape
        if self._input_shape is None:
            raise ValueError(
                "Expected the shape of a row, received none. Begin with Input(shape=(10,)), or call "
                "build((None, 10)) or fit."
            )
        if not self.built:
            self._rebuild()

    def _check_built(self) -> None:
        if not self.built:
            raise ValueError(
                "This model has not been built yet. Begin with Input(shape=(10,)), or call build((None, 10)) "
                "or fit."
            )

    def _rebuild(self) -> None:
        """Make the network of the current layers; layers that had weights keep them."""
        kept = None if self._members is None else [self._by_layer(member) for member in self._members]
        assert self._input_shape is not None
        shapes = [self._input_shape]
        for layer in self._layers:
            shapes.append(layer.output_shape(shapes[-1]))
        used = [
            layer if self.trainable else replace(layer, trainable=False)
            for layer in self._layers
            if layer.changes_numbers
        ]
        self._shapes = shapes
        if not used:
            self._network = self._members = None
            return
        self._network = network = Network(prod(self._input_shape), tuple(used), self._loss, DTYPE)
        fresh = network.initial_params(generator(self._seed, Stream.LAYER_WEIGHTS))
        self._members = np.stack([fresh] * (1 if kept is None else len(kept)))
        for member, by_layer in zip(self._members, kept or [{}], strict=True):
            for name, weights in [*by_layer.items(), *self._take_brought()]:
                self._put(member, name, weights)
        self._layout_changed()

    def _take_brought(self) -> list[tuple[str, list[np.ndarray]]]:
        brought = [(self._layers[number].name or "", weights) for number, weights in self._brought.items()]
        self._brought = {}
        return brought

    def _layout_changed(self) -> None:
        """Called when the vector of parameters has a new layout."""

    # --- weights -----------------------------------------------------------------------------------

    def _views(self, params: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
        """Return the weights as views into a vector, by the name of their layer."""
        assert self._network is not None
        views = dict(
            zip((layer.name for layer in self._network.layers), self._network.views(params), strict=True)
        )
        return {layer.name or "": views.get(layer.name, ()) for layer in self._layers}

    def _by_layer(self, params: np.ndarray) -> dict[str, list[np.ndarray]]:
        assert self._network is not None
        names = (layer.name or "" for layer in self._network.layers)
        views = zip(names, self._network.views(params), strict=True)
        return {name: [weight.copy() for weight in weights] for name, weights in views}

    def _put(self, params: np.ndarray, name: str, weights: Sequence[np.ndarray]) -> None:
        """Write a layer's weights into a vector, if the model has that layer and the shapes are the same."""
        views = self._views(params).get(name, ())
        if [view.shape for view in views] == [weight.shape for weight in weights]:
            for view, weight in zip(views, weights, strict=True):
                view[...] = weight

    def _params_of_one(self) -> np.ndarray:
        self._check_built()
        assert self._members is not None
        if len(self._members) > 1:
            raise ValueError(
                f"This model is an ensemble of {len(self._members)} networks, each with its own weights. Use "
                "each of model.members."
            )
        return self._members[0]

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights, layer by layer.

        Returns
        -------
        list of arrays

        Raises
        ------
        ValueError
            The model is not built, or is an ensemble.
        """
        params = self._params_of_one()
        return [weight.copy() for weights in self._views(params).values() for weight in weights]

    def set_weights(self, weights) -> None:
        """Replace all weights, layer by layer.

        Parameters
        ----------
        weights : list of arrays
            In the order and with the shapes of `get_weights`.

        Raises
        ------
        ValueError
            Another number of weights, or other shapes.
        """
        params = self._params_of_one().copy()
        views = [view for of_layer in self._views(params).values() for view in of_layer]
        _assign(views, weights, "the model")
        self._replace_members(params[np.newaxis])

    def _weights_of(self, number: int) -> tuple[np.ndarray, ...]:
        return self._views(self._params_of_one())[self._layers[number].name or ""]

    def _learned_of(self, number: int) -> list[bool]:
        """Return whether training changes each of a layer's weights; an empty list if it has none yet."""
        if self._network is None:
            return []
        names = [layer.name for layer in self._network.layers]
        name = self._layers[number].name
        if name not in names:
            return []
        at, frozen = names.index(name), self._network.frozen
        return [(at, i) not in frozen for i in range(len(self._network.weights[at]))]

    def _set_weights_of(self, number: int, weights) -> None:
        params = self._params_of_one().copy()
        name = self._layers[number].name or ""
        _assign(self._views(params)[name], weights, f"layer {name!r}")
        self._replace_members(params[np.newaxis])

    def _replace_members(self, members: np.ndarray) -> None:
        self._members = members

    @property
    def weights(self) -> list[np.ndarray]:
        """Copies of all weights, as `get_weights`."""
        return self.get_weights()

    def count_params(self) -> int:
        """Return the number of parameters. ValueError: the model is not built."""
        self._check_built()
        assert self._network is not None
        return self._network.n_params

    # --- descriptions ------------------------------------------------------------------------------

    def summary(
        self,
        line_length: int | None = None,
        positions=None,
        print_fn=None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range=None,
    ) -> None:
        """Print Keras's table of layers, shapes of outputs and numbers of parameters.

        After a fit, a line below the table says which engine computed, and why.

        Parameters
        ----------
        line_length : int or None, default=None
            Characters of a line. None: as many as the terminal has, up to 88.
        positions, expand_nested, layer_range
            Arguments of Keras that have no effect.
        print_fn : callable(str) or None, default=None
            Called with the text. None: print.
        show_trainable : bool, default=False
            Whether a column says which layers are trainable.
        """
        rows = []
        for number, layer in enumerate(self._layers):
            shape = str((None, *self._shapes[number + 1])) if self.built else "?"
            count = f"{self.layers[number].count_params():,}" if self.built else "0 (unbuilt)"
            row = [f"{layer.name} ({type(layer).__name__})", shape, count]
            if show_trainable:
                row.append("-" if count == "0" else "Y" if layer.trainable else "N")
            rows.append(row)
        text = "\n".join([summary.table(self.name, rows, self._totals(), line_length), *self._notes()])
        (print_fn or print)(text)

    def _totals(self) -> list[tuple[str, int]]:
        n_params, n_learned, n_optimizer = 0, 0, self._n_optimizer_params()
        if self._network is not None:
            n_params, n_learned = self._network.n_params, self._network.n_learned
        totals = [
            ("Total params", n_params + n_optimizer),
            ("Trainable params", n_learned),
            ("Non-trainable params", n_params - n_learned),
        ]
        return [*totals, ("Optimizer params", n_optimizer)] if n_optimizer else totals

    def _notes(self) -> list[str]:
        """Return lines below the table, which Keras does not have."""
        return []

    def _n_optimizer_params(self) -> int:
        return 0

    def get_config(self) -> dict[str, Any]:
        """Describe the layers in Keras's form; `from_config` creates a model from it.

        Returns
        -------
        dict
        """
        described = [layer_kinds.serialize(layer) for layer in self._layers]
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": DTYPE,
            "layers": described,
        }
        if self._input_shape is not None:
            described.insert(0, layer_kinds.serialize(Input(shape=self._input_shape, name="input_layer")))
            config["build_input_shape"] = [None, *self._input_shape]
        return config


def _assign(views: Sequence[np.ndarray], weights, where: str) -> None:
    """Copy weights into views. ValueError: another number of them, or other shapes."""
    weights = [np.asarray(weight) for weight in weights]
    expected, received = [view.shape for view in views], [weight.shape for weight in weights]
    if expected != received:
        raise ValueError(f"Expected weights of {where} of shapes {expected}, received {received}.")
    for view, weight in zip(views, weights, strict=True):
        view[...] = weight
