"""Optimizers: updates of flat parameter vectors.

An optimizer is a frozen dataclass of settings; its state is `slots` (n_slots, n), which `update` changes in
place. Clipping, weight decay, moving averages and accumulation are in `engine/updater.py`. The learning rate
of each step is an argument, because the training chooses it. Names, arguments, their order, defaults and
formulas are Keras's; the order of operations in SGD and Adam is scikit-learn's, to the last bit.
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
    """Base class of optimizers.

    Attributes
    ----------
    learning_rate : float or schedules.LearningRateSchedule
        Learning rate.

    Notes
    -----
    The other settings are those of `Settings`. For an optimizer without them, subclass this class.
    """

    learning_rate: Any
    weight_decay: Any = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    gradient_accumulation_steps: int | None = None

    @property
    def n_slots(self) -> int:
        """Number of state vectors that `update` needs."""
        return 0

    def initial_slots(self, params: np.ndarray) -> np.ndarray:
        """Return the state (n_slots, n) before the first step."""
        return np.zeros((self.n_slots, len(params)), params.dtype)

    @property
    def initial_rate(self) -> float:
        """Learning rate of the first step."""
        return self.rate(self.learning_rate, 1)

    def rate(self, learning_rate: float, step: int) -> float:
        """Return the learning rate of a step.

        Parameters
        ----------
        learning_rate : float
            The rate if there is no schedule.
        step : int
            Number of the step, from 1. As in Keras, schedules count steps, not updates, if gradients are
            accumulated.
        """
        schedule = self.learning_rate
        return schedule(step - 1) if isinstance(schedule, schedules.LearningRateSchedule) else learning_rate

    def decay(self, step: int) -> float:
        """Return the weight decay of an update, counted from 1; 0 if there is none."""
        decay: Any = self.weight_decay
        return float(decay(step - 1)) if isinstance(decay, schedules.LearningRateSchedule) else decay or 0.0

    @abstractmethod
    def update(self, params, grad, slots, scratch, step: int, learning_rate: float) -> None:
        """Update params and slots in place.

        Parameters
        ----------
        params : array (n,)
            Parameters.
        grad : array (n,)
            Their gradient; overwritten.
        slots : array (n_slots, n)
            State.
        scratch : array (n,)
            Working space; overwritten.
        step : int
            Number of the update, from 1.
        learning_rate : float
            Learning rate of this update.
        """


@dataclass(frozen=True)
class Settings(Optimizer):
    """Base class of Keras's optimizers: the settings that all of them have.

    Parameters
    ----------
    learning_rate : float or schedules.LearningRateSchedule, default=0.001
        Learning rate.
    weight_decay : float, schedules.LearningRateSchedule or None, default=None
        Each update first multiplies all parameters, also biases, by `1 - learning_rate * weight_decay`.
        Layers may keep weights from it. A schedule is a function of the update.
    clipnorm : float or None, default=None
        Largest norm of the gradient of one weight array; None or 0: no limit.
    clipvalue : float or None, default=None
        Largest absolute value in the gradient; None or 0: no limit.
    global_clipnorm : float or None, default=None
        Largest norm of the whole gradient; None or 0: no limit. Only one way of clipping may be given.
    use_ema : bool, default=False
        Whether training ends with exponential moving averages of the parameters.
    ema_momentum : float, default=0.99
        Share of the past in these averages.
    ema_overwrite_frequency : int or None, default=None
        Number of updates after which the averages replace the parameters; None: only at the end.
    loss_scale_factor : None, default=None
        For compatibility with Keras: nothing is computed in float16.
    gradient_accumulation_steps : int or None, default=None
        Number of steps whose mean gradient makes one update; None: each step is an update.
    name : str or None, default=None
        None: the name of the class in snake case.
    """

    learning_rate: Any = 0.001
    _: KW_ONLY
    weight_decay: Any = None
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
        if isinstance(self.weight_decay, Mapping):
            object.__setattr__(self, "weight_decay", schedules.deserialize(self.weight_decay))
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
            self._refuse("loss_scale_factor=None, because float16 is not used", self.loss_scale_factor)

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
        """Return the settings as Keras writes them."""
        config = super().get_config()
        if isinstance(self.learning_rate, schedules.LearningRateSchedule):
            config["learning_rate"] = schedules.serialize(self.learning_rate)
        if isinstance(self.weight_decay, schedules.LearningRateSchedule):
            config["weight_decay"] = schedules.serialize(self.weight_decay)
        return config


@dataclass(frozen=True)
class SGD(Settings):
    """Stochastic gradient descent: `v = momentum * v - learning_rate * g; p += v`.

    Parameters
    ----------
    momentum : float, default=0.0
        Share of the previous step v, in [0, 1].
    nesterov : bool, default=False
        Whether to use Nesterov's momentum, `p += momentum * v - learning_rate * g`, in the form of Sutskever
        et al. (2013), as in scikit-learn and Keras.
    """

    learning_rate: Any = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("momentum", with_one=True)

    @property
    def n_slots(self):
        """1 with momentum: the velocity."""
        return int(self.momentum != 0)

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """`v = rho * v + (1 - rho) * g**2; p -= learning_rate * g / sqrt(v + epsilon)`.

    Parameters
    ----------
    rho : float, default=0.9
        Share of the past in moving averages.
    momentum : float, default=0.0
        Steps accumulate: `m = momentum * m + step; p -= m`.
    epsilon : float, default=1e-7
        Added to v.
    centered : bool, default=False
        Whether to subtract the square of the moving average of g from v.

    References
    ----------
    Tieleman and Hinton (2012), "Neural networks for machine learning", lecture 6.5.
    """

    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False

    @property
    def n_slots(self):
        """1 to 3: mean square; mean, if centered; steps, with momentum."""
        return 1 + bool(self.centered) + (self.momentum > 0)

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """Change mean in place to share * mean + (1 - share) * new; overwrites new."""
    np.multiply(new, 1 - share, out=new)
    np.multiply(mean, share, out=mean)
    np.add(mean, new, out=mean)


@dataclass(frozen=True)
class Adam(Settings):
    """Adam, with the bias corrections applied to the learning rate.

    `m = beta_1 * m + (1 - beta_1) * g; v = beta_2 * v + (1 - beta_2) * g**2`, then, in update t,
    `p -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`.

    Parameters
    ----------
    beta_1, beta_2 : float, default=0.9, 0.999
        Share of the past in the moving averages m and v, in [0, 1).
    epsilon : float, default=1e-7
        Added to the denominator. It is not bias-corrected, as in the last paragraph of section 2 of the
        paper, in scikit-learn and in Keras.
    amsgrad : bool, default=False
        Whether to use the largest v so far in place of v (Reddi et al. 2018).

    References
    ----------
    - Kingma and Ba (2014), "Adam: a method for stochastic optimization".
    - Reddi et al. (2018), "On the convergence of Adam and beyond".
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
        """First and second moments; with amsgrad also the largest second moments."""
        return 3 if self.amsgrad else 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """`Adam` with decoupled weight decay (Loshchilov and Hutter 2019).

    Parameters
    ----------
    weight_decay : float or schedules.LearningRateSchedule, default=0.004
        Each update first multiplies all parameters by `1 - learning_rate * weight_decay`, as in Keras and
        PyTorch; the paper scales the decay by the schedule alone.
    """

    weight_decay: Any = field(default=0.004, kw_only=False)

    def __post_init__(self):
        super().__post_init__()
        if self.weight_decay is None:
            self._refuse("weight_decay to be a number", None)


