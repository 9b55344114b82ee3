"""The recipe of the estimators for tables: rules that turn the sizes of a table into settings.

One recipe serves all tables. Only what must follow the number of rows and columns does, by simple rules.
They were chosen by scores on Adult, California housing, Covertype and Fashion-MNIST, with one to three seeds,
and tried on other tables afterwards; `benchmarks/bench_tables.py` compares them with other models.
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


# By fewer rows early_stopping='auto' does not judge, and holds none out.
LEAST_HELD_OUT = 15
# More numbers than this are not embedded: the first layer would be as many times as large.
_MOST_EMBEDDED = 100
# Members multiply the work of an epoch, so large and wide tables have few: rows times members, counted as
# often as a table is wider than the others, are about as many.
_MOST_MEMBERS, _ROWS_OF_MEMBERS, _WIDE = 16, 300_000, 200
# Tables of fewer rows overfit; those of more do not, and need no dropout.
_FEW_ROWS, _MANY_ROWS, _DROPOUT = 40_000, 100_000, 0.2
# Weights remember so many steps: in rows, about the same for all tables.
_DECAY, _ROWS_OF_DECAY = 0.1, 20_000
# From so many rows on, there is a third hidden layer.
_ROWS_OF_THREE_LAYERS = 50_000
# Epochs of very many rows are long: fewer of them do, of larger steps.
_VERY_MANY_ROWS = 200_000
_EPOCHS, _EPOCHS_OF_VERY_MANY = 40, 24
_BATCH, _LEAST_BATCH, _LEAST_STEPS = 256, 64, 20


def recipe_for(n_rows: int, n_numbers: int, n_columns: int) -> Recipe:
    """Return the settings for a table of so many rows and columns; n_numbers of these hold numbers."""
    width = max(1.0, n_columns / _WIDE)
    members = round(_ROWS_OF_MEMBERS / (max(n_rows, 1) * width))
    batch_size = _BATCH if n_rows < _VERY_MANY_ROWS else 2 * _BATCH
    while batch_size > _LEAST_BATCH and n_rows < _LEAST_STEPS * batch_size:
        batch_size //= 2
    shortage = (_MANY_ROWS - n_rows) / (_MANY_ROWS - _FEW_ROWS)
    return Recipe(
        members=min(max(members, 1), _MOST_MEMBERS),
        hidden=(256, 256) if n_rows < _ROWS_OF_THREE_LAYERS else (256, 256, 256),
        embeds=n_numbers <= _MOST_EMBEDDED,
        epochs=_EPOCHS if n_rows < _VERY_MANY_ROWS else _EPOCHS_OF_VERY_MANY,
        batch_size=min(batch_size, n_rows),
        dropout=round(_DROPOUT * min(max(shortage, 0.0), 1.0), 3),
        weight_decay=_DECAY * min(1.0, _ROWS_OF_DECAY / max(n_rows, 1)),
    )
