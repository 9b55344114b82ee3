"""Values as JSON, and settings of objects in the form that Keras's files have.

    {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}

Reading looks names up among dasknn's own classes and executes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, Self

import numpy as np

# --- values -------------------------------------------------------------------------------------------


class JSONEncoder:
    """Turns values into the types of JSON; a subclass overrides the kinds that it writes differently.

    Text, numbers, True, False and None stay as they are. Arrays and numbers of NumPy become Python's, tuples
    become lists, and keys become text. `where` names the place of a value in errors.
    """

    def encode(self, value: Any, where: str) -> Any:
        """Return the value in the types of JSON. TypeError: it has a part that JSON cannot hold."""
        if isinstance(value, np.ndarray | np.generic):
            return self.encode_array(value, where)
        if isinstance(value, float):
            return self.encode_float(value)
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, list | tuple):
            return [self.encode(item, f"{where}[{number}]") for number, item in enumerate(value)]
        if isinstance(value, Mapping):
            return self.encode_mapping(value, where)
        return self.encode_other(value, where)

    def encode_array(self, value: np.ndarray | np.generic, where: str) -> Any:
        """Return an array, or a number of NumPy."""
        plain = value.tolist()
        # A long double has no number of Python's to become.
        return self.encode_other(plain, where) if isinstance(plain, np.generic) else self.encode(plain, where)

    def encode_float(self, value: float) -> Any:
        """Return a float of Python."""
        return value

    def encode_mapping(self, value: Mapping, where: str) -> Any:
        """Return a mapping."""
        return {str(key): self.encode(item, f"{where}.{key}") for key, item in value.items()}

    def encode_other(self, value: Any, where: str) -> Any:
        """Return a value of a kind that JSON does not have. TypeError: there is no form for it."""
        raise TypeError(
            f"Expected numbers, text, arrays, or lists and dicts of them, to write as JSON; {where} is "
            f"{value!r:.200}."
        )


def decode(value: Any, decode_object: Callable[[dict[str, Any]], Any], sequence: type = list) -> Any:
    """Return what an encoder has written. decode_object is called with each JSON object, inner ones first.

    sequence: the type that lists come back as.
    """
    if isinstance(value, list):
        return sequence(decode(item, decode_object, sequence) for item in value)
    if isinstance(value, dict):
        return decode_object({name: decode(item, decode_object, sequence) for name, item in value.items()})
    return value


# --- settings -----------------------------------------------------------------------------------------


class _SettingsEncoder(JSONEncoder):
    def encode_other(self, value: Any, where: str) -> Any:
        # A class whose settings are objects replaces them in its get_config.
        return value


_encode_setting = _SettingsEncoder().encode


class Configurable:
    """A dataclass whose configuration is its fields.

    `_only_keras` maps settings of Keras that have no meaning in dasknn to the values that are accepted.
    """

    _only_keras: Mapping[str, tuple] = {}

    def __post_init__(self) -> None:
        check_own_kinds(self)

    def get_config(self) -> dict[str, Any]:
        """Return the settings as Keras writes them, in the types of JSON."""
        return {
            field.name: _encode_setting(getattr(self, field.name), field.name)
            for field in fields(self)  # type: ignore[arg-type]
            if field.init
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the object with the settings of `get_config`. ValueError: unknown settings."""
        return cls(**checked_settings(cls, config, cls._only_keras))


def checked_settings(
    kind: type, config: Mapping[str, Any], only_keras: Mapping[str, tuple]
) -> dict[str, Any]:
    """Return the settings of a configuration that a dataclass has. ValueError: others that have an effect."""
    settings = dict(config)
    known = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for name in set(settings) - known:
        if name not in only_keras:
            raise ValueError(f"{kind.__name__} expects settings among {sorted(known)}, received {name!r}.")
        if (value := settings.pop(name)) not in only_keras[name]:
            raise ValueError(
                f"{kind.__name__} of dasknn has no setting {name}, received {name}={value!r}. Leave it out."
            )
    check_kinds(kind, settings)
    return settings


