"""Runs graphs on the cluster of a distributed client."""

from __future__ import annotations

import asyncio
import queue
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence, Set
from contextlib import suppress
from math import inf
from types import EllipsisType
from typing import Any

import dask

from dasknn._compat.dask import TaskRef
from dasknn.cluster.admission import Admission
from dasknn.cluster.executor import MAX_FAULTS, TOPIC, Executor
from dasknn.cluster.faults import LOST, RETIRED, SILENT, Event
from dasknn.cluster.fusing import Place, places_of
from dasknn.cluster.graph import Graph
from dasknn.cluster.liveness import Liveness
from dasknn.cluster.origins import Selection, scheduler_of
from dasknn.cluster.placement import Home
from dasknn.cluster.renaming import first_name
from dasknn.cluster.scheduler import WATCH_SECONDS, SchedulerConnection
from dasknn.cluster.waiting import Awaited, ClusterView, Wait, out_of_reach, state_of_tasks
from dasknn.exceptions import (
    ClusterTimeoutError,
    DataLostError,
    LinkError,
    SchedulerLostError,
    WorkerLeftError,
)

# How often a task that raises is tried again, where no other task waits for it: a source may be out of reach
# for a moment.
_RETRIES = 2
# When all workers were silent and one answers, others may follow within this time.
_FOLLOW_SECONDS = 1.0
# Results that are ready within this time arrive in one message.
_BATCH_SECONDS = 0.1
# How long the scheduler may take to accept an announcement before it is dropped.
_ANNOUNCING_SECONDS = 10.0


# What the dashboard shows for tasks of `problems`.
_NAME_OF_PREPARATIONS = "dasknn-prepare"

# By client, the schedulers whose workers cannot connect by sockets: to find that out takes seconds.
_without_sockets: weakref.WeakKeyDictionary[Any, set[str | None]] = weakref.WeakKeyDictionary()


