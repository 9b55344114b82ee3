"""Learning rates as functions of the step.

Names, arguments, their order and defaults are Keras's. `schedule(step)` is the rate of a step, from 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil, cos, floor, log, log2, pi

from dasknn.saving.serialization import Configurable, Kinds


@dataclass(frozen=True)
class LearningRateSchedule(Configurable, ABC):
    """Base class of schedules: learning rates as functions of the step."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("decay_steps", "first_decay_steps"):
            if not getattr(self, name, 1) > 0:
                raise ValueError(
                    f"{type(self).__name__} expects {name} to be above 0, received {getattr(self, name)!r}."
                )

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""


def _part(step: int, of: float, staircase: bool) -> float:
    part = step / of
    return floor(part) if staircase else part


@dataclass(frozen=True)
class ExponentialDecay(LearningRateSchedule):
    """`initial_learning_rate * decay_rate**(step / decay_steps)`.

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate of step 0.
    decay_steps : float
        Number of steps in which the rate is multiplied by decay_rate.
    decay_rate : float
        The factor.
    staircase : bool, default=False
        Whether the rate changes only every decay_steps steps.
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "ExponentialDecay"

    def __call__(self, step):
        part = _part(step, self.decay_steps, self.staircase)
        return float(self.initial_learning_rate * self.decay_rate**part)


@dataclass(frozen=True)
class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[0]` up to and including step `boundaries[0]`, then `values[1]`, and so on.

    Parameters
    ----------
    boundaries : sequence of float
        Last steps of all values but the last one, in increasing order.
    values : sequence of float
        Learning rates, one more than boundaries.
    """

    boundaries: tuple[float, ...]
    values: tuple[float, ...]
    name: str = "PiecewiseConstant"

    def __post_init__(self):
        super().__post_init__()
        for name in ("boundaries", "values"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.boundaries) != len(self.values) - 1:
            raise ValueError(
                "PiecewiseConstantDecay expects one more value than boundaries, received "
                f"{len(self.boundaries)} boundaries and {len(self.values)} values."
            )

    def __call__(self, step):
        return float(self.values[bisect_left(self.boundaries, step)])


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """`(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps)**power + end_learning_rate`.

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate of step 0.
    decay_steps : float
        Number of steps until end_learning_rate.
    end_learning_rate : float, default=0.0001
        Learning rate from then on.
    power : float, default=1.0
        Exponent; 1: linear.
    cycle : bool, default=False
        Whether to replace decay_steps by its first multiple that is not below the step.
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    def __call__(self, step):
        last = self.decay_steps
        if self.cycle:
            last *= max(1, ceil(step / self.decay_steps))
        left = 1 - min(step, last) / last
        end = self.end_learning_rate
        return float((self.initial_learning_rate - end) * left**self.power + end)


@dataclass(frozen=True)
class InverseTimeDecay(LearningRateSchedule):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`.

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate of step 0.
    decay_steps : float
        Unit of time, in steps.
    decay_rate : float
        Growth of the divisor in decay_steps.
    staircase : bool, default=False
        Whether the rate changes only every decay_steps steps.
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "InverseTimeDecay"

    def __call__(self, step):
        part = _part(step, self.decay_steps, self.staircase)
        return float(self.initial_learning_rate / (1 + self.decay_rate * part))


def _half_cosine(part: float) -> float:
    return 0.5 * (1 + cos(pi * part))


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to alpha times it (Loshchilov and Hutter 2017).

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate of step 0.
    decay_steps : float
        Number of steps of the decay, after the warm-up.
    alpha : float, default=0.0
        Final rate, as a share of the rate at which the decay begins.
    warmup_target : float or None, default=None
        Rate to rise to before the decay, linearly from initial_learning_rate; None: no warm-up.
    warmup_steps : float, default=0
        Number of steps of the warm-up.
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    def __call__(self, step):
        start = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return float(start + (self.warmup_target - start) * step / self.warmup_steps)
            start, step = self.warmup_target, step - self.warmup_steps
        part = min(step, self.decay_steps) / self.decay_steps
        return float(start * ((1 - self.alpha) * _half_cosine(part) + self.alpha))


@dataclass(frozen=True)
class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays, one after another (Loshchilov and Hutter 2017).

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate of step 0.
    first_decay_steps : float
        Number of steps of the first decay.
    t_mul : float, default=2.0
        Ratio of the lengths of successive decays, at least 1.
    m_mul : float, default=1.0
        Ratio of the initial rates of successive decays.
    alpha : float, default=0.0
        Final rate of each decay, as a share of initial_learning_rate.
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    def __post_init__(self):
        super().__post_init__()
        if not self.t_mul >= 1:
            raise ValueError(f"CosineDecayRestarts expects t_mul to be at least 1, received {self.t_mul!r}.")

    def __call__(self, step):
        part = step / self.first_decay_steps
        if self.t_mul == 1:
            n_restarts = floor(part)
            part -= n_restarts
        else:
            # The small number compensates for rounding at the step of a restart.
            n_restarts = floor(log(1 + part * (self.t_mul - 1)) / log(self.t_mul) + 1e-9)
            length = self.t_mul**n_restarts
            part = (part - (length - 1) / (self.t_mul - 1)) / length
        cosine = self.m_mul**n_restarts * _half_cosine(part)
        return float(self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha))


@dataclass(frozen=True)
class CosineLogDecay(LearningRateSchedule):
    """Cosine cycles, each twice as long as the one before; each falls to 0, and rises again smoothly.

    `initial_learning_rate * (1 - cos(2 * pi * log2(1 + (2**cycles - 1) * t))) / 2`, t = step / decay_steps.
    It rises from 0, so it needs no warm-up. The ends of its cycles are good places to stop at: how many
    epochs a network needs does not have to be known.

    Parameters
    ----------
    initial_learning_rate : float
        Highest learning rate.
    decay_steps : float
        Number of steps of all cycles; afterwards the rate is 0.
    cycles : int, default=4
        Number of cycles.

    References
    ----------
    Holzmueller, Grinsztajn and Steinwart (2024), "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data" (`coslog4`). Keras does not have it.
    """

    initial_learning_rate: float
    decay_steps: float
    cycles: int = 4
    name: str = "CosineLogDecay"

    def __call__(self, step):
        part = min(step / self.decay_steps, 1.0)
        phase = log2(1 + (2**self.cycles - 1) * part)
        return float(self.initial_learning_rate * 0.5 * (1 - cos(2 * pi * phase)))


@dataclass(frozen=True)
class FlatCosineDecay(LearningRateSchedule):
    """A constant rate, and then half a cosine to 0.

    Parameters
    ----------
    initial_learning_rate : float
        Rate of the constant part.
    decay_steps : float
        Number of steps of both parts.
    flat : float, default=0.5
        Share of the constant part, in [0, 1).

    References
    ----------
    As for `CosineLogDecay` (`flat_cos`). Keras does not have it.
    """

    initial_learning_rate: float
    decay_steps: float
    flat: float = 0.5
    name: str = "FlatCosineDecay"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.flat < 1:
            raise ValueError(f"FlatCosineDecay expects flat to be in [0, 1), received {self.flat!r}.")

    def __call__(self, step):
        part = min(step / self.decay_steps, 1.0)
        return float(self.initial_learning_rate * _half_cosine(max(part - self.flat, 0) / (1 - self.flat)))


_KINDS = Kinds(
    "a schedule",
    "keras.optimizers.schedules",
    LearningRateSchedule,
    (
        ExponentialDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        InverseTimeDecay,
        CosineDecay,
        CosineDecayRestarts,
        CosineLogDecay,
        FlatCosineDecay,
    ),
)
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize
