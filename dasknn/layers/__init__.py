"""Keras's layers, from which networks are built."""

from dasknn.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from dasknn.layers.columns import ColumnGroups, Omit
from dasknn.layers.core import Dense, Flatten, Input, InputLayer
from dasknn.layers.embedding import BinEmbedding, BinEncoding, Embedding, OneHot
from dasknn.layers.layer import Bound, Layer, Weight
from dasknn.layers.members import ByteDropout, MemberDense, MemberHeads, MemberScale, Scale
from dasknn.layers.normalization import BatchNormalization, BoundBatchNormalization, LayerNormalization
from dasknn.layers.regularization import Dropout, GaussianDropout, GaussianNoise
from dasknn.layers.serialization import deserialize, serialize

__all__ = [
    "ELU",
    "Activation",
    "BatchNormalization",
    "BinEmbedding",
    "BinEncoding",
    "Bound",
    "BoundBatchNormalization",
    "ByteDropout",
    "ColumnGroups",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MemberDense",
    "MemberHeads",
    "MemberScale",
    "Omit",
    "OneHot",
    "ReLU",
    "Scale",
    "Softmax",
    "Weight",
    "deserialize",
    "serialize",
]
