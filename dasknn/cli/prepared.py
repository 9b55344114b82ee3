"""The tables of a training, read and split, and the unfitted model for them.

    DATA ── read ── split ── columns ── model.fit

`ForTable` leaves a raw table to TabularClassifier or TabularRegressor; `ForMLP` encodes it for an
MLPClassifier or MLPRegressor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import click
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import pipelines
from dasknn.cli.options import MLP, TABLE, number_of
from dasknn.cli.session import known_columns, say
from dasknn.data import readers
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor

# The share of the rows that an MLP holds out, unless --validation says otherwise.
_MLP_SHARE = "0.1"


class Prepared(ABC):
    """The tables of a training, and what both kinds of models do with them.

    Attributes
    ----------
    names : list of str
        The columns to learn from.
    train, validation, test : Dask dataframe
        validation: the rows that the model does not hold out by itself, or None. test: may be None.
    is_regression : bool
    may_be_numbers : bool
        Whether the target has whole numbers, and nobody said whether they are classes.
    """

    #: Columns of dates in CSV files, as `readers.Wanted` has them.
    _dates: ClassVar[tuple[str, ...] | None]

    def __init__(self, options: dict[str, Any]):
        self.options = options
        self.target, self.weights = options["target"], options.get("weights")
        # Columns that say which rows are held out.
        self.splits = {name: options[name] for name in ("groups", "time") if options.get(name)}
        dropped, codes = (
            [name for names in options[option] for name in names] for option in ("drop", "categorical")
        )
        asked = {"auto": None, "regression": True, "classification": False}[options["task"]]
        if options.get("quantiles"):
            asked = True
        # As text, columns that are dropped may hold anything.
        texts = {*codes, *dropped} - {options.get("time")}
        self._wanted = readers.Wanted(self.target, "train", texts, asked, dates=self._dates)
        frame = self._read(options["data"], self._wanted)
        known_columns(frame, list(self.splits.values()))
        kind = getattr(frame[self.target].dtype, "kind", "O")
        self.is_regression = kind == "f" if asked is None else asked
        self.may_be_numbers = asked is None and kind in "iu"
        self.names = [
            name
            for name in frame.columns
            if name not in {self.target, self.weights, *self.splits.values(), *known_columns(frame, dropped)}
        ]
        self.codes = [name for name in known_columns(frame, codes) if name in self.names]
        # Other files are read with the types that the columns have here.
        self._wanted = readers.Wanted(
            self.target, "test", texts.union(_texts_of(frame)), asked, dates=_dates_of(frame)
        )
        if options.get("shuffle"):
            frame = dasknn.shuffle(frame, random_state=options["seed"])
        self.train, self.validation = self._split(frame)
        test = options.get("test")
        self.test = self._read(test, self._wanted) if test else None

    def _read(self, paths: Sequence[str], wanted: readers.Wanted) -> Any:
        frame = readers.read(paths, wanted, self.options["form"])
        known_columns(frame, [self.target, *filter(None, [self.weights])])
        drops = self.options.get("drop_missing_target")
        return frame.dropna(subset=[self.target]) if drops else frame

    @abstractmethod
    def _split(self, frame: Any) -> tuple[Any, Any]:
        """Return (rows to train on, rows for validation or None)."""

    def _split_by(self, frame: Any, validation: Sequence[str]) -> tuple[Any, Any]:
        """Return (rows to train on, rows of a share of them or of files), or None for no validation."""
        if not validation:
            return frame, None
        share = number_of(validation[0])
        if share is None:
            return frame, self._read(validation, self._wanted)
        left, held_out = frame.random_split([1 - share, share], random_state=self.options["seed"])
        if frame.npartitions == 1 and not len(held_out):
            # Only for one partition is it known quickly whether rows were held out.
            say("too few rows to hold some out for validation", self.options)
            return frame, None
        return left, held_out

    def columns(self, frame: Any) -> tuple[Any, Any, Any]:
        """Return X, as the model takes it, y and weight (or None) of a table, lazily."""
        X, y, weight = self.raw_columns(frame)
        return self._features(X), y, weight

    def _features(self, X: Any) -> Any:
        return X

    def fit_settings(self) -> dict[str, Any]:
        """Return more arguments of `fit` for the rows to train on."""
        return {name: self.train[column] for name, column in self.splits.items()}

    @abstractmethod
    def model(self, **settings: Any) -> Any:
        """Return an unfitted estimator with the options of the network, and these settings."""

    def _class_weight(self) -> dict[str, Any]:
        """Return the setting class_weight of classifiers. UsageError: it was given for numbers."""
        found = self.options.get("class_weight")
        if not self.is_regression:
            return {"class_weight": found}
        if found:
            raise click.UsageError("--class-weight needs a classification, and this target has numbers.")
        return {}

    def raw_columns(self, frame: Any) -> tuple[Any, Any, Any]:
        """Return X as it is in the files, y and weight (or None) of a table, lazily."""
        known_columns(frame, self.names)
        weight = None if self.weights is None else frame[self.weights]
        return frame[self.names], frame[self.target], weight

    def more(self, paths: Sequence[str]) -> Any:
        """Return the table in other files, with the types that columns have in DATA."""
        return self._read(paths, self._wanted)

    def whole(self, **settings: Any) -> Any:
        """Return an unfitted estimator for `raw_columns`."""
        return self.model(**settings)

    @abstractmethod
    def save(self, model: Any, path: str) -> None:
        """Write the fitted model, with what encodes its tables."""


def prepare(options: dict[str, Any]) -> Prepared:
    """Return the tables for the kind of model that the options name."""
    return {TABLE: ForTable, MLP: ForMLP}[options["model"]](options)


# Settings of estimators, by the names of options. All kinds of estimators have them.
_SETTINGS = {"activation": "activation", "batch_size": "batch_size", "dtype": "dtype", "engine": "engine"}
_SETTINGS |= {"replicas": "replicas", "transport": "transport", "hidden": "hidden_layer_sizes"}
_SETTINGS |= {"learning_rate": "learning_rate_init", "epochs": "max_iter"}

# Settings of estimators for tables, which are called as the options.
_OF_TABLE = (
    *("members", "embedding", "min_frequency", "max_categories", "dropout", "weight_decay"),
    *("hold_out", "select_members", "refit"),
)


def _given(options: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return settings of an estimator with the values of options, except those that were not given."""
    return {setting: options[option] for option, setting in names.items() if options.get(option) is not None}


