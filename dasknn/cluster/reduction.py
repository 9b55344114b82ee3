"""Plans of all-reduces: which worker holds which nodes of the tree when, what it sends, and what that costs.

A node is a range of replicas whose sum a worker has; see `collective` for the tree and the algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

DOUBLING, SCATTER, DIRECT = "doubling", "scatter", "direct"
ALGORITHMS = (DOUBLING, SCATTER, DIRECT)

# First leaf of a sum, and the one after its last. Leaves are the replicas of a round, in order.
Node = tuple[int, int]
# Two neighboring nodes to add up.
Move = tuple[Node, Node]


class LinkCosts(NamedTuple):
    """What messages between workers of different hosts cost.

    Attributes
    ----------
    latency : float
        Seconds from sending a short message until the other end has it.
    overhead : float
        Seconds that each further message takes, of those that travel side by side.
    per_byte : float
        Seconds that a byte takes out of a worker.
    """

    latency: float
    overhead: float
    per_byte: float


#: What is assumed where nothing was measured: a good network, on which Python takes most of a short message.
ASSUMED = LinkCosts(latency=33e-6, overhead=33e-6, per_byte=1e-9)


class Plan(NamedTuple):
    """Which worker holds which nodes when; the same on all members.

    Attributes
    ----------
    n_leaves : int
    nodes : list
        nodes[w]: the nodes that worker w holds before any message.
    leaders : list of int
        The workers that exchange sums for their hosts, by place.
    leader_of : list of int
        leader_of[w]: the leader of worker w.
    followers : list
        followers[w]: the other workers of the host for which worker w exchanges sums.
    gathered : list
        gathered[place]: the nodes of a leader, once it has those of its host.
    before_steps : list
        For doubling: before_steps[s][place] is what a leader holds before step s.
    """

    n_leaves: int
    nodes: list[list[Node]]
    leaders: list[int]
    leader_of: list[int]
    followers: list[list[int]]
    gathered: list[list[Node]]
    before_steps: list[list[list[Node]]]

    @property
    def n_even(self) -> int:
        """The number of leaders that take part in doubling; the others give theirs first."""
        return _power_of_two(len(self.leaders))


@lru_cache(maxsize=64)
def plan(owners: tuple[int, ...], hosts: tuple[int, ...]) -> Plan:
    """Return the plan of a sum over replicas.

    owners: the worker of each replica, in order. hosts: the host of each worker.
    """
    n_leaves, n_workers = len(owners), len(hosts)
    held = [[(leaf, leaf + 1) for leaf, o in enumerate(owners) if o == w] for w in range(n_workers)]
    nodes = [reduced(own, n_leaves) for own in held]
    # Where every host has one worker, or all are on one, there is no shorter way.
    apart = 1 < len(set(hosts)) < n_workers
    leader_of = [hosts.index(host) for host in hosts] if apart else list(range(n_workers))
    leaders = sorted(set(leader_of))
    followers = [[w for w, leader in enumerate(leader_of) if leader == own != w] for own in range(n_workers)]
    of_hosts = [[leader, *followers[leader]] for leader in leaders]
    gathered = [reduced([node for w in host for node in nodes[w]], n_leaves) for host in of_hosts]
    before_steps = list(_before_steps(gathered, n_leaves))
    return Plan(n_leaves, nodes, leaders, leader_of, followers, gathered, before_steps)


def _power_of_two(n: int) -> int:
    """Return the largest one that is not above n."""
    return 1 << (n.bit_length() - 1)


def _before_steps(gathered: Sequence[list[Node]], n_leaves: int) -> Iterator[list[list[Node]]]:
    even = _power_of_two(len(gathered))
    extra = [*gathered[even:], *([] for _ in range(2 * even - len(gathered)))]
    holdings = [own + more for own, more in zip(gathered[:even], extra, strict=True)]
    for step in range(even.bit_length() - 1):
        holdings = [reduced(own, n_leaves) for own in holdings]
        yield holdings
        holdings = [holdings[place] + holdings[place ^ (1 << step)] for place in range(even)]


@lru_cache(maxsize=64)
def moves_of(n_leaves: int) -> dict[Node, Move]:
    """Return the pairs of nodes that are added up in the tree over n_leaves, by each of the two."""
    moves: dict[Node, Move] = {}
    width = 1
    while width < n_leaves:
        for begin in range(0, n_leaves - width, 2 * width):
            left = (begin, begin + width)
            right = (begin + width, min(begin + 2 * width, n_leaves))
            moves[left] = moves[right] = left, right
        width *= 2
    return moves


def reduced(nodes: Sequence[Node], n_leaves: int) -> list[Node]:
    """Return the nodes that are left when all neighbors among these have been added up."""
    moves, held = moves_of(n_leaves), set[Node]()
    for node in nodes:
        while node in moves and held.issuperset(set(moves[node]) - {node}):
            left, right = moves[node]
            held -= {left, right}
            node = left[0], right[1]
        held.add(node)
    return sorted(held)


def edges(length: int, n_parts: int) -> list[int]:
    """Return where the parts of a vector begin that leaders add up, and where the last one ends."""
    return [length * part // n_parts for part in range(n_parts + 1)]


# --- costs ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def choose(n_bytes: int, n_workers: int, costs: LinkCosts = ASSUMED) -> str:
    """Return the algorithm that takes the shortest time for vectors of n_bytes, by `seconds`."""
    return min(ALGORITHMS, key=lambda algorithm: seconds(algorithm, n_bytes, n_workers, costs))


def seconds(algorithm: str, n_bytes: int, n_workers: int, costs: LinkCosts = ASSUMED) -> float:
    """Return the seconds of an all-reduce of n_bytes over so many workers, each on a host of its own."""
    if n_workers == 1:
        return 0.0
    latency, overhead, per_byte = costs
    others = n_workers - 1
    if algorithm == DOUBLING:
        # A worker beyond the power of two gives its nodes first, and gets the sum last.
        steps = (n_workers.bit_length() - 1) + 2 * (n_workers.bit_count() > 1)
        return steps * (latency + n_bytes * per_byte)
    if algorithm == DIRECT:
        return latency + (others - 1) * overhead + others * n_bytes * per_byte
    return 2 * (latency + (others - 1) * overhead + others * n_bytes / n_workers * per_byte)


def bytes_sent(plan: Plan, algorithm: str, length: int, itemsize: int, aside: int, header: int) -> int:
    """Return the bytes that all workers together send in one all-reduce.

    Parameters
    ----------
    plan : Plan
    algorithm : str
    length, itemsize : int
        Of the vector that each replica brings.
    aside : int
        Bytes of the numbers that go with each node.
    header : int
        Bytes before each message.
    """

    def message(n_nodes: int, elements: int = length) -> int:
        return header + n_nodes * (elements * itemsize + aside)

    total = sum(message(len(plan.nodes[w])) + message(1) for own in plan.followers for w in own)
    n = len(plan.leaders)
    if n == 1:
        return total
    if algorithm == DOUBLING:
        extra = range(plan.n_even, n)
        total += sum(message(len(plan.gathered[place])) + message(1) for place in extra)
        return total + sum(message(len(own)) for step in plan.before_steps for own in step)
    if algorithm == DIRECT:
        return total + (n - 1) * sum(message(len(own)) for own in plan.gathered)
    ends = edges(length, n)
    parts = [end - begin for begin, end in pairwise(ends)]
    for place, own in enumerate(plan.gathered):
        total += sum(message(len(own), part) for other, part in enumerate(parts) if other != place)
        total += (n - 1) * (header + parts[place] * itemsize)
    return total
