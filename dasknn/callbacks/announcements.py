"""Events of a training on a cluster, logged on the scheduler; the dashboard shows them.

Events are dicts of numbers and strings under one topic (`executor.TOPIC`), which keeps the newest thousand
(dask.config "distributed.admin.low-level-log-length"). Each event therefore describes its training, and some
contain a summary of all epochs:

    run, about     an id; model, strategy, transport, engine, replicas, first_epoch, last_epoch, n_samples
                   and name
    what           "begin", "wave" (within an epoch), "epoch" (one or more have ended), "end"
    time, seconds  since 1970, and since training began, by the clock of this process
    epoch          number of the running epoch, from 1
    entries        entries of the history that no earlier event had, or a summary
    running        in a wave: epoch, n_samples, loss, rows_per_second of the running epoch so far
    state, error   at the end: "completed", "stopped", "interrupted" or "failed", and the exception
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any

from dasknn.callbacks.callback import Callback
from dasknn.cluster.executor import Executor

BEGIN, WAVE, EPOCH, END = "begin", "wave", "epoch", "end"
RUNNING, COMPLETED, STOPPED, INTERRUPTED, FAILED = (
    "running",
    "completed",
    "stopped",
    "interrupted",
    "failed",
)

# Least seconds between events. Short epochs are reported several at a time; waves less often.
_EPOCH_SECONDS = 1.0
_WAVE_SECONDS = 2.0
# One of so many events has a summary, so that the topic always keeps several.
_SUMMARY_EVERY = 200
_MOST_IN_SUMMARY = 100
# Limits of one event, for large clusters and long histories.
_MOST_ENTRIES = 200
_MOST_NUMBERS = 40
_MOST_WORKERS = 64
_MOST_FAULTS = 20
_MOST_LETTERS = 200
# Seconds to wait at the end of a training until the scheduler has the last event.
_LAST_WORD_SECONDS = 1.0


class Announcements(Callback):
    """Logs events of a training through its executor; runs after all other callbacks."""

    def __init__(self, executor: Executor):
        self._executor = executor
        self._about: dict[str, Any] | None = None

    def state(self):
        return None

    def on_train_ready(self, logs=None):
        self._run = uuid.uuid4().hex[:12]
        self._about = _described(self.model, self.training)
        self._began = self._epoch_began = self._last = time.monotonic()
        self._n_events = 0
        # Number of entries that events have had. Those of earlier trainings go into a summary.
        self._n_told = len(self.training.history)
        self._announce(BEGIN, entries=_summary(self.training.history))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if self._about is not None and time.monotonic() - self._last >= _WAVE_SECONDS:
            self._announce(WAVE, entries=self._news(), running=self._running(logs or {}))

    def on_epoch_done(self, epoch, logs=None):
        if self._about is not None and time.monotonic() - self._last >= _EPOCH_SECONDS:
            self._announce(EPOCH, entries=self._news())

    def on_train_end(self, logs=None):
        if self._about is None:
            # Another callback raised before training began.
            return
        state, error = _ending(self.training)
        ending = {"state": state, "error": error} if error else {"state": state}
        self._announce(END, entries=self._news(), patience=_LAST_WORD_SECONDS, **ending)
        self._about = None

    def _announce(self, what: str, entries: list, patience: float = 0.0, **more) -> None:
        self._last = time.monotonic()
        self._n_events += 1
        event = {
            "run": self._run,
            "about": self._about,
            "what": what,
            "time": time.time(),
            "seconds": round(self._last - self._began, 3),
            "epoch": min(self.training.epoch + 1, self._about["last_epoch"]) if self._about else 0,
            "entries": entries,
        }
        self._executor.announce(event | more, patience)

    def _news(self) -> list[dict[str, Any]]:
        """Return the new entries of the history; in some events, after a summary of the others."""
        history = self.training.history
        new = history[self._n_told :]
        is_summary = self._n_events % _SUMMARY_EVERY == _SUMMARY_EVERY - 1
        older = _summary(history[: self._n_told]) if is_summary else []
        self._n_told = len(history)
        return [
            *older,
            *map(_plain, _thinned(new[:-1], _MOST_ENTRIES - 1)),
            *(_plain(entry) | {"workers": _workers(entry)} for entry in new[-1:]),
        ]

    def _running(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        n_samples = int(self.training.running.n_samples)
        seconds = max(time.monotonic() - self._epoch_began, 1e-3)
        return {
            "epoch": self.training.epoch + 1,
            "n_samples": n_samples,
            "loss": _number(logs.get("loss")),
            "rows_per_second": round(n_samples / seconds, 1),
        }


def _described(model, training) -> dict[str, Any]:
    network, transport = training.transport.job.network, training.transport
    widths = [network.n_inputs] + [
        width
        for width, weights in zip(network.widths[1:], network.weights, strict=True)
        if any(weight.name == "kernel" for weight in weights)
    ]
    shown = widths if len(widths) <= 8 else [*widths[:4], "…", *widths[-3:]]
    layers = "-".join(map(str, shown))
    replicas = transport.job.replicas
    last_epoch = training.first_epoch + training.max_epochs
    about = {
        "model": type(model).__name__,
        "layers": layers,
        "strategy": _text(getattr(getattr(model, "strategy_", None), "name", "none")),
        "transport": transport.name,
        "engine": transport.job.engine,
        "replicas": replicas,
        "first_epoch": training.first_epoch + 1,
        "last_epoch": last_epoch,
        "n_samples": training.n_samples,
    }
    of_replicas = f"{replicas} replica{'s' * (replicas != 1)}"
    name = f"{about['model']} {layers}, {about['strategy']}, {about['transport']}, {of_replicas}"
    return about | {"name": _text(f"{name}, {training.max_epochs} epochs")}


def _ending(training) -> tuple[str, str]:
    """Return the final state of a training, and the error that ended it, if any."""
    if training.interrupted:
        return INTERRUPTED, ""
    if training.is_complete:
        ran_out = training.has_ended or training.n_epochs >= training.max_epochs
        return (COMPLETED if ran_out else STOPPED), ""
    # Callbacks run while the error propagates; there is none if a callback handled a loss that is not finite.
    error = sys.exception()
    return (STOPPED, "") if error is None else (FAILED, _text(f"{type(error).__name__}: {error}"))


def _thinned(entries: Sequence, most: int) -> list:
    """Return at most so many entries, evenly spaced, including the last."""
    if len(entries) <= most:
        return list(entries)
    return [entries[(k + 1) * len(entries) // most - 1] for k in range(most)]


def _summary(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    thinned = _thinned(history, _MOST_IN_SUMMARY)
    kept = {id(entry) for entry in thinned}
    with_faults = [entry for entry in history if entry.get("faults")][-_MOST_FAULTS:]
    return list(map(_plain, [*(entry for entry in with_faults if id(entry) not in kept), *thinned]))


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers and faults of an entry, in msgpack's types."""
    numbers = [(str(name)[:_MOST_LETTERS], value) for name, value in entry.items() if isinstance(value, Real)]
    found: dict[str, Any] = {name: _number(value) for name, value in numbers[:_MOST_NUMBERS]}
    if faults := entry.get("faults"):
        found["faults"] = [_fault(fault) for fault in faults[-_MOST_FAULTS:]]
    return found


def _number(value) -> int | float | None:
    """Return a Python number with six digits; None for other objects and numbers that are not finite."""
    if not isinstance(value, Real) or not isfinite(value):
        return None
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.6g}")


def _fault(fault: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": _text(fault["what"]),
        "worker": _text(fault["worker"] or ""),
        "replicas": [int(replica) for replica in fault["replicas"][:_MOST_FAULTS]],
        "n_replicas": len(fault["replicas"]),
        "epoch": int(fault["epoch"]),
        "time": _text(fault["time"]),
        "seconds": _number(fault["seconds"]),
        "error": _text(fault["error"]),
    }


def _workers(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the seconds of each worker; on a large cluster, of those that computed longest and shortest."""
    workers = entry.get("workers") or {}
    ranked = sorted(workers, key=lambda address: (-workers[address]["compute"], str(address)))
    half = _MOST_WORKERS // 2
    shown = ranked if len(ranked) <= _MOST_WORKERS else ranked[:half] + ranked[-half:]
    kinds = ("compute", "communication", "waiting")
    return {
        _text(address): {kind: _number(workers[address][kind]) for kind in kinds} for address in sorted(shown)
    }


def _text(value) -> str:
    text = str(value)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
