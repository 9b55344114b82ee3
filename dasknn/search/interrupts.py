"""Ctrl-C as a wish to end: noted between two steps, so that no step is left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` on the first Ctrl-C in this context; the second raises KeyboardInterrupt.

    Where others handle the signal, or in another thread than the main one, nothing is changed.
    """
    own = signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not own:
        yield
        return

    def handle(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, own)
        note()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
