"""How training grows: with workers, threads, rows and partitions.

Tables, of which --only chooses some:
silence  two workers, held against two processes that do the same work on the same rows and never speak: what
         this machine can give at most
fixed    what an epoch costs that has next to no rows
growth   ten times the rows; more partitions
two      two workers of one thread, and one worker of two threads, against one worker of one thread
four     the same with four

silence, fixed and growth train a 54-128-64-7 network on Covertype, or on two rows; two and four train three
networks on generated rows, as many a replica in each layout. Epochs are timed by their user's clock, through
the client. Runs are taken in turn; the tables give medians, and medians of ratios.
"""

import argparse
import os
import time
import warnings
from contextlib import contextmanager
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
# features, hidden layers, classes, steps of an epoch, which takes the numpy engine about half a second
NETWORKS = [
    (28, (100,), 2, 1_408),
    (54, (128, 64), 7, 608),
    (784, (256, 128), 10, 80),
]
STRATEGIES = [("gradients", GradientAveraging()), ("weights every 16", WeightAveraging(every=16))]
ROWS = 256
# workers, threads of each; the first is what the others are held against
LAYOUTS = {
    "two": [(1, 1), (2, 1), (1, 2)],
    "four": [(1, 1), (1, 4), (4, 1)],
}
TABLES = ("silence", "fixed", "growth", *LAYOUTS)


@contextmanager
def cluster_of(n_workers, n_threads):
    cluster = LocalCluster(n_workers=n_workers, threads_per_worker=n_threads, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        yield client


def fit(X, y, strategy, rows, replicas, engine, hidden=HIDDEN, epochs=4):
    return MLPClassifier(
        hidden,
        engine=engine,
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


def against_silence(client, X, y, engine, repeats):
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
                one = fit(*first, strategy, rows, 1, engine)
                two = fit(*both, strategy, rows, 2, engine)
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


def fixed_cost(engine, repeats):
    X, y = np.zeros((2, 54), np.float32), np.arange(2)
    arrays = da.from_array(X, chunks=(1, -1)), da.from_array(y, chunks=1)
    models = [fit(*arrays, GradientAveraging(), 1, 2, engine, epochs=30) for _ in range(repeats)]
    times = [seconds_of_epoch(model) for model in models]
    print(f"\nfixed cost of an epoch (2 workers, 2 rows): {1e3 * median(times):.1f} ms")


def growth(X, y, engine, repeats):
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
                model = fit(*arrays, GradientAveraging(), 256, 2, engine)
                found[n_rows, n_partitions].append(seconds_of_epoch(model))
        base = found[sizes[0]] if what == "rows" else found[sizes[1]]
        for (n_rows, n_partitions), times in found.items():
            ratio = median(t / b for t, b in zip(times, base, strict=True))
            name = f"{n_rows:,} rows" if what == "rows" else f"{n_partitions:,} partitions"
            print(f"{name:28} {1e3 * median(times):12.1f} {ratio:6.2f}")


def rows_a_second(network, strategy, replicas, engine):
    """Return the rows of all replicas that a fit on the current client's cluster takes in a second."""
    n_inputs, hidden, n_classes, n_steps = network
    n_rows = n_steps * ROWS
    rng = da.random.default_rng(0)
    X = rng.standard_normal((replicas * n_rows, n_inputs), chunks=(n_rows, -1)).astype(np.float32)
    y = rng.integers(0, n_classes, replicas * n_rows, chunks=n_rows)
    model = fit(X, y, strategy, ROWS, replicas, engine, hidden)
    return len(X) / seconds_of_epoch(model)


def rates_of(layout, engine):
    """Return, by the names of network and strategy, the rows a second of a cluster of this layout."""
    rates = {}
    # One cluster at a time: each idle one would keep about 5 % of a core busy.
    with cluster_of(*layout):
        for network in NETWORKS:
            n_inputs, hidden, n_classes, _ = network
            widths = "-".join(map(str, (n_inputs, *hidden, n_classes)))
            for name, strategy in STRATEGIES:
                replicas = layout[0] * layout[1]
                rates[f"{widths}, {name}"] = rows_a_second(network, strategy, replicas, engine)
    return rates


def layout_name(n_workers, n_threads):
    return f"{n_workers} worker{'s' * (n_workers > 1)} x {n_threads} thread{'s' * (n_threads > 1)}"


def workers_and_threads(layouts, engine, repeats):
    first, *others = layouts
    runs = [{layout: rates_of(layout, engine) for layout in layouts} for _ in range(repeats)]
    n_cores = len(os.sched_getaffinity(0))
    print(f"\non {n_cores} cores, {ROWS} rows a replica; rows a second, and their ratio to the first's")
    print(f"{'':34} " + " ".join(f"{layout_name(*layout):>20}" for layout in layouts))
    for case in runs[0][first]:
        base = median(run[first][case] for run in runs)
        ratios = [median(run[layout][case] / run[first][case] for run in runs) for layout in others]
        print(f"{case:34} {base:20,.0f} " + " ".join(f"{ratio:20.2f}" for ratio in ratios))


def between_two_workers(chosen, engine, repeats):
    X, y, _, _ = load("covertype") if chosen & {"silence", "growth"} else [None] * 4
    with cluster_of(2, 1) as client:
        if "silence" in chosen:
            against_silence(client, X, y, engine, repeats)
        if "fixed" in chosen:
            fixed_cost(engine, repeats)
        if "growth" in chosen:
            growth(X, y, engine, max(1, repeats // 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", nargs="+", choices=("auto", "numpy", "numba"), default=["auto"])
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help="%(choices)s"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = set(arguments.only)
    for engine in arguments.engine:
        print(f"\nengine: {engine}")
        if chosen - set(LAYOUTS):
            between_two_workers(chosen, engine, arguments.repeats)
        for name, layouts in LAYOUTS.items():
            if name in chosen:
                workers_and_threads(layouts, engine, arguments.repeats)


if __name__ == "__main__":
    main()
