"""Prediction problems, and predictions of models: the terms in which metrics are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINARY, MULTICLASS, REGRESSION = "binary classification", "multiclass classification", "regression"


@dataclass(frozen=True, eq=False)
class Problem:
    """A prediction problem.

    Attributes
    ----------
    kind : BINARY, MULTICLASS or REGRESSION
    classes : array (n_classes,) or None
        Their labels; None for a regression.
    n_outputs : int
        Columns of a regression.
    positive : int
        The number of the class, of two, that is looked for.
    one_hot : bool
        Whether targets may be rows of 0 with a single 1.
    signed : bool
        Whether targets may be -1 for the class 0.
    """

    kind: str
    classes: np.ndarray | None = None
    n_outputs: int = 1
    positive: int = 1
    one_hot: bool = False
    signed: bool = False

    def decoded(self, values: np.ndarray) -> np.ndarray:
        """Return numbers of classes as labels (n,), and numbers (n, 1) of a regression as (n,)."""
        if self.classes is not None:
            return self.classes[values]
        return values[:, 0] if self.n_outputs == 1 else values

    def center_of(self, y: np.ndarray) -> np.ndarray:
        """Return the mean of each target (q,), 0 for classes. Sums of squares near it keep their digits."""
        return y.mean(axis=0) if self.kind == REGRESSION else np.zeros(1)


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of a model for rows.

    Attributes
    ----------
    labels : array (n,) or (n, q)
        The numbers of the predicted classes; of a regression the predicted numbers.
    proba : array (n, n_classes) or None
        Probabilities; None if no metric needs them.
    """

    labels: np.ndarray
    proba: np.ndarray | None = None

    def __getitem__(self, rows: slice | np.ndarray) -> Answers:
        return Answers(self.labels[rows], None if self.proba is None else self.proba[rows])

    @property
    def known_proba(self) -> np.ndarray:
        """The probabilities, of answers that were asked for them."""
        assert self.proba is not None, "a metric of probabilities needs them"
        return self.proba


def check_alike(problems: Sequence[Problem]) -> None:
    """Check that models can be compared. ValueError: they predict different things."""
    first = problems[0]
    for other in problems[1:]:
        one, two = (None if p.classes is None else p.classes.tolist() for p in (first, other))
        if (first.kind, one) != (other.kind, two):
            raise ValueError(
                f"Expected two models that predict the same, received {first.kind} of {one} and {other.kind} "
                f"of {two}."
            )
