"""Spaces of settings: which settings a search may try, as a map from the unit cube.

    Space({"alpha": loguniform(1e-6, 1e-1), "hidden_layer_sizes": [(64,), (64, 64)]})
    u (n_dims,) = (0.5, 0.2)  ── at ──►  {"alpha": 0.000316, "hidden_layer_sizes": (64,)}

Dimensions are in the order of names, so the order in which a dict was written has no effect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite, prod
from numbers import Real
from typing import Any

import numpy as np
from scipy import stats
from sklearn.model_selection import ParameterGrid

from dasknn.saving.serialization import did_you_mean
from dasknn.search.folder import identity_of
from dasknn.seeds import Stream, generator

# The closest to 0 and 1 that distributions are asked: there, many are infinite.
_MARGIN = 2.0**-53


class Choice:
    """A dimension of values that are equally likely.

    Attributes
    ----------
    values : list
        Any objects. A value that is written twice is twice as likely.
    """

    def __init__(self, values: Iterable[Any]):
        self.values = list(values)

    def at(self, u: float) -> Any:
        """Return the value at a number in [0, 1]."""
        return self.values[_position(u, len(self.values))]

    def position(self, value: Any) -> int:
        """Return where a value stands. ValueError: it is none of the values."""
        # 1, 1.0 and True are equal: the object itself comes first, then values of its type.
        checks = (
            lambda one: one is value,
            lambda one: type(one) is type(value) and _equal(one, value),
            lambda one: _equal(one, value),
        )
        for check in checks:
            for position, one in enumerate(self.values):
                if check(one):
                    return position
        raise ValueError(f"Expected one of the values {self.values!r:.200}, received {value!r:.200}.")


class Distribution:
    """A dimension that is drawn from a frozen distribution.

    Attributes
    ----------
    frozen : object
        A frozen distribution of SciPy, or an object with `ppf(u)` or `rvs(random_state=...)`.
    """

    def __init__(self, frozen: Any):
        self.frozen = frozen

    @property
    def is_discrete(self) -> bool:
        """Whether SciPy knows that all values are separate numbers."""
        return isinstance(getattr(self.frozen, "dist", self.frozen), stats.rv_discrete)

    def at(self, u: float) -> Any:
        """Return the quantile of a number in [0, 1]; without `ppf`, a draw whose seed is the number."""
        u = min(max(float(u), _MARGIN), 1 - _MARGIN)
        if hasattr(self.frozen, "ppf"):
            value = _plain(self.frozen.ppf(u))
        else:
            bits = generator(int(u / _MARGIN), Stream.SETTINGS).bit_generator
            # What others wrote for scikit-learn's searches expects a RandomState.
            value = _plain(self.frozen.rvs(random_state=np.random.RandomState(bits)))
        # SciPy's quantiles of whole numbers are floats.
        return int(value) if self.is_discrete and float(value).is_integer() else value


class Space:
    """The settings that a search may try.

    Parameters
    ----------
    parameters : dict or list of dict
        For each name of a setting a list, tuple or one-dimensional array of values, of which each is equally
        likely, or a frozen distribution such as `scipy.stats.loguniform(1e-6, 1e-1)`: an object with `rvs`
        and, if possible, `ppf`. Of a list of dicts, each is equally likely.

    Attributes
    ----------
    parts : tuple of dict
        For each dict the dimensions by name, in the order of names.
    names : tuple of str
        Names of all settings, in order.
    n_dims : int
        Numbers that stand for one trial. Of several dicts, the first number chooses the dict, and the others
        are as many as the largest dict has names.

    Raises
    ------
    TypeError
        parameters, or one of them, is not a dict.
    ValueError
        There are no settings or no values, a single value stands where a list belongs, or a distribution
        lacks its arguments.
    """

    def __init__(self, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]):
        self.parts = tuple(_dimensions(part) for part in _as_dicts(parameters))
        self.names = tuple(sorted({name for part in self.parts for name in part}))
        self.n_dims = max(len(part) for part in self.parts) + (len(self.parts) > 1)

    def __repr__(self) -> str:
        return f"Space({', '.join(self.names)})"

    def described(self) -> str:
        """Return what tells this space from others: values, and some quantiles of distributions."""
        parts = []
        for part in self.parts:
            values = {
                name: one.values if isinstance(one, Choice) else [one.at(u) for u in (0.1, 0.5, 0.9)]
                for name, one in part.items()
            }
            parts.append(identity_of(values))
        return "; ".join(parts)

    @property
    def n_combinations(self) -> int | None:
        """The number of combinations; None if there is a distribution."""
        if not self.is_finite:
            return None
        return sum(prod(len(choice.values) for choice in part.values()) for part in self.parts)

    @property
    def is_finite(self) -> bool:
        """Whether all settings are choices."""
        return not self._drawn()

    def check(self, known: Collection[str], what: str) -> None:
        """Raise ValueError for names that are not known. what: whose settings they are, for the message."""
        for name in self.names:
            if name not in known:
                hint = did_you_mean(name, known) or f" There are: {', '.join(sorted(known))}."
                raise ValueError(f"Expected settings of {what}, received {name!r}.{hint}")

    def at(self, u: np.ndarray) -> dict[str, Any]:
        """Return the settings at a point of the unit cube.

        u (n_dims,) in [0, 1]. A choice of k values is the value at floor(u * k), a distribution is its
        quantile. ValueError: u has another shape, or is not in the unit cube.
        """
        u = np.asarray(u, dtype=np.float64)
        if u.shape != (self.n_dims,) or not ((u >= 0) & (u <= 1)).all():
            raise ValueError(
                f"Expected a point of the unit cube of {self.n_dims} dimensions, received {u!r:.200}."
            )
        part = self.parts[0]
        if len(self.parts) > 1:
            part, u = self.parts[_position(u[0], len(self.parts))], u[1:]
        # The other dicts may have more dimensions.
        return {name: dimension.at(x) for (name, dimension), x in zip(part.items(), u, strict=False)}

    def grid(self) -> ParameterGrid:
        """Return all combinations: a sequence of dicts, in scikit-learn's order.

        ValueError: a setting has a distribution.
        """
        if drawn := self._drawn():
            raise ValueError(
                f"Expected a list of values for each setting of a grid, received a distribution for "
                f"{drawn[0]!r}. Use RandomSearch, or give a list."
            )
        return ParameterGrid([{name: choice.values for name, choice in part.items()} for part in self.parts])

    def combination(self, number: int) -> dict[str, Any]:
        """Return a combination of `grid`, counted from 0, with names in order."""
        return dict(sorted(self.grid()[number].items()))

    def _drawn(self) -> list[str]:
        return [name for part in self.parts for name, one in part.items() if isinstance(one, Distribution)]


def _as_dicts(parameters: Any) -> list[Mapping[str, Any]]:
    parts = list(parameters) if isinstance(parameters, list | tuple) else [parameters]
    if not parts:
        raise ValueError("Expected at least one dict of settings, received an empty list.")
    for part in parts:
        if not isinstance(part, Mapping):
            raise TypeError(
                f"Expected a dict of settings, such as {{'alpha': [0.1, 0.01]}}, or a list of such dicts, "
                f"received {part!r:.200}."
            )
        if not part:
            raise ValueError("Expected at least one setting, received an empty dict.")
        for name in part:
            if not isinstance(name, str):
                raise TypeError(f"Expected names of settings to be text, received {name!r:.200}.")
    return parts


def _dimensions(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _dimension(name, part[name]) for name in sorted(part)}


def _dimension(name: str, values: Any) -> Choice | Distribution:
    if hasattr(values, "rvs"):
        _check_distribution(name, values)
        return Distribution(values)
    is_array = isinstance(values, np.ndarray) and values.ndim == 1
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray)
    if not (is_array or is_list):
        raise ValueError(
            f"Expected a list of values or a frozen distribution of scipy.stats for {name!r}, received "
            f"{values!r:.200}. If this is the only value, write [{values!r:.200}]."
        )
    if not len(values):
        raise ValueError(f"Expected at least one value for {name!r}, received an empty list.")
    # Settings are shown and written to files: numbers of NumPy's arrays become Python's.
    return Choice(values.tolist() if is_array else values)


def _check_distribution(name: str, frozen: Any) -> None:
    if not hasattr(frozen, "ppf"):
        return
    try:
        median = frozen.ppf(0.5)
    except TypeError as error:
        raise ValueError(
            f"Expected a distribution with its arguments for {name!r}, such as loguniform(1e-6, 1e-1), "
            f"received {frozen!r:.200}."
        ) from error
    if isinstance(median, Real) and not isfinite(median):
        raise ValueError(
            f"Expected a distribution with valid arguments for {name!r}, received one whose median is "
            f"{float(median)}. Check its arguments: those of scipy.stats.uniform are the lowest value and "
            "the width."
        )


def _position(u: float, n: int) -> int:
    return min(int(u * n), n - 1)


def _plain(value: Any) -> Any:
    is_number = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if is_number else value


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays of several numbers
        return np.array_equal(one, other)
