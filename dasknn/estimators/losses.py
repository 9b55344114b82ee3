"""scikit-learn's losses, in its order of operations, with the same bits; `losses.loss` has the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import xlogy

from dasknn.losses import Form, Loss


class _BoundWithBuffers(ABC):
    """A loss with buffers for n rows and k outputs, called once per step."""

    def __init__(self, n_rows: int, n_outputs: int, dtype, to_logits: bool):
        self.to_logits = to_logits
        self.eps = np.finfo(dtype).eps
        self.allocate(n_rows, n_outputs, np.dtype(dtype))

    @abstractmethod
    def allocate(self, n_rows: int, n_outputs: int, dtype: np.dtype) -> None:
        """Make the buffers."""

    @abstractmethod
    def loss_sum(self, P, y, weight) -> float:
        """Return the weighted sum of the losses of the rows."""

    @abstractmethod
    def mean(self, P, y, weight) -> float:
        """Return the weighted mean over rows, in scikit-learn's order of operations; allocates arrays."""

    @abstractmethod
    def subtract_target(self, P, y, out) -> None:
        """Write P - y: the derivative with respect to the logits of the canonical activation."""

    @abstractmethod
    def derivative(self, P, y, out) -> None:
        """Write the derivative with respect to P."""

    def __call__(self, P, y, weight, out) -> float:
        loss_sum = self.loss_sum(P, y, weight)
        if self.to_logits:
            self.subtract_target(P, y, out)
        else:
            self.derivative(P, y, out)
        if weight is not None:
            np.multiply(out, weight[:, np.newaxis], out=out)
        return loss_sum


class _ElementwiseLoss(_BoundWithBuffers):
    """A loss whose targets have the shape of the outputs, with one buffer of that shape."""

    def allocate(self, n_rows, n_outputs, dtype):
        self.terms = np.empty((n_rows, n_outputs), dtype)

    @abstractmethod
    def write_terms(self, P, y) -> None:
        """Write the loss of each row and output into self.terms."""

    def loss_sum(self, P, y, weight):
        self.write_terms(P, y)
        return self._sum_terms(weight)

    def mean(self, P, y, weight):
        self.write_terms(P, y)
        return float(np.average(self.terms, weights=weight, axis=0).sum())

    def subtract_target(self, P, y, out):
        np.subtract(P, y, out=out)

    def _sum_terms(self, weight) -> float:
        if weight is None:
            return float(np.add.reduce(self.terms, axis=None))
        return float(np.dot(weight, np.add.reduce(self.terms, axis=1)))


class _BoundCategoricalLogLoss(_BoundWithBuffers):
    def allocate(self, n_rows, n_outputs, dtype):
        self.first = np.arange(0, n_rows * n_outputs, n_outputs)
        self.index = np.empty(n_rows, np.intp)
        self.picked = np.empty(n_rows, dtype)

    def loss_sum(self, P, y, weight):
        np.add(self.first, y, out=self.index)
        np.take(P.reshape(-1), self.index, out=self.picked, mode="clip")
        np.maximum(self.picked, self.eps, out=self.picked)
        np.minimum(self.picked, 1 - self.eps, out=self.picked)
        np.log(self.picked, out=self.picked)
        if weight is None:
            return -float(np.add.reduce(self.picked))
        return -float(np.dot(weight, self.picked))

    def mean(self, P, y, weight):
        rows = np.arange(len(y))
        terms = np.zeros(P.shape, P.dtype)
        # numpy's log and SciPy's may differ in the last bit.
        terms[rows, y] = xlogy(1, np.clip(P[rows, y], self.eps, 1 - self.eps))
        return -float(np.average(terms, weights=weight, axis=0).sum())

    def subtract_target(self, P, y, out):
        # loss_sum has left the positions of the labels in self.index.
        np.copyto(out, P)
        np.take(P.reshape(-1), self.index, out=self.picked, mode="clip")
        np.subtract(self.picked, 1, out=self.picked)
        out.reshape(-1)[self.index] = self.picked

    def derivative(self, P, y, out):
        np.take(P.reshape(-1), self.index, out=self.picked, mode="clip")
        np.maximum(self.picked, self.eps, out=self.picked)
        np.divide(-1, self.picked, out=self.picked)
        out[...] = 0
        out.reshape(-1)[self.index] = self.picked


