"""The file of `dask nn search --config`: arguments of the search, settings that stay, settings to try.

target = "income"                    options of the command, as in a file of `dask nn train`
[search]                             arguments of the search, by their names in Python
[settings]                           settings of the estimator that all trials have
[parameters]                         settings to try: lists of values, and ranges
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from dasknn.cli.options import TABLE, read_toml, set_defaults
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor
from dasknn.saving.serialization import did_you_mean
from dasknn.search.spaces import between

_SEARCH, _SETTINGS, _PARAMETERS = "search", "settings", "parameters"
_RANGE = ("low", "high", "log")
_EXAMPLE = "a list of values such as [0.1, 0.01], or a range such as {low = 1e-4, high = 1e-2, log = true}"
# What options say about an estimator is not said a second time.
_OPTIONS = {
    "max_iter": "--epochs",
    "random_state": "--seed",
    "categorical_features": "--categorical",
    "class_weight": "--class-weight",
    "min_frequency": "--min-frequency",
    "max_categories": "--max-categories",
    "verbose": "--quiet",
}
# These are the same for all trials.
_NEVER_TRIED = ("max_iter", "random_state", "categorical_features", "verbose")
# How rows are held out and shared is the search's business.
_OF_NO_SEARCH = (
    *("callbacks", "strategy", "replicas", "transport", "validation_fraction", "hold_out", "refit"),
    *("warm_start", "select_members"),
)
#: Names of the steps of a pipeline: the encoding of a table, and the network.
TABLE_STEP, NETWORK_STEP = "table__", "mlp__"


@dataclass(frozen=True)
class SearchConfig:
    """What a file says about a search.

    Attributes
    ----------
    path : str or None
        Where it was read; None: there is no file.
    arguments : dict
        Of the search.
    settings : dict
        Of the estimator, for all trials.
    parameters : list of dict
        Lists of values or distributions, by the names of settings. Empty: the default space.
    """

    path: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: list[dict[str, Any]] = field(default_factory=list)

    def check(self, method: str, arguments: Collection[str], model: str) -> None:
        """Raise BadParameter for names that the search of --method, or the estimators of --model, have not.

        arguments: names of those of the search.
        """
        for name in self.arguments.keys() & {"random_state", "verbose"}:
            raise _set_by_option(f"{self.path}, [{_SEARCH}]", name)
        _check_names(f"{self.path}, [{_SEARCH}] of --method {method}", self.arguments, arguments)
        known = _settings_of(model)
        for where, names, elsewhere in self._tables():
            for name in names:
                if name in elsewhere:
                    raise _set_by_option(where, name)
            _check_names(where, names, known)
        for part in self.parameters:
            for name in part.keys() & self.settings.keys():
                raise _mistake(
                    f"{self.path}: {name} is in [{_SETTINGS}] and in [{_PARAMETERS}]. Leave it out of one."
                )

    def _tables(self) -> Iterator[tuple[str, Collection[str], Collection[str]]]:
        """Yield (the place of a table, its names, names that are set by options)."""
        yield f"{self.path}, [{_SETTINGS}]", self.settings, _OPTIONS
        for part in self.parameters:
            yield f"{self.path}, [{_PARAMETERS}]", part, _NEVER_TRIED


def read_search_config(ctx: click.Context, param: click.Parameter, path: str | None) -> SearchConfig:
    """Return what a file says about a search, and make its other keys the defaults of options."""
    if path is None:
        return SearchConfig()
    config = read_toml(ctx, param, path)
    tables = {name: config.pop(name, {}) for name in (_SEARCH, _SETTINGS, _PARAMETERS)}
    for name in (_SEARCH, _SETTINGS):
        if not isinstance(tables[name], dict):
            raise _mistake(f"{path}: expected a table [{name}], received {name} = {_shown(tables[name])}")
    for name, value in config.items():
        if isinstance(value, dict):
            hint = did_you_mean(name, tables)
            raise _mistake(
                f"{path}: expected the tables [{_SEARCH}], [{_SETTINGS}] and [{_PARAMETERS}], received "
                f"[{name}].{hint}"
            )
    set_defaults(ctx, param, path, config)
    parts = tables[_PARAMETERS] if isinstance(tables[_PARAMETERS], list) else [tables[_PARAMETERS]]
    return SearchConfig(
        path,
        {name.replace("-", "_"): value for name, value in tables[_SEARCH].items()},
        {name: _setting(value) for name, value in tables[_SETTINGS].items()},
        [_space(path, part) for part in parts if part != {}],
    )


def arguments_of(search: type) -> list[str]:
    """Return the arguments of a search that are neither its estimator nor its space."""
    names = inspect.signature(search).parameters
    return [name for name in names if name not in ("estimator", _PARAMETERS)]


def _space(path: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise _mistake(f"{path}: expected a table [{_PARAMETERS}], received {_shown(part)}")
    return {name: _values(f"{path}, [{_PARAMETERS}] {name}", value) for name, value in part.items()}


def _values(where: str, value: Any) -> Any:
    """Return what a search takes for a list of values or a range."""
    if isinstance(value, dict):
        return _range(where, value)
    if not isinstance(value, list):
        raise _mistake(
            f"{where}: expected {_EXAMPLE}, received {_shown(value)}. A setting with one value belongs to "
            f"[{_SETTINGS}]."
        )
    if not value:
        raise _mistake(f"{where}: expected {_EXAMPLE}, received an empty list.")
    return [_setting(one) for one in value]


def _range(where: str, value: Mapping[str, Any]) -> Any:
    _check_names(where, value, _RANGE)
    for name in ("low", "high"):
        if name not in value:
            raise _mistake(f"{where}: expected low and high, received no {name}.")
        end = value[name]
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise _mistake(f"{where}: expected a number for {name}, received {_shown(end)}.")
    if not isinstance(value.get("log", False), bool):
        raise _mistake(f"{where}: expected log = true or false, received {_shown(value['log'])}.")
    try:
        return between(value["low"], value["high"], value.get("log", False))
    except ValueError as error:
        raise _mistake(f"{where}: {error}") from error


def _setting(value: Any) -> Any:
    """Return a value of a file as estimators take it: TOML has neither tuples nor None."""
    if isinstance(value, list):
        return tuple(_setting(one) for one in value)
    return None if value == "none" else value


def _settings_of(model: str) -> list[str]:
    """Return the names of the settings that the estimators of --model have."""
    kinds = (TabularClassifier, TabularRegressor) if model == TABLE else (MLPClassifier, MLPRegressor)
    names = {name for kind in kinds for name in kind().get_params()} - set(_OF_NO_SEARCH)
    if model != TABLE:
        of_table = set(TablePreprocessor().get_params()) - {"drop", "categorical", "dtype"}
        names |= {TABLE_STEP + name for name in of_table}
    return sorted(names)


def _check_names(where: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
            raise _mistake(f"{where}: unknown name {name!r}.{hint}")


def _mistake(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--config")


def _set_by_option(where: str, name: str) -> click.BadParameter:
    return _mistake(f"{where}: {name} is set by an option. Use {_OPTIONS[name]}.")


def _shown(value: Any) -> str:
    return f"{value!r:.100}"
