"""A round of averaging: milliseconds to sum a float32 vector over workers.

Between the workers (peer), through the scheduler (tasks), by plain TCP (both send as many bytes to each other
at the same time, and add up nothing), and by torch.distributed with gloo, with 2 worker processes; runs are
taken in turn, the table gives medians, and ratios: below 1, dasknn is faster. Then 4 to 32 workers as threads
of one process, which share its lock: how work grows, not how a network does.

With `--scheduler`, on the first two workers of a cluster, such as two hosts with a network between them; then
there is no gloo.
"""

import argparse
import socket
import threading
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from urllib.parse import urlsplit

import numpy as np
from dask.distributed import Client, LocalCluster
from workloads import free_port, join_gloo, leave_gloo, torch

from dasknn.cluster.collective import Part
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.graph import Graph
from dasknn.cluster.process_group import ProcessGroup
from dasknn.cluster.reduction import choose

LENGTHS = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]


def repeats_of(length):
    return max(3, min(300, 3_000_000 // length))


def sum_on_peers(group, lengths):
    """Return seconds of a round for each length."""
    found = []
    for length in lengths:
        own = [replica for replica, owner in enumerate(group.owners) if owner == group.rank]
        parts = {replica: Part(np.zeros(length, np.float32), np.zeros(4)) for replica in own}
        like = Part(np.empty(length, np.float32), np.zeros(4))
        repeats = repeats_of(length)
        for _ in range(3):
            group.all_reduce(dict(parts), like)
        began = time.perf_counter()
        for _ in range(repeats):
            group.all_reduce(dict(parts), like)
        found.append((time.perf_counter() - began) / repeats)
    return found


def swap_on_tcp(group, lengths, host):
    """Return seconds of a swap of as many bytes over a plain connection; host: of the first member."""
    if group.rank == 0:
        with socket.create_server(("", 0)) as listener:
            tell(group, listener.getsockname()[1])
            connection, _ = listener.accept()
    else:
        connection = socket.create_connection((host, int(tell(group, 0))))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found = []
    with connection:
        for length in lengths:
            out, into = bytes(4 * length), memoryview(bytearray(4 * length))

            def swap(out=out, into=into):
                sender = threading.Thread(target=connection.sendall, args=(out,))
                sender.start()
                n = 0
                while n < len(into):
                    n += connection.recv_into(into[n:])
                sender.join()

            for _ in range(3):
                swap()
            began = time.perf_counter()
            repeats = repeats_of(length)
            for _ in range(repeats):
                swap()
            found.append((time.perf_counter() - began) / repeats)
    return found


def tell(group, number):
    """Return the sum of what both members say."""
    parts = {group.rank: Part(np.zeros(1), np.array([float(number)]))}
    return group.all_reduce(parts, Part(np.zeros(1), np.zeros(1))).numbers[0]


def on_workers(function, tasks, lengths, replicas):
    """Return what the first member finds of function(group, lengths, ...)."""
    members = ProcessGroup(tasks, tasks.homes(replicas), 1)
    members.connect()
    try:
        host = () if function is sum_on_peers else (urlsplit(members.addresses[0]).hostname,)
        return members.run(function, [(lengths, *host)] * len(members.addresses), 60.0)[0]
    finally:
        members.close()


def on_tasks(tasks, lengths):
    homes = tasks.homes(2)

    def run(length, n_rounds):
        graph = Graph()
        total = graph.add("zeros", partial(np.zeros, length, np.float32), home=homes[0])
        for _ in range(n_rounds):
            parts = [graph.add("contribute", np.copy, total, home=home) for home in homes]
            total = graph.add("add", np.add, *parts, home=homes[0])
        last = graph.add("size", np.size, total, home=homes[0])
        began = time.perf_counter()
        tasks.run(graph, [last])
        return time.perf_counter() - began

    return [(run(length, 11) - run(length, 1)) / 10 for length in lengths]


def gloo_rank(rank, port, lengths, queue):
    join_gloo(rank, port)
    found = []
    for length in lengths:
        vector = torch.zeros(length)
        repeats = repeats_of(length)
        for _ in range(3):
            torch.distributed.all_reduce(vector)
        began = time.perf_counter()
        for _ in range(repeats):
            torch.distributed.all_reduce(vector)
        found.append((time.perf_counter() - began) / repeats)
    if rank == 0:
        queue.put(found)
    leave_gloo()


def on_gloo(lengths):
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(gloo_rank, (free_port(), lengths, queue), nprocs=2)
    return queue.get()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scheduler", help="address of a running one")
    arguments = parser.parse_args()
    runs = {"peer": [], "tasks": [], "tcp": [], "gloo": []}
    with ExitStack() as stack:
        place = arguments.scheduler or stack.enter_context(
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
        )
        tasks = stack.enter_context(ClusterExecutor(stack.enter_context(Client(place))))
        for _ in range(arguments.repeats):
            runs["peer"].append(on_workers(sum_on_peers, tasks, LENGTHS, 2))
            runs["tcp"].append(on_workers(swap_on_tcp, tasks, LENGTHS, 2))
            runs["tasks"].append(on_tasks(tasks, LENGTHS))
            if torch is not None and not arguments.scheduler:
                runs["gloo"].append(on_gloo(LENGTHS))
    names = [name for name, found in runs.items() if found]
    others = [name for name in names if name in ("tcp", "gloo")]
    print(
        f"{'2 workers: float32':>20} "
        + " ".join(f"{f'{name} ms':>10}" for name in names)
        + " ".join(f"{f'peer ÷ {name}':>13}" for name in others)
    )
    for i, length in enumerate(LENGTHS):
        line = " ".join(f"{1e3 * median(run[i] for run in runs[name]):10.3f}" for name in names)
        ratios = (
            median(p[i] / o[i] for p, o in zip(runs["peer"], runs[name], strict=True)) for name in others
        )
        print(f"{length:20,} {line} " + " ".join(f"{ratio:13.2f}" for ratio in ratios))
    if arguments.scheduler:
        return
    growth = [1_000, 100_000, 1_000_000]
    print(f"\n{'workers in a process':>20} " + " ".join(f"{f'{n:,} ms':>14}" for n in growth))
    for n_workers in (4, 8, 16, 32):
        settings = {"processes": False, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
        cluster = LocalCluster(n_workers=n_workers, **settings)
        with cluster, Client(cluster) as client, ClusterExecutor(client) as tasks:
            found = [on_workers(sum_on_peers, tasks, growth, n_workers) for _ in range(3)]
        times = [median(run[i] for run in found) for i in range(len(growth))]
        ways = ", ".join(choose(4 * length, n_workers) for length in growth)
        print(f"{n_workers:20} " + " ".join(f"{1e3 * t:14.2f}" for t in times) + f"   ({ways})")


if __name__ == "__main__":
    main()
