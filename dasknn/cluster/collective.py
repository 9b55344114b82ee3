r"""All-reduce between workers: sums in the order of replicas, whichever worker holds them.

Every replica brings a vector and a few numbers. Their sum is a binary tree over the replicas, neighbors
first, which depends only on their number (`graph.merge_tree` is the same tree):

    replicas     0   1   2   3   4            a node is a range of leaves: (0, 2) = 0 + 1, (4, 5) = 4 alone
                  \ /     \ /    |
                 (0,2)   (2,4)   |            A worker adds up nodes that it holds, and sends nodes to others;
                     \   /       |            it never sums in another order. So the bits of the sum are the
                     (0,4)       |            same for any assignment of replicas to workers, and for all
                         \      /             algorithms:
                          (0,5)

First, where several workers share a host and there are several hosts, one of each host gets the nodes of the
others, so that one vector leaves the host instead of several. These leaders sum what they have by one of

Doubling: in step d, leader w exchanges all nodes that it holds with leader w XOR 2**d, and adds up the pairs
that are now complete; log2(leaders) messages one after the other, each of whole vectors. Leaders beyond a
power of two send their nodes first and receive the sum last.

Scatter (reduce-scatter + all-gather): leader w gets the w-th part of all nodes, adds them up, and sends that
part of the sum to all; each leader sends no more than two vectors, and messages wait for others only once.

Direct: each leader sends all its nodes to all others; the most bytes, and nothing waits for anything.

Messages of a step travel side by side, and what has arrived is added up while more is on its way
(`comm.transfer`). `reduction.choose` selects the algorithm: by what is assumed of a network, or by what was
measured.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from dasknn.cluster import reduction
from dasknn.cluster.comm.core import Link
from dasknn.cluster.comm.transfer import Transfer
from dasknn.cluster.reduction import ASSUMED, DIRECT, DOUBLING, SCATTER, LinkCosts, Node, Plan
from dasknn.exceptions import LinkError

# Messages of at most so many bytes are swapped in the shortest way.
_SHORT_BYTES = 262_144
# So many elements are added up as soon as they have arrived.
_ELEMENTS_AT_ONCE = 32_768
_MAGIC = b"dnnf"
# magic, first bytes of the run, attempt, number of the message on this link, length
_HEADER = struct.Struct("<4s4sIIQ")
HEADER_BYTES = _HEADER.size

_MergeNumbers = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Part(NamedTuple):
    """What is summed: a vector (n,), and numbers (k,) float64 with it."""

    vector: np.ndarray
    numbers: np.ndarray


_NO_NUMBERS = np.empty(0)


class Settings(NamedTuple):
    """How a group sums.

    Attributes
    ----------
    algorithm : str or None
        One of `reduction.ALGORITHMS`; None for the one that takes the least time for the length.
    costs : LinkCosts
        From which that is found out; the same on all members.
    """

    algorithm: str | None = None
    costs: LinkCosts = ASSUMED

    def choose(self, n_bytes: int, n_leaders: int) -> str:
        """Return the algorithm for vectors of n_bytes."""
        return self.algorithm or reduction.choose(n_bytes, n_leaders, self.costs)


class Group:
    """One member's part in an attempt: its rank, and a link to every other member.

    Parameters
    ----------
    rank : int
    owners : sequence of int
        The rank of the member that has each replica.
    links : dict
        Links to the other members, by rank.
    run, attempt
        They stamp each message, so that messages of other attempts are detected.
    seconds : float
        How long a peer may be silent; four times as long before the first sum, when it may still be
        fetching its rows.
    aborted : callable
        Returns whether this member was told to stop.
    hosts : sequence of int or None
        The number of the host of each member; None if each has its own.
    settings : Settings
        How to sum.
    """

    def __init__(
        self,
        rank: int,
        owners: Sequence[int],
        links: dict[int, Link],
        run: bytes = b"",
        attempt: int = 0,
        seconds: float = 60.0,
        aborted: Callable[[], bool] = lambda: False,
        hosts: Sequence[int] | None = None,
        settings: Settings | None = None,
    ):
        self.rank = rank
        self.owners = tuple(owners)
        self.n_workers = len(links) + 1
        self.hosts = tuple(range(self.n_workers) if hosts is None else hosts)
        self.settings = settings or Settings()
        self._links = links
        self._aborted = aborted
        self._sent_before = sum(link.bytes_sent for link in links.values())
        self._stamp = (_MAGIC, run[:4].ljust(4, b"\0"), attempt)
        self._numbers_sent = dict.fromkeys(links, 0)
        self._numbers_received = dict.fromkeys(links, 0)
        self._header = bytearray(_HEADER.size)
        self._buffers: dict[tuple, Part] = {}
        self._everybody = list(range(len(self.owners)))
        self._last: tuple[Sequence[int], list[Node], Plan] | None = None
        self._seconds: float | None = seconds
        for link in links.values():
            link.wait_at_most(4 * seconds)

    def pair(self, other: int) -> Group:
        """Return a group of this member and another one, with a replica each, for a few sums between them."""
        rank, links = int(self.rank > other), {int(self.rank < other): self._links[other]}
        _, run, attempt = self._stamp
        seconds = self._seconds or links[1 - rank].seconds
        return Group(rank, (0, 1), links, run, attempt, seconds, self._aborted)

    @property
    def bytes_sent(self) -> int:
        """Bytes that this member has sent in this group."""
        return sum(link.bytes_sent for link in self._links.values()) - self._sent_before

    def all_reduce(
        self,
        parts: dict[int, Part],
        like: Part,
        present: Sequence[int] | None = None,
        merge_numbers: _MergeNumbers = np.add,
        algorithm: str | None = None,
    ) -> Part:
        """Return the sum over the replicas that are present; the next call overwrites it.

        Parameters
        ----------
        parts : dict
            The Part of each present replica of this member; there may be none. Their vectors are overwritten.
        like : Part
            Arrays of the length and dtype that all parts have.
        present : sequence of int or None
            Replicas that take part, in order; None for all.
        merge_numbers : callable, default=numpy.add
            merge_numbers(left, right) adds up the numbers of two parts.
        algorithm : str or None
            One of `reduction.ALGORITHMS`; None for that of the settings.

        Raises
        ------
        LinkError
            This member was told to stop, or a peer is gone, silent or out of step.
        """
        if self._aborted():
            raise LinkError("This member was told to stop.")
        present = self._everybody if present is None else present
        if self._last is None or self._last[0] != present:
            owners = tuple(self.owners[replica] for replica in present)
            leaves = [(leaf, leaf + 1) for leaf, owner in enumerate(owners) if owner == self.rank]
            # The same replicas take part in most rounds.
            self._last = present, leaves, reduction.plan(owners, self.hosts)
        _, leaves, plan = self._last
        own = _Sums(plan.n_leaves, merge_numbers)
        for leaf in leaves:
            own.take(leaf, parts[present[leaf[0]]])
        if self.n_workers > 1:
            self._sum(own, plan, like, algorithm)
            self._shorten_waits()
        return own.held[own.whole]

    def _shorten_waits(self) -> None:
        """Allow peers the usual silence, once they have shown that they have their rows."""
        if self._seconds is not None:
            for link in self._links.values():
                link.wait_at_most(self._seconds)
            self._seconds = None

    def _sum(self, own: _Sums, plan: Plan, like: Part, algorithm: str | None) -> None:
        """Exchange nodes until this member has the sum of all."""
        leader, n_leaders = plan.leader_of[self.rank], len(plan.leaders)
        if leader != self.rank:
            self._give_and_take(own, leader, like)
            return
        followers = plan.followers[self.rank]
        self._take_from(followers, own, [plan.nodes[w] for w in followers], like)
        if n_leaders > 1:
            algorithm = algorithm or self.settings.choose(like.vector.nbytes, n_leaders)
            sum_by = {DOUBLING: self._double, SCATTER: self._scatter, DIRECT: self._direct}[algorithm]
            sum_by(own, plan, like)
        self._send_to(followers, own)

    def _give_and_take(self, own: _Sums, other: int, like: Part) -> None:
        """Send all nodes to another member, and receive the sum from it."""
        both = self._links[other].transfer()
        self._send(both, other, own.parts())
        total = self._buffer(own.whole, like)
        self._receive(both, other, [total])
        both.run()
        own.held = {own.whole: total}

    def _take_from(self, others: Sequence[int], own: _Sums, nodes: Sequence[list[Node]], like: Part) -> None:
        """Receive nodes from other members, a list from each, and add them up."""
        if others:
            transfer = self._links[others[0]].transfer()
            for other, theirs in zip(others, nodes, strict=True):
                self._receive_nodes(transfer, other, theirs, own, like)
            transfer.run()

    def _send_to(self, others: Sequence[int], own: _Sums) -> None:
        """Send all nodes to other members."""
        if others:
            transfer = self._links[others[0]].transfer()
            for other in others:
                self._send(transfer, other, own.parts())
            transfer.run()

    # --- algorithms ------------------------------------------------------------------------------------

    def _double(self, own: _Sums, plan: Plan, like: Part) -> None:
        leaders, even = plan.leaders, plan.n_even
        place = leaders.index(self.rank)
        if place >= even:
            self._give_and_take(own, leaders[place - even], like)
            return
        beyond = slice(place + even, place + even + 1)
        extra = leaders[beyond]
        self._take_from(extra, own, plan.gathered[beyond], like)
        for step, nodes in enumerate(plan.before_steps):
            partner = place ^ (1 << step)
            self._swap(leaders[partner], own, nodes[partner], like)
        self._send_to(extra, own)

    def _swap(self, partner: int, own: _Sums, theirs: list[Node], like: Part) -> None:
        """Exchange all nodes with another member, and add them up."""
        link, outgoing = self._links[partner], own.parts()
        n_out = _n_bytes(outgoing)
        n_into = len(theirs) * (like.vector.nbytes + like.numbers.nbytes)
        if max(n_out, n_into) <= _SHORT_BYTES:
            # In short rounds, Python takes most of the time.
            incoming = [self._buffer(node, like) for node in theirs]
            out = _message(self._next_header(partner, n_out), outgoing)
            into = _message(self._header, incoming)
            link.swap(out, n_out + HEADER_BYTES, into, n_into + HEADER_BYTES)
            self._check(self._header, partner, n_into)
            for node, part in zip(theirs, incoming, strict=True):
                own.take(node, part)
            return
        transfer = link.transfer()
        self._send(transfer, partner, outgoing)
        self._receive_nodes(transfer, partner, theirs, own, like)
        transfer.run()

    def _direct(self, own: _Sums, plan: Plan, like: Part) -> None:
        transfer = next(iter(self._links.values())).transfer()
        others = [(place, leader) for place, leader in enumerate(plan.leaders) if leader != self.rank]
        outgoing = own.parts()
        for place, leader in others:
            self._send(transfer, leader, outgoing)
            self._receive_nodes(transfer, leader, plan.gathered[place], own, like)
        transfer.run()

    def _scatter(self, own: _Sums, plan: Plan, like: Part) -> None:
        transfer = next(iter(self._links.values())).transfer()
        others = [(place, leader) for place, leader in enumerate(plan.leaders) if leader != self.rank]
        ends = reduction.edges(len(like.vector), len(plan.leaders))
        parts = [slice(begin, end) for begin, end in pairwise(ends)]
        mine = parts[plan.leaders.index(self.rank)]
        total = self._buffer("sum", like)

        def send_sum(part: Part) -> None:
            total.vector[mine] = part.vector
            total.numbers[:] = part.numbers
            for _, leader in others:
                self._send(transfer, leader, [Part(total.vector[mine], _NO_NUMBERS)])

        summed = _Sums(plan.n_leaves, own.merge_numbers, send_sum)
        for place, leader in others:
            self._send(
                transfer, leader, [Part(part.vector[parts[place]], part.numbers) for part in own.parts()]
            )
            like_mine = Part(like.vector[mine], like.numbers)
            self._receive_nodes(transfer, leader, plan.gathered[place], summed, like_mine)
        # Some kinds of links receive in this order, and a sum of others may need all nodes.
        for place, leader in others:
            self._receive(transfer, leader, [Part(total.vector[parts[place]], _NO_NUMBERS)])
        for node, part in own.held.items():
            summed.take(node, Part(part.vector[mine], part.numbers))
        transfer.run()
        own.held = {own.whole: total}

    # --- messages --------------------------------------------------------------------------------------

    def _buffer(self, name: Node | str, like: Part) -> Part:
        key = (name, like.vector.size, like.vector.dtype.char, like.numbers.size)
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = Part(np.empty_like(like.vector), np.empty_like(like.numbers))
        return buffer

    def _send(self, transfer: Transfer, to: int, parts: Sequence[Part]) -> None:
        transfer.send(self._links[to], _message(self._next_header(to, _n_bytes(parts)), parts))

    def _receive_nodes(
        self, transfer: Transfer, of: int, nodes: Sequence[Node], own: _Sums, like: Part
    ) -> None:
        """Receive these nodes, and add them to the own ones as they arrive."""
        parts = [self._buffer(node, like) for node in nodes]
        self._receive(transfer, of, parts, _Arrivals(nodes, parts, own).progress)

    def _receive(
        self,
        transfer: Transfer,
        of: int,
        parts: Sequence[Part],
        progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        header, length = bytearray(HEADER_BYTES), _n_bytes(parts)
        is_checked = False

        def arrived(n: int) -> None:
            nonlocal is_checked
            if n >= HEADER_BYTES:
                if not is_checked:
                    self._check(header, of, length)
                    is_checked = True
                progress(n - HEADER_BYTES)

        transfer.receive(self._links[of], _message(header, parts), arrived)

    def _next_header(self, to: int, length: int) -> bytes:
        header = _HEADER.pack(*self._stamp, self._numbers_sent[to], length)
        self._numbers_sent[to] = (self._numbers_sent[to] + 1) % 2**32
        return header

    def _check(self, header: bytearray, of: int, length: int) -> None:
        expected = (*self._stamp, self._numbers_received[of], length)
        self._numbers_received[of] = (self._numbers_received[of] + 1) % 2**32
        received = _HEADER.unpack(header)
        if received != expected:
            link = self._links[of]
            link.close()
            raise LinkError(f"{link.peer} is out of step: expected {expected}, received {received}.")


def _message(header: bytes | bytearray, parts: Sequence[Part]) -> list[Any]:
    """Return the buffers of a message, in their order."""
    return [header, *[part.numbers for part in parts], *[part.vector for part in parts]]


def _n_bytes(parts: Sequence[Part]) -> int:
    return sum([part.vector.nbytes + part.numbers.nbytes for part in parts])


class _Sums:
    """The sums that a member has, by node of the tree; two neighbors become one as soon as both are there.

    Parameters
    ----------
    n_leaves : int
    merge_numbers : callable
    ready : callable
        Called with the sum of all.
    """

    def __init__(
        self, n_leaves: int, merge_numbers: _MergeNumbers, ready: Callable[[Part], None] = lambda total: None
    ):
        self.held: dict[Node, Part] = {}
        self.whole = (0, n_leaves)
        self.merge_numbers = merge_numbers
        self._ready = ready
        self._moves = reduction.moves_of(n_leaves)

    def parts(self) -> list[Part]:
        """Return the sums, in the order of the tree."""
        return [self.held[node] for node in sorted(self.held)]

    def take(self, node: Node, part: Part) -> None:
        """Add a sum. Its vector is overwritten; those that are held already may be on their way to others."""
        while (other := self.take_neighbor(node)) is not None:
            add_up(node, part, other, slice(None))
            node, part = self.joined(node, part, other)
        self.held[node] = part
        if node == self.whole:
            self._ready(part)

    def take_neighbor(self, node: Node) -> tuple[Node, Part] | None:
        """Return the neighbor with which a node makes another, which is held no more; None if it is not."""
        if node == self.whole:
            return None
        left, right = self._moves[node]
        neighbor = right if node == left else left
        return (neighbor, self.held.pop(neighbor)) if neighbor in self.held else None

    def joined(self, node: Node, part: Part, other: tuple[Node, Part]) -> tuple[Node, Part]:
        """Return the node of two neighbors whose vectors have been added up in `part`."""
        neighbor, theirs = other
        (left, a), (right, b) = sorted([(node, part), (neighbor, theirs)], key=itemgetter(0))
        return (left[0], right[1]), Part(part.vector, self.merge_numbers(a.numbers, b.numbers))


def add_up(node: Node, part: Part, other: tuple[Node, Part], elements: slice) -> None:
    """Add some elements of a neighbor's vector to those of a part."""
    neighbor, theirs = other
    own, added = part.vector[elements], theirs.vector[elements]
    # The order matters where both are NaN.
    np.add(*((own, added) if node < neighbor else (added, own)), out=own)


class _Arrivals:
    """A message of nodes, which are added to others while they arrive."""

    def __init__(self, nodes: Sequence[Node], parts: Sequence[Part], sums: _Sums):
        self._left = deque(zip(nodes, parts, strict=True))
        self._sums = sums
        # Where the vector of the next node begins in the message.
        self._begin = sum(part.numbers.nbytes for part in parts)
        self._other: tuple[Node, Part] | None = None
        self._n_added = 0

    def progress(self, n: int) -> None:
        """Note that n bytes have arrived, not counting the header."""
        while self._left and n >= self._begin:
            node, part = self._left[0]
            n_elements = min(len(part.vector), (n - self._begin) // part.vector.itemsize)
            is_whole = n_elements == len(part.vector)
            if not is_whole and n_elements - self._n_added < _ELEMENTS_AT_ONCE:
                return
            self._other = self._other or self._sums.take_neighbor(node)
            if self._other is not None:
                add_up(node, part, self._other, slice(self._n_added, n_elements))
                self._n_added = n_elements
            if not is_whole:
                return
            self._left.popleft()
            self._begin += part.vector.nbytes
            if self._other is not None:
                node, part = self._sums.joined(node, part, self._other)
            self._other, self._n_added = None, 0
            self._sums.take(node, part)
