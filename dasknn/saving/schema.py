"""Checks of values in JSON that somebody else may have written: their kinds and bounds.

    check = record({"epoch": integer(1), "loss": number()}, others=anything)
    check({"epoch": "x"}, "history[3]")     Mismatch: expected an integer ... at history[3].epoch, ...

A check is a function of a value and of its place, for the error. It makes no objects from the value, and
follows it no deeper than the depth that `parse` allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np

from dasknn.exceptions import ModelFileError

Check = Callable[[Any, str], None]

# dasknn's own files and those of Keras are at most a dozen deep.
_MOST_DEPTH = 64
# Largest integer in a file: floats hold it exactly.
_MOST = 2**53
_DTYPE = re.compile(r"[<>=|]?(?:(b1|[iu][1248]|f(?:2|4|8))|(U)\d*|(O))|(object)")
# All texts of an array take the space of the longest one. An array may take this many times the bytes of its
# file, or a small number of bytes.
_MOST_EXPANSION, _SMALL_BYTES = 32, 2**20
_LONGEST = 400


class Mismatch(ValueError):
    """A value that was not expected; the message says where, what was expected and what was received."""


def parse(text: str | bytes) -> Any:
    """Return the value of a text in JSON. Mismatch: not JSON, or lists and objects nested too deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise Mismatch("JSON is nested too deeply") from None
    except ValueError as error:
        raise Mismatch(f"not JSON: {error}") from None
    if _is_deeper(value, _MOST_DEPTH):
        raise Mismatch(f"JSON is nested more than {_MOST_DEPTH} deep")
    return value


