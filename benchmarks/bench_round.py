"""A round of averaging: milliseconds to sum a float32 vector over workers.

Between the workers (peer), through the scheduler (tasks), and by torch.distributed with gloo, with 2 worker
processes; runs are taken in turn, the table gives medians, and ratios to gloo: below 1, dasknn is faster.
Then 4 to 32 workers as threads of one process, which share its lock: how work grows, not how a network does.
"""

import argparse
import time
from functools import partial
from statistics import median

import numpy as np
from dask.distributed import Client, LocalCluster
from workloads import free_port, join_gloo, leave_gloo, torch

from dasknn.cluster.collective import Part, choose
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.graph import Graph
from dasknn.cluster.process_group import ProcessGroup

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


def on_peers(tasks, lengths, replicas):
    members = ProcessGroup(tasks, tasks.homes(replicas), 1)
    members.connect()
    try:
        return members.run(sum_on_peers, [(lengths,)] * len(members.addresses), 60.0)[0]
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
    arguments = parser.parse_args()
    runs = {"peer": [], "tasks": [], "gloo": []}
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client, ClusterExecutor(client) as tasks:
        for _ in range(arguments.repeats):
            runs["peer"].append(on_peers(tasks, LENGTHS, 2))
            runs["tasks"].append(on_tasks(tasks, LENGTHS))
            if torch is not None:
                runs["gloo"].append(on_gloo(LENGTHS))
    print(f"{'2 workers: float32':>20} {'peer ms':>9} {'tasks ms':>9} {'gloo ms':>9} {'peer ÷ gloo':>12}")
    for i, length in enumerate(LENGTHS):
        peer, on_scheduler = (median(run[i] for run in runs[name]) for name in ("peer", "tasks"))
        line = f"{length:20,} {1e3 * peer:9.3f} {1e3 * on_scheduler:9.1f}"
        if runs["gloo"]:
            ratio = median(p[i] / g[i] for p, g in zip(runs["peer"], runs["gloo"], strict=True))
            line += f" {1e3 * median(run[i] for run in runs['gloo']):9.3f} {ratio:12.2f}"
        print(line)
    growth = [1_000, 100_000, 1_000_000]
    print(f"\n{'workers in a process':>20} " + " ".join(f"{f'{n:,} ms':>14}" for n in growth))
    for n_workers in (4, 8, 16, 32):
        settings = {"processes": False, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
        cluster = LocalCluster(n_workers=n_workers, **settings)
        with cluster, Client(cluster) as client, ClusterExecutor(client) as tasks:
            found = [on_peers(tasks, growth, n_workers) for _ in range(3)]
        times = [median(run[i] for run in found) for i in range(len(growth))]
        ways = ", ".join(choose(4 * length, n_workers) for length in growth)
        print(f"{n_workers:20} " + " ".join(f"{1e3 * t:14.2f}" for t in times) + f"   ({ways})")


if __name__ == "__main__":
    main()