class _BoundBinaryLogLoss(_ElementwiseLoss):
    def write_terms(self, P, y):
        self._write_chances(P, y)
        np.log(self.terms, out=self.terms)
        np.negative(self.terms, out=self.terms)

    def mean(self, P, y, weight):
        self._write_chances(P, y)
        # numpy's log and SciPy's may differ in the last bit.
        return -float(np.average(xlogy(1, self.terms), weights=weight, axis=0).sum())

    def _write_chances(self, P, y):
        # The probability of y: P where y is 1, and 1 - P where y is 0.
        terms = self.terms
        np.subtract(1, y, out=terms)
        np.subtract(terms, P, out=terms)
        np.abs(terms, out=terms)
        np.maximum(terms, self.eps, out=terms)
        np.minimum(terms, 1 - self.eps, out=terms)

    def derivative(self, P, y, out):
        np.maximum(P, self.eps, out=out)
        np.minimum(out, 1 - self.eps, out=out)
        np.subtract(1, out, out=self.terms)
        np.multiply(self.terms, out, out=self.terms)
        np.subtract(out, y, out=out)
        np.divide(out, self.terms, out=out)


class _BoundSquaredError(_ElementwiseLoss):
    def write_terms(self, P, y):
        np.subtract(P, y, out=self.terms)
        np.multiply(self.terms, self.terms, out=self.terms)

    def loss_sum(self, P, y, weight):
        return 0.5 * super().loss_sum(P, y, weight) / P.shape[1]

    def mean(self, P, y, weight):
        return 0.5 * super().mean(P, y, weight) / P.shape[1]

    def derivative(self, P, y, out):
        self.subtract_target(P, y, out)


class _BoundHalfPoisson(_ElementwiseLoss):
    def write_terms(self, P, y):
        terms = self.terms
        np.divide(y, P, out=terms)
        xlogy(y, terms, out=terms)
        np.subtract(terms, y, out=terms)
        np.add(terms, P, out=terms)

    def derivative(self, P, y, out):
        np.divide(y, P, out=out)
        np.subtract(1, out, out=out)


class SklearnLoss(Loss):
    """A loss of scikit-learn's MLPs; `canonical_activation` is the activation of the last layer."""

    canonical_activation: ClassVar[str]
    _bound: ClassVar[type[_BoundWithBuffers]]

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        to_logits = output_activation == self.canonical_activation
        return self._bound(n_rows, n_outputs, dtype, to_logits)


def _form(loss: SklearnLoss, kind: str, output_activation: str, dtype) -> Form | None:
    if output_activation != loss.canonical_activation:
        return None
    return Form(kind, False, True, False, float(np.finfo(dtype).eps))


class _TargetsOfOutputShape(SklearnLoss):
    def check_targets(self, y, n_outputs):
        if y.ndim != 2 or y.shape[1] != n_outputs:
            raise ValueError(
                f"{type(self).__name__} expects targets of shape (n, {n_outputs}), received {y.shape}."
            )


@dataclass(frozen=True)
class CategoricalLogLoss(SklearnLoss):
    """`-log p(label)` in nats, for outputs (n, k) that sum to 1 over k; labels (n,) int in [0, k).

    Probabilities are clipped at the dtype's machine epsilon, as in scikit-learn.
    """

    name = "log_loss"
    canonical_activation = "softmax"
    _bound = _BoundCategoricalLogLoss

    def form(self, n_outputs, output_activation, dtype):
        return _form(self, Form.LABELS, output_activation, dtype)

    def check_targets(self, y, n_outputs):
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(
                f"CategoricalLogLoss expects labels of shape (n,) and integer dtype, "
                f"received shape {y.shape} and dtype {y.dtype}."
            )
        if len(y) and not 0 <= y.min() <= y.max() < n_outputs:
            raise ValueError(f"Labels must lie in [0, {n_outputs}), received {y.min()} to {y.max()}.")


@dataclass(frozen=True)
class BinaryLogLoss(_TargetsOfOutputShape):
    """`-y log p - (1 - y) log(1 - p)` in nats, summed over the k labels of a row; y (n, k) of 0 and 1."""

    name = "binary_log_loss"
    canonical_activation = "logistic"
    _bound = _BoundBinaryLogLoss

    def form(self, n_outputs, output_activation, dtype):
        return _form(self, Form.BINARY, output_activation, dtype)


@dataclass(frozen=True)
class SquaredError(_TargetsOfOutputShape):
    """Half the squared error, averaged over the k outputs of a row; y (n, k).

    The derivative is *not* divided by k, so it is that of the sum over outputs: as in scikit-learn (its issue
    8349), so that learning rates have the same effect.
    """

    name = "squared_error"
    canonical_activation = "identity"
    _bound = _BoundSquaredError

    def form(self, n_outputs, output_activation, dtype):
        return Form(Form.SQUARED, False, False, False, value_scale=0.5 / n_outputs)


@dataclass(frozen=True)
class HalfPoisson(_TargetsOfOutputShape):
    """Half the Poisson deviance, `y log(y / p) - y + p`, summed over outputs; y (n, k) >= 0, p > 0."""

    name = "poisson"
    canonical_activation = "exp"
    _bound = _BoundHalfPoisson
