"""Workers that train together: one task on each, all at the same time, connected to one another.

    open       on each worker an endpoint, the result of a task that stays there      -> contacts
    connect    on each worker, all together: links between them                       (sockets, else Dask's)
    run        on each worker, all together: function(group, *args)                   -> results, by rank

If a member fails, leaves or falls silent, all end: the attempt is given up as a whole, and the caller starts
another one with the remaining members. The tasks of members secede, so that they cannot wait for slots that
other trainings hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dasknn.cluster.collective import Group, Settings
from dasknn.cluster.comm import core
from dasknn.cluster.comm.core import DASK, SOCKET, Handle, Secret
from dasknn.cluster.comm.dask import DaskEndpoint
from dasknn.cluster.comm.tcp import SocketEndpoint
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.executor import Executor
from dasknn.cluster.graph import Graph
from dasknn.cluster.placement import Home
from dasknn.exceptions import LinkError, WorkerLeftError

logger = logging.getLogger("dasknn")

# Workers that are alive answer an abort at once; the others are not waited for any longer.
_ABORT_SECONDS = 2.0
# Members that have not ended this long after an abort count as silent.
_END_SECONDS = 3.0


class ProcessGroup:
    """The members of one attempt.

    Parameters
    ----------
    executor : Executor
    homes : sequence of addresses
        Where each replica works.
    attempt : int
        The number of the attempt in this training.

    Attributes
    ----------
    addresses : list
        The address of each member, by rank.
    owners : list of int
        The rank of the member that has each replica.
    kind : str or None
        SOCKET or DASK after `connect` on a cluster.
    settings : collective.Settings
        How members sum.
    connecting : float
        Seconds that `connect` took.
    """

    def __init__(self, executor: Executor, homes: Sequence[Home], attempt: int):
        self.executor = executor
        self.homes = list(homes)
        self.addresses = sorted(set(homes), key=str)
        self._workers = [at for at in self.addresses if at is not None]
        self.owners = [self.addresses.index(home) for home in homes]
        self.hosts = _hosts(self.addresses)
        self.kind: str | None = None
        self.settings = Settings()
        self.connecting = 0.0
        self._run, self._attempt = b"", attempt
        self._endpoints: list[Any] = [None] * len(self.addresses)

    def connect(self) -> None:
        """Connect the members by sockets, or else by Dask's comms.

        Raises
        ------
        LinkError
            Neither was possible. If a member was lost, another of `Executor.faults` is raised.
        """
        if isinstance(self.executor, ClusterExecutor):
            began = time.perf_counter()
            self._connect(self.executor)
            self.connecting = time.perf_counter() - began

    def _connect(self, executor: ClusterExecutor) -> None:
        if executor.without_sockets:
            self._connect_by(DASK)
            return
        try:
            self._connect_by(SOCKET)
        except LinkError as error:
            executor.check_present(self.addresses)
            if silent := sorted(executor.liveness.left_out.intersection(self._workers)):
                # Another kind of link would not reach them, either.
                raise WorkerLeftError(f"No answer from {', '.join(silent)}.") from error
            self._connect_by(DASK)
            executor.without_sockets = True
            logger.warning(
                "Workers exchange data over Dask's own connections, which is slower, because they could not "
                "connect to one another by sockets: %s If a firewall is the reason, allow TCP connections "
                "between workers; the dask.config 'dasknn.ports' sets the ports, such as '40000-40100'. "
                "Trainings with this client do not try sockets again on this cluster: connect a new client "
                "when they can work.",
                error,
            )

    def _connect_by(self, kind: str) -> None:
        # Each kind has a run of its own: endpoints of the other kind that are left do not affect this one.
        self._run = core.new_run()
        graph = Graph()
        opening = partial(open_endpoint, kind, self._run, self._attempt, core.Secret())
        opened = [graph.add("dasknn-open", opening, home=at, strict=True) for at in self.addresses]
        contacts = [
            graph.add("dasknn-contact", _contact, endpoint, home=at, strict=True)
            for at, endpoint in zip(self.addresses, opened, strict=True)
        ]
        held = self.executor.start(graph, opened + contacts)
        self._endpoints, held_contacts = held[: len(opened)], held[len(opened) :]
        try:
            found = dict(self.executor.fetch(held_contacts, at=self.addresses))
            self.executor.drop(held_contacts)
            ranks = range(len(self.addresses))
            in_order = [found[rank] for rank in ranks]
            self._together("dasknn-connect", [(partial(_connect, rank, in_order),) for rank in ranks])
        except BaseException:
            self.close()
            raise
        self.kind = kind

    def run(self, function: Callable[..., Any], args: Sequence[tuple], seconds: float) -> list:
        """Return function(group, *args[rank]) of all members, by rank.

        Raises the exception of a member that has failed, or one of `Executor.faults` when the attempt has.

        Parameters
        ----------
        function : callable
            Called on each member with its `collective.Group`.
        args : sequence of tuples
            More arguments, by rank; held results among them are passed as their values.
        seconds : float
            How long a peer may be silent.
        """
        members = Members(tuple(self.owners), self.hosts, self.settings, seconds)
        take_part = partial(_take_part, function, members)
        calls = [(partial(take_part, rank), *own) for rank, own in enumerate(args)]
        return self._together("dasknn-train", calls)

    def _together(self, name: str, calls: Sequence[tuple]) -> list:
        """Return the results of calls (function, *args), one on each member, given its endpoint first."""
        graph = Graph()
        wanted = [
            graph.add(name, function, endpoint, *args, home=at, strict=at is not None)
            for at, endpoint, (function, *args) in zip(self.addresses, self._endpoints, calls, strict=True)
        ]
        held = self.executor.start(graph, wanted)
        try:
            found = dict(self.executor.fetch(held, at=self._workers))
        except self.executor.faults:
            self.abort()
            self._find_cause(held)
            raise
        except BaseException:
            self.abort()
            raise
        finally:
            self.executor.drop_later(held)
        return [found[rank] for rank in range(len(calls))]

    def _find_cause(self, held: Sequence[Any]) -> None:
        """Raise an error that is a member's own, not a consequence; leave out members that do not end."""
        assert isinstance(self.executor, ClusterExecutor)
        outcomes = self.executor.outcomes(held, self._workers, _END_SECONDS)
        for error in outcomes:
            if isinstance(error, Exception) and not isinstance(error, self.executor.faults):
                raise error
        alive = self.executor.alive()
        ended = zip(self._workers, held, outcomes, strict=True)
        # Whether their process answers or not: the task that was given up still runs there.
        self.executor.liveness.leave_out(
            {at: [own.key] for at, own, outcome in ended if outcome is ... and at in alive}
        )

    def abort(self) -> None:
        """End at once what the members are doing."""
        self._call_all(core.abort)

    def _call_all(self, function: Callable[[bytes], None]) -> None:
        if isinstance(self.executor, ClusterExecutor):
            liveness = self.executor.liveness
            # Those that are left out hear of it when they wake up; nobody waits for that.
            liveness.tell(function, self._run, workers=liveness.left_out.intersection(self._workers))
            workers = [at for at in self._workers if at not in liveness.left_out]
            liveness.call(function, self._run, workers=workers, seconds=_ABORT_SECONDS)

    def close(self) -> None:
        """Close the endpoints, and release them."""
        if self.kind is not None:
            self._call_all(core.close)
        self.executor.drop([endpoint for endpoint in self._endpoints if endpoint is not None])
        self._endpoints = [None] * len(self.addresses)