@dataclass(frozen=True)
class Adamax(Settings):
    """`Adam` with `u = max(beta_2 * u, |g|)` in place of `sqrt(v)` (Kingma and Ba 2014, section 7).

    Parameters
    ----------
    beta_1, beta_2 : float, default=0.9, 0.999
        Share of the past in m, in [0, 1), and in u.
    epsilon : float, default=1e-7
        Added to the denominator.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self):
        super().__post_init__()
        self._expect_share("beta_1")

    @property
    def n_slots(self):
        """First moments and largest gradients."""
        return 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """`Adam` with Nesterov's momentum (Dozat 2016).

    With the momentum `u[t] = beta_1 * (1 - 0.96**t / 2)` and its product `U[t] = u[1] * ... * u[t]`, update t
    is `p -= learning_rate * d / (sqrt(v / (1 - beta_2**t)) + epsilon)`, where
    `d = u[t + 1] * m / (1 - U[t + 1]) + (1 - u[t]) * g / (1 - U[t])`.

    Parameters
    ----------
    beta_1, beta_2 : float, default=0.9, 0.999
        Share of the past in the moving averages m and v, in [0, 1).
    epsilon : float, default=1e-7
        Added to the denominator.
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
    """Return u[1] * ... * u[step]. It depends on the step only, so it is not part of the state."""
    # All u are below beta_1: from this step on, 1 minus the product is 1.
    end = ceil(log(1e-18) / log(beta_1)) if beta_1 else 1
    if step >= end:
        return 0.0
    # The length of tables doubles, so that a training computes few of them.
    return float(_nadam_products(beta_1, min(end, 1 << step.bit_length()))[step])


