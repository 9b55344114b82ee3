"""Runs graphs on the cluster of a distributed client."""

from __future__ import annotations

import asyncio
import queue
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from math import inf
from types import EllipsisType
from typing import Any

import dask
import dask.threaded

from dasknn.cluster.executor import MAX_FAULTS, TOPIC, Executor
from dasknn.cluster.faults import LOST, RETIRED, SILENT, Event
from dasknn.cluster.graph import Graph
from dasknn.cluster.liveness import Liveness
from dasknn.cluster.origins import Selection, scheduler_of
from dasknn.cluster.renaming import first_name
from dasknn.cluster.waiting import Awaited, Wait, out_of_reach, what_becomes_of
from dasknn.exceptions import (
    ClusterTimeoutError,
    DataLostError,
    LinkError,
    SchedulerLostError,
    WorkerLeftError,
)

# How often a task that raises is tried, where others do not wait for it: sources may be out of reach for
# a moment.
_RETRIES = 2
# How often to look whether workers are still there that nothing can go on without.
_WATCH_SECONDS = 0.5
# When all workers were silent and one answers, others may follow within so long.
_FOLLOW_SECONDS = 1.0
# How often the scheduler is asked the same where the connection has broken.
_MOST_ASKED = 5
# What the status of a client is that answers nothing any more.
_CLOSED = ("closing", "closed")
# Results that are ready within this time come in one message.
_BATCH_SECONDS = 0.1
# For how long the scheduler may not take an announcement before it is dropped.
_ANNOUNCING_SECONDS = 10.0


# By client, the schedulers whose workers cannot connect by sockets: to find that out takes seconds.
_without_sockets: weakref.WeakKeyDictionary[Any, set[str | None]] = weakref.WeakKeyDictionary()


