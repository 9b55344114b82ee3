"""Checks of the columns of X: how many there are, their names, and whether they are numbers.

An estimator learns `n_features_in_` and `feature_names_in_` in fit (reset=True). Later data is compared with
them, with scikit-learn's own messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from dasknn.data import partitions
from dasknn.data.blocks import columns_of_text, refuse_kinds
from dasknn.saving.serialization import did_you_mean


def require_columns(available: Iterable[Any], names: Iterable[str], what: str = "the data") -> None:
    """Raise ValueError for a name that is not among the available columns, with the most similar one."""
    columns = [str(name) for name in available]
    missing = [name for name in names if name not in columns]
    if missing:
        meant = did_you_mean(missing[0], columns)
        shown = ", ".join(columns[:30]) + (", ..." if len(columns) > 30 else "")
        raise ValueError(
            f"Expected column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))} in {what}.{meant} "
            f"Received {len(columns)} column{'s' * (len(columns) != 1)}: {shown}."
        )


def check_columns(estimator: Any, X: Any, reset: bool) -> None:
    """Check X (n, p), a Dask collection or plain data, without computing it. ValueError: unusable columns."""
    if partitions.is_dataframe(X):
        refuse_text(X)
        _check_width(estimator, len(X.columns))
        _check_unique(X)
        validate_data(estimator, X=getattr(X, "_meta", X), skip_check_array=True, reset=reset)
        _check_numbered(estimator, X, reset)
        return
    if partitions.is_dask_frame(X):
        raise ValueError("Expected X of shape (n, p), received a Series. Use X.to_frame().")
    shape = np.shape(X)
    if len(shape) != 2:
        raise ValueError(
            f"Expected X of shape (n, p), received shape {shape}. Reshape your data with "
            "X.reshape(-1, 1) if it has a single feature."
        )
    if partitions.is_distributed(X):
        partitions.check_chunks(X)
    _check_width(estimator, int(shape[1]), shape[0])
    like = np.empty((1, int(shape[1])), dtype=np.float32)
    validate_data(estimator, X=like, skip_check_array=True, reset=reset)


def _check_unique(X: Any) -> None:
    # scikit-learn does so since 1.9 only.
    counts = Counter(X.columns)
    if twice := [f"{name!r} {count} times" for name, count in counts.items() if count > 1]:
        raise ValueError(
            f"Expected each column to have a name of its own, received {', '.join(twice)}. "
            "Rename columns by X.columns = [...], or leave some out."
        )


def names_of(X: Any) -> list[str] | None:
    """Return the names of the columns of a dataframe, as text; None: X has no names."""
    return [str(name) for name in X.columns] if partitions.is_dataframe(X) else None


def check_names(known: Sequence[str] | None, X: Any) -> None:
    """Raise ValueError for a dataframe X with other names than the known ones, or in another order.

    Columns without names go by their positions.
    """
    names = names_of(X)
    if known is None or names is None or list(known) == names:
        return
    told = "The feature names should match those that were passed during fit. "
    missing = [name for name in known if name not in names]
    unseen = [name for name in names if name not in known]
    if missing or unseen or len(names) != len(known):
        raise ValueError(
            f"{told}Expected the columns {_shown(known)}, received {_shown(names)}. Missing: "
            f"{_shown(missing)}; unknown: {_shown(unseen)}."
        )
    columns = dict(zip(names, X.columns, strict=True))
    raise ValueError(
        f"{told}Expected the columns in the same order as they were in fit, received {_shown(names)}. Use "
        f"X[{_shown([columns[name] for name in known])}]."
    )


def _shown(names: Sequence[Any]) -> str:
    return f"[{', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}]"


def _check_numbered(estimator: Any, X: Any, reset: bool) -> None:
    """Check columns whose names are integers, which scikit-learn ignores. ValueError: another order."""
    is_numbered = partitions.is_dataframe(X) and all(isinstance(name, Integral) for name in X.columns)
    names = names_of(X) if is_numbered else None
    if reset:
        estimator._numbered = names
    known = vars(estimator).get("_numbered")
    # Other integers may name the same columns: those of X[:, 5:8], for instance.
    if names is not None and known is not None and sorted(names) == sorted(known):
        check_names(known, X)


def _check_width(estimator: Any, n_columns: int, n_rows: Any = "n") -> None:
    if n_columns == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape=({n_rows}, 0)) while a minimum of 1 is required by "
            f"{type(estimator).__name__}."
        )


def validated(estimator: Any, X: Any, **settings: Any) -> Any:
    """Return the result of scikit-learn's validate_data for plain X and, if it is among the settings, y.

    ValueError: as there; for a dataframe, the message names the columns that are not numbers.
    """
    settings = {"accept_sparse": ["csr", "csc"], "dtype": (np.float64, np.float32), **settings}
    if getattr(X, "ndim", 2) == 1 and hasattr(X, "to_frame"):
        raise ValueError("Expected X of shape (n, p), received a Series. Use X.to_frame().")
    if partitions.is_dataframe(X):
        _check_unique(X)
    if partitions.is_dataframe(X) and any(getattr(kind, "kind", "O") in "mM" for kind in X.dtypes):
        # Beside numbers pandas would not promote dates, and alone they would pass as numbers.
        refuse_text(X)
    elif getattr(getattr(X, "dtype", None), "kind", "O") != "c":
        # scikit-learn has its own message for complex numbers.
        refuse_kinds("X", X)
    if settings.get("y") is not None:
        refuse_kinds("y", settings["y"], "mM" if settings.get("y_numeric") else "")
    try:
        found = validate_data(estimator, X, **settings)
        _check_numbered(estimator, X, settings.get("reset", True))
        return found
    except (TypeError, ValueError) as error:
        is_of_dtypes = isinstance(error, TypeError) or "could not convert" in str(error)
        if partitions.is_dataframe(X) and is_of_dtypes and (names := columns_of_text(X)):
            raise ValueError(_refusal(names)) from error
        raise


def refuse_text(X: Any) -> None:
    """Raise ValueError for a dataframe with columns that are not numbers, and name them."""
    if names := columns_of_text(X):
        raise ValueError(_refusal(names))


def _refusal(names: dict[str, str]) -> str:
    columns = ", ".join(f"{name!r} ({kind})" for name, kind in names.items())
    return (
        f"Expected columns of numbers, received {columns}. Encode them first, in a pipeline: "
        "make_pipeline(dasknn.TablePreprocessor(), ...), or for data in one process with "
        "sklearn.compose.ColumnTransformer and OneHotEncoder; or drop them."
    )


def dtype_of(X: Any) -> str:
    """Return float32 if all columns of X are, else float64, as scikit-learn does."""
    kinds = set(X.dtypes) if partitions.is_dataframe(X) else {np.dtype(getattr(X, "dtype", "O"))}
    return "float32" if kinds == {np.dtype("float32")} else "float64"
