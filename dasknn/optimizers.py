"""Updates of flat parameter vectors.

An optimizer is frozen settings; its state is `slots` (n_slots, n), an array of zeros before the first step,
which `update` changes in place. The faces decide the learning rate of each epoch, so it is an argument.
Formulas and their order of operations are scikit-learn's, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import scipy.optimize


class Optimizer(Protocol):
    """What the rest of the package asks of an optimizer."""

    n_slots: ClassVar[int]

    @property
    def learning_rate(self) -> float:
        """The rate that training begins with."""
        ...  # pragma: no cover

    def update(self, params, grad, slots, scratch, step: int, learning_rate: float) -> None:
        """Change params and slots in place by one step; grad and scratch are spent."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class SGD:
    """v = momentum * v - learning_rate * g; p += v, or Nesterov's p += momentum * v - learning_rate * g.

    Nesterov's form is that of Sutskever et al. (2013), as in scikit-learn and Keras.
    """

    learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = True
    n_slots: ClassVar[int] = 1

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update; slots (1, n) holds the velocity."""
        velocity = slots[0]
        np.multiply(grad, learning_rate, out=grad)
        np.multiply(velocity, self.momentum, out=velocity)
        np.subtract(velocity, grad, out=velocity)
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=scratch)
            np.subtract(scratch, grad, out=scratch)
            np.add(params, scratch, out=params)
        else:
            np.add(params, velocity, out=params)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2014) with the bias corrections folded into the learning rate.

    p -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon); so epsilon is
    not corrected, as in the paper's last paragraph of section 2, scikit-learn and Keras.
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_slots: ClassVar[int] = 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update; slots (2, n) holds the first and second moments."""
        first, second = slots
        rate = learning_rate * np.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        np.multiply(grad, 1 - self.beta_1, out=scratch)
        np.multiply(first, self.beta_1, out=first)
        np.add(first, scratch, out=first)
        np.multiply(grad, grad, out=grad)
        np.multiply(grad, 1 - self.beta_2, out=grad)
        np.multiply(second, self.beta_2, out=second)
        np.add(second, grad, out=second)
        np.sqrt(second, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.multiply(first, -float(rate), out=grad)
        np.divide(grad, scratch, out=grad)
        np.add(params, grad, out=params)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B (Byrd et al. 1995), without bounds: iterations on all rows.

    Stops when no element of the gradient exceeds gtol, or after max_fun evaluations.
    """

    gtol: float = 1e-4
    max_fun: int = 15_000
    learning_rate: float = 1.0
    n_slots: ClassVar[int] = 0

    def minimize(
        self,
        loss_and_grad: Callable[[np.ndarray], tuple[float, np.ndarray]],
        params: np.ndarray,
        max_iter: int,
        on_iteration: Callable[[scipy.optimize.OptimizeResult], None],
    ) -> scipy.optimize.OptimizeResult:
        """Return SciPy's result: x, fun, nit, status, message.

        on_iteration(intermediate_result) is called after each iteration; StopIteration from it ends all.
        """
        return scipy.optimize.minimize(
            loss_and_grad,
            params,
            method="L-BFGS-B",
            jac=True,
            # SciPy goes by the name of the argument.
            callback=lambda intermediate_result: on_iteration(intermediate_result),
            options={"maxfun": self.max_fun, "maxiter": max_iter, "gtol": self.gtol},
        )

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """Refuse: there are no steps on mini-batches."""
        raise TypeError("L-BFGS takes no steps on mini-batches; use `minimize`.")