def _is_deeper(value: Any, than: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    items = value.values() if isinstance(value, dict) else value
    return than == 0 or any(_is_deeper(item, than - 1) for item in items)


@contextmanager
def refusing(path: Any, expected: str, remedy: str) -> Iterator[None]:
    """Turn any error in this context into a ModelFileError that names the file.

    expected: what the file should hold. remedy: what to do about it. Libraries that read files may raise any
    exception for a damaged one.
    """
    try:
        yield
    except ModelFileError as error:
        if str(error).startswith(f"{path}"):
            raise
        raise ModelFileError(f"{path}: {error}") from error.__cause__
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        what = str(error) if isinstance(error, Mismatch) else f"{type(error).__name__}: {error}"
        raise ModelFileError(
            f"{path} is damaged, or not {expected} ({shortened(what)}). {remedy}".rstrip()
        ) from error


def shortened(text: str) -> str:
    """Return a text that is short enough for an error."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


# --- checks ------------------------------------------------------------------------------------------


def _refuse(expected: str, where: str, value: Any) -> None:
    shown = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    raise Mismatch(f"expected {expected} at {where or 'its top'}, received {shown[:60]}")


def anything(value: Any, where: str) -> None:
    """Accept any value."""


def text(value: Any, where: str) -> None:
    """Expect text."""
    if not isinstance(value, str):
        _refuse("text", where, value)


def flag(value: Any, where: str) -> None:
    """Expect True or False."""
    if not isinstance(value, bool):
        _refuse("true or false", where, value)


def integer(least: int = 0, most: int = _MOST) -> Check:
    """Expect an integer from least to most."""

    def check(value: Any, where: str) -> None:
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_integer or not least <= int(value) <= most:
            _refuse(f"an integer from {least} to {most}", where, value)

    return check


def number(finite: bool = False, least: float = -inf, most: float = inf) -> Check:
    """Expect an integer of bounded size or a float, from least to most unless it is NaN."""

    def check(value: Any, where: str) -> None:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if isinstance(value, Integral):
            is_number = is_number and abs(int(value)) <= _MOST
        if not is_number or (finite and not isfinite(value)):
            _refuse("a finite number" if finite else "a number", where, value)
        if value < least or value > most:
            _refuse(f"a number from {least:g} to {most:g}", where, value)

    return check


def label(value: Any, where: str) -> None:
    """Expect a possible label of a class or value of a column: text, a number, True or False."""
    if not isinstance(value, str | bool | int | float):
        _refuse("text or a number", where, value)


def one_of(*values: Any) -> Check:
    """Expect one of these values."""

    def check(value: Any, where: str) -> None:
        if not any(value == wanted and type(value) is type(wanted) for wanted in values):
            _refuse(" or ".join(map(repr, values)), where, value)

    return check


def optional(what: Check) -> Check:
    """Expect None, or a value that the check accepts."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            what(value, where)

    return check


def each(what: Check, least: int = 0, most: int = _MOST) -> Check:
    """Expect a list of least to most items, all of which the check accepts."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            _refuse(f"a list of {least} to {most} items" if least or most < _MOST else "a list", where, value)
        for place, item in enumerate(value):
            what(item, f"{where}[{place}]")

    return check


def pair(first: Check, second: Check) -> Check:
    """Expect a list of two items."""

    def check(value: Any, where: str) -> None:
        each(anything, 2, 2)(value, where)
        first(value[0], f"{where}[0]")
        second(value[1], f"{where}[1]")

    return check


def table(what: Check, most: int = _MOST) -> Check:
    """Expect an object with any names and at most `most` items, all of which the check accepts."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping) or len(value) > most or not all(isinstance(n, str) for n in value):
            _refuse(f"an object of at most {most} items" if most < _MOST else "an object", where, value)
        for name, item in value.items():
            what(item, _at(where, name))

    return check


def record(
    required: Mapping[str, Check], maybe: Mapping[str, Check] | None = None, others: Check | None = None
) -> Check:
    """Expect an object with the required names.

    maybe: checks of names that may be missing. others: the check of all other names; None: there are none.
    """
    known = {**required, **(maybe or {})}

    def check(value: Any, where: str) -> None:
        table(anything)(value, where)
        if missing := [name for name in required if name not in value]:
            raise Mismatch(f"expected {missing[0]!r} at {where or 'its top'}, received none")
        for name, item in value.items():
            what = known.get(name, others)
            if what is None:
                raise Mismatch(
                    f"expected names among {sorted(known)} at {where or 'its top'}, received {name[:60]!r}"
                )
            what(item, _at(where, name))

    return check


def _at(where: str, name: str) -> str:
    return f"{where}.{name}"[-80:].lstrip(".")


# --- arrays in JSON ----------------------------------------------------------------------------------


def array_of(values: Any, dtype: Any, where: str, n_bytes: int = 0) -> np.ndarray:
    """Return an array of the values, which are lists of numbers, text or labels, and of the named dtype.

    n_bytes: size of the rest of the file, which the array may take as well. Mismatch: a dtype of another
    kind, values that do not fit it, or a long text among many short ones, which would take much memory.
    """
    found = _DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is None:
        raise Mismatch(
            f"expected the dtype of numbers, text or objects at {where}, received {str(dtype)[:60]!r}"
        )
    items = list(_flat(values))
    for item in items:
        label(item, where)
    try:
        if found[3] or found[4]:
            made: Any = np.empty(len(items), object)
            made[:] = items
            return made
        if found[2]:
            # The width in the name of the dtype is not trusted.
            lengths = [len(str(item)) for item in items]
            most = max(_SMALL_BYTES, _MOST_EXPANSION * (n_bytes + sum(lengths)))
            if 4 * len(items) * max(lengths, default=0) > most:
                raise Mismatch(
                    f"expected texts of about one length at {where}, received one of {max(lengths)}"
                )
            return np.array(values, "U")
        return np.array(values, dtype)
    except (TypeError, OverflowError, ValueError) as error:
        raise Mismatch(f"expected values of {dtype} at {where}: {shortened(str(error))}") from None


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for item in values:
            yield from _flat(item)
    else:
        yield values
