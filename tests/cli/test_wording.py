"""Messages in the words of a shell: what the table knows is still said somewhere, and reads well there."""

import ast
import re
from pathlib import Path

import pytest

from dasknn.cli import wording

PACKAGE = Path(wording.__file__).parents[1]


def _text(node):
    """A string as it may be shown: what is put into it is 'x' or 3."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.JoinedStr):
        parts = (
            _text(part) if isinstance(part, ast.Constant) else "'x'" if part.conversion == ord("r") else "3"
            for part in node.values
        )
        return "".join(parts)
    return ""


MESSAGES = [
    text
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "wording.py"
    for node in ast.walk(ast.parse(path.read_text()))
    if (text := _text(node))
]


@pytest.mark.parametrize("pattern", [python for python, _ in wording.TABLE])
def test_what_is_translated_is_still_said_somewhere(pattern):
    assert any(re.search(pattern, message) for message in MESSAGES), (
        f"No message of the package has {pattern!r} any more: change it in wording.py, or take it out."
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Partition 0: y holds nan in row 3.", "Partition 0: the target holds nan in row 3."),
        ("y holds nan in row 3.", "the target holds nan in row 3."),
        ("Expected numbers in y, received text.", "Expected numbers in the target, received text."),
        # Columns may be called y.
        ("Received 2 columns: x, y.", "Received 2 columns: x, y."),
        ("Column 'y' holds infinity in row 1.", "Column 'y' holds infinity in row 1."),
        (
            "Leave it out (drop=['job']), or raise max_categories.",
            "Leave it out (--drop job), or raise --max-categories.",
        ),
        (
            "Convert it, for instance to text: X.astype({'a': str}); or leave it out: X.drop(columns=['a']).",
            "Convert it to text in the file, or leave it out: --drop a.",
        ),
        (
            "Expected dates in column 'd', as in the data of fit, received text. Convert the column first: "
            "X.assign(**{'d': pandas.to_datetime(X['d'])}).",
            "Expected dates in column 'd', as in the data that was trained on, received text. Convert the "
            "column first, in the file.",
        ),
        ("or raise dask.config 'dasknn.timeout'.", "or raise the variable DASK_DASKNN__TIMEOUT."),
        ("Shuffle the rows once: X, y = dasknn.shuffle(X, y).", "Shuffle the rows: --shuffle."),
        ("Use strategy='gradients', or solver='adam'.", "Use --strategy gradients, or --solver adam."),
        (
            "select_members=True chooses by rows that are held out, received refit='all', whose",
            "--select-members chooses by rows that are held out, received --refit all, whose",
        ),
        ("Expected numba for engine='numba' (asked for)", "Expected numba for --engine numba (asked for)"),
    ],
)
def test_messages_are_in_the_words_of_the_shell(message, expected):
    assert wording.in_shell(message) == expected