class ForTable(Prepared):
    """A raw table for an estimator for tables, which learns its columns and holds rows out by itself."""

    _dates = None

    def _split(self, frame: Any) -> tuple[Any, Any]:
        validation, stops = self.options.get("validation"), self.options.get("early_stopping")
        self._holds_out = {"early_stopping": "auto" if stops is None else stops}
        if validation is None:
            return frame, None
        share = number_of(validation[0]) if validation else 0.0
        if share is None or stops is False:
            # Files; or a share that is only scored.
            train, held_out = self._split_by(frame, validation)
            self._holds_out = {"early_stopping": held_out is not None and stops is not False}
            return train, held_out
        self._holds_out = {"early_stopping": share > 0, "validation_fraction": share}
        return frame, None

    def model(self, **settings: Any) -> Any:
        options = self.options
        settings |= self._holds_out | self._class_weight() | {"categorical_features": self.codes or None}
        settings |= _given(options, _SETTINGS | {name: name for name in _OF_TABLE})
        if options.get("embedding") == "none":
            settings["embedding"] = None
        if self.is_regression:
            return TabularRegressor(**settings, quantiles=options.get("quantiles"))
        return TabularClassifier(**settings)

    def save(self, model: Any, path: str) -> None:
        model.save(path)


class ForMLP(Prepared):
    """A table for an MLP: numbers, which a TablePreprocessor has made if there is one.

    table: the TablePreprocessor, fitted to the rows to train on when it is first needed; None for
    --preprocess none.
    """

    _dates = ()

    @cached_property
    def table(self) -> TablePreprocessor | None:
        found = self._unfitted_table()
        if found is not None:
            say("learning the columns", self.options)
            found.fit(self.train[self.names])
        return found

    def _unfitted_table(self) -> TablePreprocessor | None:
        options = self.options
        if options["preprocess"] == "none":
            return None
        return TablePreprocessor(
            categorical=self.codes,
            min_frequency=options["min_frequency"],
            max_categories=options["max_categories"],
            dtype=options["dtype"],
        )

    def _split(self, frame: Any) -> tuple[Any, Any]:
        # `dask nn recommend` has no such option, and needs no rows for it.
        validation = self.options.get("validation", ())
        return self._split_by(frame, (_MLP_SHARE,) if validation is None else validation)

    def _features(self, X: Any) -> Any:
        return X if self.table is None else self.table.transform(X)

    def model(self, **settings: Any) -> Any:
        options = self.options
        stops = options.get("early_stopping", False) and self.validation is not None
        settings |= {"early_stopping": stops} | self._class_weight()
        settings |= _given(options, _SETTINGS | {"solver": "solver", "alpha": "alpha"})
        return MLPRegressor(**settings) if self.is_regression else MLPClassifier(**settings)

    def save(self, model: Any, path: str) -> None:
        whole = model if self.table is None else Pipeline([("table", self.table), ("mlp", model)])
        pipelines.save(whole, path)

    def whole(self, **settings: Any) -> Any:
        table, model = self._unfitted_table(), self.model(**settings)
        return model if table is None else Pipeline([("table", table), ("mlp", model)])


def _texts_of(frame: Any) -> list[str]:
    """Return the columns of text of a Dask dataframe."""
    return [name for name in frame.columns if str(frame[name].dtype).startswith(("str", "object"))]


def _dates_of(frame: Any) -> list[str]:
    """Return the columns of dates of a Dask dataframe."""
    return [
        name
        for name in frame.columns
        if getattr(frame[name].dtype, "kind", "O") == "M" or str(frame[name].dtype).startswith("date")
    ]
