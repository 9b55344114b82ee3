"""Layers to and from Keras's configurations."""

from __future__ import annotations

from typing import Any

from dasknn.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from dasknn.layers.columns import ColumnGroups, Omit
from dasknn.layers.core import Dense, Flatten, Input
from dasknn.layers.embedding import BinEmbedding, BinEncoding, Embedding, OneHot
from dasknn.layers.layer import Layer
from dasknn.layers.lookup import Hashing, StringLookup
from dasknn.layers.members import ByteDropout, MemberDense, MemberHeads, MemberScale, Scale
from dasknn.layers.normalization import BatchNormalization, LayerNormalization
from dasknn.layers.periodic import PBLDEmbedding, PeriodicEmbedding
from dasknn.layers.piecewise import PiecewiseLinearEmbedding
from dasknn.layers.preprocessing import CategoryEncoding, Discretization, Normalization
from dasknn.layers.regularization import Dropout, GaussianDropout, GaussianNoise

_CLASSES: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        Dense, Activation, ReLU, LeakyReLU, ELU, Softmax, Dropout, GaussianDropout, GaussianNoise,
        BatchNormalization, LayerNormalization, Flatten, Embedding, OneHot, BinEncoding, BinEmbedding,
        PeriodicEmbedding, PBLDEmbedding, PiecewiseLinearEmbedding, Normalization, Discretization,
        CategoryEncoding, Hashing, StringLookup, ColumnGroups, Omit, Scale, ByteDropout, MemberScale,
        MemberDense, MemberHeads,
    )
}  # fmt: skip
_CLASSES["InputLayer"] = Input


def serialize(layer: Layer) -> dict[str, Any]:
    """Return the configuration of a layer, in Keras's form."""
    name = "InputLayer" if isinstance(layer, Input) else type(layer).__name__
    return {
        "module": "keras.layers",
        "class_name": name,
        "config": layer.get_config(),
        "registered_name": None,
    }


def deserialize(config: dict[str, Any]) -> Layer:
    """Return the layer that a configuration describes.

    Raises
    ------
    ValueError
        An unknown class, or unknown settings.
    """
    name = config.get("class_name")
    if name not in _CLASSES:
        raise ValueError(
            f"Expected a layer among {', '.join(sorted(_CLASSES))}, received class_name {name!r}."
        )
    return _CLASSES[name].from_config(config["config"])