@lru_cache(maxsize=32)
def _nadam_products(beta_1: float, n: int) -> np.ndarray:
    factors = _nadam_momentum(beta_1, np.arange(n, dtype=np.float64))
    factors[0] = 1
    return np.cumprod(factors)


@dataclass(frozen=True)
class Adagrad(Settings):
    """`a += g**2; p -= learning_rate * g / sqrt(a + epsilon)` (Duchi et al. 2011).

    Parameters
    ----------
    initial_accumulator_value : float, default=0.1
        Initial value of a.
    epsilon : float, default=1e-7
        Added to a.
    """

    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7

    @property
    def n_slots(self):
        """Sums of squares."""
        return 1

    def initial_slots(self, params):
        return np.full((1, len(params)), self.initial_accumulator_value, params.dtype)

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """`d = g * sqrt(E[d**2] + epsilon) / sqrt(E[g**2] + epsilon); p -= learning_rate * d` (Zeiler 2012).

    Parameters
    ----------
    learning_rate : float or schedules.LearningRateSchedule, default=0.001
        Learning rate; the paper uses 1.
    rho : float, default=0.95
        Share of the past in the moving averages E.
    epsilon : float, default=1e-7
        Added to both averages.
    """

    rho: float = 0.95
    epsilon: float = 1e-7

    @property
    def n_slots(self):
        """Mean squares of gradients and of steps."""
        return 2

    def update(self, params, grad, slots, scratch, step, learning_rate):
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
    """`p -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`.

    Parameters
    ----------
    beta_1 : float, default=0.9
        Share of m in the step, in (0, 1].
    beta_2 : float, default=0.99
        Share of the past in m.

    References
    ----------
    Chen et al. (2023), "Symbolic discovery of optimization algorithms".
    """

    beta_1: float = 0.9
    beta_2: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.beta_1 <= 1:
            self._refuse("beta_1 to be in (0, 1]", self.beta_1)

    @property
    def n_slots(self):
        """Moving averages of gradients."""
        return 1

    def update(self, params, grad, slots, scratch, step, learning_rate):
        mean = slots[0]
        np.multiply(mean, self.beta_1, out=scratch)
        np.add(scratch, (1 - self.beta_1) * grad, out=scratch)
        np.sign(scratch, out=scratch)
        np.multiply(scratch, learning_rate, out=scratch)
        np.subtract(params, scratch, out=params)
        _move(mean, grad, self.beta_2)


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """SciPy's L-BFGS-B (Byrd et al. 1995) without bounds; each iteration uses all rows.

    Parameters
    ----------
    gtol : float, default=1e-4
        Stop when no element of the gradient exceeds it.
    max_fun : int, default=15000
        Largest number of evaluations of the loss.
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
        """Minimize a loss.

        Parameters
        ----------
        loss_and_grad : callable
            Returns the loss and its gradient (n,) at given parameters (n,).
        params : array (n,)
            Initial parameters.
        max_iter : int
            Largest number of iterations.
        on_iteration : callable
            Called with SciPy's intermediate result after each iteration; may raise StopIteration to stop.

        Returns
        -------
        scipy.optimize.OptimizeResult
            With x, fun, nit, status and message.
        """
        return scipy.optimize.minimize(
            loss_and_grad,
            params,
            method="L-BFGS-B",
            jac=True,
            # SciPy looks at the name of the argument.
            callback=lambda intermediate_result: on_iteration(intermediate_result),
            options={"maxfun": self.max_fun, "maxiter": max_iter, "gtol": self.gtol},
        )

    def update(self, params, grad, slots, scratch, step, learning_rate):
        raise TypeError("L-BFGS cannot update on mini-batches. Use `minimize`, with a loss over all rows.")


_KINDS = Kinds(
    "an optimizer",
    "keras.optimizers",
    Optimizer,
    (SGD, RMSprop, Adam, AdamW, Adamax, Nadam, Adagrad, Adadelta, Lion),
)
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize
