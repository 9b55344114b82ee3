"""Members of an ensemble that share most of their weights, in one network.

    (n, d) ── MemberScale ──► (n, members * d) ── MemberDense, ... ──► (n, members * units) ── MemberHeads
                                                                          training: (n, members * outputs)
                                                                          new data: their mean, (n, outputs)

Rows stay flat: those of the members stand side by side. To a product with a shared kernel they are
members * n rows, so no weight is repeated, and one product serves all members.

Weights have the parametrization of the neural tangent kernel (Jacot et al. 2018): a kernel of d inputs has
entries of variance 1 that are divided by the root of d. Adam's steps do not depend on the scale of a
gradient, so that is the same as entries of variance 1 / d with the learning rate divided by the root of d.

References
----------
- Gorishniy, Kotelnikov and Babenko (2025), "TabM: advancing tabular deep learning with parameter-efficient
  ensembling".
- Wen, Tran and Ba (2020), "BatchEnsemble".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dasknn import activations
from dasknn.initializers import Ones, RandomNormal, Zeros
from dasknn.layers.layer import Bound, Layer, Weight, flat
from dasknn.layers.regularization import BoundFactor, Noise, strength_of

#: Factor of the learning rate of biases, and of `Scale` (Holzmueller et al. 2024, table A.1).
BIAS_RATE = 0.1
SCALE_RATE = 6.0


@dataclass(frozen=True)
class Scale(Layer):
    """Multiply each input by a learned factor, which begins at 1 and learns six times as fast.

    The factors soon say which columns matter.

    References
    ----------
    Holzmueller, Grinsztajn and Steinwart (2024), "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data".
    """

    def weights(self, n_inputs):
        return (Weight("scale", (n_inputs,), Ones(), rate_factor=SCALE_RATE, decay_factor=0.0),)

    def output_shape(self, shape):
        flat(self, shape)
        return shape

    def outputs(self, X, *weights):
        return X * weights[0]

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundScale(n_rows, n_inputs, dtype)


class _BoundScale(Bound):
    def forward(self, X, weights, rng):
        return np.multiply(X, weights[0], out=self.A)

    def backward(self, X, weights, grads, dX):
        np.einsum("ij,ij->j", self.dA, X, out=grads[0])
        if dX is not None:
            np.multiply(self.dA, weights[0], out=dX)


class _OfGroups(NamedTuple):
    """Draws one number for each member and group of neighboring inputs, which all of the group have."""

    widths: tuple[int, ...]
    distribution: str

    def draw(self, rng, fan_in, fan_out, shape):
        drawn = rng.standard_normal((shape[0], len(self.widths)))
        if self.distribution == "signs":
            drawn = np.where(drawn < 0, -1.0, 1.0)
        return np.repeat(drawn, self.widths, axis=1)


@dataclass(frozen=True)
class MemberScale(Layer):
    """Give each member its own view of the inputs: each input times a learned factor of the member.

    Members have to differ before a dense layer mixes the inputs; afterwards they cannot become different.

    Parameters
    ----------
    members : int
        Number of members.
    groups : sequence of int or None, default=None
        Widths of groups of neighboring inputs that were one column: factors of a group are equal at the
        start. None: each input is one.
    distribution : {"normal", "signs"}, default="normal"
        Initial factors: standard normal numbers, or -1 and 1.
    """

    members: int
    groups: tuple[int, ...] | None = None
    distribution: str = "normal"

    def __post_init__(self):
        super().__post_init__()
        _expect_positive(self, "members")
        if self.distribution not in ("normal", "signs"):
            raise ValueError(
                f"MemberScale expects distribution 'normal' or 'signs', received {self.distribution!r}."
            )
        if self.groups is not None:
            object.__setattr__(self, "groups", tuple(int(width) for width in self.groups))

    def weights(self, n_inputs):
        groups = (1,) * n_inputs if self.groups is None else self.groups
        if sum(groups) != n_inputs:
            raise ValueError(
                f"MemberScale expects groups of {n_inputs} inputs in all, received {sum(groups)}."
            )
        draw = _OfGroups(groups, self.distribution)
        return (Weight("factors", (self.members, n_inputs), draw, decay_factor=0.0, by_member=True),)

    def n_outputs(self, n_inputs):
        return self.members * n_inputs

    def output_shape(self, shape):
        return (self.members * flat(self, shape),)

    def outputs(self, X, *weights):
        return (X[:, np.newaxis] * weights[0]).reshape(len(X), self.members * X.shape[1])

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundMemberScale(self.members, n_rows, n_inputs, dtype)


class _BoundMemberScale(Bound):
    def __init__(self, members: int, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, members * n_inputs, dtype)
        self.shape = (n_rows, members, n_inputs)

    def forward(self, X, weights, rng):
        np.multiply(X[:, np.newaxis], weights[0], out=self.A.reshape(self.shape))
        return self.A

    def backward(self, X, weights, grads, dX):
        dA = self.dA.reshape(self.shape)
        if dX is not None:
            np.einsum("nkd,kd->nd", dA, weights[0], out=dX)
        np.multiply(dA, X[:, np.newaxis], out=dA)
        np.add.reduce(dA, axis=0, out=grads[0])


@dataclass(frozen=True)
class MemberDense(Layer):
    """Fully connected layer whose kernel all members share: a batch ensemble.

    Of the inputs x_j (n_inputs,) of member j: `activation(((x_j * r_j) @ W) * s_j + b_j)`.

    Parameters
    ----------
    units : int
        Outputs of each member.
    members : int, default=1
        Number of members; the layer has members * units outputs.
    activation : str, dasknn.activations.Activation or None, default=None
        Activation function.
    scales_inputs : bool, default=False
        Whether members have factors r_j of the inputs, which begin at 1.
    scales_outputs : bool, default=False
        Whether members have factors s_j of the products, which begin at 1, and a bias of their own.
    """

    units: int
    members: int = 1
    activation: Any = None
    scales_inputs: bool = False
    scales_outputs: bool = False
    _parts: ClassVar[dict[str, Any]] = {"activation": activations}

    def __post_init__(self):
        super().__post_init__()
        _expect_positive(self, "units", "members")

    @property
    def activation_name(self):
        return self.activation.name

    @property
    def uses_of_kernel(self):
        return self.members

    def _width(self, n_inputs: int) -> int:
        return width_of_member(self, n_inputs, self.members)

    def weights(self, n_inputs):
        width, k = self._width(n_inputs), self.members
        normal = RandomNormal(stddev=1 / sqrt(width))
        found = [Weight("kernel", (width, self.units), normal, True, rate_factor=1 / sqrt(width))]
        if self.scales_inputs:
            found.append(Weight("input_scale", (k, width), Ones(), decay_factor=0.0, by_member=True))
        if self.scales_outputs:
            found.append(Weight("output_scale", (k, self.units), Ones(), decay_factor=0.0, by_member=True))
        own = self.scales_outputs
        shape = (k if own else 1, self.units)
        found.append(
            Weight("bias", shape, _SameForAll(), rate_factor=BIAS_RATE, decay_factor=0.0, by_member=own)
        )
        return tuple(found)

    def n_outputs(self, n_inputs):
        return self.members * self.units

    def output_shape(self, shape):
        self._width(flat(self, shape))
        return (self.members * self.units,)

    def outputs(self, X, *weights):
        n = len(X)
        if self.scales_inputs:
            X = X.reshape(n, self.members, -1) * weights[1]
        A = np.asarray(X).reshape(n * self.members, -1) @ weights[0]
        of_members = A.reshape(n, self.members, self.units)
        if self.scales_outputs:
            of_members *= weights[-2]
        of_members += weights[-1]
        self.activation.forward(A, None)
        return A.reshape(n, self.members * self.units)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundMemberDense(self, n_rows, self._width(n_inputs), dtype)


@dataclass(frozen=True)
class _SameForAll:
    """Draws standard normal biases, the same for all members."""

    def draw(self, rng, fan_in, fan_out, shape):
        return np.tile(rng.standard_normal((1, shape[1])), (shape[0], 1))


class _BoundMemberDense(Bound):
    def __init__(self, layer: MemberDense, n_rows: int, width: int, dtype):
        k, units = layer.members, layer.units
        super().__init__(n_rows, k * units, dtype)
        self.layer = layer
        self.inputs_shape, self.shape = (n_rows, k, width), (n_rows, k, units)
        self.flat_A, self.flat_dA = (array.reshape(n_rows * k, units) for array in (self.A, self.dA))
        self.of_members, self.d_of_members = (array.reshape(self.shape) for array in (self.A, self.dA))
        self.activation = layer.activation
        self.scratch = self.activation.scratch(n_rows * k, units, np.dtype(dtype))
        self.scaled = np.empty(self.inputs_shape, dtype) if layer.scales_inputs else None
        self.products = np.empty((n_rows * k, units), dtype) if layer.scales_outputs else self.flat_A
        self.rows: Any = None

    def forward(self, X, weights, rng):
        if self.scaled is not None:
            X = np.multiply(X.reshape(self.inputs_shape), weights[1], out=self.scaled)
        self.rows = X.reshape(len(self.flat_A), -1)
        np.dot(self.rows, weights[0], out=self.products)
        if self.layer.scales_outputs:
            np.multiply(self.products.reshape(self.shape), weights[-2], out=self.of_members)
        np.add(self.of_members, weights[-1], out=self.of_members)
        self.activation.forward(self.flat_A, self.scratch)
        return self.A

    def differentiate_activation(self):
        self.activation.backward(self.flat_A, self.flat_dA, self.scratch)

    def backward(self, X, weights, grads, dX):
        dA = self.d_of_members
        if self.layer.scales_outputs:
            np.add.reduce(dA, axis=0, out=grads[-1])
            products = self.products.reshape(self.shape)
            np.multiply(products, dA, out=products)
            np.add.reduce(products, axis=0, out=grads[-2])
            np.multiply(dA, weights[-2], out=dA)
        else:
            np.add.reduce(self.flat_dA, axis=0, out=grads[-1][0])
        np.dot(self.rows.T, self.flat_dA, out=grads[0])
        if self.scaled is not None:
            # The scaled inputs are not needed any more: their place takes the derivative by them.
            np.dot(self.flat_dA, weights[0].T, out=self.rows)
            d_scaled, inputs = self.scaled, X.reshape(self.inputs_shape)
            np.einsum("nkd,nkd->kd", d_scaled, inputs, out=grads[1])
            if dX is not None:
                np.multiply(d_scaled, weights[1], out=dX.reshape(self.inputs_shape))
        elif dX is not None:
            np.dot(self.flat_dA, weights[0].T, out=dX.reshape(self.rows.shape))


@dataclass(frozen=True)
class ByteDropout(Noise):
    """Dropout whose masks are drawn as bytes, at a quarter of the cost of `Dropout`.

    Members times rows times units are so many numbers that drawing them would cost as much as a product. The
    share that is dropped is the nearest multiple of 1/256.

    Parameters
    ----------
    rate : float
        Share of the inputs to set to 0, in [0, 1); the others are divided by what is left.
    """

    rate: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"ByteDropout expects rate to be in [0, 1), received {self.rate}.")

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundByteDropout(self.rate, n_rows, n_inputs, dtype)


class _BoundByteDropout(BoundFactor):
    def __init__(self, rate: float, n_rows: int, n_inputs: int, dtype):
        super().__init__(n_rows, n_inputs, dtype)
        self.rate = rate
        self.is_kept = np.empty(self.A.size, bool)

    def draw(self, rng):
        n_dropped = min(round(256 * self.rate * strength_of(rng)), 255)
        size = self.is_kept.size
        # Eight masks are drawn at a time.
        drawn = rng.bit_generator.random_raw(-(-size // 8)).view(np.uint8)[:size]
        np.greater_equal(drawn, n_dropped, out=self.is_kept)
        factor = self.factor.dtype.type(256 / (256 - n_dropped))
        np.multiply(self.is_kept, factor, out=self.factor.reshape(-1))


@dataclass(frozen=True)
class MemberHeads(Layer):
    """The last layer: each member has a kernel and a bias of its own, which begin at 0.

    In training the outputs of all members stand side by side (n, members * units), and `MemberLoss` is the
    mean of their losses. For new data, outputs (n, units) are the mean over members: of probabilities, if the
    activation makes some.

    Parameters
    ----------
    units : int
        Outputs of each member, and of the layer.
    members : int, default=1
        Number of members.
    activation : str, dasknn.activations.Activation or None, default=None
        Activation function, applied to the outputs of each member.
    """

    units: int
    members: int = 1
    activation: Any = None
    _parts: ClassVar[dict[str, Any]] = {"activation": activations}

    def __post_init__(self):
        super().__post_init__()
        _expect_positive(self, "units", "members")

    @property
    def activation_name(self):
        return self.activation.name

    def weights(self, n_inputs):
        width, k = width_of_member(self, n_inputs, self.members), self.members
        return (
            Weight(
                "kernel", (k, width, self.units), Zeros(), True, rate_factor=1 / sqrt(width), by_member=True
            ),
            Weight("bias", (k, self.units), Zeros(), rate_factor=BIAS_RATE, decay_factor=0.0, by_member=True),
        )

    def n_outputs(self, n_inputs):
        return self.units

    def output_shape(self, shape):
        width_of_member(self, flat(self, shape), self.members)
        return (self.units,)

    def member_outputs(self, X, *weights) -> np.ndarray:
        """Return the outputs of each member (n, members, units)."""
        A = np.empty((len(X), self.members, self.units), X.dtype)
        _multiply_heads(X, weights, A)
        self.activation.forward(A.reshape(-1, self.units), None)
        return A

    def outputs(self, X, *weights):
        return self.member_outputs(X, *weights).mean(axis=1)

    def bind(self, n_rows, n_inputs, dtype):
        return _BoundMemberHeads(self, n_rows, dtype)


def _multiply_heads(X, weights, A) -> None:
    """Write X_j @ W_j + b_j for each member j into A (n, members, units); X is (n, members * width)."""
    n, k, _ = A.shape
    np.matmul(X.reshape(n, k, -1).transpose(1, 0, 2), weights[0], out=A.transpose(1, 0, 2))
    np.add(A, weights[1], out=A)


class _BoundMemberHeads(Bound):
    def __init__(self, layer: MemberHeads, n_rows: int, dtype):
        k, units = layer.members, layer.units
        super().__init__(n_rows, k * units, dtype)
        self.of_members, self.d_of_members = (a.reshape(n_rows, k, units) for a in (self.A, self.dA))
        self.flat_A, self.flat_dA = (a.reshape(n_rows * k, units) for a in (self.A, self.dA))
        self.activation = layer.activation
        self.scratch = self.activation.scratch(n_rows * k, units, np.dtype(dtype))

    def forward(self, X, weights, rng):
        _multiply_heads(X, weights, self.of_members)
        self.activation.forward(self.flat_A, self.scratch)
        return self.A

    def differentiate_activation(self):
        self.activation.backward(self.flat_A, self.flat_dA, self.scratch)

    def backward(self, X, weights, grads, dX):
        n, k, _ = self.of_members.shape
        inputs = X.reshape(n, k, -1)
        by_member = self.d_of_members.transpose(1, 0, 2)
        np.matmul(inputs.transpose(1, 2, 0), by_member, out=grads[0])
        np.add.reduce(self.d_of_members, axis=0, out=grads[1])
        if dX is not None:
            out = dX.reshape(n, k, -1).transpose(1, 0, 2)
            np.matmul(by_member, weights[0].transpose(0, 2, 1), out=out)


def width_of_member(layer: Layer, n_inputs: int, members: int) -> int:
    """Return how many of n_inputs are those of one member. ValueError: the members do not share them."""
    if n_inputs % members:
        raise ValueError(
            f"{type(layer).__name__} expects inputs of {members} members side by side, received {n_inputs} "
            f"inputs, which is no multiple of {members}. Put MemberScale({members}) before it."
        )
    return n_inputs // members


def _expect_positive(layer: Layer, *names: str) -> None:
    for name in names:
        value = getattr(layer, name)
        if value < 1:
            raise ValueError(f"{type(layer).__name__} expects {name} to be at least 1, received {value!r}.")
        object.__setattr__(layer, name, int(value))
