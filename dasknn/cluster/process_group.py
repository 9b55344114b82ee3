"""Workers that train together: one task on each, all at the same time, connected to one another.

    open       on each worker an endpoint, the result of a task that stays there      -> contacts
    connect    on each worker, all together: links between them                       (sockets, else Dask's)
    run        on each worker, all together: function(group, *args)                   -> results, by rank

If one of them fails, leaves or falls silent, all end: the attempt is given up as a whole, and whoever asked
for it begins another with the members that are left. Their tasks secede, so that they cannot wait for slots
that other trainings hold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dasknn.cluster import process_group
from dasknn.cluster.collective import Group
from dasknn.cluster.comm import core
from dasknn.cluster.comm.core import DASK, SOCKET, Handle, Secret
from dasknn.cluster.comm.dask import DaskEndpoint
from dasknn.cluster.comm.tcp import SocketEndpoint
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.exceptions import LinkError


def open_endpoint(kind: str, run: bytes, attempt: int, secret: Secret) -> Handle:
    """Open an endpoint of the worker whose task this is."""
    from distributed import get_worker

    kinds = {SOCKET: SocketEndpoint.on_worker, DASK: DaskEndpoint}
    worker = get_worker()
    kinds[kind](run, attempt, secret, worker)
    return Handle(run, attempt, worker.address)


logger = logging.getLogger("dasknn")

# Whoever is alive hears of an abort at once; nobody waits longer for the others.
_ABORT_SECONDS = 2.0
# Members that have not ended so long after an abort are taken to be silent.
_END_SECONDS = 3.0


class ProcessGroup:
    """Members of one attempt. homes[replica] is the address where it works."""

    def __init__(self, tasks: Executor, homes: Sequence[str | None], attempt: int):
        self.tasks = tasks
        self.homes = list(homes)
        self.addresses = sorted(set(homes), key=str)
        self._workers = [at for at in self.addresses if at is not None]
        self.owners = [self.addresses.index(home) for home in homes]
        self.kind: str | None = None
        self._run, self._attempt = b"", attempt
        self._endpoints: list[Any] = [None] * len(self.addresses)

    def connect(self) -> None:
        """Connect them by sockets, or else by Dask's comms. LinkError: neither was possible.

        Raises another of `Tasks.faults` if one of them was lost.
        """
        if not isinstance(self.tasks, ClusterExecutor):
            return
        if self.tasks.without_sockets:
            self._connect_by(DASK)
            return
        try:
            self._connect_by(SOCKET)
        except LinkError as error:
            self.tasks.check_present(self.addresses)
            self._connect_by(DASK)
            self.tasks.without_sockets = True
            logger.warning(
                "Workers exchange over Dask's own connections, which takes longer, since sockets of theirs "
                "could not connect: %s If a firewall is the reason, let workers reach one another by TCP; "
                "which ports they listen on, dask.config 'dasknn.ports' says, such as '40000-40100'. "
                "Trainings of this client do not try it again on this cluster: connect a new client when it "
                "is possible.",
                error,
            )

    def _connect_by(self, kind: str) -> None:
        # What is left of another kind closes by its own name, and knows nothing of this one.
        self._run = core.new_run()
        graph = Graph()
        opening = partial(process_group.open_endpoint, kind, self._run, self._attempt, core.Secret())
        opened = [graph.add("dasknn-open", opening, home=at, strict=True) for at in self.addresses]
        contacts = [
            graph.add("dasknn-contact", _contact, endpoint, home=at, strict=True)
            for at, endpoint in zip(self.addresses, opened, strict=True)
        ]
        held = self.tasks.start(graph, opened + contacts)
        self._endpoints, held_contacts = held[: len(opened)], held[len(opened) :]
        try:
            found = dict(self.tasks.fetch(held_contacts, at=self.addresses))
            self.tasks.drop(held_contacts)
            ranks = range(len(self.addresses))
            in_order = [found[rank] for rank in ranks]
            self._together("dasknn-connect", [(partial(_connect, rank, in_order),) for rank in ranks])
        except BaseException:
            self.close()
            raise
        self.kind = kind

    def run(self, function: Callable, args: Sequence[tuple], seconds: float) -> list:
        """Return function(group, *args[rank]) of all members, by rank.

        args may hold results that tasks hold. seconds: how long a peer may be silent. Raises what a member
        raises; LinkError or another of `Tasks.faults` when the attempt has failed.
        """
        take_part = partial(_take_part, function, tuple(self.owners), seconds)
        calls = [(partial(take_part, rank), *own) for rank, own in enumerate(args)]
        return self._together("dasknn-train", calls)

    def _together(self, name: str, calls: Sequence[tuple]) -> list:
        """Return the results of calls (function, *args), one on each member; its endpoint comes first."""
        graph = Graph()
        wanted = [
            graph.add(name, function, endpoint, *args, home=at, strict=at is not None)
            for at, endpoint, (function, *args) in zip(self.addresses, self._endpoints, calls, strict=True)
        ]
        held = self.tasks.start(graph, wanted)
        try:
            found = dict(self.tasks.fetch(held, at=self._workers))
        except self.tasks.faults:
            self.abort()
            self._find_out(held)
            raise
        except BaseException:
            self.abort()
            raise
        finally:
            self.tasks.drop_later(held)
        return [found[rank] for rank in range(len(calls))]

    def _find_out(self, held) -> None:
        """Raise what a member raised of its own; leave out those who do not end."""
        assert isinstance(self.tasks, ClusterExecutor)
        outcomes = self.tasks.outcomes(held, self._workers, _END_SECONDS)
        for error in outcomes:
            if isinstance(error, Exception) and not isinstance(error, self.tasks.faults):
                raise error
        alive = self.tasks.alive()
        ended = zip(self._workers, held, outcomes, strict=True)
        # Whether their process answers or not: what is given up still runs there.
        self.tasks.liveness.leave_out(
            {at: [own.key] for at, own, outcome in ended if outcome is ... and at in alive}
        )

    def abort(self) -> None:
        """End what members are doing, at once."""
        self._tell(core.abort)

    def _tell(self, function: Callable) -> None:
        if isinstance(self.tasks, ClusterExecutor):
            self.tasks.liveness.call(function, self._run, workers=self._workers, seconds=_ABORT_SECONDS)

    def close(self) -> None:
        """Close the endpoints, and let them go."""
        if self.kind is not None:
            self._tell(core.close)
        self.tasks.drop([endpoint for endpoint in self._endpoints if endpoint is not None])
        self._endpoints = [None] * len(self.addresses)


def _contact(handle: Handle):
    return handle.endpoint().contact


def _connect(rank: int, contacts: Sequence[Any], handle: Handle) -> None:
    _make_room()
    handle.endpoint().connect(rank, contacts)


def _take_part(function, owners, seconds: float, rank: int, handle: Handle | None, *args):
    if handle is None:
        # The only member, in the process of whoever asked.
        return function(Group(rank, owners, {}), *args)
    _make_room()
    endpoint = handle.endpoint()
    group = Group(
        rank,
        owners,
        endpoint.links,
        endpoint.run,
        endpoint.attempt,
        seconds,
        aborted=lambda: endpoint.is_aborted,
    )
    try:
        return function(group, *args)
    except BaseException as error:
        if isinstance(error, LinkError) and endpoint.is_aborted:
            # The driver has said so, and waits for nothing; an error would fill the worker's log.
            return None
        # The others wait for this one.
        endpoint.abort()
        raise


def _make_room() -> None:
    """Let the worker begin another task beside this one, which waits for its peers."""
    from distributed import secede

    secede()
