"""A Dask cluster in a lab, and trainings on it that tell how they go, for tests/lab and bench_lab.py.

Host 0 has the scheduler, the next ones a worker each, the last one the client, which trains.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import Any, NamedTuple, Self

import dask
import dask.array as da
from dask.distributed import Client
from netlab import Call, Lab, Talk

from dasknn import MLPClassifier
from dasknn.callbacks import Callback

#: Ports on which Dask's processes listen in a lab, for a firewall that lets them through.
DASK_PORTS = (8786, 8899)
# How long a cluster may take to start, on a busy machine.
_START_SECONDS = 90.0


class DaskLab:
    """A cluster in a lab.

    Parameters
    ----------
    n_workers : int
    nannies : bool, default=False
        Whether each worker has a nanny, which starts it again.
    words : sequence of str
        More options of `dask worker`.
    config : dict
        Settings of Dask for all processes.
    output : str
        A file, to which all processes of Dask write.

    Attributes
    ----------
    lab : Lab
    workers : list of Call
        By number; worker i is on host i + 1.
    scheduler : Call
    address : str
        Of the scheduler.
    """

    scheduler_host = 0

    def __init__(
        self,
        n_workers: int,
        *,
        nannies: bool = False,
        words: tuple[str, ...] = (),
        config: dict[str, Any] | None = None,
        output: str = os.devnull,
    ):
        self.lab = Lab(n_workers + 2)
        self.client_host = n_workers + 1
        self.worker_hosts = range(1, n_workers + 1)
        self._nannies, self._words, self._config, self._output = nannies, words, config or {}, output
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.lab)
            where = ["--host", self.lab.address(self.scheduler_host), "--port", DASK_PORTS[0]]
            self.scheduler = self._start(self.scheduler_host, "scheduler", *where, "--no-dashboard")
            self.address = f"tcp://{self.lab.address(self.scheduler_host)}:{DASK_PORTS[0]}"
            self.workers = [self.start_worker(host) for host in self.worker_hosts]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def start_worker(self, host: int) -> Call:
        """Start another worker on a host."""
        ports = f"{DASK_PORTS[0] + 1}:{DASK_PORTS[1]}"
        where = ["--host", self.lab.address(host), "--worker-port", ports, "--nthreads", 1, "--no-dashboard"]
        nanny = ["--nanny", "--nanny-port", ports] if self._nannies else ["--no-nanny"]
        return self._start(host, "worker", self.address, *where, *nanny, "--memory-limit", 0, *self._words)

    def _start(self, host: int, *words: Any) -> Call:
        return self.lab.call(host, be_dask, self._config, words, output=self._output)

    def train(
        self, n_epochs: int | None = None, config: dict[str, Any] | None = None, **settings: Any
    ) -> Fit:
        """Begin to train on the client's host, for so many epochs or until `Fit.stop`."""
        args = self.address, len(self.workers), {**self._config, **(config or {})}, n_epochs, settings
        return Fit(self.lab.call(self.client_host, train, *args, output=self._output))

    def until_gone(self, word: str, seconds: float) -> None:
        """Wait until the scheduler knows no worker any more with this in its address."""
        args = self.address, word, seconds
        self.lab.call(self.client_host, wait_until_gone, *args, output=self._output).receive(2 * seconds)


class Epoch(NamedTuple):
    """The end of an epoch."""

    number: int
    at: float
    workers: list[str]
    faults: list[dict[str, Any]]


