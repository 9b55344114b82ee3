"""Keras's table of a model: Layer (type), Output Shape, Param #, and totals."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap

_HEADINGS = ("Layer (type)", "Output Shape", "Param #", "Trainable")
# Ends of the columns, as shares of the width, and how many characters each leaves for the lines between them.
_ENDS = {3: (0.45, 0.8, 1.0), 4: (0.405, 0.72, 0.9, 1.0)}
_GIVES_WAY = {3: (1, 2, 1), 4: (1, 1, 2, 1)}
_MOST = 88
_ALIGNMENT = ("<", "<", ">", "^")


def table(
    name: str, rows: Sequence[Sequence[str]], totals: Sequence[tuple[str, int]], width: int | None
) -> str:
    """Return the text of the table.

    Parameters
    ----------
    name : str
        Name of the model.
    rows : list of rows
        For each layer: name, output shape, number of parameters and, optionally, whether it is trainable.
    totals : list of (str, int)
        Titles and numbers of parameters.
    width : int or None
        Characters of a line. None: as many as the terminal has, up to 88.
    """
    n_columns = len(rows[0]) if rows else 3
    widths = _column_widths(width or min(_MOST, shutil.get_terminal_size().columns - 4), n_columns)
    lines = [f'Model: "{name}"', _rule("┏┳┓", "━", widths), *_cells("┃", _HEADINGS[:n_columns], widths)]
    lines.append(_rule("┡╇┩", "━", widths))
    for number, row in enumerate(rows):
        if number:
            lines.append(_rule("├┼┤", "─", widths))
        lines += _cells("│", row, widths)
    lines.append(_rule("└┴┘", "─", widths))
    lines += [f" {title}: {count:,} ({_memory(4 * count)})" for title, count in totals]
    return "\n".join(lines)


def _column_widths(width: int, n_columns: int) -> list[int]:
    edges = [0, *(int(end * width) for end in _ENDS[n_columns])]
    free = [end - begin for begin, end in pairwise(edges)]
    return [max(6, width - less) for width, less in zip(free, _GIVES_WAY[n_columns], strict=True)]


def _rule(corners: str, line: str, widths: Sequence[int]) -> str:
    left, middle, right = tuple(corners)
    return left + middle.join(line * width for width in widths) + right


def _cells(bar: str, texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = [
        [_cut(line, width - 2) for line in wrap(text, width - 2, break_long_words=False) or [""]]
        for text, width in zip(texts, widths, strict=True)
    ]
    found = []
    for i in range(max(len(lines) for lines in columns)):
        cells = []
        for lines, width, align in zip(columns, widths, _ALIGNMENT, strict=False):
            text = lines[i] if i < len(lines) else ""
            cells.append(f" {text:{align}{width - 2}} ")
        found.append(bar + bar.join(cells) + bar)
    return found


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _memory(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB"):
        if n_bytes < 1024:
            return f"{n_bytes:.2f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GB"
