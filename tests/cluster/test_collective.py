"""Sums over workers: the tree of the replicas' sums, by any road, for any assignment."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasknn.cluster.collective import HEADER_BYTES, Group, Part
from dasknn.cluster.comm.core import Secret
from dasknn.cluster.comm.tcp import SocketEndpoint
from dasknn.cluster.graph import merge_tree
from dasknn.cluster.reduction import (
    ALGORITHMS,
    DIRECT,
    DOUBLING,
    SCATTER,
    LinkCosts,
    bytes_sent,
    choose,
    plan,
)
from dasknn.exceptions import LinkError

RUN, SECRET = b"r" * 16, Secret(b"s" * 32)
SECONDS = 20


class Members:
    """Members in threads of this process, connected over sockets."""

    def __init__(self, n_workers, secret=SECRET, attempt=0, seconds=SECONDS):
        self.endpoints = [
            SocketEndpoint(RUN, attempt, secret, f"worker-{w}", "127.0.0.1") for w in range(n_workers)
        ]
        self.seconds = seconds
        contacts = [endpoint.contact for endpoint in self.endpoints]
        self.pool = ThreadPoolExecutor(n_workers)
        self.each(lambda w: self.endpoints[w].connect(w, contacts))

    def each(self, function):
        """Return [function(0), function(1), ...], each in a thread of its own."""
        futures = [self.pool.submit(function, w) for w in range(len(self.endpoints))]
        return [future.result(timeout=SECONDS) for future in futures]

    def groups(self, owners, hosts=None):
        return [
            Group(w, owners, endpoint.links, RUN, endpoint.attempt, self.seconds, hosts=hosts)
            for w, endpoint in enumerate(self.endpoints)
        ]

    def bytes_sent(self):
        return sum(link.bytes_sent for endpoint in self.endpoints for link in endpoint.links.values())

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for endpoint in self.endpoints:
            endpoint.close()
        self.pool.shutdown()


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5, 8])
def members(request):
    with Members(request.param) as members:
        yield members


def parts_of(n_replicas, length, seed=0, dtype="float32"):
    """Vectors of very different sizes: their sum depends on the order."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-4, 5, (n_replicas, 1))
    vectors = (scale * rng.standard_normal((n_replicas, length))).astype(dtype)
    return [Part(vector, rng.standard_normal(3)) for vector in vectors]


def copies(parts, replicas):
    return {r: Part(parts[r].vector.copy(), parts[r].numbers.copy()) for r in replicas}


def tree_sum(parts):
    return (
        merge_tree(np.add, *(part.vector for part in parts)),
        merge_tree(np.add, *(part.numbers for part in parts)),
    )


def reduced(members, owners, parts, present, hosts=None, **settings):
    groups = members.groups(owners, hosts)
    held = [[r for r in present if owners[r] == w] for w in range(len(groups))]

    def run(w):
        return groups[w].all_reduce(copies(parts, held[w]), parts[0], present, **settings)

    return [(total.vector.tobytes(), total.numbers.tobytes()) for total in members.each(run)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [1, 7, 5_003, 200_001])