class Fit:
    """A training in a lab, as seen from outside.

    Attributes
    ----------
    epochs : list of Epoch
    result : dict or None
        What `train` says in the end: "bits", "n_epochs", "log" (when, what), "events", "n_faults".
    """

    def __init__(self, call: Call):
        self._call = call
        self.epochs: list[Epoch] = []
        self.result: dict[str, Any] | None = None

    def look(self, seconds: float) -> Any:
        """Return the next message, and note it."""
        message = self._call.receive(seconds)
        if isinstance(message, Epoch):
            self.epochs.append(message)
        elif isinstance(message, dict):
            self.result = message
        return message

    def until_is_said(self, word: str, seconds: float) -> None:
        """Wait until the training says a word."""
        deadline = time.monotonic() + seconds
        while (said := self.look(max(0.0, deadline - time.monotonic()))) != word:
            assert self.result is None, said

    def send(self, message: Any) -> None:
        """Send a message to the training; it ends after its next epoch if it does not wait for one."""
        self._call.send(message)

    def until(self, condition: Any, seconds: float) -> Epoch:
        """Return the first epoch to come for which condition(epoch) is true. TimeoutError: none was."""
        deadline = time.monotonic() + seconds
        while True:
            message = self.look(max(0.0, deadline - time.monotonic()))
            if isinstance(message, Epoch) and condition(message):
                return message
            if self.result is not None:
                raise RuntimeError("The training has ended.")

    def epochs_more(self, n: int, seconds: float) -> None:
        """Wait for n more epochs."""
        for _ in range(n):
            self.until(lambda epoch: True, seconds)

    def during(self, seconds: float) -> None:
        """Watch for so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.result is None:
            try:
                self.look(left)
            except TimeoutError:
                return

    def stop(self, seconds: float) -> dict[str, Any]:
        """End the training after its next epoch; return `result`."""
        if self.result is None:
            # It may have ended by itself.
            with suppress(OSError):
                self._call.send("stop")
        return self.until_end(seconds)

    def until_end(self, seconds: float) -> dict[str, Any]:
        """Wait for the end of the training; return `result`."""
        deadline = time.monotonic() + seconds
        while self.result is None:
            self.look(max(0.0, deadline - time.monotonic()))
        return self.result

    def longest_gap(self, since: float) -> float:
        """Return the most seconds between the ends of two epochs, of which the second came after `since`."""
        times = [epoch.at for epoch in self.epochs]
        return max((b - a for a, b in pairwise(times) if b > since), default=0.0)


# --- on hosts ---------------------------------------------------------------------------------------


def be_dask(talk: Talk, config: dict[str, Any], words: tuple) -> None:
    """Be what `dask` is in the shell."""
    from dask.__main__ import main

    # Also for the children of this process.
    os.environ.update({name_of(name): str(value) for name, value in config.items()})
    dask.config.refresh()
    sys.argv = ["dask", *map(str, words)]
    main()


def name_of(setting: str) -> str:
    """Return the environment variable of a setting of Dask."""
    return "DASK_" + setting.upper().replace("-", "_").replace(".", "__")


def wait_until_gone(talk: Talk, address: str, word: str, seconds: float) -> None:
    """Wait until a scheduler knows no worker any more with this in its address."""
    deadline = time.monotonic() + seconds
    with Client(address, timeout=_START_SECONDS, set_as_default=False) as client:
        while any(word in worker for worker in client.nthreads()):
            assert time.monotonic() < deadline, f"{word} is still there"
            time.sleep(0.2)
    talk.send("gone")


class Telling(Callback):
    """Tells whoever watches how a training goes, and stops it when told to."""

    def __init__(self, talk: Talk, n_epochs: int | None, pause: float):
        self._talk, self._n_epochs, self._pause = talk, n_epochs, pause
        self.n_faults = 0

    def state(self) -> None:
        return None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        entry = self.training.history[-1]
        self._talk.send(Epoch(epoch, time.monotonic(), sorted(entry["workers"]), entry["faults"]))
        self.n_faults = self.training.transport._executor.log.n_faults
        time.sleep(self._pause)
        if self._talk.has_message() or epoch + 1 == self._n_epochs:
            self.training.stop_training = True


class Kept(logging.Handler):
    """Keeps log messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((time.monotonic(), record.getMessage()))


def classifier(**settings: Any) -> tuple[MLPClassifier, Any, Any]:
    """Return a model that trains until it is stopped, and its rows and labels: the same ones each time."""
    n_rows = settings.pop("n_rows", 2000)
    rng = da.random.default_rng(0)
    X = rng.standard_normal((n_rows, 20), chunks=(n_rows // 8, -1))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    model = MLPClassifier((16,), random_state=0, max_iter=10**6, tol=0, n_iter_no_change=10**9)
    given = {"replicas": 6, "batch_size": 120, "engine": "numpy", "strategy": "gradients", **settings}
    return model.set_params(**given), X, y


def bits(model: MLPClassifier) -> str:
    """Return a name for the weights of a fitted model."""
    return hashlib.sha256(b"".join(member.tobytes() for member in model._members)).hexdigest()


def train(
    talk: Talk,
    address: str,
    n_workers: int,
    config: dict[str, Any],
    n_epochs: int | None,
    settings: dict[str, Any],
) -> None:
    """Train on a cluster, and tell each epoch; in the end, what became of it.

    Parameters
    ----------
    talk : Talk
    address : str
        Of the scheduler.
    n_workers : int
        How many are waited for.
    config : dict
        Settings of Dask.
    n_epochs : int or None
        None for as many as until a message comes.
    settings : dict
        Those of `classifier`; "repeats", how many trainings there are, one after the other; "max_faults";
        "pause", seconds after each epoch; "before", a function that gets `talk` before the training.
    """
    kept = Kept()
    logging.getLogger("dasknn").addHandler(kept)
    repeats, max_faults = settings.pop("repeats", 1), settings.pop("max_faults", 10)
    pause, before = settings.pop("pause", 0.0), settings.pop("before", None)
    with dask.config.set(config), Client(address, timeout=_START_SECONDS) as client:
        client.wait_for_workers(n_workers, timeout=_START_SECONDS)
        # A process that imports for the first time is silent for a while.
        client.run(lambda: __import__("dasknn.training.transport"))
        if before is not None:
            before(talk)
        for _ in range(repeats):
            model, X, y = classifier(**settings)
            callback = Telling(talk, n_epochs, pause)
            model.set_params(callbacks=[callback]).fit(X, y, max_faults=max_faults)
        talk.send(
            {
                "bits": bits(model),
                "n_epochs": model.n_iter_,
                "log": kept.messages,
                "events": [event for entry in model.history_ for event in entry["faults"]],
                "n_faults": callback.n_faults,
            }
        )
