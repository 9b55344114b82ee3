"""The recipe of the estimators for tables: rules that turn the sizes of a table into settings.

One recipe serves all tables. Only what must follow the number of rows and columns does, by simple rules
that were chosen on four tables together (`benchmarks/bench_tables.py`).
"""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """The settings that rules choose.

    Attributes
    ----------
    members : int
    hidden : tuple of int
        Units of each hidden layer.
    embeds : bool
        Whether numbers are embedded; if not, they are plain inputs.
    epochs, batch_size : int
    dropout, weight_decay : float
    """

    members: int
    hidden: tuple[int, ...]
    embeds: bool
    epochs: int
    batch_size: int
    dropout: float
    weight_decay: float


# More numbers than this are not embedded: the first layer would be as many times as large.
_MOST_EMBEDDED = 100
# Tables of fewer rows train members, which multiply the work, and need to be kept from overfitting.
_MANY_ROWS = 50_000
_DECAY_OF_FEW = 0.1
_EPOCHS, _BATCH, _LEAST_BATCH, _LEAST_STEPS = 40, 256, 64, 20


def recipe_for(n_rows: int, n_numbers: int) -> Recipe:
    """Return the settings for a table of n_rows rows with n_numbers columns of numbers."""
    has_few = n_rows < _MANY_ROWS
    batch_size = _BATCH
    while batch_size > _LEAST_BATCH and n_rows < _LEAST_STEPS * batch_size:
        batch_size //= 2
    return Recipe(
        members=8 if has_few else 1,
        hidden=(256, 256) if has_few else (256, 256, 256),
        embeds=n_numbers <= _MOST_EMBEDDED,
        epochs=_EPOCHS,
        batch_size=min(batch_size, n_rows),
        dropout=0.2 if has_few else 0.0,
        # The weights remember so many steps; in rows, that is the same share of a table.
        weight_decay=_DECAY_OF_FEW * min(1.0, 20_000 / n_rows),
    )
