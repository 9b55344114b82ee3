"""Progress of a training in the terminal: bars, and the lines that scikit-learn and Keras print."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dasknn.callbacks.callback import Callback


class ProgressBar(Callback):
    """A tqdm bar for terminals and notebooks: epoch, loss, validation score, rows per second.

    stays: whether the bar remains when training has ended. delay: seconds before it appears; a training that
    ends before shows nothing. last_line: returns a line to write below the bar in the end, or None.
    """

    _bar: Any = None

    def __init__(
        self, *, stays: bool = True, delay: float = 0.0, last_line: Callable[[], str | None] | None = None
    ):
        self.stays = stays
        self.delay = delay
        self.last_line = last_line

    def state(self):
        return None

    def on_train_begin(self, logs=None):
        self._bar = bar(
            total=self.training.max_epochs * self.training.n_samples,
            unit="rows",
            unit_scale=True,
            mininterval=0.5,
            leave=self.stays,
            delay=self.delay,
        )
        self._score = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_start = self.training.n_epochs * self.training.n_samples
        description = f"epoch {self.training.n_epochs + 1}/{self.training.max_epochs}"
        # Redrawn with the next update of the bar: epochs may take milliseconds.
        self._bar.set_description(description, refresh=False)

    def on_train_batch_end(self, batch, logs=None):
        self._show(logs, self.training.running.n_samples)

    def on_epoch_end(self, epoch, logs=None):
        self._score = logs.get("validation_score")
        self._show(logs, self.training.n_samples)

    def _show(self, logs, n_samples):
        postfix = f"loss={logs['loss']:.4f}"
        if self._score is not None:
            postfix += f", validation={self._score:.4f}"
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.update(self._epoch_start + n_samples - self._bar.n)

    def on_train_end(self, logs=None):
        if self._bar is None:
            return
        was_shown = self._bar.last_print_t >= self._bar.start_t + self.delay
        self._bar.close()
        line = self.last_line() if self.last_line is not None and was_shown else None
        if line is not None:
            say(line)


@contextmanager
def loading_bar(n_partitions: int, shown: bool, stays: bool = False) -> Iterator[Callable[[], Any]]:
    """Yield a function to call after each loaded partition, which updates a bar if `shown`."""
    if not shown:
        yield lambda: None
        return
    with bar(total=n_partitions, desc="loading partitions", unit="partition", leave=stays) as shown_bar:
        yield shown_bar.update


def can_move() -> bool:
    """Return whether stderr, where bars are drawn, is a terminal or a notebook."""
    return _is_terminal(sys.stderr) or _is_notebook()


def _is_terminal(stream) -> bool:
    # A program without a console has no streams.
    return stream is not None and stream.isatty()


def _is_notebook() -> bool:
    # Widgets import ipykernel in scripts, too.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def say(text: str) -> None:
    """Write a line to stderr, above any bars."""
    _tqdm().write(text, file=sys.stderr)


def _tqdm():
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, tqdm warns and draws the bar of a terminal, which is fine.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


def bar(**settings):
    """Return a tqdm bar on stderr, as wide as the terminal."""
    tqdm = _tqdm()
    if _is_terminal(sys.stderr) and not _width():
        # A terminal without a size, as in some containers, where tqdm would draw nothing.
        return tqdm(**settings, ncols=80, nrows=24)
    return tqdm(**settings, dynamic_ncols=True)


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


class EpochLines(Callback):
    """One line per epoch, as scikit-learn prints it."""

    def state(self):
        return None

    def on_epoch_end(self, epoch, logs=None):
        print("Iteration %d, loss = %.8f" % (self.training.n_epochs, logs["loss"]))
        if "validation_score" in logs:
            print("Validation score: %f" % logs["validation_score"])


class KerasLines(Callback):
    """Keras's lines: a bar for each epoch (verbose=1), or one line per epoch (verbose=2).

    In a terminal the bar is redrawn when progress is reported; in a file it is written once per epoch.

    n_steps: steps of an epoch. bar: whether to draw bars.
    """

    _WIDTH = 20

    def __init__(self, n_steps: int, *, bar: bool):
        self.n_steps = n_steps
        self.bar = bar
        self.began = 0.0
        self._first_step = 0

    def state(self):
        return None

    def on_epoch_begin(self, epoch, logs=None):
        last = self.training.first_epoch + self.training.max_epochs
        if last > 1:
            print(f"Epoch {epoch + 1}/{last}")
        self.began = time.perf_counter()
        self._first_step = self.training.state.step

    def on_train_batch_end(self, batch, logs=None):
        if self.bar and _is_live():
            done = min(batch - self._first_step, self.n_steps - 1)
            self._write(self.line(done, logs or {}) + " ", again=True)

    def on_epoch_end(self, epoch, logs=None):
        if self.bar:
            self._write(self.line(self.n_steps, logs) + "\n", again=_is_live())
        else:
            print(_short_line(self.n_steps, self.began, logs))

    def line(self, done: int, logs) -> str:
        """Return the line after `done` steps."""
        seconds = time.perf_counter() - self.began
        filled = self._WIDTH * done // self.n_steps
        bar = "━" * filled + ("─" if _is_live() else " ") * (self._WIDTH - filled)
        width = 1 + int(math.log10(self.n_steps))
        line = f"{done:>{width}}/{self.n_steps} {bar}"
        left = seconds if done == self.n_steps else seconds / max(done, 1) * (self.n_steps - done)
        return f"{line} {_duration(left)} {_each(seconds, max(done, 1))}{_values(logs)}"

    @staticmethod
    def _write(text: str, again: bool) -> None:
        sys.stdout.write(("\r" if again else "") + text)
        sys.stdout.flush()


def print_keras_line(verbose, n_steps: int, began: float, logs: dict[str, Any]) -> None:
    """Print the line of Keras's `evaluate` and `predict`; began: perf_counter when they started."""
    if verbose == 2:
        print(_short_line(max(n_steps, 1), began, logs))
    elif verbose:
        lines = KerasLines(max(n_steps, 1), bar=True)
        lines.began = began
        print(lines.line(max(n_steps, 1), logs))


def _short_line(n_steps: int, began: float, logs) -> str:
    seconds = time.perf_counter() - began
    return f"{n_steps}/{n_steps} - {seconds:.0f}s - {_each(seconds, n_steps)}{_values(logs)}"


def _is_live() -> bool:
    return _is_terminal(sys.stdout) or _is_notebook()


def _values(logs) -> str:
    # By name, as Keras sorts them.
    return "".join(f" - {name}: {_number(value)}" for name, value in sorted(logs.items()))


def _number(value) -> str:
    try:
        return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"
    except TypeError:
        return str(value)


def _each(seconds: float, n_steps: int) -> str:
    each = seconds / n_steps
    if each >= 1:
        return f"{each:.0f}s/step"
    return f"{each * 1e3:.0f}ms/step" if each >= 1e-3 else f"{each * 1e6:.0f}us/step"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}" if seconds >= 60 else f"{seconds:.0f}s"
