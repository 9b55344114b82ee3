"""The history of a training: what its model has recorded, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from dasknn.evaluation.responders import last_step
from dasknn.models.sequential import Sequential


def history_of(model: Any) -> list[Mapping[str, Any]]:
    """Return the entries of a model's training.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, Sequential, or a Pipeline of one

    Raises
    ------
    NotFittedError
        The model is not fitted.
    TypeError
        It is another model.
    ValueError
        It has no history.
    """
    last = last_step(model)
    if isinstance(last, Sequential):
        if last.history is None:
            raise NotFittedError(
                "This Sequential has no history. Call 'fit' first; a model that was loaded has none."
            )
        return checked_history(last.history)
    if isinstance(last, type) or not hasattr(last, "fit"):
        raise TypeError(
            f"Expected a trained MLPClassifier, MLPRegressor or Sequential, received {model!r:.80}."
        )
    check_is_fitted(last)
    if not hasattr(last, "history_"):
        raise TypeError(f"Expected a model of dasknn, received {type(last).__name__}, which has no history_.")
    return checked_history(last.history_)


def checked_history(history: Any) -> list[Mapping[str, Any]]:
    """Return the entries of a History, or of a list. ValueError: there are none, or other objects."""
    entries = list(getattr(history, "entries", history))
    if not entries:
        raise ValueError(
            "Expected a history with an epoch or more, received none. A model that was not trained here "
            "(loaded, converted from scikit-learn's or Keras's, a member of an ensemble) may have no history."
        )
    for entry in entries:
        if not isinstance(entry, Mapping) or "epoch" not in entry:
            raise ValueError(f"Expected the entries of history_ or History.entries, received {entry!r:.80}.")
    return entries