# The types that annotations of settings stand for, and their names in messages. Text may be an object, since
# Keras writes policies for dtypes.
_PLAIN: dict[str, tuple[Any, str]] = {
    "bool": (bool | np.bool_, "True or False"),
    "int": (Integral, "an integer"),
    "float": (Real, "a number"),
    "str": (str | Mapping, "text"),
    "None": (type(None), "None"),
}


def check_own_kinds(settings: object) -> None:
    """Check the fields of a dataclass as `check_kinds` does; other objects are ignored."""
    if is_dataclass(settings):
        known = {field.name: getattr(settings, field.name) for field in fields(settings)}
        check_kinds(type(settings), known)  # type: ignore[arg-type]


def check_kinds(kind: type, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of other types than the fields of a dataclass, such as text for a number.

    Only fields that are annotated with plain types are checked.
    """
    for field in fields(kind):  # type: ignore[arg-type]
        names = (field.type.__name__ if isinstance(field.type, type) else str(field.type)).split(" | ")
        if field.name not in settings or not set(names) <= _PLAIN.keys() or names == ["None"]:
            continue
        value = settings[field.name]
        is_right = any(isinstance(value, _PLAIN[name][0]) for name in names)
        # To Python, True is an integer.
        if not is_right or (isinstance(value, bool) and "bool" not in names):
            expected = " or ".join(_PLAIN[name][1] for name in names)
            raise ValueError(f"{kind.__name__} expects {field.name} to be {expected}, received {value!r}.")


class Kinds:
    """Classes of one kind by name: their own names, those in lower case and in snake_case, and aliases.

    what: their kind in messages, such as "an initializer". module: Keras's name of their module. base: their
    base class.
    """

    def __init__(
        self,
        what: str,
        module: str,
        base: type,
        classes: Iterable[type],
        aliases: Mapping[str, type] | None = None,
    ):
        self._what, self._module, self._base = what, module, base
        self._classes = {kind.__name__: kind for kind in classes}
        short = {
            spell(name): kind for name, kind in self._classes.items() for spell in (str.lower, snake_case)
        }
        self._names: dict[str, Any] = {**self._classes, **short, **(aliases or {})}

    def get(self, identifier: Any) -> Any:
        """Return the object for a name, a configuration or a class; an object and None are returned as is.

        ValueError: it stands for no object of this kind.
        """
        if identifier is None or isinstance(identifier, self._base):
            return identifier
        if isinstance(identifier, str):
            return self.named(identifier)()
        if isinstance(identifier, Mapping):
            return self.deserialize(identifier)
        if isinstance(identifier, type) and issubclass(identifier, self._base):
            return identifier()
        raise ValueError(
            f"Expected {self._what}: a name, or an object of dasknn.{self._module.partition('.')[2]}, "
            f"received {identifier!r}."
        )

    def named(self, name: str) -> Any:
        """Return the class with a name. ValueError: there is none."""
        if name in self._names:
            return self._names[name]
        hint = did_you_mean(name, self._names) or f" There are: {', '.join(sorted(self._classes))}."
        raise ValueError(f"Expected {self._what}, received {name!r}.{hint}")

    def serialize(self, thing: Any) -> dict[str, Any]:
        """Return the configuration of an object in Keras's form."""
        return described(self._module, type(thing).__name__, thing.get_config())

    def deserialize(self, config: Mapping[str, Any]) -> Any:
        """Return the object of a configuration. ValueError: an unknown class, or unknown settings."""
        if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), Mapping):
            raise ValueError(
                f"Expected the configuration of {self._what}, with class_name and config, received "
                f"{config!r}."
            )
        return self.named(config["class_name"]).from_config(config["config"])


def described(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the form in which Keras writes an object of one of its own classes."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def snake_case(name: str) -> str:
    """Return the name of a class as Keras spells it in lower case: leaky_re_lu for LeakyReLU."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def did_you_mean(name: object, known: Iterable) -> str:
    """Return " Did you mean 'x'?" for the known name that is most similar to a name; "" if none is."""
    near = get_close_matches(str(name), [str(one) for one in known], 1)
    return f" Did you mean {near[0]!r}?" if near else ""
