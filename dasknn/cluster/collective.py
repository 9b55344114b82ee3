r"""All-reduce between workers: sums in the order of replicas, whichever worker holds them.

Every replica brings a vector and a few numbers. Their sum is a binary tree over the replicas, neighbors
first, which depends only on their number (`graph.merge_tree` is the same tree):

    replicas     0   1   2   3   4            a node is a range of leaves: (0, 2) = 0 + 1, (4, 5) = 4 alone
                  \ /     \ /    |
                 (0,2)   (2,4)   |            A worker adds up nodes that it holds, and sends nodes to others;
                     \   /       |            it never sums in another order. So the bits of the sum are the
                     (0,4)       |            same for any assignment of replicas to workers, and for both
                         \      /             algorithms:
                          (0,5)

Recursive doubling: in step d, worker w exchanges all nodes that it holds with worker w XOR 2**d, and adds
up the pairs that are now complete; log2(workers) messages, each of whole vectors. Workers beyond a power of
two send their nodes first and receive the sum last.

Reduce-scatter + all-gather: worker w gets the w-th part of all nodes, adds them up, and sends that part of
the sum to all; 2 (workers - 1) messages, but each worker sends no more than two vectors.

`choose` selects the first for short vectors or few workers, and the second for long vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dasknn.cluster.comm.core import Link
from dasknn.exceptions import LinkError

DOUBLING, SCATTER = "recursive doubling", "reduce-scatter + all-gather"

# A message takes about as long as sending this many bytes.
_BYTES_PER_MESSAGE = 32_768
_MAGIC = b"dnnf"
# magic, first bytes of the run, attempt, number of the message on this link, length
_HEADER = struct.Struct("<4s4sIIQ")

# First leaf of a sum, and the one after its last. Leaves are the replicas of a round, in order.
Node = tuple[int, int]
_MergeNumbers = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Part(NamedTuple):
    """What is summed: a vector (n,), and numbers (k,) float64 with it."""

    vector: np.ndarray
    numbers: np.ndarray


# The sums that a member has, by node.
_Held = dict[Node, Part]


def choose(n_bytes: int, n_workers: int) -> str:
    """Return the algorithm for vectors of n_bytes: DOUBLING or SCATTER.

    DOUBLING sends log2(workers) messages of n_bytes, SCATTER 2 (workers - 1) of n_bytes / workers. Two
    workers send the same bytes either way, so they always use DOUBLING.
    """
    if n_workers <= 2:
        return DOUBLING
    steps = _steps(n_workers)
    doubling = steps * (n_bytes + _BYTES_PER_MESSAGE)
    scatter = 2 * (n_workers - 1) * (n_bytes / n_workers + _BYTES_PER_MESSAGE)
    return DOUBLING if doubling <= scatter else SCATTER


def _steps(n_workers: int) -> int:
    even = 1 << (n_workers.bit_length() - 1)
    return even.bit_length() - 1 + 2 * (n_workers > even)


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
    ):
        self.rank = rank
        self.owners = tuple(owners)
        self.n_workers = len(links) + 1
        self._links = links
        self._aborted = aborted
        self._sent_before = sum(link.bytes_sent for link in links.values())
        self._stamp = (_MAGIC, run[:4].ljust(4, b"\0"), attempt)
        self._numbers_sent = dict.fromkeys(links, 0)
        self._numbers_received = dict.fromkeys(links, 0)
        self._header = bytearray(_HEADER.size)
        self._buffers: dict[tuple, Part] = {}
        self._everybody = list(range(len(self.owners)))
        self._last: tuple[Sequence[int], list[Node], _Plan] | None = None
        self._seconds: float | None = seconds
        for link in links.values():
            link.wait_at_most(4 * seconds)

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
            DOUBLING, SCATTER, or None to `choose`.

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
            self._last = present, leaves, _plan(owners, self.n_workers)
        _, leaves, plan = self._last
        held: _Held = {leaf: parts[present[leaf[0]]] for leaf in leaves}
        self._add_up(held, plan.first[self.rank], merge_numbers)
        if self.n_workers > 1:
            algorithm = algorithm or choose(like.vector.nbytes, self.n_workers)
            {DOUBLING: self._double, SCATTER: self._scatter}[algorithm](held, plan, like, merge_numbers)
            self._shorten_waits()
        return held[0, len(present)]

    def _shorten_waits(self) -> None:
        """Allow peers the usual silence, once they have shown that they have their rows."""
        if self._seconds is not None:
            for link in self._links.values():
                link.wait_at_most(self._seconds)
            self._seconds = None

    # --- recursive doubling ----------------------------------------------------------------------------

    def _double(self, held: _Held, plan: _Plan, like: Part, merge_numbers: _MergeNumbers) -> None:
        even = 1 << (self.n_workers.bit_length() - 1)
        whole = [(0, plan.n_leaves)]
        if self.rank >= even:
            self._swap(self.rank - even, [held[node] for node in plan.nodes[0][self.rank]], [])
            self._take_in(held, whole, self.rank - even, [], like)
            return
        extra = self.rank + even
        if extra < self.n_workers:
            self._take_in(held, plan.nodes[0][extra], extra, [], like)
            self._add_up(held, plan.folded[self.rank], merge_numbers)
        for step, moves in enumerate(plan.steps):
            partner = self.rank ^ (1 << step)
            nodes = plan.nodes[step + 1]
            self._take_in(held, nodes[partner], partner, [held[node] for node in nodes[self.rank]], like)
            self._add_up(held, moves[self.rank], merge_numbers)
        if extra < self.n_workers:
            self._swap(extra, [held[whole[0]]], [])

    def _take_in(
        self, held: _Held, nodes: Sequence[Node], partner: int, outgoing: list[Part], like: Part
    ) -> None:
        incoming = {node: self._buffer(node, like) for node in nodes}
        self._swap(partner, outgoing, list(incoming.values()))
        held.update(incoming)

    # --- reduce-scatter + all-gather -------------------------------------------------------------------

    def _scatter(self, held: _Held, plan: _Plan, like: Part, merge_numbers: _MergeNumbers) -> None:
        size, rank = self.n_workers, self.rank
        edges = [len(like.vector) * part // size for part in range(size + 1)]
        own = slice(edges[rank], edges[rank + 1])
        nodes = plan.nodes_of_workers
        pieces = {node: Part(held[node].vector[own], held[node].numbers) for node in nodes[rank]}
        for shift in range(1, size):
            to, of = (rank + shift) % size, (rank - shift) % size
            theirs = slice(edges[to], edges[to + 1])
            outgoing = [Part(held[node].vector[theirs], held[node].numbers) for node in nodes[rank]]
            incoming = {node: self._buffer(node, Part(like.vector[own], like.numbers)) for node in nodes[of]}
            self._swap(to, outgoing, list(incoming.values()), of)
            pieces.update(incoming)
        self._add_up(pieces, plan.rest, merge_numbers)
        whole = (0, plan.n_leaves)
        total = Part(self._buffer("sum", like).vector, pieces[whole].numbers)
        total.vector[own] = pieces[whole].vector
        nothing = np.empty(0)
        for shift in range(1, size):
            to, of = (rank + shift) % size, (rank - shift) % size
            theirs = slice(edges[of], edges[of + 1])
            self._swap(to, [Part(total.vector[own], nothing)], [Part(total.vector[theirs], nothing)], of)
        held[whole] = total

    # --- both ------------------------------------------------------------------------------------------

    def _add_up(self, held: _Held, moves: Sequence[tuple[Node, Node]], merge_numbers: _MergeNumbers) -> None:
        """Replace pairs of neighboring nodes by their sums, in place."""
        for left, right in moves:
            a, b = held.pop(left), held.pop(right)
            np.add(a.vector, b.vector, out=a.vector)
            held[left[0], right[1]] = Part(a.vector, merge_numbers(a.numbers, b.numbers))

    def _buffer(self, name: Node | str, like: Part) -> Part:
        key = (name, like.vector.size, like.vector.dtype.char, like.numbers.size)
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = Part(np.empty_like(like.vector), np.empty_like(like.numbers))
        return buffer

    def _swap(self, to: int, outgoing: list[Part], incoming: list[Part], of: int | None = None) -> None:
        """Send parts to one member while receiving others from `of` (default: the same member).

        Both send and receive one chunk in turn: if both sent everything first, each could wait for the other
        to read.
        """
        if of is None and outgoing and incoming:
            n_out, n_into = _n_bytes(outgoing), _n_bytes(incoming)
            if max(n_out, n_into) <= self._links[to].chunk_bytes:
                self._swap_short(to, outgoing, n_out, incoming, n_into)
                return
        out, into = self._messages(to, outgoing), self._blanks(to if of is None else of, incoming)
        link, source = self._links[to], self._links[to if of is None else of]
        for i in range(max(len(out), len(into))):
            if i < len(out):
                link.send(out[i])
            if i < len(into):
                source.receive(into[i])
                if i == 0:
                    self._check(source, to if of is None else of, _n_bytes(incoming))

    def _swap_short(
        self, to: int, outgoing: list[Part], n_out: int, incoming: list[Part], n_into: int
    ) -> None:
        """Do as `_swap` with messages of one chunk each: in short rounds, Python takes most of the time."""
        link = self._links[to]
        out: list[Any] = [self._next_header(to, n_out)]
        into: list[Any] = [self._header]
        for message, parts in ((out, outgoing), (into, incoming)):
            message += [part.numbers for part in parts]
            message += [part.vector for part in parts]
        link.swap(out, n_out + _HEADER.size, into, n_into + _HEADER.size)
        self._check(link, to, n_into)

    def _next_header(self, to: int, length: int) -> bytes:
        header = _HEADER.pack(*self._stamp, self._numbers_sent[to], length)
        self._numbers_sent[to] = (self._numbers_sent[to] + 1) % 2**32
        return header

    def _messages(self, to: int, parts: list[Part]) -> list[list]:
        if not parts:
            return []
        header = self._next_header(to, _n_bytes(parts))
        return _chunks([header], parts, self._links[to].chunk_bytes)

    def _blanks(self, of: int, parts: list[Part]) -> list[list]:
        return _chunks([self._header], parts, self._links[of].chunk_bytes) if parts else []

    def _check(self, link: Link, of: int, length: int) -> None:
        expected = (*self._stamp, self._numbers_received[of], length)
        self._numbers_received[of] = (self._numbers_received[of] + 1) % 2**32
        received = _HEADER.unpack(self._header)
        if received != expected:
            link.close()
            raise LinkError(f"{link.peer} is out of step: expected {expected}, received {received}.")


def _n_bytes(parts: list[Part]) -> int:
    return sum([part.vector.nbytes + part.numbers.nbytes for part in parts])


def _chunks(first: list, parts: list[Part], chunk_bytes: int) -> list[list]:
    """Cut a message into lists of buffers of about chunk_bytes: header and numbers first, then vectors."""
    chunks = [[*first, *(part.numbers for part in parts)]]
    room = chunk_bytes
    for part in parts:
        data = part.vector.view(np.uint8).data
        while len(data):
            if not room:
                chunks.append([])
                room = chunk_bytes
            chunks[-1].append(data[:room])
            data, room = data[room:], room - min(room, len(data))
    return chunks


class _Plan(NamedTuple):
    """Which worker holds which nodes when; the same on all members.

    Attributes
    ----------
    n_leaves : int
    first : list
        first[w]: pairs of nodes that worker w adds up before any message.
    nodes_of_workers : list
        nodes_of_workers[w]: the nodes that worker w holds then.
    rest : list
        Pairs that are left to add up when all nodes are in one place (reduce-scatter).
    nodes : list
        For doubling: nodes[0] is nodes_of_workers, nodes[s + 1][w] what worker w holds before step s.
    folded : list
        folded[w]: pairs that worker w adds up after it has received from a worker beyond the power of two.
    steps : list
        steps[s][w]: pairs that worker w adds up after it has received in step s.
    """

    n_leaves: int
    first: list[list[tuple[Node, Node]]]
    nodes_of_workers: list[list[Node]]
    rest: list[tuple[Node, Node]]
    nodes: list[list[list[Node]]]
    folded: list[list[tuple[Node, Node]]]
    steps: list[list[list[tuple[Node, Node]]]]


@lru_cache(maxsize=64)
def _plan(owners: tuple[int, ...], n_workers: int) -> _Plan:
    n_leaves = len(owners)
    holdings = [[(leaf, leaf + 1) for leaf, o in enumerate(owners) if o == w] for w in range(n_workers)]
    reduced = [_reduce(held, n_leaves) for held in holdings]
    first, holdings = [moves for moves, _ in reduced], [left for _, left in reduced]
    nodes_of_workers = holdings
    rest, _ = _reduce([node for held in holdings for node in held], n_leaves)
    nodes, folded, steps = [holdings], [], []
    even = 1 << (n_workers.bit_length() - 1)
    holdings = [holdings[w] + (holdings[w + even] if w + even < n_workers else []) for w in range(even)]
    reduced = [_reduce(held, n_leaves) for held in holdings]
    folded, holdings = [moves for moves, _ in reduced], [left for _, left in reduced]
    for step in range(even.bit_length() - 1):
        nodes.append(holdings)
        holdings = [holdings[w] + holdings[w ^ (1 << step)] for w in range(even)]
        reduced = [_reduce(held, n_leaves) for held in holdings]
        steps.append([moves for moves, _ in reduced])
        holdings = [left for _, left in reduced]
    return _Plan(n_leaves, first, nodes_of_workers, rest, nodes, folded, steps)


def _reduce(nodes: Sequence[Node], n_leaves: int) -> tuple[list[tuple[Node, Node]], list[Node]]:
    """Return the pairs of nodes to add up in the tree over n_leaves, in order, and the nodes then left."""
    held, moves = set(nodes), []
    width = 1
    while width < n_leaves:
        for begin in range(0, n_leaves - width, 2 * width):
            left = (begin, begin + width)
            right = (begin + width, min(begin + 2 * width, n_leaves))
            if left in held and right in held:
                held -= {left, right}
                held.add((left[0], right[1]))
                moves.append((left, right))
        width *= 2
    return moves, sorted(held)
