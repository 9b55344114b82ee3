"""Questions to the scheduler of a client: each wait for an answer has an end.

`Client.sync`, which the client's methods use elsewhere, waits with locks that its event loop takes, too.
Ctrl-C may interrupt a thread that has just taken one, and leave it locked: the loop would hang, and every
later call with it. So methods of the client run in its event loop here, and the thread that asks waits for
the answer in a queue.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dasknn.exceptions import ClusterTimeoutError, SchedulerLostError

logger = logging.getLogger("dasknn")

#: How often a wait looks whether something that it depends on is gone.
WATCH_SECONDS = 0.5
# After so many seconds without an answer to a quick question, that is told.
_QUIET_SECONDS = 5.0
# How many times the scheduler is asked the same question when the connection breaks.
_MOST_ASKED = 5
# The status of a client that never answers again.
_CLOSED = ("closing", "closed")


class SchedulerConnection:
    """Calls methods of a distributed client, and asks its scheduler.

    Parameters
    ----------
    client : distributed.Client
    timeout : float
        Seconds after which a wait for an answer ends.

    Raises
    ------
    SchedulerLostError
        The client is not connected. Methods raise it when the scheduler has gone or the client was closed.
    """

    def __init__(self, client: Any, timeout: float):
        from dasknn._compat.distributed import CommClosedError

        if client.status != "running":
            raise SchedulerLostError(
                f"Expected a connected client, received one whose status is {client.status!r}. "
                "Create a new one."
            )
        self.client, self.timeout = client, timeout
        self.address: str = client.scheduler.address
        self.loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        self._broken = CommClosedError

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        look: Callable[[], None] | None = None,
        quick: bool = True,
        **settings: Any,
    ) -> Any:
        """Return the result of a coroutine function, called in the client's event loop.

        A question without `look` is asked again when the connection breaks.

        Parameters
        ----------
        function : coroutine function, such as a method of the client
        *args, **settings
            Its arguments.
        look : callable or None
            Called now and then while the answer takes its time; what it raises ends the wait.
        quick : bool
            Whether only the scheduler answers, at once if it can: then it is logged if it does not.

        Raises
        ------
        ClusterTimeoutError
            There was no answer within `timeout`.
        SchedulerLostError
            The scheduler has gone, or the client was closed.
        """
        n_left = _MOST_ASKED if look is None else 1
        with self.still_open(function.__name__):
            while True:
                answer, error = self._ask_once(function, args, settings, look, quick and look is None)
                n_left -= 1
                # A client that has lost its scheduler raises other errors than OSError.
                was_away = error is not None and self.client.status != "running"
                if was_away or isinstance(error, OSError):
                    self._check_connected(function.__name__, error)
                    if n_left and (was_away or isinstance(error, self._broken)):
                        continue
                if error is not None:
                    raise error
                return answer

    def soon(self, function: Callable[..., Any], *args: Any) -> bool:
        """Call a function in the event loop soon; return False if the loop was closed."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def ask(self, name: str, **settings: Any) -> Any:
        """Return the scheduler's answer to a question of this name."""

        async def ask() -> Any:
            return await getattr(self.client.scheduler, name)(**settings)

        ask.__name__ = name
        return self.call(ask)

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler knows of each worker, by address."""
        return self.ask("identity", n_workers=-1)["workers"]

    @contextmanager
    def still_open(self, question: str) -> Iterator[None]:
        """Raise SchedulerLostError instead of what a closed client raises."""
        try:
            yield
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except Exception as error:
            self.check_open(question, error)
            raise

    def check_open(self, question: str, error: BaseException) -> None:
        """Raise SchedulerLostError, caused by this error, if the client was closed."""
        if self.client.status in _CLOSED:
            raise self._no_answer(question) from error

    def _ask_once(
        self,
        function: Callable[..., Any],
        args: tuple,
        settings: dict[str, Any],
        look: Callable | None,
        quick: bool,
    ) -> tuple[Any, BaseException | None]:
        """Return (result, None) or (None, exception)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        calls: list[asyncio.Task] = []

        async def call() -> None:
            try:
                answers.put((await function(*args, **settings), None))
            except asyncio.CancelledError:
                # The loop ends: without an answer, the thread that asked would wait forever.
                answers.put((None, self._broken("The question was withdrawn.")))
                raise
            except Exception as error:
                answers.put((None, error))

        self.loop.call_soon_threadsafe(lambda: calls.append(self.loop.create_task(call())))
        try:
            return self._await(answers, function.__name__, look, quick)
        finally:
            # A task that has ended ignores this.
            self.soon(lambda: [task.cancel() for task in calls])

    def _await(self, answers: queue.SimpleQueue, question: str, look: Callable | None, quick: bool) -> Any:
        began = time.monotonic()
        # Counted: the time in which this process itself was stopped is not the scheduler's.
        n_watched = 0
        is_told = False
        while True:
            with suppress(queue.Empty):
                answer = answers.get(timeout=WATCH_SECONDS)
                if is_told and answer[1] is None:
                    logger.warning(
                        "The scheduler %s answers again, after %.0f s.",
                        self.address,
                        time.monotonic() - began,
                    )
                return answer
            n_watched += 1
            if quick and not is_told and n_watched * WATCH_SECONDS >= _QUIET_SECONDS:
                is_told = True
                logger.warning(
                    "The scheduler %s has not answered for %.0f s. Workers continue with the work that they "
                    "have; this waits for up to dask.config 'dasknn.timeout', %g s.",
                    self.address,
                    _QUIET_SECONDS,
                    self.timeout,
                )
            if self.client.status in _CLOSED:
                # There will be no answer.
                raise self._no_answer(question)
            if look is not None:
                look()
            if time.monotonic() - began > self.timeout:
                raise self._no_answer(question)

    def _check_connected(self, question: str, error: BaseException | None) -> None:
        """Wait while the client reconnects to the scheduler. SchedulerLostError: it has given up."""
        deadline = time.monotonic() + self.timeout
        # The client notices a lost connection no sooner than this thread.
        time.sleep(WATCH_SECONDS)
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)
        if self.client.status != "running":
            raise self._no_answer(question) from error

    def _no_answer(self, question: str) -> Exception:
        if self.client.status == "running":
            return ClusterTimeoutError(
                f"The scheduler {self.address} has not answered {question!r} for {self.timeout:.0f} s. Check "
                "that it and its workers are running, or raise dask.config 'dasknn.timeout'."
            )
        return SchedulerLostError(
            f"The connection to the scheduler {self.address} is {self.client.status}: the scheduler is gone, "
            "or the client was closed. The model has the weights of the last complete epoch. Connect a new "
            "client; with fit(..., checkpoint='folder', resume=True) training resumes where it stopped."
        )
