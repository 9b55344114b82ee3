"""What an estimator for tables has learned of each column, and what the network gets of it, for readers."""

from __future__ import annotations

from typing import NamedTuple

from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.kinds import Binned, CategoryColumn, Column, NumberColumn
from dasknn.engine.network import Network
from dasknn.layers import (
    Activation,
    BinEmbedding,
    BinEncoding,
    ColumnGroups,
    Layer,
    Omit,
    OneHot,
    PBLDEmbedding,
    PeriodicEmbedding,
)


class LearnedColumn(NamedTuple):
    """A column of the table.

    Attributes
    ----------
    name : str
    kind : str
        "number", "binary", "boolean", "duration", "date", "category", "hashed category" or "ignored".
    n_bins : int
        Bins of a number, of a date those of all its parts; 0 for other kinds.
    n_categories : int
        Values of a category that have codes of their own; 0 for other kinds.
    n_shared_codes : int
        Codes that the other values share: none, one for rare values, or many for hashed ones.
    has_missing : bool or None
        Whether rows of fit missed a value. None: the file of an older version does not say.
    becomes : str
        What the network gets of it.
    learned : str
        Everything else that was learned.
    """

    name: str
    kind: str
    n_bins: int
    n_categories: int
    n_shared_codes: int
    has_missing: bool | None
    becomes: str
    learned: str


def learned_columns(table: TableEncoder, network: Network) -> list[LearnedColumn]:
    """Return what was learned of each column of a table, which the network embeds with its first layer."""
    first = network.layers[0]
    assert isinstance(first, ColumnGroups), "networks for tables begin with the columns"
    layers = [layer for _, layer in first.groups]
    of_codes = iter(layers[len(layers) - len(table.n_codes) :])
    of_numbers = next((layer for layer in layers if not isinstance(layer, Omit)), layers[0])
    return [
        _learned(column, next(of_codes) if isinstance(column, CategoryColumn) else of_numbers)
        for column in table.columns
    ]


def _learned(column: Column, layer: Layer) -> LearnedColumn:
    """Return what was learned of a column. layer: of its codes, or of all embedded numbers."""
    n_bins = n_categories = n_shared = 0
    becomes = "nothing"
    if isinstance(column, NumberColumn):
        n_bins = sum(part.n_bins for part in column.parts if isinstance(part, Binned))
        becomes = _inputs_of_numbers(column, layer)
    elif isinstance(column, CategoryColumn):
        n_categories, n_shared = len(column.values), column.n_shared
        width = layer.n_outputs(1)
        becomes = _count(width, "one-hot input") if isinstance(layer, OneHot) else f"a vector of {width}"
    return LearnedColumn(
        column.name, column.kind, n_bins, n_categories, n_shared, column.has_missing, becomes, column.learned
    )


def _inputs_of_numbers(column: NumberColumn, layer: Layer) -> str:
    binned = [part for part in column.parts if isinstance(part, Binned)]
    n_binary = len(column.parts) - len(binned)
    texts = []
    if binned and isinstance(layer, Activation):
        texts.append(_count(len(binned), "scaled number"))
    elif binned and isinstance(layer, BinEncoding):
        texts.append(f"{sum(part.n_bins for part in binned)} inputs of bins")
    elif binned:
        assert isinstance(layer, BinEmbedding | PeriodicEmbedding | PBLDEmbedding)
        vectors = f"{len(binned)} vectors" if len(binned) > 1 else "a vector"
        texts.append(f"{vectors} of {layer.embedding_dim}")
    if n_binary:
        texts.append("-1 or 1" if n_binary == 1 else f"{n_binary} times -1 or 1")
    if column.indicator:
        texts.append("1 where missing")
    return ", ".join(texts)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
