"""Steps of an optimizer on a flat vector, with penalties, clipping, constraints and averages.

    params = [ kernels | other learned weights | what is not learned ]

If an optimizer needs only its own formula, a step goes block by block, so that all its passes over a block
stay in cache. Options that need whole weights go over all of them before and after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dasknn.optimizers import Optimizer
from dasknn.regularizers import BatchL2

# Elements that are updated together: small enough that all passes over a block stay in cache.
_BLOCK = 32_768


@dataclass(frozen=True)
class Variable:
    """A weight of a layer and its place in the vector of parameters.

    Attributes
    ----------
    layer : int
        Number of the layer.
    name : str
        Name of the weight in its layer.
    begin : int
        Where it begins in the vector.
    shape : tuple of int
    is_learned : bool
    regularizer, constraint : object or None
    rate_factor : float
        Factor of the learning rate.
    decay_factor : float
        Factor of decoupled weight decay.
    is_table : bool
        Whether it has a row for each of many categories.
    """

    layer: int
    name: str
    begin: int
    shape: tuple[int, ...]
    is_learned: bool = True
    regularizer: Any = None
    constraint: Any = None
    rate_factor: float = 1.0
    decay_factor: float = 1.0
    is_table: bool = False

    @property
    def span(self) -> slice:
        """Its place in the vector."""
        return slice(self.begin, self.begin + prod(self.shape))

    def view(self, vector: np.ndarray) -> np.ndarray:
        """Return the weight as a view of the vector."""
        return vector[self.span].reshape(self.shape)


class Pace(NamedTuple):
    """Neighboring parameters, begin to end, that learn at one pace: see `Variable`."""

    begin: int
    end: int
    rate_factor: float
    decay_factor: float


def paces(variables: Sequence[Variable], n_learned: int) -> list[Pace]:
    """Return the learned parameters as runs of one pace, in order.

    Without variables, all n_learned parameters have the same.
    """
    found: list[Pace] = []
    for variable in variables:
        if not variable.is_learned:
            continue
        begin, end = variable.span.start, variable.span.stop
        pace = Pace(begin, end, variable.rate_factor, variable.decay_factor)
        if found and found[-1][2:] == pace[2:]:
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(pace)
    return found or [Pace(0, n_learned, 1.0, 1.0)]


def n_slots(optimizer: Optimizer) -> int:
    """Return how many vectors of state there are: the optimizer's own, averages, accumulated gradients."""
    return optimizer.n_slots + bool(optimizer.use_ema) + bool(optimizer.gradient_accumulation_steps)


def initial_slots(optimizer: Optimizer, params: np.ndarray) -> np.ndarray:
    """Return the state (n_slots, n) before the first step."""
    own = optimizer.initial_slots(params)
    return np.concatenate([own, np.zeros((n_slots(optimizer) - len(own), len(params)), params.dtype)])


def averages(
    optimizer: Optimizer, params: np.ndarray, slots: np.ndarray, variables: Sequence[Variable]
) -> np.ndarray:
    """Return params (n,) with the moving averages of use_ema in place of learned weights.

    Before the first step there are no averages, and params are returned.
    """
    average = slots[optimizer.n_slots]
    found = params.copy()
    for variable in variables:
        if variable.is_learned and average[variable.span].any():
            found[variable.span] = average[variable.span]
    return found


class Update(ABC):
    """Takes steps with gradients that were summed over rows, in arrays of its own."""

    @abstractmethod
    def apply(self, total: np.ndarray, divisor: float, step: int, learning_rate: float) -> float:
        """Take step number `step` (from 1) with the gradient total / divisor (n,); return the penalties.

        The penalties are what the summed loss grows by; total is not changed.
        """