class ClusterExecutor(Executor):
    """Runs graphs on the cluster of a distributed client.

    A wait for tasks ends when for `dasknn.timeout` seconds (a setting of dask.config, 600 by default) nothing
    has become of them or of what they wait for, whatever becomes of other people's tasks; a wait for an
    answer of the scheduler ends after as long. selection: the workers that may be used, None for all.
    """

    at_once = 1_000_000

    def __init__(self, client, max_faults: int = MAX_FAULTS, selection: Selection | None = None):
        from distributed import KilledWorker

        from dasknn._compat.distributed import CommClosedError, FutureCancelledError

        super().__init__(max_faults)
        if client.status != "running":
            raise SchedulerLostError(
                f"Expected a client with a scheduler, received a {client.status} one. Connect a new one."
            )
        self.client = client
        self.address = client.scheduler.address
        self._selection = selection
        self._broken = CommClosedError
        self.faults = (KilledWorker, FutureCancelledError, CommClosedError, LinkError, WorkerLeftError)
        self.timeout = float(dask.config.get("dasknn.timeout", 600))
        self.silence = float(dask.config.get("dasknn.silence", 15))
        self._held: dict[str, Any] = {}
        self._irreplaceable: dict[str, Any] = {}
        #: The only workers that may run these held results, while others are left out.
        self._confined: dict[str, frozenset[str]] = {}
        self.liveness = Liveness(client.loop.asyncio_loop, self._in_loop, client.nthreads, client.run)
        self._late: list[Any] = []
        self._announcing: asyncio.Task | None = None
        self._has_clock = False

    @property
    def without_sockets(self) -> bool:
        """Whether workers of this cluster could not connect by sockets, the last time a training tried."""
        return scheduler_of(self.client) in _without_sockets.get(self.client, ())

    @without_sockets.setter
    def without_sockets(self, value: bool) -> None:
        known = _without_sockets.setdefault(self.client, set())
        (known.add if value else known.discard)(scheduler_of(self.client))

    def alive(self) -> dict[str, int]:
        """Return the threads of each worker, by address."""
        return self.liveness.alive()

    @property
    def left_out(self) -> Set[str]:  # type: ignore[override]
        """Workers that do not answer, and get no work until they do."""
        return self.liveness.left_out

    def rebalance(self, replicas):
        self.liveness.take_back()
        super().rebalance(replicas)

    def _in_loop(self, function: Callable, *args, look: Callable[[], None] | None = None, **settings):
        """Return what a method of the client brings, called in its event loop.

        Client.sync, which these methods use elsewhere, waits with locks that the loop takes, too. Ctrl-C may
        come when one has been taken and leave it so: the loop would hang, and every later call with it.

        look: called now and then while it takes its time; what it raises ends the wait. A question of the
        scheduler alone, without it, is asked again where the connection has broken.
        """
        n_left = _MOST_ASKED if look is None else 1
        with self._still_open(function.__name__):
            while True:
                answer, error = self._ask_once(function, args, settings, look)
                n_left -= 1
                # A client without a scheduler has errors of its own.
                was_away = error is not None and self.client.status != "running"
                if was_away or isinstance(error, OSError):
                    self._check_connected(function.__name__, error)
                    if n_left and (was_away or isinstance(error, self._broken)):
                        continue
                if error is not None:
                    raise error
                return answer

    def _ask_once(self, function: Callable, args: tuple, settings: dict[str, Any], look) -> tuple[Any, Any]:
        """Return (what it brings, None) or (None, what it raises)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        loop = self.client.loop.asyncio_loop
        calls: list[asyncio.Task] = []

        async def call():
            try:
                answers.put((await function(*args, **settings), None))
            except asyncio.CancelledError:
                # Its loop ends: whoever asked would wait for ever.
                answers.put((None, self._broken("The question was withdrawn.")))
                raise
            except Exception as error:
                answers.put((None, error))

        loop.call_soon_threadsafe(lambda: calls.append(loop.create_task(call())))
        try:
            return self._await(answers, function.__name__, look)
        finally:
            with suppress(RuntimeError):
                # What has ended is not changed by it; a loop that is closed runs nothing.
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in calls])

    def _ask(self, name: str, **settings):
        """Return the scheduler's answer to a question of this name."""

        async def ask():
            return await getattr(self.client.scheduler, name)(**settings)

        ask.__name__ = name
        return self._in_loop(ask)

    @contextmanager
    def _still_open(self, question: str) -> Iterator[None]:
        """Raise SchedulerLostError instead of whatever it is that a closed client raises."""
        try:
            yield
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except Exception as error:
            if self.client.status in _CLOSED:
                raise self._no_answer(question) from error
            raise

    def _await(self, answers: queue.SimpleQueue, question: str, look: Callable[[], None] | None):
        began = time.monotonic()
        while True:
            with suppress(queue.Empty):
                return answers.get(timeout=_WATCH_SECONDS)
            if self.client.status in _CLOSED:
                # Nobody answers any more.
                raise self._no_answer(question)
            if look is not None:
                look()
            if time.monotonic() - began > self.timeout:
                raise self._no_answer(question)

    def _check_connected(self, question: str, error: OSError) -> None:
        """Wait while the client tries to reach the scheduler again. SchedulerLostError: it has given up."""
        deadline = time.monotonic() + self.timeout
        # It notices no sooner than whoever asks.
        time.sleep(_WATCH_SECONDS)
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(_WATCH_SECONDS)
        if self.client.status != "running":
            raise self._no_answer(question) from error

    def _no_answer(self, question: str) -> Exception:
        if self.client.status == "running":
            return ClusterTimeoutError(
                f"The scheduler {self.address} has not answered {question!r} for {self.timeout:.0f} s. Look "
                "whether it and its workers are well, or raise dask.config 'dasknn.timeout'."
            )
        return SchedulerLostError(
            f"The connection to the scheduler {self.address} is {self.client.status}: the scheduler has "
            "gone, or the client was closed. The model has the weights of the last whole epoch. Connect a "
            "new client; with fit(..., checkpoint='folder', resume=True) training goes on where it was."
        )

    def _departure(self, address):
        if address in self.left_out:
            return Event(SILENT, address)
        # What the scheduler says of it; (time, event) each.
        told = self._ask("events", topic=address) or ()
        by_will = any(event.get("expected") for _, event in told if isinstance(event, dict))
        return Event(RETIRED if by_will else LOST, address)

    def slots(self):
        while not (threads := self._without_silent(self._usable() or self._wait_for_workers())):
            self._wait_for_an_answer()
        # One thread of every worker first, so that replicas spread over machines.
        ranked = sorted((thread, address) for address, n in threads.items() for thread in range(n))
        return [address for _, address in ranked]

    def _usable(self) -> dict[str, int]:
        """Return the threads of each worker that may be used, by address."""
        threads = self.alive()
        if self._selection is None:
            return threads
        if not self._selection.knows(threads):
            self._selection.look_at(self._workers())
        return {address: n for address, n in threads.items() if self._selection.allows(address)}

    def _workers(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler says of each worker, by address."""
        return self._ask("identity", n_workers=-1)["workers"]

    def _wait_for_workers(self) -> dict[str, int]:
        """Return the threads of workers that may be used, as soon as there are any."""
        deadline = time.monotonic() + self.timeout
        graph = Graph()
        # An adaptive cluster starts workers for tasks that wait, and asks for nothing else.
        wanted = self.start(graph, [graph.add("dasknn-wait-for-workers", _nothing)])
        try:
            while not (threads := self._usable()):
                if time.monotonic() > deadline:
                    raise ClusterTimeoutError(self._story_of_waiting())
                time.sleep(_WATCH_SECONDS)
            return threads
        finally:
            self.drop(wanted)

    def _story_of_waiting(self) -> str:
        if self._selection is None:
            return (
                f"The scheduler {self.address} has had no worker for {self.timeout:g} s. Start workers, or "
                "raise dask.config 'dasknn.timeout'."
            )
        others = ", ".join(sorted(self.alive())) or "none"
        return (
            f"The scheduler {self.address} has had none of the workers {self._selection} for "
            f"{self.timeout:g} s; it has: {others}. Start them, name others, or raise dask.config "
            "'dasknn.timeout'."
        )

    def _without_silent(self, threads: dict[str, int]) -> dict[str, int]:
        return {address: n for address, n in threads.items() if address not in self.left_out}

    def _wait_for_an_answer(self) -> None:
        """Wait until one of the workers that may be used answers: all of them were left out."""
        silent, deadline = sorted(self.left_out), time.monotonic() + self.timeout
        while not self._without_silent(self._usable()):
            if time.monotonic() > deadline:
                raise ClusterTimeoutError(
                    f"No worker of the scheduler {self.address} has answered for {self.timeout:g} s. Waited "
                    f"for {', '.join(silent)}. Look whether these processes run, start other workers, or "
                    "raise dask.config 'dasknn.timeout'."
                )
            time.sleep(_WATCH_SECONDS)
            self.liveness.take_back(also_busy=True)
        # What has stopped all of them ends for all of them, more or less.
        time.sleep(_FOLLOW_SECONDS)
        self.liveness.take_back(also_busy=True)

    def memory_limit(self):
        usable = set(self.slots())
        return sum(_memory_for_data(about) for at, about in self._workers().items() if at in usable)

    def start(self, graph, wanted):
        # Of what has no place of its own: as soon as a selected worker is there, no other is asked.
        where = {"workers": self._selection.words, "allow_other_workers": True} if self._selection else {}
        # To the scheduler, a silent worker is one that has nothing to do.
        only = frozenset(self._without_silent(self._usable()) if self.left_out else ())
        if only:
            where = {"workers": sorted(only)}
        layers, retries = graph.layers(confined=bool(only)), None if graph.is_strict else _RETRIES
        with self._still_open("start"):
            futures = self.client.get(
                layers, [ref.key for ref in wanted], sync=False, retries=retries, **where
            )
        self._held.update((future.key, future) for future in futures)
        if only:
            self._confined.update((future.key, only) for future in futures)
        late, self._late = self._late, []
        self.drop(late)
        return list(futures)

    def drop_later(self, held):
        # After a message to the scheduler the client waits 10 ms before it sends another: letting go
        # right before something else is started would delay that.
        self._late += held

    def put(self, values, homes):
        anywhere = sorted(set(self.slots()))
        futures = []
        for value, home in zip(values, homes, strict=True):
            key = f"dasknn-value-{uuid.uuid4().hex[:12]}"
            futures.append(self._send(key, value, anywhere if home is None else [home]))
        self._held.update((future.key, future) for future in futures)
        return futures

    def keep(self, held):
        self._irreplaceable.update((future.key, future) for future in held)

    def _send(self, key: str, value, where: Sequence[str]) -> Any:
        """Hold a value at one of these workers. WorkerLeftError: one is gone, or does not answer."""
        settings: dict[str, Any] = {"workers": where, "hash": False, "timeout": self.timeout}
        look = Wait(self, [], where).check_members
        try:
            sent = self._in_loop(self.client.scatter, {key: value}, asynchronous=True, look=look, **settings)
            return sent[key]
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except TimeoutError as error:
            # This is what the scheduler says where all of them are paused or about to leave.
            raise ClusterTimeoutError(
                f"For {self.timeout:g} s no data could be sent to {', '.join(where)}: paused, since memory "
                "is full, or about to leave. Look at these workers on the dashboard, or raise dask.config "
                "'dasknn.timeout'."
            ) from error
        except (KeyError, OSError) as error:
            # The scheduler knows the worker no more, or cannot reach it any longer.
            raise WorkerLeftError(f"No data could be sent to {', '.join(where)}: {error!r}.") from error

    def drop(self, held):
        for future in held:
            self._held.pop(future.key, None)
            self._irreplaceable.pop(future.key, None)
            self._confined.pop(future.key, None)
            future.release()

    def start_clock(self):
        from dasknn.cluster import clock

        if self._has_clock:
            return
        # A scheduler that cannot import dasknn keeps no time.
        with suppress(ImportError, AttributeError):
            self._in_loop(self.client.run_on_scheduler, clock.start, self.client.id)
            self._has_clock = True

    def spent(self):
        from dasknn.cluster import clock

        if not self._has_clock:
            return {}
        return self._in_loop(self.client.run_on_scheduler, clock.take, self.client.id)

    def _stop_clock(self) -> None:
        from dasknn.cluster import clock

        async def stop() -> None:
            with suppress(Exception):
                await self.client.run_on_scheduler(clock.stop, self.client.id)

        # Whatever has become of the scheduler, nobody waits for it here.
        loop = self.client.loop.asyncio_loop
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: loop.create_task(stop()))

    def close(self):
        # Releasing, not cancelling: what runs ends by itself, and is forgotten with all that waits for it.
        self.drop(list(self._held.values()))
        self.liveness.close()
        if self._has_clock:
            self._stop_clock()

    def announce(self, event, patience=0.0):
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        loop = self.client.loop.asyncio_loop
        message = {**event, "client": self.client.id}

        async def tell(before: asyncio.Task | None) -> None:
            with suppress(Exception):
                if before is not None:
                    # Two messages could take two connections, and pass each other.
                    await before
                sent = self.client.scheduler.log_event(topic=TOPIC, msg=message)
                await asyncio.wait_for(sent, _ANNOUNCING_SECONDS)
            arrived.put(None)

        def begin() -> None:
            self._announcing = loop.create_task(tell(self._announcing))

        # A loop that is closed runs nothing.
        with suppress(RuntimeError, queue.Empty):
            loop.call_soon_threadsafe(begin)
            if patience:
                arrived.get(timeout=patience)

    def broken(self, held):
        away = self.stranded()
        if self.left_out:
            find = out_of_reach([future.key for future in held], self.left_out)
            away |= set(self._in_loop(self.client.run_on_scheduler, find))
        return [future.status in ("error", "cancelled", "lost") or future.key in away for future in held]

    def stranded(self) -> set[str]:
        """Return keys of held results that are not there, and that no worker which is left may compute."""
        if not self._confined:
            return set()
        alive = set(self.alive())
        lost = {key for key, workers in self._confined.items() if not workers & alive}
        return {key for key in lost if self._held[key].status != "finished"}

    def explain_loss(self, error):
        if self.client.status in _CLOSED:
            raise self._no_answer("restart") from error
        lost = [key for key, future in self._irreplaceable.items() if future.status in ("cancelled", "lost")]
        if lost:
            raise DataLostError(
                f"{len(lost)} parts of the data were sent from this process to workers that are gone, "
                "and cannot be computed again. Train from a Dask collection that reads its data on the "
                "workers, for example dask.dataframe.read_parquet."
            ) from error

    def fetch(self, held, at=()):
        positions: dict[str, list[int]] = {}
        for position, future in enumerate(held):
            positions.setdefault(future.key, []).append(position)
        for batch in self._batches(held, at):
            # One message brings a whole batch.
            for future, value in zip(batch, self._gather(batch, at), strict=True):
                for position in positions[future.key]:
                    yield position, value

    def _gather(self, batch: list, at: Sequence[str | None]) -> list:
        """Return the values of results that are ready, unless a worker of `at` is gone with them."""
        # By itself, gather would wait until the lost result has been computed again. One that is given up and
        # does not skip what fails leaves asyncio with exceptions that nobody retrieves, each a traceback.
        look = Wait(self, batch, at).look
        values = self._in_loop(self.client.gather, batch, errors="skip", asynchronous=True, look=look)
        if len(values) < len(batch):
            # This raises the error of the one that failed.
            values = self._in_loop(self.client.gather, batch, asynchronous=True, look=look)
        return values

    def check_present(self, at: Sequence[str | None]) -> None:
        """Raise WorkerLeftError if one of these workers is gone."""
        if gone := sorted(set(map(str, at)) - set(self.alive())):
            raise WorkerLeftError(f"The cluster has lost {', '.join(gone)}.")

    def wait_for(self, held):
        missing = [future for future in held if future.status != "finished"]
        for _ in self._batches(missing, ()):
            pass

    def _batches(self, held: Sequence[Any], at: Sequence[str | None]) -> Iterator[list]:
        """Yield held results as they become ready; raise what one of them has raised."""
        first: dict[str, tuple[int, Any]] = {}
        for position, future in enumerate(held):
            first.setdefault(future.key, (position, future))
        ready: queue.SimpleQueue = queue.SimpleQueue()
        with self._still_open("wait"):
            for _, future in first.values():
                future.add_done_callback(ready.put)
        left = {key: future for key, (_, future) in first.items()}
        while left:
            batch = [self._next(ready, list(left.values()), at)]
            self._take_more(batch, ready, len(left))
            for future in batch:
                del left[future.key]
            failed = [future for future in batch if future.status == "error"]
            if failed:
                with self._still_open("exception"):
                    error = failed[0].exception(timeout=self.timeout)
                error.held_position = first[failed[0].key][0]
                error.cause = self._cause(failed[0])
                raise error.with_traceback(failed[0].traceback(timeout=self.timeout))
            yield batch

    def _cause(self, failed):
        """Return the key of the task that has raised what a failed future was told."""
        return first_name(self._ask("get_error_cause", keys=[failed.key]))

    def _take_more(self, batch: list, ready: queue.SimpleQueue, most: int) -> None:
        """Add what is ready within a moment."""
        deadline = time.monotonic() + _BATCH_SECONDS
        while len(batch) < most and (seconds := deadline - time.monotonic()) > 0:
            try:
                batch.append(ready.get(timeout=seconds))
            except queue.Empty:
                break

    def _next(self, ready: queue.SimpleQueue, left: Sequence[Any], at: Sequence[str | None]):
        """Return the next future that is ready; give up if the cluster does nothing for us any more."""
        wait = Wait(self, left, at)
        while True:
            with suppress(queue.Empty):
                return ready.get(timeout=_WATCH_SECONDS)
            wait.look()

    def awaited(self, held: Sequence[Any]) -> Awaited:
        """Return what held results that are waited for stand at."""
        look = what_becomes_of([future.key for future in held])
        return Awaited(*self._in_loop(self.client.run_on_scheduler, look))

    def outcomes(
        self, held: Sequence[Any], at: Sequence[str | None], seconds: float
    ) -> list[BaseException | EllipsisType | None]:
        """Return what became of each held result within so long: its exception, None, or ... if unknown.

        Nobody waits for a result of a worker that is gone.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            alive = self.alive()
            if not any(f.status == "pending" and place in alive for f, place in zip(held, at, strict=True)):
                break
            time.sleep(0.05)
        return [self._outcome(future) for future in held]

    def _outcome(self, future) -> BaseException | EllipsisType | None:
        if future.status == "pending":
            return ...
        return future.exception(timeout=self.timeout) if future.status == "error" else None


def _memory_for_data(worker: dict[str, Any]) -> float:
    """Return the bytes that a worker may use, less what its process takes by itself."""
    if not worker["memory_limit"]:
        # It may use all it likes.
        return inf
    used = worker.get("metrics", {})
    return max(0, worker["memory_limit"] - used.get("memory", 0) + used.get("managed_bytes", 0))


def _nothing() -> None:
    """A task that is there to be waited for."""