def test_every_member_gets_the_tree_sum_to_the_last_bit(members, algorithm, length):
    n_workers = len(members.endpoints)
    parts = parts_of(8, length)
    vector, numbers = tree_sum(parts)
    for owners in ([r * n_workers // 8 for r in range(8)], [r % n_workers for r in range(8)]):
        for hosts in (None, [w // 2 for w in range(n_workers)], [w % 2 for w in range(n_workers)]):
            found = reduced(members, owners, parts, range(8), hosts, algorithm=algorithm)
            assert found == [(vector.tobytes(), numbers.tobytes())] * n_workers


def test_the_order_of_the_sum_can_be_seen_in_these_vectors():
    parts = parts_of(8, 100)
    in_line = sum(part.vector for part in parts)
    assert in_line.tobytes() != tree_sum(parts)[0].tobytes()


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_assignment_and_any_replicas_present_give_the_same_bits(members, data):
    n_workers = len(members.endpoints)
    n_replicas = data.draw(st.integers(1, 11))
    owners = data.draw(st.lists(st.integers(0, n_workers - 1), min_size=n_replicas, max_size=n_replicas))
    present = sorted(data.draw(st.sets(st.integers(0, n_replicas - 1), min_size=1)))
    hosts = data.draw(st.lists(st.integers(0, 2), min_size=n_workers, max_size=n_workers))
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    parts = parts_of(n_replicas, data.draw(st.integers(1, 40)), dtype="float64")
    vector, numbers = tree_sum([parts[r] for r in present])
    before = members.bytes_sent()
    found = reduced(members, owners, parts, present, hosts, algorithm=algorithm)
    assert found == [(vector.tobytes(), numbers.tobytes())] * n_workers
    # What is announced before a training is what will be sent.
    of_present = plan(tuple(owners[r] for r in present), tuple(hosts))
    length, aside = len(vector), parts[0].numbers.nbytes
    announced = bytes_sent(of_present, algorithm, length, 8, aside, HEADER_BYTES)
    assert members.bytes_sent() - before == announced


def test_one_vector_leaves_each_host(members):
    n_workers = len(members.endpoints)
    if n_workers != 8:
        pytest.skip("two hosts of four workers")
    hosts = [0, 0, 0, 0, 1, 1, 1, 1]
    between = [(a, b) for a in range(8) for b in range(8) if hosts[a] != hosts[b]]

    def sent_between():
        return sum(members.endpoints[a].links[b].bytes_sent for a, b in between)

    parts, n_bytes = parts_of(8, 100_000), 400_000
    for grouped, n_vectors in ((hosts, 2), (None, 8)):
        before = sent_between()
        reduced(members, range(8), parts, range(8), grouped, algorithm=DOUBLING)
        assert n_vectors * n_bytes < sent_between() - before < (n_vectors + 0.1) * n_bytes


def test_long_vectors_are_scattered_and_short_ones_are_not():
    assert [choose(n, 2) for n in (100, 10**9)] == [DOUBLING, DOUBLING]
    for n_workers in (8, 32):
        assert [choose(n, n_workers) for n in (100, 10**8)] == [DOUBLING, SCATTER]
    # A third worker would give its nodes first, and get the sum last.
    assert [choose(n, 3) for n in (100, 10**8)] == [DIRECT, SCATTER]
    assert choose(100, 1) == DOUBLING


def test_on_a_long_way_short_vectors_go_to_all_at_once():
    far = LinkCosts(latency=10e-3, overhead=1e-4, per_byte=1e-8)
    for n_workers in (3, 8, 32):
        assert [choose(n, n_workers, far) for n in (100, 10**9)] == [DIRECT, SCATTER]


def test_bytes_sent_are_counted(members):
    n_workers = len(members.endpoints)
    if n_workers != 2:
        pytest.skip("two members send each other one vector")
    before = [sum(link.bytes_sent for link in endpoint.links.values()) for endpoint in members.endpoints]
    reduced(members, [0, 1], parts_of(2, 1000), range(2))
    after = [sum(link.bytes_sent for link in endpoint.links.values()) for endpoint in members.endpoints]
    for sent in np.subtract(after, before):
        assert 4_000 < sent < 4_100


# --- what can go wrong ------------------------------------------------------------------------------


def test_a_silent_peer_is_named_after_the_deadline():
    with Members(2, seconds=0.2) as members:
        groups = members.groups([0, 1])
        part = parts_of(1, 10)[0]
        members.each(lambda w: groups[w].all_reduce({w: part}, part))
        with pytest.raises(LinkError, match=r"worker-1 was silent for 0\.2 s"):
            groups[0].all_reduce({0: part}, part)


def test_an_abort_wakes_all_who_wait():
    with Members(4) as members:
        groups, part = members.groups([0, 1, 2, 3]), parts_of(1, 10)[0]
        timer = threading.Timer(0.3, members.endpoints[3].abort)
        timer.start()

        def wait(w):
            if w == 3:
                return
            with pytest.raises(LinkError, match="worker-"):  # noqa: PT012
                for _ in range(10):
                    groups[w].all_reduce({w: part}, part)
            members.endpoints[w].close()

        members.each(wait)


def test_a_member_that_is_out_of_step_is_found_out():
    with Members(2) as members:
        groups = members.groups([0, 1])

        def run(w):
            part = parts_of(1, 10 + w)[0]
            with pytest.raises(LinkError, match=r"out of step|closed|broke"):  # noqa: PT012
                for _ in range(3):
                    groups[w].all_reduce({w: part}, part)
            members.endpoints[w].close()

        members.each(run)
