"""Settings and scores as short text: for the bar, announcements and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor

from dasknn.estimators.mlp import BaseMLP
from dasknn.evaluation.responders import last_step

_MOST_LETTERS = 40


def value_text(value: Any, most: int = _MOST_LETTERS) -> str:
    """Return a value of a setting as text of at most so many letters."""
    if isinstance(value, float):
        text = f"{value:.3g}"
    elif callable(value) and hasattr(value, "__name__"):
        text = value.__name__
    else:
        text = value if isinstance(value, str) else " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def settings_text(settings: Mapping[str, Any], most: int = 200) -> str:
    """Return settings as text of at most so many letters, such as "alpha=0.01, solver=adam"."""
    text = ", ".join(f"{name.rpartition('__')[2]}={value_text(value)}" for name, value in settings.items())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def score_name(estimator: Any, scoring: Any) -> str:
    """Return what a search scores, for people.

    estimator, scoring: as they were passed to the search.
    """
    if isinstance(scoring, str):
        return scoring.replace("_", " ")
    if scoring is not None:
        name = getattr(getattr(scoring, "_score_func", scoring), "__name__", "score")
        return str(name).replace("_", " ")
    last = last_step(estimator)
    if not isinstance(last, BaseEstimator):
        return "negative loss"
    if is_classifier(last):
        return "accuracy"
    # The score of a regressor for tables depends on what it predicts.
    return "R²" if is_regressor(last) and isinstance(last, BaseMLP) else "score"


def model_name(estimator: Any) -> str:
    """Return what a search tries, for people. estimator: as it was passed to the search."""
    last = last_step(estimator)
    return type(last).__name__ if isinstance(last, BaseEstimator) else getattr(last, "__name__", "a function")
