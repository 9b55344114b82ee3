"""Seeded draws of initial parameters.

Names, arguments and defaults are Keras's. Numbers come from the random state of the training, unless an
initializer has a seed of its own: then its draws of one shape are always the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from dasknn.saving.serialization import Configurable, Kinds

# Standard deviation of a standard normal number that is drawn again where it is not in [-2, 2].
_STDDEV_OF_TRUNCATED = 0.87962566103423978


@dataclass(frozen=True)
class Initializer(Configurable, ABC):
    """A rule for initial values."""

    @abstractmethod
    def draw(self, rng, fan_in: int, fan_out: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return float64 of that shape; rng is a numpy RandomState or Generator."""


@dataclass(frozen=True)
class Zeros(Initializer):
    """All zeros."""

    def draw(self, rng, fan_in, fan_out, shape):
        return np.zeros(shape)


@dataclass(frozen=True)
class Ones(Initializer):
    """All ones."""

    def draw(self, rng, fan_in, fan_out, shape):
        return np.ones(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """All the same value."""

    value: float | np.ndarray = 0.0

    def draw(self, rng, fan_in, fan_out, shape):
        return np.full(shape, self.value, np.float64)


@dataclass(frozen=True)
class Identity(Initializer):
    """gain on the diagonal of a matrix, zeros elsewhere. ValueError: not a matrix."""

    gain: float = 1.0

    def draw(self, rng, fan_in, fan_out, shape):
        if len(shape) != 2:
            raise ValueError(f"Identity expects the shape of a matrix, received {shape}. Use Constant.")
        return self.gain * np.eye(*shape)


class _Random(Initializer):
    """Draws with its own seed, an integer, or with the random state of the training (None).

    Keras's generators of seeds count as None: what they draw depends on what else was drawn.
    """

    seed: Any

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.seed, Mapping):
            object.__setattr__(self, "seed", None)
        if self.seed is not None and not isinstance(self.seed, int | np.integer):
            raise ValueError(f"Expected seed to be an integer or None, received {self.seed!r}.")

    def draw(self, rng, fan_in, fan_out, shape):
        if self.seed is not None:
            rng = np.random.default_rng(self.seed)
        return self._draw(rng, fan_in, fan_out, shape)

    @abstractmethod
    def _draw(self, rng, fan_in: int, fan_out: int, shape: tuple[int, ...]) -> np.ndarray:
        """Draw with this rng."""


def _truncated_normal(rng, shape) -> np.ndarray:
    """Return standard normal numbers, all in [-2, 2]: the inverse of their distribution function."""
    low, high = ndtr([-2.0, 2.0])
    return ndtri(rng.uniform(low, high, shape))


@dataclass(frozen=True)
class RandomNormal(_Random):
    """Normal numbers."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return rng.normal(self.mean, self.stddev, shape)


@dataclass(frozen=True)
class RandomUniform(_Random):
    """Uniform numbers in [minval, maxval)."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return rng.uniform(self.minval, self.maxval, shape)


@dataclass(frozen=True)
class TruncatedNormal(_Random):
    """Normal numbers, none further from the mean than 2 stddev; so they deviate by 0.88 stddev."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return self.mean + self.stddev * _truncated_normal(rng, shape)


@dataclass(frozen=True)
class Orthogonal(_Random):
    """gain times a matrix whose columns (of a wide one, rows) are orthonormal (Saxe et al. 2014).

    ValueError: not a matrix.
    """

    gain: float = 1.0
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        if len(shape) != 2:
            raise ValueError(f"Orthogonal expects the shape of a matrix, received {shape}. Use RandomNormal.")
        q, r = np.linalg.qr(rng.normal(0.0, 1.0, (max(shape), min(shape))))
        # The signs make all orthogonal matrices equally likely (Mezzadri 2007).
        q *= np.sign(np.diag(r))
        return self.gain * (q if shape[0] >= shape[1] else q.T)


class _Scaled(_Random):
    """Numbers of mean 0 and variance scale / n, n being of fan_in, fan_out, or their average, `mode`."""

    scale: Any
    mode: Any
    distribution: Any
    _only_keras = {"input_axes": (None,), "output_axes": (None,)}  # noqa: RUF012

    def _draw(self, rng, fan_in, fan_out, shape):
        # Two times scale / n; scikit-learn computes its bounds in this order.
        fans = {"fan_in": 2 * fan_in, "fan_out": 2 * fan_out, "fan_avg": fan_in + fan_out}[self.mode]
        if self.distribution == "uniform":
            bound = np.sqrt(6.0 * self.scale / fans)
            return rng.uniform(-bound, bound, shape)
        stddev = np.sqrt(2.0 * self.scale / fans)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, stddev, shape)
        return stddev / _STDDEV_OF_TRUNCATED * _truncated_normal(rng, shape)


_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


@dataclass(frozen=True)
class VarianceScaling(_Scaled):
    """Numbers of mean 0 and variance scale / n.

    mode: n is "fan_in", "fan_out" or their average, "fan_avg". distribution: "truncated_normal" (or
    "normal"), "untruncated_normal", "uniform". scikit-learn's rule for logistic units is
    (1 / 3, "fan_avg", "uniform").
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: Any = None

    def __post_init__(self):
        super().__post_init__()
        distribution = self.distribution.lower()
        object.__setattr__(
            self, "distribution", "truncated_normal" if distribution == "normal" else distribution
        )
        if not self.scale > 0:
            raise ValueError(f"VarianceScaling expects scale > 0, received {self.scale!r}.")
        for name, known in (("mode", _MODES), ("distribution", _DISTRIBUTIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"VarianceScaling expects {name} among {', '.join(known)}, received {value!r}."
                )


@dataclass(frozen=True)
class GlorotUniform(_Scaled):
    """Uniform on (-b, b) with b = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_avg", "uniform"


@dataclass(frozen=True)
class GlorotNormal(_Scaled):
    """Truncated normal, of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_avg", "truncated_normal"


@dataclass(frozen=True)
class HeUniform(_Scaled):
    """Uniform on (-b, b) with b = sqrt(6 / fan_in), for relu (He et al. 2015)."""

    seed: Any = None
    scale, mode, distribution = 2.0, "fan_in", "uniform"


@dataclass(frozen=True)
class HeNormal(_Scaled):
    """Truncated normal, of variance 2 / fan_in, for relu (He et al. 2015)."""

    seed: Any = None
    scale, mode, distribution = 2.0, "fan_in", "truncated_normal"


@dataclass(frozen=True)
class LecunUniform(_Scaled):
    """Uniform on (-b, b) with b = sqrt(3 / fan_in) (LeCun et al. 1998)."""

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_in", "uniform"


@dataclass(frozen=True)
class LecunNormal(_Scaled):
    """Truncated normal, of variance 1 / fan_in, for selu (Klambauer et al. 2017)."""

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_in", "truncated_normal"


_KINDS = Kinds(
    "an initializer",
    "keras.initializers",
    Initializer,
    (
        Zeros, Ones, Constant, Identity, RandomNormal, RandomUniform, TruncatedNormal, Orthogonal,
        VarianceScaling, GlorotUniform, GlorotNormal, HeUniform, HeNormal, LecunUniform, LecunNormal,
    ),
    {
        "zero": Zeros,
        "one": Ones,
        "normal": RandomNormal,
        "uniform": RandomUniform,
        "IdentityInitializer": Identity,
        "OrthogonalInitializer": Orthogonal,
    },
)  # fmt: skip
get, serialize, deserialize = _KINDS.get, _KINDS.serialize, _KINDS.deserialize
