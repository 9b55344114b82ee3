"""Updates of flat parameter vectors.

An optimizer is frozen settings; its state is `slots` (n_slots, n), which `update` changes in place. What
surrounds its formula (clipping, weight decay, averages, accumulation) is in `updates`. Who trains decides the
learning rate of each step, so it is an argument. Names, arguments, their order, defaults and formulas are
Keras's; the order of operations in SGD and Adam is scikit-learn's, to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from math import ceil, log
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.optimize

from dasknn import schedules
from dasknn.saving.serialization import Configurable, Kinds, snake_case


class Optimizer(Configurable, ABC):
    """What the rest of the package asks of an optimizer; without settings, nothing but its own formula.

    learning_rate: a number, or a schedule. See `Settings` for the others.
    """

    learning_rate: Any
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    gradient_accumulation_steps: int | None = None

    @property
    def n_slots(self) -> int:
        """Vectors of state that `update` needs."""
        return 0

    def initial_slots(self, params: np.ndarray) -> np.ndarray:
        """Return the state (n_slots, n) before the first step."""
        return np.zeros((self.n_slots, len(params)), params.dtype)

    @property
    def initial_rate(self) -> float:
        """Learning rate of the first step."""
        return self.rate(self.learning_rate, 1)

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the rate of a step, counted from 1: the schedule's, or learning_rate where there is none.

        Schedules count steps, not updates, where gradients are accumulated: as Keras does.
        """
        schedule = self.learning_rate
        return schedule(step - 1) if isinstance(schedule, schedules.LearningRateSchedule) else learning_rate

    @abstractmethod
    def update(self, params, grad, slots, scratch, step: int, learning_rate: float) -> None:
        """Change params and slots in place by update number `step`, from 1; grad and scratch are spent."""


@dataclass(frozen=True)
class Settings(Optimizer):
    """What Keras's optimizers have in common.

    learning_rate: a number or a `schedules.LearningRateSchedule`.
    weight_decay: parameters, biases too, shrink by learning_rate * weight_decay of themselves in each update.
    clipnorm, global_clipnorm, clipvalue: one of them says how gradients are clipped: the longest that the
    gradient of one weight may be, that of all weights, and the largest number in it; 0 stands for None.
    use_ema: training ends with moving averages of the parameters, in which past ones count ema_momentum; they
    take the parameters' place every ema_overwrite_frequency updates, too.
    gradient_accumulation_steps: one update for the mean of so many gradients.
    """

    learning_rate: Any = 0.001
    _: KW_ONLY
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    loss_scale_factor: None = None
    gradient_accumulation_steps: int | None = None
    name: str | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "name", self.name or snake_case(type(self).__name__))
        self._check_rate()
        self._check_clipping()
        if self.use_ema:
            self._expect_share("ema_momentum", with_one=True)
            frequency = self.ema_overwrite_frequency
            if frequency is not None and not (isinstance(frequency, Integral) and frequency >= 1):
                self._refuse("ema_overwrite_frequency to be an integer of at least 1, or None", frequency)
        every = self.gradient_accumulation_steps
        if every is not None and not (isinstance(every, Integral) and every >= 2):
            self._refuse("gradient_accumulation_steps to be an integer of at least 2, or None", every)
        if self.loss_scale_factor is not None:
            self._refuse("loss_scale_factor=None, as nothing is computed in float16", self.loss_scale_factor)

    def _check_rate(self):
        rate = self.learning_rate
        if isinstance(rate, Mapping):
            object.__setattr__(self, "learning_rate", schedules.deserialize(rate))
        elif not isinstance(rate, Real | schedules.LearningRateSchedule):
            self._refuse("learning_rate to be a number or an object of dasknn.schedules", rate)

    def _check_clipping(self):
        names = ("clipnorm", "clipvalue", "global_clipnorm")
        if sum(getattr(self, name) is not None for name in names) > 1:
            received = ", ".join(f"{name}={getattr(self, name)}" for name in names)
            raise ValueError(f"{type(self).__name__} expects one of {', '.join(names)}, received {received}.")
        for name in names:
            if (value := getattr(self, name)) is not None and not value >= 0:
                self._refuse(f"{name} to be at least 0, or None", value)

    def _expect_share(self, name: str, with_one: bool = False) -> None:
        value = getattr(self, name)
        if not (0 <= value < 1 or (with_one and value == 1)):
            self._refuse(f"{name} to be in [0, 1{']' if with_one else ')'}", value)

    def _refuse(self, expected: str, received) -> None:
        raise ValueError(f"{type(self).__name__} expects {expected}, received {received!r}.")

    def get_config(self):
        """Return the settings, as Keras writes them."""
        config = super().get_config()
        if isinstance(self.learning_rate, schedules.LearningRateSchedule):
            config["learning_rate"] = schedules.serialize(self.learning_rate)
        return config