class ClusterExecutor(Executor, ClusterView):
    """Runs graphs on the cluster of a distributed client.

    A wait for tasks ends when for `dasknn.timeout` seconds (a setting of dask.config, 600 by default) nothing
    has happened to them or to what they depend on; tasks of others do not count. A wait for an answer of the
    scheduler ends after the same time.

    Parameters
    ----------
    client : distributed.Client
    max_faults : int, default=10
    selection : Selection or None
        The workers that may be used; None for all of them.

    Attributes
    ----------
    scheduler : SchedulerConnection
    liveness : Liveness
        Which workers answer.
    timeout : float
        Seconds; `dasknn.timeout` of dask.config.
    silence : float
        Seconds; `dasknn.silence` of dask.config, or more while this machine or the workers are late.
    """

    at_once = 1_000_000
    is_remote = True

    def __init__(self, client: Any, max_faults: int = MAX_FAULTS, selection: Selection | None = None):
        from distributed import KilledWorker

        from dasknn._compat.distributed import CommClosedError, FutureCancelledError

        super().__init__(max_faults)
        self.timeout = float(dask.config.get("dasknn.timeout", 600))
        self._silence = float(dask.config.get("dasknn.silence", 15))
        self.client = client
        self.scheduler = SchedulerConnection(client, self.timeout)
        self.liveness = Liveness(self.scheduler)
        self.faults = (KilledWorker, FutureCancelledError, CommClosedError, LinkError, WorkerLeftError)
        self._selection = selection
        self._admission = Admission(client, self.liveness)
        self._held: dict[str, Any] = {}
        self._irreplaceable: dict[str, Any] = {}
        #: Held results that not every worker may compute: of each of these sets one must be there.
        self._confined: dict[str, list[frozenset[str]]] = {}
        self._late: list[Any] = []
        self._announcing: asyncio.Task | None = None
        self._has_clock = False

    @property
    def silence(self) -> float:
        return self.liveness.lag.patience(self._silence)

    @property
    def without_sockets(self) -> bool:
        """Whether workers of this cluster could not connect by sockets, the last time a training tried."""
        return scheduler_of(self.client) in _without_sockets.get(self.client, ())

    @without_sockets.setter
    def without_sockets(self, value: bool) -> None:
        known = _without_sockets.setdefault(self.client, set())
        (known.add if value else known.discard)(scheduler_of(self.client))

    # --- workers --------------------------------------------------------------------------------------

    def alive(self) -> dict[str, int]:
        """Return the number of threads of each worker, by address."""
        return self.liveness.alive()

    @property
    def left_out(self) -> Set[str]:
        return self.liveness.left_out

    def rebalance(self, replicas: int) -> None:
        self.liveness.take_back()
        self._admission.ask_again()
        super().rebalance(replicas)

    def _departure(self, address: Home) -> Event:
        if address in self.left_out:
            return Event(SILENT, address)
        # The scheduler's events of this worker, (time, event) each.
        events = self.scheduler.ask("events", topic=address) or ()
        was_expected = any(event.get("expected") for _, event in events if isinstance(event, dict))
        return Event(RETIRED if was_expected else LOST, address)

    def slots(self) -> list[Home]:
        while not (threads := self._without_silent(self._usable() or self._wait_for_workers())):
            self._wait_for_an_answer()
        # One thread of every worker first, so that replicas spread over machines.
        ranked = sorted((thread, address) for address, n in threads.items() for thread in range(n))
        return [address for _, address in ranked]

    def _usable(self) -> dict[str, int]:
        """Return the number of threads of each worker that may be used, by address."""
        threads = self.alive()
        if self._selection is not None:
            if not self._selection.knows(threads):
                self._selection.look_at(self.scheduler.workers())
            threads = {address: n for address, n in threads.items() if self._selection.allows(address)}
        return {address: threads[address] for address in self._admission.admitted(threads)}

    def _workers(self) -> set[str]:
        return {str(address) for address in self.slots()}

    def answers(self, question: Callable[[], Any]) -> dict[Home, Any]:
        return dict(self._admission.answers(question, self._workers()).items())

    def require(self, question: Callable[[], Any], answer: Any) -> None:
        self._admission.require(question, answer)

    def problems(self, preparation: Callable[[], str], replicas: int) -> dict[Home, str]:
        def attempt() -> dict[Home, str]:
            workers = {str(home) for home in self.homes(replicas)}
            left = sorted(workers - set(self._admission.known(preparation, workers)))
            graph = Graph()
            wanted = [graph.add(_NAME_OF_PREPARATIONS, preparation, home=w, strict=True) for w in left]
            held = self.start(graph, wanted) if wanted else []
            try:
                found = dict(self.fetch(held, at=left)) if wanted else {}
            finally:
                self.drop(held)
            problems = {left[position]: problem for position, problem in found.items()}
            # What went wrong may be right the next time.
            self._admission.note(preparation, {w: problem for w, problem in problems.items() if not problem})
            return {home: problems.get(home, "") for home in workers}

        return self.again(attempt)

    def _wait_for_workers(self) -> dict[str, int]:
        """Return the threads of the workers that may be used, as soon as there are any."""
        deadline = time.monotonic() + self.timeout
        graph = Graph()
        # An adaptive cluster starts workers for waiting tasks, and for nothing else.
        wanted = self.start(graph, [graph.add("dasknn-wait-for-workers", _do_nothing)])
        try:
            while not (threads := self._usable()):
                if time.monotonic() > deadline:
                    raise ClusterTimeoutError(self._no_workers())
                time.sleep(WATCH_SECONDS)
            return threads
        finally:
            self.drop(wanted)

    def _no_workers(self) -> str:
        address = self.scheduler.address
        if self._selection is None:
            return (
                f"The scheduler {address} has had no worker for {self.timeout:g} s. Start workers, or raise "
                "dask.config 'dasknn.timeout'."
            )
        others = ", ".join(sorted(self.alive())) or "none"
        return (
            f"The scheduler {address} has had none of the workers {self._selection} for {self.timeout:g} s; "
            f"its workers are: {others}. Start the named ones, name others, or raise dask.config "
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
                    f"No worker of the scheduler {self.scheduler.address} has answered for "
                    f"{self.timeout:g} s. Waited for {', '.join(silent)}. Check that these processes run, "
                    "start other workers, or raise dask.config 'dasknn.timeout'."
                )
            time.sleep(WATCH_SECONDS)
            self.liveness.take_back(also_busy=True)
        # Whatever stopped all of them ends at about the same time for all of them.
        time.sleep(_FOLLOW_SECONDS)
        self.liveness.take_back(also_busy=True)

    def memory_limit(self) -> float:
        return sum(self.memory_of_workers().values())

    def memory_of_workers(self) -> dict[Home, float]:
        usable, workers = set(self.slots()), self.scheduler.workers()
        return {address: _memory_for_data(one) for address, one in workers.items() if address in usable}

    def where(self, held: Sequence[Any]) -> list[set[Home]]:
        keys = [future.key for future in held]
        found = self.scheduler.ask("who_has", keys=keys)
        return [set(found.get(key, ())) for key in keys]

    def known(self, keys: Collection[Hashable]) -> dict[Hashable, Place]:
        found = self.scheduler.call(self.client.run_on_scheduler, places_of(keys))
        return {key: Place(*place) for key, place in found.items()}

    def check_present(self, at: Sequence[Home]) -> None:
        if gone := sorted(set(map(str, at)) - set(self.alive())):
            raise WorkerLeftError(f"The cluster has lost {', '.join(gone)}.")

    # --- held results ---------------------------------------------------------------------------------

    def start(self, graph: Graph, wanted: Sequence[TaskRef]) -> list[Any]:
        where: dict[str, Any] = {}
        only = frozenset[str]()
        if self._selection is not None or self.left_out:
            only = frozenset(self._without_silent(self._usable()))
        if only:
            # To the scheduler, a silent worker is one that has nothing to do; and where other workers are
            # allowed, those that have nothing to do take work from the selected ones.
            where = {"workers": sorted(only)}
        elif self._selection is not None:
            # As soon as a selected worker is there, no other one is used.
            where = {"workers": self._selection.words, "allow_other_workers": True}
        # What a selected worker has stays where it is, so that each keeps its replicas.
        stays = bool(only) and not self.left_out
        layers = graph.layers(confined=bool(only) and not stays, at_home=stays)
        retries = None if graph.is_strict else _RETRIES
        with self.scheduler.still_open("start"):
            futures = self.client.get(
                layers, [ref.key for ref in wanted], sync=False, retries=retries, **where
            )
        self._held.update((future.key, future) for future in futures)
        if only:
            homes = {frozenset([home]) for home in graph.homes.values()} if stays else set()
            self._confined.update((future.key, [only, *homes]) for future in futures)
        late, self._late = self._late, []
        self.drop(late)
        return list(futures)

    def put(self, values: Sequence[Any], homes: Sequence[Home]) -> list[Any]:
        anywhere = sorted(set(self.slots()), key=str)
        keys = [f"dasknn-value-{uuid.uuid4().hex[:12]}" for _ in values]
        # One message for all that goes to one place.
        at_home: dict[Home, dict[str, Any]] = {}
        for key, value, home in zip(keys, values, homes, strict=True):
            at_home.setdefault(home, {})[key] = value
        sent: dict[str, Any] = {}
        for home, own in at_home.items():
            sent |= self._send(own, anywhere if home is None else [home])
        self._held.update(sent)
        return [sent[key] for key in keys]

    def _send(self, values: dict[str, Any], where: Sequence[Home]) -> dict[str, Any]:
        """Hold values at one of these workers. WorkerLeftError: one is gone, or does not answer."""
        settings: dict[str, Any] = {"workers": where, "hash": False, "timeout": self.timeout}
        look = Wait(self, [], where).check_members
        names = ", ".join(map(str, where))
        try:
            sent = self.scheduler.call(self.client.scatter, values, asynchronous=True, look=look, **settings)
            return {key: sent[key] for key in values}
        except (SchedulerLostError, ClusterTimeoutError):
            raise
        except TimeoutError as error:
            # The scheduler raises this if all of them are paused or about to leave.
            raise ClusterTimeoutError(
                f"No data could be sent to {names} for {self.timeout:g} s: these workers are paused because "
                "their memory is full, or about to leave. Look at them on the dashboard, or raise "
                "dask.config 'dasknn.timeout'."
            ) from error
        except (KeyError, OSError) as error:
            # The scheduler no longer knows the worker, or cannot reach it.
            raise WorkerLeftError(f"No data could be sent to {names}: {error!r}.") from error

    def keep(self, held: Sequence[Any]) -> None:
        self._irreplaceable.update((future.key, future) for future in held)

    def drop(self, held: Sequence[Any]) -> None:
        for future in held:
            self._held.pop(future.key, None)
            self._irreplaceable.pop(future.key, None)
            self._confined.pop(future.key, None)
            future.release()

    def drop_later(self, held: Sequence[Any]) -> None:
        # After a message to the scheduler the client waits 10 ms before it sends another: releasing results
        # right before something else is started would delay that.
        self._late += held

    def close(self) -> None:
        # Releasing, not cancelling: what runs is allowed to end, and is forgotten with all that waits for it.
        self.drop(list(self._held.values()))
        self.liveness.close()
        if self._has_clock:
            self._stop_clock()

    def broken(self, held: Sequence[Any]) -> list[bool]:
        away = self.stranded()
        if self.left_out:
            find = out_of_reach([future.key for future in held], self.left_out)
            away |= set(self.scheduler.call(self.client.run_on_scheduler, find))
        return [future.status in ("error", "cancelled", "lost") or future.key in away for future in held]

    def stranded(self) -> set[str]:
        if not self._confined:
            return set()
        alive = set(self.alive())
        lost = {key for key, groups in self._confined.items() if not all(map(alive.intersection, groups))}
        return {key for key in lost if self._held[key].status != "finished"}

    def explain_loss(self, error: BaseException) -> None:
        self.scheduler.check_open("restart", error)
        lost = [key for key, future in self._irreplaceable.items() if future.status in ("cancelled", "lost")]
        if lost:
            raise DataLostError(
                f"{len(lost)} parts of the data were sent from this process to workers that are gone, "
                "and cannot be computed again. Train from a Dask collection that reads its data on the "
                "workers, for example dask.dataframe.read_parquet."
            ) from error

    # --- waits for results ----------------------------------------------------------------------------

    def fetch(self, held: Sequence[Any], at: Sequence[Home] = ()) -> Iterator[tuple[int, Any]]:
        positions: dict[str, list[int]] = {}
        for position, future in enumerate(held):
            positions.setdefault(future.key, []).append(position)
        for batch in self._batches(held, at):
            # One message brings a whole batch.
            for future, value in zip(batch, self.gather(batch, at), strict=True):
                for position in positions[future.key]:
                    yield position, value

    def gather(self, batch: list, at: Sequence[Home]) -> list:
        """Return the values of results that are ready, unless a worker of `at` is gone with them."""
        # Without `look`, gather would wait until a lost result has been computed again. A call that is given
        # up and does not skip failures leaves asyncio with exceptions that nobody retrieves: tracebacks.
        look = Wait(self, batch, at).look
        call, gather = self.scheduler.call, self.client.gather
        values = call(gather, batch, errors="skip", asynchronous=True, look=look)
        if len(values) < len(batch):
            # This raises the error of the one that failed.
            values = call(gather, batch, asynchronous=True, look=look)
        return values

    def wait_for(self, held: Sequence[Any]) -> None:
        missing = [future for future in held if future.status != "finished"]
        for _ in self._batches(missing, ()):
            pass

    def _batches(self, held: Sequence[Any], at: Sequence[Home]) -> Iterator[list]:
        """Yield held results as they become ready; raise the error of one that failed."""
        first: dict[str, tuple[int, Any]] = {}
        for position, future in enumerate(held):
            first.setdefault(future.key, (position, future))
        ready: queue.SimpleQueue = queue.SimpleQueue()
        with self.scheduler.still_open("wait"):
            for _, future in first.values():
                future.add_done_callback(ready.put)
        left = {key: future for key, (_, future) in first.items()}
        while left:
            batch = [self._next(ready, list(left.values()), at)]
            _take_more(batch, ready, len(left))
            for future in batch:
                del left[future.key]
            failed = [future for future in batch if future.status == "error"]
            if failed:
                with self.scheduler.still_open("exception"):
                    error = failed[0].exception(timeout=self.timeout)
                error.held_position = first[failed[0].key][0]
                error.cause = self.cause_of(failed[0])
                raise error.with_traceback(failed[0].traceback(timeout=self.timeout))
            yield batch

    def cause_of(self, failed: Any) -> Hashable:
        """Return the key of the task that raised the error of a failed future."""
        return first_name(self.scheduler.ask("get_error_cause", keys=[failed.key]))

    def _next(self, ready: queue.SimpleQueue, left: Sequence[Any], at: Sequence[Home]) -> Any:
        """Return the next future that is ready; give up when the cluster makes no progress with them."""
        wait = Wait(self, left, at)
        while True:
            with suppress(queue.Empty):
                return ready.get(timeout=WATCH_SECONDS)
            wait.look()

    def awaited(self, held: Sequence[Any]) -> Awaited:
        look = state_of_tasks([future.key for future in held])
        return Awaited(*self.scheduler.call(self.client.run_on_scheduler, look))

    def outcomes(
        self, held: Sequence[Any], at: Sequence[Home], seconds: float
    ) -> list[BaseException | EllipsisType | None]:
        """Return the outcome of each held result within so many seconds.

        It is its exception, None for a success, or ... if it has not ended. `at` are the workers that compute
        them; a result is not waited for when its worker is gone or left out.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            alive = set(self.alive()) - self.left_out
            if not any(f.status == "pending" and place in alive for f, place in zip(held, at, strict=True)):
                break
            time.sleep(0.05)
        return [self._outcome(future) for future in held]

    def _outcome(self, future: Any) -> BaseException | EllipsisType | None:
        if future.status == "pending":
            return ...
        return future.exception(timeout=self.timeout) if future.status == "error" else None

    # --- clock and announcements ----------------------------------------------------------------------

    def start_clock(self) -> None:
        from dasknn.cluster import clock

        if self._has_clock:
            return
        # A scheduler that cannot import dasknn has no clock.
        with suppress(ImportError, AttributeError):
            self.scheduler.call(self.client.run_on_scheduler, clock.start, self.client.id)
            self._has_clock = True

    def spent(self) -> dict[str, tuple[float, float]]:
        from dasknn.cluster import clock

        if not self._has_clock:
            return {}
        return self.scheduler.call(self.client.run_on_scheduler, clock.take, self.client.id)

    def _stop_clock(self) -> None:
        from dasknn.cluster import clock

        async def stop() -> None:
            with suppress(Exception):
                await self.client.run_on_scheduler(clock.stop, self.client.id)

        # The scheduler may be gone: nobody waits for it here.
        self.scheduler.soon(lambda: self.scheduler.loop.create_task(stop()))

    def announce(self, event: dict[str, Any], patience: float = 0.0) -> None:
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        message = {**event, "client": self.client.id}

        async def tell(before: asyncio.Task | None) -> None:
            with suppress(Exception):
                if before is not None:
                    # Two messages could take two connections, and overtake each other.
                    await before
                sent = self.client.scheduler.log_event(topic=TOPIC, msg=message)
                await asyncio.wait_for(sent, _ANNOUNCING_SECONDS)
            arrived.put(None)

        def begin() -> None:
            self._announcing = self.scheduler.loop.create_task(tell(self._announcing))

        if self.scheduler.soon(begin) and patience:
            with suppress(queue.Empty):
                arrived.get(timeout=patience)


def _take_more(batch: list, ready: queue.SimpleQueue, most: int) -> None:
    """Add what becomes ready within a moment."""
    deadline = time.monotonic() + _BATCH_SECONDS
    while len(batch) < most and (seconds := deadline - time.monotonic()) > 0:
        try:
            batch.append(ready.get(timeout=seconds))
        except queue.Empty:
            break


def _memory_for_data(worker: dict[str, Any]) -> float:
    """Return the bytes that a worker may use, less what its process takes besides data."""
    if not worker["memory_limit"]:
        # There is no limit.
        return inf
    used = worker.get("metrics", {})
    return max(0, worker["memory_limit"] - used.get("memory", 0) + used.get("managed_bytes", 0))


def _do_nothing() -> None:
    """A task that is there to be waited for."""
