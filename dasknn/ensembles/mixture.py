"""What members predict for the same rows, combined: at once, or block by block of Dask collections.

    member 0 ── predictions (n, k) ──┐
    member 1 ── predictions (n, k) ──┼── weighted mean (n, k) ── labels (n,), logarithms, entropy (n,)
    member 2 ── predictions (n, k) ──┘

Sums run in the order of members, in float64, and are divided once. So they have the same bits wherever a
block is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from scipy.special import entr

from dasknn.data import partitions
from dasknn.data.targets import ClassEncoder, MultilabelEncoder
from dasknn.engine.outputs import Outputs
from dasknn.ensembles.members import Member


@dataclass(frozen=True, eq=False)
class Mixture:
    """The weighted mean of the predictions of members, and what follows from it.

    Methods take a table (n, k) for each member: probabilities of its classes, or numbers.

    Attributes
    ----------
    weights : array (n_members,) float64
        Above 0, the greatest of them 1.
    orders : tuple of array (k,) or None
        For each member, the places of the classes among its columns; None: the columns are in their order.
    classes : array (k,) or None
        None for numbers.
    is_multilabel : bool
    """

    weights: np.ndarray
    orders: tuple[np.ndarray | None, ...]
    classes: np.ndarray | None
    is_multilabel: bool = False

    @classmethod
    def of(cls, members: Sequence[Member], weights: np.ndarray) -> Mixture:
        """Return the mixture of members that predict the same. weights (n_members,): above 0."""
        first = members[0]
        orders = tuple(_order(first.classes, member.classes) for member in members)
        # Equal weights give the same bits, whatever they are.
        return cls(weights / weights.max(), orders, first.classes, first.is_multilabel)

    def mean(self, *tables: np.ndarray) -> np.ndarray:
        """Return the weighted mean (n, k), of the widest dtype of the members."""
        dtype = np.result_type(*tables)
        if self.classes is not None and not self.is_multilabel:
            # What sums to 1 in float32 does not in float64, and scores of probabilities would say so.
            tables = tuple(table if table.dtype == dtype else _shares(table) for table in tables)
        ordered = [t if order is None else t[:, order] for t, order in zip(tables, self.orders, strict=True)]
        return self._mean(ordered).astype(dtype)

    def deviation(self, *tables: np.ndarray) -> np.ndarray:
        """Return the weighted standard deviation of the members' predictions (n, k)."""
        mean = self._mean(tables)
        return np.sqrt(self._mean([(table - mean) ** 2 for table in tables])).astype(np.result_type(*tables))

    def _mean(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        total = np.zeros(tables[0].shape)
        for weight, table in zip(self.weights, tables, strict=True):
            total += weight * table.astype(np.float64)
        return total / self.weights.sum()

    def log_mean(self, *tables: np.ndarray) -> np.ndarray:
        """Return the logarithm of the mean (n, k)."""
        with np.errstate(divide="ignore"):
            return np.log(self.mean(*tables))

    def entropy(self, *tables: np.ndarray) -> np.ndarray:
        """Return the entropy (n,) of the mean, in nats; of several labels the sum of theirs."""
        chances = self.mean(*tables).astype(np.float64)
        if self.is_multilabel:
            chances = np.hstack([chances, 1 - chances])
        return entr(chances).sum(axis=1)

    def labels(self, *tables: np.ndarray) -> np.ndarray:
        """Return the likeliest label of each row (n,), or 0 and 1 for each of several labels (n, k)."""
        return self.labels_of(self.mean(*tables))

    def labels_of(self, chances: np.ndarray) -> np.ndarray:
        """Return labels, given probabilities (n, k): what `labels` returns, given those of the members."""
        assert self.classes is not None, "numbers have no labels"
        if self.is_multilabel:
            return MultilabelEncoder(self.classes, "float64").decode(chances)
        # Of two classes the second decides, as in a network with one output.
        outputs = chances if len(self.classes) > 2 else chances[:, -1:]
        return ClassEncoder(self.classes, "float64").decode(outputs)

    def numbers(self, *tables: np.ndarray) -> np.ndarray:
        """Return the mean, (n,) for one number in each row."""
        return _narrow(self.mean(*tables))

    def deviations(self, *tables: np.ndarray) -> np.ndarray:
        """Return the deviation, (n,) for one number in each row."""
        return _narrow(self.deviation(*tables))


def combined(
    mixture: Mixture, method: str, members: Sequence[Member], answers: Sequence[Any], columns: list | None
) -> Any:
    """Apply a method of the mixture to the answers of all members.

    Parameters
    ----------
    mixture : Mixture
    method : str
        Name of one of its methods, such as "mean".
    members : sequence of Member
    answers : sequence
        What each of them predicts for the same X: arrays, or lazy collections of one kind.
    columns : list or None
        Names of the columns of a dataframe of results. None: the results of a dataframe are a series.

    Returns
    -------
    array, Dask array, dataframe or series
        With the chunks of rows, or the index, of X.
    """
    mix = partial(_mix, mixture, method, tuple(member.outputs for member in members))
    if not partitions.is_distributed(*answers):
        return mix(*answers)
    empty = mix(*map(_empty_of, answers))
    if not partitions.is_dask_frame(answers[0]):
        blocks = [answer if answer.ndim == 2 else answer[:, np.newaxis] for answer in answers]
        rows, wide = blocks[0].chunks[0], empty.ndim == 2
        return da.map_blocks(
            mix,
            *blocks,
            token=f"dasknn-ensemble-{method}",
            dtype=empty.dtype,
            meta=empty,
            chunks=(rows, (empty.shape[1],)) if wide else (rows,),
            drop_axis=None if wide else 1,
        )
    import dask.dataframe as dd
    import pandas as pd

    # From an empty series pandas could not tell that labels are text.
    is_label = method == "labels" and not mixture.is_multilabel
    dtype = pd.Series(mixture.classes).dtype if is_label else None
    names = None if columns is None else [str(name) for name in columns]
    meta = _frame(empty, answers[0]._meta.index[:0], names, dtype)
    on_frames: Callable[..., Any] = partial(_mix_frames, mix, names, dtype)
    return dd.map_partitions(on_frames, *answers, meta=meta, align_dataframes=False, enforce_metadata=False)


def _mix(mixture: Mixture, method: str, outputs: tuple[Outputs | None, ...], *answers: Any) -> np.ndarray:
    # tables: (n, k) for each member
    tables = [np.asarray(answer) for answer in answers]
    tables = [table if table.ndim == 2 else table[:, np.newaxis] for table in tables]
    tables = [t if read is None else read.scores(t) for t, read in zip(tables, outputs, strict=True)]
    return getattr(mixture, method)(*tables)


def _mix_frames(mix: Callable[..., np.ndarray], names: list[str] | None, dtype: Any, *frames: Any) -> Any:
    return _frame(mix(*frames), frames[0].index, names, dtype)


def _frame(values: np.ndarray, index: Any, names: list[str] | None, dtype: Any) -> Any:
    import pandas as pd

    if names is None:
        return pd.Series(values, index=index, dtype=dtype)
    return pd.DataFrame(values, index=index, columns=names)


def _empty_of(answer: Any) -> Any:
    """Return no rows of a lazy answer. Dask's own example of an array may have no columns, either."""
    if partitions.is_dask_frame(answer):
        return answer._meta
    return np.empty((0, *answer.shape[1:]), answer.dtype)


def _order(classes: np.ndarray | None, own: np.ndarray | None) -> np.ndarray | None:
    """Return the places of the classes among a member's own; None: they are in the same order."""
    if classes is None or own is None or classes.tolist() == own.tolist():
        return None
    places = {label: place for place, label in enumerate(own.tolist())}
    return np.array([places[label] for label in classes.tolist()])


def _shares(table: np.ndarray) -> np.ndarray:
    """Return a table (n, k) in float64 whose rows sum to 1, except for those of 0 alone."""
    table = table.astype(np.float64)
    total = table.sum(axis=1, keepdims=True)
    return np.divide(table, total, out=table, where=total > 0)


def _narrow(table: np.ndarray) -> np.ndarray:
    return table[:, 0] if table.shape[1] == 1 else table
