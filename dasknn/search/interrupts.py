"""Ctrl-C as a wish to end: noted between two steps, so that no step is left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Wish:
    """Whether Ctrl-C was pressed."""

    is_there = False


@contextmanager
def noted(tell: Callable[[], None] = lambda: None) -> Iterator[Wish]:
    """Note the first Ctrl-C in this context, and call `tell`; the second raises KeyboardInterrupt.

    Where others handle the signal, or in another thread than the main one, nothing is noted.
    """
    wish = Wish()
    own = signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not own:
        yield wish
        return

    def handle(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, own)
        wish.is_there = True
        tell()

    signal.signal(signal.SIGINT, handle)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, own)
