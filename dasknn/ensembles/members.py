"""Members of an ensemble: fitted models of any kind, with what an ensemble has to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from dasknn import descriptions
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.data.targets import MultilabelEncoder
from dasknn.engine.outputs import Outputs
from dasknn.losses import NUMBERS
from dasknn.models import Sequential


@dataclass(frozen=True, eq=False)
class Member:
    """A fitted model, alone or behind a table's preprocessing.

    Attributes
    ----------
    network : MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor or Sequential
    table : TablePreprocessor or None
        What comes before the network in a Pipeline.
    classes : array (k,) or None
        Labels of the classes, in the order of its columns; None for numbers.
    is_multilabel : bool
    n_targets : int
        Classes, or numbers that it predicts for each row.
    outputs : Outputs or None
        How the outputs of a Sequential are read; None: predictions need no reading.
    """

    network: Any
    table: TablePreprocessor | None
    classes: np.ndarray | None
    is_multilabel: bool
    n_targets: int
    outputs: Outputs | None = None

    @classmethod
    def of(cls, model: Any) -> Member:
        """Return the member.

        Raises
        ------
        NotFittedError
            The model is not fitted, or not built.
        ValueError
            It is a Sequential whose predictions are neither probabilities nor numbers (n, k).
        """
        table, network = _steps_of(model)
        for step in filter(None, (table, network)):
            check_is_fitted(step)
        if isinstance(network, Sequential):
            return _of_sequential(network, table)
        classes = getattr(network, "classes_", None)
        if classes is None:
            return cls(network, table, None, False, network._n_targets)
        return cls(network, table, classes, isinstance(network._encoder, MultilabelEncoder), len(classes))

    def answer(self, X: Any) -> Any:
        """Return what the model predicts for X, plain or lazy: probabilities, outputs or numbers."""
        if self.table is not None:
            X = self.table.transform(X)
        if isinstance(self.network, Sequential):
            return self.network.predict(X, verbose=0)
        return self.network.predict(X) if self.classes is None else self.network.predict_proba(X)

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        if self.table is not None:
            return self.table.n_features_in_
        if isinstance(self.network, Sequential):
            shape: Any = self.network.input_shape
            return prod(shape[1:])
        return self.network.n_features_in_

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the columns of X; None if the model knows none."""
        first = self.network if self.table is None else self.table
        names = getattr(first, "feature_names_in_", None)
        return None if names is None else list(names)


def is_member(model: Any) -> bool:
    """Return whether a model is of a kind that can be a member."""
    if not isinstance(model, Pipeline):
        return isinstance(model, descriptions.Network | descriptions.Tabular)
    try:
        descriptions.steps_of(model)
    except TypeError:
        return False
    return True


def check_alike(members: Sequence[Member]) -> None:
    """Raise ValueError for members that predict different things, or from different columns."""
    first = members[0]
    for number, other in enumerate(members[1:], 1):
        if first.n_features != other.n_features:
            raise ValueError(
                f"Expected members that predict from the same columns, received {first.n_features} columns "
                f"of members[0] and {other.n_features} of members[{number}]. Fit them to the same X."
            )
        if _targets_of(first) != _targets_of(other):
            raise ValueError(
                f"Expected members that predict the same, received {_told(first)} of members[0] and "
                f"{_told(other)} of members[{number}]. Fit them to the same y."
            )
    named = [member.feature_names for member in members if member.feature_names is not None]
    for names in named[1:]:
        if names != named[0]:
            raise ValueError(
                "Expected members that predict from the same columns in the same order, received "
                f"{_some(named[0])} and {_some(names)}. Fit them to the same X."
            )


def _steps_of(model: Any) -> tuple[TablePreprocessor | None, Any]:
    return descriptions.steps_of(model) if isinstance(model, Pipeline) else (None, model)


def _of_sequential(network: Sequential, table: TablePreprocessor | None) -> Member:
    if len(network.output_shape) != 2:
        raise ValueError(
            f"Expected members with outputs (n, k), received a Sequential with {network.output_shape}. Add "
            "layers.Flatten()."
        )
    built = network._built_network()
    outputs = Outputs.of_network(built)
    if outputs.of == NUMBERS:
        return Member(network, table, None, False, built.n_outputs)
    if not outputs.has_probabilities:
        raise ValueError(
            f"Expected members that predict probabilities, received a Sequential with loss={built.loss!r}, "
            "whose outputs are margins. Train it with a crossentropy."
        )
    classes = outputs.classes
    return Member(network, table, classes, outputs.is_multilabel, len(classes), outputs)


def _targets_of(member: Member) -> tuple[Any, ...]:
    classes = None if member.classes is None else set(member.classes.tolist())
    return member.is_multilabel, member.n_targets, classes


def _told(member: Member) -> str:
    if member.classes is None:
        return f"{member.n_targets} numbers"
    return f"the {'labels' if member.is_multilabel else 'classes'} {_some(member.classes.tolist())}"


def _some(values: Sequence[Any]) -> str:
    return f"[{', '.join(map(repr, values[:20]))}{', ...' if len(values) > 20 else ''}]"
