"""How training grows: with workers, rows and partitions; a 54-128-64-7 network on Covertype.

Two workers are held against two processes that do the same work on the same rows and never speak: what this
machine can give at most. Epochs are timed by their user's clock, through the client. Runs are taken in turn;
the tables give medians, and medians of ratios.
"""

import argparse
import time
import warnings
from functools import partial
from statistics import median

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster
from workloads import load

from dasknn import GradientAveraging, MLPClassifier, WeightAveraging
from dasknn.cluster.collective import Group
from dasknn.cluster.distributed import ClusterExecutor
from dasknn.cluster.graph import Graph
from dasknn.engine.state import Shard
from dasknn.training.peers import Wave, train_wave

HIDDEN = (128, 64)
CASES = [
    ("gradients, 256 rows", GradientAveraging(), 256),
    ("gradients, 2,048 rows", GradientAveraging(), 2_048),
    ("weights every 16, 256 rows", WeightAveraging(every=16), 256),
]


def fit(X, y, strategy, rows, replicas, epochs=4):
    return MLPClassifier(
        HIDDEN,
        strategy=strategy,
        transport="peer",
        batch_size=rows * replicas,
        replicas=replicas,
        max_iter=epochs,
        tol=0,
        random_state=0,
    ).fit(X, y)


def seconds_of_epoch(model):
    return median(entry["seconds"] for entry in model.history_[1:])


def alone(tasks, job, strategy, shards, n_rows):
    """Return the seconds of an epoch of processes that never speak: one task each, all at the same time.

    shards: held results, one a process, each of n_rows rows.
    """
    graph = Graph()
    homes = tasks.homes(len(shards))
    state = strategy.init_state(job, job.init_params(0), 1)
    n_rounds = strategy.schedule(job, [n_rows]).n_rounds
    wave = Wave(strategy, job, [{0: n_rows}], 0, n_rounds, [0], 1)
    wanted = [
        graph.add("alone", partial(train_alone, wave), state, shard, home=home, strict=True)
        for shard, home in zip(shards, homes, strict=True)
    ]
    began = time.perf_counter()
    tasks.run(graph, wanted)
    return time.perf_counter() - began


def train_alone(wave, state, shard):
    return train_wave(Group(0, [0], {}), wave, state, shard)


def against_silence(client, X, y, repeats):
    half = len(X) // 2
    found = {name: [] for name, _, _ in CASES}
    with ClusterExecutor(client) as tasks:
        homes = tasks.homes(2)
        pieces = [(X[:half], y[:half]), (X[half : 2 * half], y[half : 2 * half])]
        shards = tasks.put([Shard(*piece) for piece in pieces], homes)
        both = da.from_array(X[: 2 * half], chunks=(half, -1)), da.from_array(y[: 2 * half], chunks=half)
        first = da.from_array(X[:half], chunks=(half, -1)), da.from_array(y[:half], chunks=half)
        for _ in range(repeats):
            for name, strategy, rows in CASES:
                one = fit(*first, strategy, rows, 1)
                two = fit(*both, strategy, rows, 2)
                job = one._job(one._sizes(one._network_, half, 1, strategy), 0)
                silent = median(alone(tasks, job, strategy, shards, half) for _ in range(3))
                times = (seconds_of_epoch(one), seconds_of_epoch(two), silent)
                found[name].append(times)
    print(
        f"{'ms an epoch':28} {'1 worker':>9} {'2 workers':>10} {'2 silent':>9} {'share':>6} {'speed-up':>9}"
    )
    for name, runs in found.items():
        one, two, silent = (1e3 * median(run[i] for run in runs) for i in range(3))
        share = median(run[2] / run[1] for run in runs)
        # One worker had half of the rows.
        speed_up = median(2 * run[0] / run[1] for run in runs)
        print(f"{name:28} {one:9.1f} {two:10.1f} {silent:9.1f} {share:6.2f} {speed_up:9.2f}")


def fixed_cost(repeats):
    X, y = np.zeros((2, 54), np.float32), np.arange(2)
    arrays = da.from_array(X, chunks=(1, -1)), da.from_array(y, chunks=1)
    times = [seconds_of_epoch(fit(*arrays, GradientAveraging(), 1, 2, epochs=30)) for _ in range(repeats)]
    print(f"\nfixed cost of an epoch (2 workers, 2 rows): {1e3 * median(times):.1f} ms")


def growth(X, y, repeats):
    print(f"\n{'gradients, 2 x 256 rows':28} {'ms an epoch':>12} {'ratio':>6}")
    tables = [
        ("rows", [(len(X) // 10, 20), (len(X), 20)]),
        ("partitions", [(len(X), n) for n in (2, 20, 200, 2_000)]),
    ]
    for what, sizes in tables:
        found = {size: [] for size in sizes}
        for _ in range(repeats):
            for n_rows, n_partitions in sizes:
                chunk = -(-n_rows // n_partitions)
                arrays = (
                    da.from_array(X[:n_rows], chunks=(chunk, -1)),
                    da.from_array(y[:n_rows], chunks=chunk),
                )
                model = fit(*arrays, GradientAveraging(), 256, 2)
                found[n_rows, n_partitions].append(seconds_of_epoch(model))
        base = found[sizes[0]] if what == "rows" else found[sizes[1]]
        for (n_rows, n_partitions), times in found.items():
            ratio = median(t / b for t, b in zip(times, base, strict=True))
            name = f"{n_rows:,} rows" if what == "rows" else f"{n_partitions:,} partitions"
            print(f"{name:28} {1e3 * median(times):12.1f} {ratio:6.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    X, y, _, _ = load("covertype")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        against_silence(client, X, y, arguments.repeats)
        fixed_cost(arguments.repeats)
        growth(X, y, max(1, arguments.repeats // 2))


if __name__ == "__main__":
    main()
