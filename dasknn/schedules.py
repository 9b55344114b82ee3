"""Learning rates that follow from the number of the step.

Names, arguments, their order and defaults are Keras's. schedule(step) is the rate of a step, counted from 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil, cos, floor, log, pi

from dasknn.saving.serialization import Configurable, Kinds


@dataclass(frozen=True)
class LearningRateSchedule(Configurable, ABC):
    """A learning rate for every step."""

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
    """initial_learning_rate * decay_rate ** (step / decay_steps). staircase: of whole decay_steps."""

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
    """values[0] up to and including step boundaries[0], then values[1], and so on."""

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
    """From initial_learning_rate to end_learning_rate by (1 - step / decay_steps) ** power.

    cycle: once there, go on with the first multiple of decay_steps that is not yet reached.
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
    """initial_learning_rate / (1 + decay_rate * step / decay_steps). staircase: see ExponentialDecay."""

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
    """Half a cosine from initial_learning_rate to alpha times it in decay_steps (Loshchilov and Hutter 2017).

    warmup_target: rise evenly from initial_learning_rate to it in warmup_steps first, and decay from there.
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
    """Half cosines, one after the other (Loshchilov and Hutter 2017).

    The first takes first_decay_steps; each takes t_mul times as many as the last, and begins at m_mul times
    its rate. ValueError: t_mul below 1.
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
            # The small number makes up for rounding at the very step of a restart.
            n_restarts = floor(log(1 + part * (self.t_mul - 1)) / log(self.t_mul) + 1e-9)
            length = self.t_mul**n_restarts
            part = (part - (length - 1) / (self.t_mul - 1)) / length
        cosine = self.m_mul**n_restarts * _half_cosine(part)
        return float(self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha))


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
    ),
)
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize
