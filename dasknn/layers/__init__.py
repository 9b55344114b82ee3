"""Keras's layers, from which networks are built."""

from dasknn.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from dasknn.layers.core import Dense, Flatten, Input, InputLayer
from dasknn.layers.layer import Bound, Layer, Weight
from dasknn.layers.normalization import BatchNormalization, BoundBatchNormalization, LayerNormalization
from dasknn.layers.regularization import Dropout, GaussianDropout, GaussianNoise
from dasknn.layers.serialization import deserialize, serialize

__all__ = [
    "ELU",
    "Activation",
    "BatchNormalization",
    "Bound",
    "BoundBatchNormalization",
    "Dense",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "ReLU",
    "Softmax",
    "Weight",
    "deserialize",
    "serialize",
]