class Updater(Update):
    """Turns summed gradients into steps of the optimizer.

    Views of all blocks are made once.

    Parameters
    ----------
    optimizer : Optimizer
    regularizer : BatchL2
        Applies to the first n_weights parameters.
    n_weights : int
    params, slots, grad : ndarray (n,), (n_slots, n), (n,)
        Arrays of the caller, which change in place.
    variables : sequence of Variable
        The place of each weight; if empty, all parameters are learned, without penalties or constraints of
        their own.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        regularizer: BatchL2,
        n_weights: int,
        params: np.ndarray,
        slots: np.ndarray,
        grad: np.ndarray,
        variables: Sequence[Variable] = (),
    ):
        self.optimizer = optimizer
        self.regularizer = regularizer
        self._weights, self._grad = params[:n_weights], grad
        learned = [variable for variable in variables if variable.is_learned]
        n_learned = max((variable.span.stop for variable in learned), default=0) if variables else len(params)
        self._drifting = (params[n_learned:], grad[n_learned:]) if n_learned < len(params) else None
        self._penalized = [
            (v.regularizer, v.view(params), v.view(grad)) for v in learned if v.regularizer is not None
        ]
        self._constrained = [(v.constraint, v.view(params)) for v in learned if v.constraint is not None]
        self._gradients = [v.view(grad) for v in learned] or [grad]
        self._learned = params[:n_learned], grad[:n_learned]
        extra = list(slots[optimizer.n_slots :, :n_learned])
        self._average = extra.pop(0) if optimizer.use_ema else None
        self._accumulated = extra.pop(0) if optimizer.gradient_accumulation_steps else None
        self._clips = bool(optimizer.clipnorm or optimizer.clipvalue or optimizer.global_clipnorm)
        self._is_plain = not (
            self._penalized or self._clips or self._average is not None or self._accumulated is not None
        )
        scratch = np.empty(min(_BLOCK, max(n_learned, 1)), params.dtype)
        own = slots[: optimizer.n_slots]
        self._blocks = []
        for pace in paces(variables, n_learned):
            for begin in range(pace.begin, pace.end, _BLOCK):
                block = slice(begin, min(begin + _BLOCK, pace.end))
                buffer = scratch[: block.stop - begin]
                weights = slice(begin, max(begin, min(block.stop, n_weights)))
                of_weights = params[weights], grad[weights], buffer[: weights.stop - begin]
                arrays = params[block], grad[block], own[:, block], buffer
                self._blocks.append((of_weights, arrays, pace))

    def apply(self, total: np.ndarray, divisor: float, step: int, learning_rate: float) -> float:
        penalty = self.penalty(divisor)
        np.copyto(self._grad, total)
        self.step(divisor, step, learning_rate)
        return penalty

    def penalty(self, divisor: float) -> float:
        """Return the penalties to add to a summed loss that will be divided by `divisor`."""
        found = self.regularizer.penalty(self._weights)
        for regularizer, weight, _ in self._penalized:
            found += divisor * regularizer.penalty(weight)
        return found

    def step(self, divisor: float, step: int, learning_rate: float) -> None:
        """Take step number `step` (from 1) with the mean gradient grad / divisor; grad is overwritten."""
        if self._drifting is not None:
            params, fall = self._drifting
            np.divide(fall, divisor, out=fall)
            np.subtract(params, fall, out=params)
        if self._is_plain:
            for of_weights, (params, grad, slots, scratch), pace in self._blocks:
                self.regularizer.add_gradient(*of_weights)
                np.divide(grad, divisor, out=grad)
                self._update(params, grad, slots, scratch, pace, step, learning_rate)
        else:
            self._step_with_more(divisor, step, learning_rate)
        for constraint, weight in self._constrained:
            constraint.apply(weight)

    def _step_with_more(self, divisor: float, step: int, learning_rate: float) -> None:
        params, grad = self._learned
        optimizer = self.optimizer
        for of_weights, _, _ in self._blocks:
            self.regularizer.add_gradient(*of_weights)
        np.divide(grad, divisor, out=grad)
        for regularizer, weight, of_weight in self._penalized:
            regularizer.add_gradient(weight, of_weight, 1.0)
        # Counted as in Keras: one update after each `every` steps.
        every = optimizer.gradient_accumulation_steps or 1
        update = (step - 1) // every + 1
        if self._accumulated is not None:
            np.add(grad, self._accumulated, out=grad)
            if step % every:
                np.copyto(self._accumulated, grad)
            else:
                np.divide(grad, every, out=grad)
                self._accumulated[...] = 0
        if step % every == 0:
            if self._clips:
                self._clip(grad)
            for _, block, pace in self._blocks:
                self._update(*block, pace, update, learning_rate)
        if self._average is not None:
            # The first average is the parameters themselves, so averages need no bias correction.
            momentum = optimizer.ema_momentum if update > 1 else 0.0
            np.multiply(self._average, momentum, out=self._average)
            np.add(self._average, (1 - momentum) * params, out=self._average)
            if optimizer.ema_overwrite_frequency and update % optimizer.ema_overwrite_frequency == 0:
                np.copyto(params, self._average)

    def _update(
        self,
        params: np.ndarray,
        grad: np.ndarray,
        slots: np.ndarray,
        scratch: np.ndarray,
        pace: Pace,
        step: int,
        learning_rate: float,
    ) -> None:
        decay = self.optimizer.decay(step) * pace.decay_factor
        if decay:
            # Decay is scaled by the learning rate, as in Keras and PyTorch; the paper (Loshchilov and Hutter
            # 2019) scales it by the schedule alone.
            np.multiply(params, params.dtype.type(decay * learning_rate), out=scratch)
            np.subtract(params, scratch, out=params)
        if pace.rate_factor != 1:
            learning_rate *= pace.rate_factor
        self.optimizer.update(params, grad, slots, scratch, step, learning_rate)

    def _clip(self, grad: np.ndarray) -> None:
        optimizer = self.optimizer
        if optimizer.clipvalue:
            np.clip(grad, -optimizer.clipvalue, optimizer.clipvalue, out=grad)
        elif optimizer.global_clipnorm:
            _shorten(grad, optimizer.global_clipnorm)
        elif optimizer.clipnorm:
            for of_weight in self._gradients:
                _shorten(of_weight.reshape(-1), optimizer.clipnorm)


def _shorten(vector: np.ndarray, longest: float) -> None:
    norm = float(np.sqrt(np.dot(vector, vector)))
    if norm > longest:
        np.multiply(vector, longest / norm, out=vector)