class Members(NamedTuple):
    """What all members of a group know of one another; see `collective.Group`."""

    owners: tuple[int, ...]
    hosts: tuple[int, ...]
    settings: Settings
    seconds: float


def _hosts(addresses: Sequence[Home]) -> tuple[int, ...]:
    """Return the number of the host of each worker."""
    # Workers in the process of the caller have no address.
    names = [urlsplit(str(address)).hostname or "" for address in addresses]
    return tuple(names.index(name) for name in names)


# --- on workers --------------------------------------------------------------------------------------


def open_endpoint(kind: str, run: bytes, attempt: int, secret: Secret) -> Handle:
    """Open an endpoint on the worker that runs this task."""
    from distributed import get_worker

    kinds = {SOCKET: SocketEndpoint.on_worker, DASK: DaskEndpoint}
    worker = get_worker()
    kinds[kind](run, attempt, secret, worker)
    return Handle(run, attempt, worker.address)


def _contact(handle: Handle) -> Any:
    return handle.endpoint().contact


def _connect(rank: int, contacts: Sequence[Any], handle: Handle) -> None:
    _make_room()
    handle.endpoint().connect(rank, contacts)


def _take_part(
    function: Callable[..., Any],
    members: Members,
    rank: int,
    handle: Handle | None,
    *args: Any,
) -> Any:
    if handle is None:
        # The only member, in the process of the caller.
        return function(Group(rank, members.owners, {}), *args)
    _make_room()
    endpoint = handle.endpoint()
    group = Group(
        rank,
        members.owners,
        endpoint.links,
        endpoint.run,
        endpoint.attempt,
        members.seconds,
        aborted=lambda: endpoint.is_aborted,
        hosts=members.hosts,
        settings=members.settings,
    )
    try:
        return function(group, *args)
    except BaseException as error:
        if isinstance(error, LinkError) and endpoint.is_aborted:
            # The driver has aborted it, and waits for no result; an error would fill the worker's log.
            return None
        # The others wait for this member.
        endpoint.abort()
        raise


def _make_room() -> None:
    """Let the worker begin another task beside this one, which waits for its peers."""
    from distributed import secede

    secede()
