"""Groups of neighboring columns, each with a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.layers.layer import Bound, Layer, flat


@dataclass(frozen=True)
class ColumnGroups(Layer):
    """Apply a layer to each group of neighboring inputs, and put the outputs side by side.

    Parameters
    ----------
    groups : sequence of (int, Layer)
        For each group the number of inputs, and the layer. They are called "0", "1", ... in the names of
        weights.
    """

    groups: tuple[tuple[int, Layer], ...] = ()

    def __post_init__(self):
        super().__post_init__()
        groups = tuple((int(width), layer) for width, layer in self.groups)
        if not groups or any(width < 1 for width, _ in groups):
            raise ValueError(
                f"ColumnGroups expects at least one group, each of at least one input, received {groups}."
            )
        object.__setattr__(self, "groups", groups)

    @property
    def is_noisy(self):  # type: ignore[override]
        return any(layer.is_noisy for _, layer in self.groups)

    def _check(self, n_inputs: int) -> None:
        expected = sum(width for width, _ in self.groups)
        if n_inputs != expected:
            raise ValueError(f"ColumnGroups expects {expected} inputs, received {n_inputs}.")

    def weights(self, n_inputs):
        self._check(n_inputs)
        return tuple(
            weight._replace(name=f"{number}/{weight.name}", is_kernel=False)
            for number, (width, layer) in enumerate(self.groups)
            for weight in layer.weights(width)
        )

    @property
    def widths(self) -> list[int]:
        """Outputs of each group."""
        return [layer.n_outputs(width) for width, layer in self.groups]

    def n_outputs(self, n_inputs):
        self._check(n_inputs)
        return sum(self.widths)

    def output_shape(self, shape):
        return (self.n_outputs(flat(self, shape)),)

    def outputs(self, X, *weights):
        A = np.empty((len(X), sum(self.widths)), X.dtype)
        for layer, columns, out, own in self.places():
            A[:, out] = layer.outputs(X[:, columns], *weights[own])
        return A

    def places(self) -> list[tuple[Layer, slice, slice, slice]]:
        """Return, for each group, its layer, and where its inputs, outputs and weights are."""
        found, column, output, weight = [], 0, 0, 0
        for width, layer in self.groups:
            n_outputs, n_weights = layer.n_outputs(width), len(layer.weights(width))
            found.append(
                (
                    layer,
                    slice(column, column + width),
                    slice(output, output + n_outputs),
                    slice(weight, weight + n_weights),
                )
            )
            column, output, weight = column + width, output + n_outputs, weight + n_weights
        return found

    def bind(self, n_rows, n_inputs, dtype):
        self._check(n_inputs)
        return _BoundGroups(self, n_rows, dtype)

    def get_config(self):
        from dasknn.layers.serialization import serialize

        groups = [[width, serialize(layer)] for width, layer in self.groups]
        return {**super().get_config(), "groups": groups}

    @classmethod
    def from_config(cls, config):
        from dasknn.layers.serialization import deserialize

        groups = [(width, deserialize(layer)) for width, layer in config["groups"]]
        return super().from_config({**config, "groups": groups})


@dataclass(frozen=True)
class Omit(Layer):
    """Leave inputs out, as a group of `ColumnGroups`."""

    def n_outputs(self, n_inputs):
        return 0

    def output_shape(self, shape):
        return (0,)

    def outputs(self, X, *weights):
        return np.empty((len(X), 0), X.dtype)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundOmit(n_rows, 0, dtype)


class _BoundOmit(Bound):
    def forward(self, X, weights, rng):
        return self.A

    def backward(self, X, weights, grads, dX):
        if dX is not None:
            dX[...] = 0


class _BoundGroups(Bound):
    def __init__(self, layer: ColumnGroups, n_rows: int, dtype):
        super().__init__(n_rows, sum(layer.widths), dtype)
        self.groups: list[tuple[Any, slice, slice, slice]] = [
            (own.bind(n_rows, columns.stop - columns.start, dtype), columns, out, weights)
            for own, columns, out, weights in layer.places()
        ]

    def forward(self, X, weights, rng):
        for bound, columns, out, own in self.groups:
            self.A[:, out] = bound.forward(X[:, columns], weights[own], rng)
        return self.A

    def backward(self, X, weights, grads, dX):
        for bound, columns, out, own in self.groups:
            np.copyto(bound.dA, self.dA[:, out])
            bound.differentiate_activation()
            part = None if dX is None else np.empty((len(X), columns.stop - columns.start), self.A.dtype)
            bound.backward(X[:, columns], weights[own], grads[own], part)
            if part is not None:
                dX[:, columns] = part
