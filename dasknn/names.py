"""Names that users give, and what they may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name, known: Iterable) -> str:
    """Return " Did you mean 'x'?", to go into a message; x is the nearest known name. "" if none is near."""
    near = get_close_matches(str(name), [str(one) for one in known], 1)
    return f" Did you mean {near[0]!r}?" if near else ""
