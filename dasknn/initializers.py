"""Initial values of weights.

Names, arguments and defaults are Keras's. Random numbers come from the random state of the training. An
initializer with a seed draws the same numbers for the same shape each time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from dasknn.saving.serialization import Configurable, Kinds

# Standard deviation of a standard normal number that is truncated to [-2, 2].
_STDDEV_OF_TRUNCATED = 0.87962566103423978


@dataclass(frozen=True)
class Initializer(Configurable, ABC):
    """Base class of initializers."""

    @abstractmethod
    def draw(self, rng, fan_in: int, fan_out: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return initial values.

        Parameters
        ----------
        rng : numpy.random.RandomState or numpy.random.Generator
            Source of random numbers.
        fan_in, fan_out : int
            Inputs and outputs of the layer.
        shape : tuple of int
            Shape of the values.

        Returns
        -------
        array, float64
        """


@dataclass(frozen=True)
class Zeros(Initializer):
    """Zeros."""

    def draw(self, rng, fan_in, fan_out, shape):
        return np.zeros(shape)


@dataclass(frozen=True)
class Ones(Initializer):
    """Ones."""

    def draw(self, rng, fan_in, fan_out, shape):
        return np.ones(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere.

    Parameters
    ----------
    value : float or array, default=0.0
        The value, or an array that can be broadcast to the shape of the weight.
    """

    value: float | np.ndarray = 0.0

    def draw(self, rng, fan_in, fan_out, shape):
        return np.full(shape, self.value, np.float64)


@dataclass(frozen=True)
class Identity(Initializer):
    """A multiple of the identity matrix, for weights that are matrices.

    Parameters
    ----------
    gain : float, default=1.0
        Value on the diagonal.
    """

    gain: float = 1.0

    def draw(self, rng, fan_in, fan_out, shape):
        if len(shape) != 2:
            raise ValueError(
                f"Identity expects a weight that is a matrix, received one of shape {shape}. Use Constant."
            )
        return self.gain * np.eye(*shape)


class _Random(Initializer):
    """Base class of initializers that draw random numbers.

    Keras's seed generators count as seed=None: their draws depend on earlier draws.
    """

    seed: Any

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.seed, Mapping):
            object.__setattr__(self, "seed", None)
        if self.seed is not None and not isinstance(self.seed, int | np.integer):
            raise ValueError(
                f"{type(self).__name__} expects seed to be an integer or None, received {self.seed!r}."
            )

    def draw(self, rng, fan_in, fan_out, shape):
        if self.seed is not None:
            rng = np.random.default_rng(self.seed)
        return self._draw(rng, fan_in, fan_out, shape)

    @abstractmethod
    def _draw(self, rng, fan_in: int, fan_out: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return initial values, drawn with rng."""


def _truncated_normal(rng, shape) -> np.ndarray:
    """Return standard normal numbers truncated to [-2, 2], by the inverse of their distribution."""
    low, high = ndtr([-2.0, 2.0])
    return ndtri(rng.uniform(low, high, shape))


@dataclass(frozen=True)
class RandomNormal(_Random):
    """Normal random numbers.

    Parameters
    ----------
    mean, stddev : float, default=0.0, 0.05
        Mean and standard deviation.
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return rng.normal(self.mean, self.stddev, shape)


@dataclass(frozen=True)
class RandomUniform(_Random):
    """Uniform random numbers in [minval, maxval).

    Parameters
    ----------
    minval, maxval : float, default=-0.05, 0.05
        Range.
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    minval: float = -0.05
    maxval: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return rng.uniform(self.minval, self.maxval, shape)


@dataclass(frozen=True)
class TruncatedNormal(_Random):
    """Normal random numbers, truncated to within 2 stddev of the mean.

    Parameters
    ----------
    mean, stddev : float, default=0.0, 0.05
        Mean and standard deviation before truncation; truncated numbers have 0.88 stddev.
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    mean: float = 0.0
    stddev: float = 0.05
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        return self.mean + self.stddev * _truncated_normal(rng, shape)


@dataclass(frozen=True)
class Orthogonal(_Random):
    """A multiple of a random matrix with orthonormal columns (rows, if it is wide) (Saxe et al. 2014).

    Parameters
    ----------
    gain : float, default=1.0
        The factor.
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    gain: float = 1.0
    seed: Any = None

    def _draw(self, rng, fan_in, fan_out, shape):
        if len(shape) != 2:
            raise ValueError(
                f"Orthogonal expects a weight that is a matrix, received one of shape {shape}. "
                "Use RandomNormal."
            )
        q, r = np.linalg.qr(rng.normal(0.0, 1.0, (max(shape), min(shape))))
        # With these signs, all orthogonal matrices are equally likely (Mezzadri 2007).
        q *= np.sign(np.diag(r))
        return self.gain * (q if shape[0] >= shape[1] else q.T)


class _Scaled(_Random):
    """Base class of initializers with mean 0 and variance scale / n, where mode says what n is."""

    scale: Any
    mode: Any
    distribution: Any
    _only_keras = {"input_axes": (None,), "output_axes": (None,)}  # noqa: RUF012

    def _draw(self, rng, fan_in, fan_out, shape):
        # 2 * n. The order of operations is scikit-learn's.
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
    """Random numbers of mean 0 and variance `scale / n`.

    Parameters
    ----------
    scale : float, default=1.0
        Factor of the variance.
    mode : {"fan_in", "fan_out", "fan_avg"}, default="fan_in"
        n: the number of inputs, of outputs, or the average of both.
    distribution : {"truncated_normal", "normal", "untruncated_normal", "uniform"}, default="truncated_normal"
        Distribution; "normal" is truncated, too.
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.

    Notes
    -----
    scikit-learn's initialization of logistic units is `VarianceScaling(1 / 3, "fan_avg", "uniform")`.
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
            raise ValueError(f"VarianceScaling expects scale to be above 0, received {self.scale!r}.")
        for name, known in (("mode", _MODES), ("distribution", _DISTRIBUTIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"VarianceScaling expects {name} to be one of {', '.join(known)}, received {value!r}."
                )


@dataclass(frozen=True)
class GlorotUniform(_Scaled):
    """Uniform on (-b, b) with `b = sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_avg", "uniform"


@dataclass(frozen=True)
class GlorotNormal(_Scaled):
    """Truncated normal of variance `2 / (fan_in + fan_out)` (Glorot and Bengio 2010).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_avg", "truncated_normal"


@dataclass(frozen=True)
class HeUniform(_Scaled):
    """Uniform on (-b, b) with `b = sqrt(6 / fan_in)`, for relu (He et al. 2015).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    seed: Any = None
    scale, mode, distribution = 2.0, "fan_in", "uniform"


@dataclass(frozen=True)
class HeNormal(_Scaled):
    """Truncated normal of variance `2 / fan_in`, for relu (He et al. 2015).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    seed: Any = None
    scale, mode, distribution = 2.0, "fan_in", "truncated_normal"


@dataclass(frozen=True)
class LecunUniform(_Scaled):
    """Uniform on (-b, b) with `b = sqrt(3 / fan_in)` (LeCun et al. 1998).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

    seed: Any = None
    scale, mode, distribution = 1.0, "fan_in", "uniform"


@dataclass(frozen=True)
class LecunNormal(_Scaled):
    """Truncated normal of variance `1 / fan_in`, for selu (Klambauer et al. 2017).

    Parameters
    ----------
    seed : int or None, default=None
        Draw the same numbers each time; None: use the random state of the training.
    """

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
