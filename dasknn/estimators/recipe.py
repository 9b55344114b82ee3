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
    dropout : float
    """

    members: int
    hidden: tuple[int, ...]
    embeds: bool
    epochs: int
    batch_size: int
    dropout: float


# More numbers than this are not embedded: the first layer would be as many times as large.
_MOST_EMBEDDED = 100


def recipe_for(n_rows: int, n_numbers: int) -> Recipe:
    """Return the settings for a table of n_rows rows with n_numbers columns of numbers."""
    members = 8 if n_rows < 50_000 else 4 if n_rows < 200_000 else 2
    epochs = 32
    batch_size = 256
    while batch_size > 64 and n_rows < 20 * batch_size:
        batch_size //= 2
    return Recipe(members, (256, 256), n_numbers <= _MOST_EMBEDDED, epochs, min(batch_size, n_rows), 0.1)