@dataclass(frozen=True)
class SGD(Settings):
    """v = momentum * v - learning_rate * g; p += v, or Nesterov's p += momentum * v - learning_rate * g.

    Nesterov's form is that of Sutskever et al. (2013), as in scikit-learn and Keras.
    """

    learning_rate: Any = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("momentum", with_one=True)

    @property
    def n_slots(self):
        """One for the velocity, if there is momentum."""
        return int(self.momentum != 0)

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        np.multiply(grad, learning_rate, out=grad)
        if self.momentum == 0:
            np.subtract(params, grad, out=params)
            return
        velocity = slots[0]
        np.multiply(velocity, self.momentum, out=velocity)
        np.subtract(velocity, grad, out=velocity)
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=scratch)
            np.subtract(scratch, grad, out=scratch)
            np.add(params, scratch, out=params)
        else:
            np.add(params, velocity, out=params)


@dataclass(frozen=True)
class RMSprop(Settings):
    """v = rho * v + (1 - rho) * g**2; p -= learning_rate * g / sqrt(v + epsilon) (Tieleman and Hinton 2012).

    centered: v less the square of the mean gradient. momentum: such steps add up, m = momentum * m + step.
    """

    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False

    @property
    def n_slots(self):
        """Mean square, then mean if centered, then steps if there is momentum."""
        return 1 + bool(self.centered) + (self.momentum > 0)

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        square = slots[0]
        np.multiply(grad, grad, out=scratch)
        _move(square, scratch, self.rho)
        if self.centered:
            mean = slots[1]
            np.copyto(scratch, grad)
            _move(mean, scratch, self.rho)
            np.multiply(mean, mean, out=scratch)
            np.subtract(square, scratch, out=scratch)
            np.add(scratch, self.epsilon, out=scratch)
        else:
            np.add(square, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.multiply(grad, learning_rate, out=grad)
        np.divide(grad, scratch, out=grad)
        if self.momentum > 0:
            steps = slots[-1]
            np.multiply(steps, self.momentum, out=steps)
            np.add(steps, grad, out=steps)
            grad = steps
        np.subtract(params, grad, out=params)


def _move(mean, new, share: float) -> None:
    """Change mean in place to share * mean + (1 - share) * new; new is spent."""
    np.multiply(new, 1 - share, out=new)
    np.multiply(mean, share, out=mean)
    np.add(mean, new, out=mean)


@dataclass(frozen=True)
class Adam(Settings):
    """Adam (Kingma and Ba 2014) with the bias corrections folded into the learning rate.

    p -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon); so epsilon is
    not corrected, as in the paper's last paragraph of section 2, scikit-learn and Keras.
    amsgrad: the largest v so far takes the place of v (Reddi et al. 2018).
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("beta_1")
        self._expect_share("beta_2")

    @property
    def n_slots(self):
        """First and second moments, and the largest of the second."""
        return 3 if self.amsgrad else 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        first, second = slots[0], slots[1]
        rate = learning_rate * np.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        np.multiply(grad, 1 - self.beta_1, out=scratch)
        np.multiply(first, self.beta_1, out=first)
        np.add(first, scratch, out=first)
        np.multiply(grad, grad, out=grad)
        np.multiply(grad, 1 - self.beta_2, out=grad)
        np.multiply(second, self.beta_2, out=second)
        np.add(second, grad, out=second)
        if self.amsgrad:
            second = np.maximum(slots[2], second, out=slots[2])
        np.sqrt(second, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.multiply(first, -float(rate), out=grad)
        np.divide(grad, scratch, out=grad)
        np.add(params, grad, out=params)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019).

    ValueError: no weight_decay.
    """

    weight_decay: float | None = field(default=0.004, kw_only=False)

    def __post_init__(self):
        super().__post_init__()
        if self.weight_decay is None:
            self._refuse("weight_decay to be a number", None)


@dataclass(frozen=True)
class Adamax(Settings):
    """Adam with `u = max(beta_2 * u, |g|)` in place of `sqrt(v)` (Kingma and Ba 2014, sec. 7)."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("beta_1")

    @property
    def n_slots(self):
        """First moment and largest gradient."""
        return 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        first, largest = slots
        np.copyto(scratch, grad)
        _move(first, scratch, self.beta_1)
        np.multiply(largest, self.beta_2, out=largest)
        np.maximum(largest, np.abs(grad, out=grad), out=largest)
        np.add(largest, self.epsilon, out=scratch)
        np.multiply(first, learning_rate / (1 - self.beta_1**step), out=grad)
        np.divide(grad, scratch, out=grad)
        np.subtract(params, grad, out=params)


@dataclass(frozen=True)
class Nadam(Settings):
    """Adam with Nesterov's momentum (Dozat 2016), which grows: u_t = beta_1 * (1 - 0.96**t / 2).

    p -= learning_rate * (u_(t+1) * m / (1 - u_1...u_(t+1)) + (1 - u_t) * g / (1 - u_1...u_t))
    / (sqrt(v / (1 - beta_2**t)) + epsilon).
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("beta_1")
        self._expect_share("beta_2")

    @property
    def n_slots(self):
        """First and second moments."""
        return 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        first, second = slots
        np.copyto(scratch, grad)
        _move(first, scratch, self.beta_1)
        np.multiply(grad, grad, out=scratch)
        _move(second, scratch, self.beta_2)
        momentum, next_momentum = (_nadam_momentum(self.beta_1, t) for t in (step, step + 1))
        product, next_product = (_nadam_product(self.beta_1, t) for t in (step, step + 1))
        np.multiply(grad, (1 - momentum) / (1 - product), out=grad)
        np.multiply(first, next_momentum / (1 - next_product), out=scratch)
        np.add(grad, scratch, out=grad)
        np.multiply(grad, learning_rate, out=grad)
        np.divide(second, 1 - self.beta_2**step, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, self.epsilon, out=scratch)
        np.divide(grad, scratch, out=grad)
        np.subtract(params, grad, out=params)


def _nadam_momentum(beta_1: float, step):
    return beta_1 * (1 - 0.5 * 0.96**step)


def _nadam_product(beta_1: float, step: int) -> float:
    """Return u_1 * ... * u_step, which follows from the step alone: so it is no state."""
    # As all u are below beta_1, from that step on 1 less the product is 1.
    end = ceil(log(1e-18) / log(beta_1)) if beta_1 else 1
    if step >= end:
        return 0.0
    # Tables double, so that a training makes few of them.
    return float(_nadam_products(beta_1, min(end, 1 << step.bit_length()))[step])


@lru_cache(maxsize=32)
def _nadam_products(beta_1: float, n: int) -> np.ndarray:
    factors = _nadam_momentum(beta_1, np.arange(n, dtype=np.float64))
    factors[0] = 1
    return np.cumprod(factors)


@dataclass(frozen=True)
class Adagrad(Settings):
    """a += g**2; p -= learning_rate * g / sqrt(a + epsilon) (Duchi et al. 2011)."""

    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7

    @property
    def n_slots(self):
        """Sum of squares."""
        return 1

    def initial_slots(self, params):
        """Return the state (1, n) before the first step."""
        return np.full((1, len(params)), self.initial_accumulator_value, params.dtype)

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        total = slots[0]
        np.multiply(grad, grad, out=scratch)
        np.add(total, scratch, out=total)
        np.add(total, self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.multiply(grad, learning_rate, out=grad)
        np.divide(grad, scratch, out=grad)
        np.subtract(params, grad, out=params)


@dataclass(frozen=True)
class Adadelta(Settings):
    """d = g * sqrt(E[d**2] + epsilon) / sqrt(E[g**2] + epsilon); p -= learning_rate * d (Zeiler 2012).

    The means E forget by rho. In the paper learning_rate is 1.
    """

    rho: float = 0.95
    epsilon: float = 1e-7

    @property
    def n_slots(self):
        """Mean squares of gradients, and of steps."""
        return 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        gradients, changes = slots
        np.multiply(grad, grad, out=scratch)
        _move(gradients, scratch, self.rho)
        np.add(changes, self.epsilon, out=scratch)
        np.divide(scratch, gradients + self.epsilon, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.multiply(grad, scratch, out=grad)
        np.multiply(grad, grad, out=scratch)
        _move(changes, scratch, self.rho)
        np.multiply(grad, learning_rate, out=grad)
        np.subtract(params, grad, out=params)


@dataclass(frozen=True)
class Lion(Settings):
    """p -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g.

    Chen et al. (2023).
    """

    beta_1: float = 0.9
    beta_2: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.beta_1 <= 1:
            self._refuse("beta_1 to be in (0, 1]", self.beta_1)

    @property
    def n_slots(self):
        """The moving average of gradients."""
        return 1

    def update(self, params, grad, slots, scratch, step, learning_rate):
        """See Optimizer.update."""
        mean = slots[0]
        np.multiply(mean, self.beta_1, out=scratch)
        np.add(scratch, (1 - self.beta_1) * grad, out=scratch)
        np.sign(scratch, out=scratch)
        np.multiply(scratch, learning_rate, out=scratch)
        np.subtract(params, scratch, out=params)
        _move(mean, grad, self.beta_2)


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """SciPy's L-BFGS-B (Byrd et al. 1995), without bounds: iterations on all rows.

    Stops when no element of the gradient exceeds gtol, or after max_fun evaluations.
    """

    gtol: float = 1e-4
    max_fun: int = 15_000
    learning_rate: float = 1.0

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


_KINDS = Kinds(
    "an optimizer",
    "keras.optimizers",
    Optimizer,
    (SGD, RMSprop, Adam, AdamW, Adamax, Nadam, Adagrad, Adadelta, Lion),
)
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize
