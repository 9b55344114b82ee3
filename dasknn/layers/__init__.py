"""Keras's layers, from which networks are built."""

from dasknn.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from dasknn.layers.columns import ColumnGroups, Omit
from dasknn.layers.core import Dense, Flatten, Input, InputLayer
from dasknn.layers.embedding import BinEmbedding, BinEncoding, Embedding, OneHot
from dasknn.layers.layer import Bound, Layer, Weight
from dasknn.layers.lookup import Hashing, StringLookup
from dasknn.layers.members import ByteDropout, MemberDense, MemberHeads, MemberScale, Scale
from dasknn.layers.normalization import BatchNormalization, BoundBatchNormalization, LayerNormalization
from dasknn.layers.periodic import PBLDEmbedding, PeriodicEmbedding
from dasknn.layers.piecewise import PiecewiseLinearEmbedding
from dasknn.layers.preprocessing import CategoryEncoding, Discretization, Normalization
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
    "CategoryEncoding",
    "ColumnGroups",
    "Dense",
    "Discretization",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Hashing",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MemberDense",
    "MemberHeads",
    "MemberScale",
    "Normalization",
    "Omit",
    "OneHot",
    "PBLDEmbedding",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "ReLU",
    "Scale",
    "Softmax",
    "StringLookup",
    "Weight",
    "deserialize",
    "serialize",
]
