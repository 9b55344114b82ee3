"""Data of four times the cluster's memory: training it, and predicting it to Parquet, in bounded memory.

Two workers; rows are made anew whenever an epoch comes to them. The table says how much of each worker's
limit its process took at most (resident, interpreter and libraries included), what it wrote to disk because
memory was short, and how often it was paused.

    python benchmarks/bench_memory.py --fits 200

trains the same small data again and again instead: resident memory of each worker, and of the process of
client and scheduler; then what each worker has more entries of than halfway. Dask keeps records of whatever
it runs: --few-records leaves out profiles and shortens logs, which shows their share.
"""

import argparse
import gc
import resource
import sys
import tempfile
import time
import warnings
from collections import deque

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import psutil
from dask.distributed import Client, LocalCluster
from dask.utils import format_bytes, parse_bytes

from dasknn import MLPClassifier

N_FEATURES, PARTITION_BYTES = 50, 32 * 2**20


def look(dask_worker):
    """What a worker knows of its memory."""
    metrics = dask_worker.data.cumulative_metrics
    written = sum(value for key, value in metrics.items() if key[0] == "disk-write" and key[-1] == "bytes")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "limit": dask_worker.memory_manager.memory_limit,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "written": int(written),
    }


def pauses(dask_scheduler, worker):
    """How often the scheduler was told that a worker has paused."""
    told = dask_scheduler.get_events(worker)
    return sum(
        event.get("action") == "worker-status-change" and event.get("status") == "paused"
        for _, event in told
        if isinstance(event, dict)
    )


def make(block):
    """Return rows that depend on the first of their numbers, as each computation must."""
    rng = np.random.default_rng(int(block[0, 0]))
    return rng.random((len(block), N_FEATURES), dtype=np.float32)


def data(n_bytes):
    rows = PARTITION_BYTES // (4 * N_FEATURES)
    n_partitions = -(-n_bytes // PARTITION_BYTES)
    numbers = da.arange(rows * n_partitions, chunks=rows)[:, np.newaxis]
    X = numbers.map_blocks(
        make, chunks=(numbers.chunks[0], (N_FEATURES,)), dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    return X, (X[:, 0] + X[:, 1] * X[:, 2] > 0.75).astype(np.int8)


def show(step, client, seconds):
    for worker, found in client.run(look).items():
        paused = client.run_on_scheduler(pauses, worker=worker)
        print(
            f"{step:<24}{worker:<24}{format_bytes(found['limit']):>12}{format_bytes(found['peak']):>12}"
            f"{found['peak'] / found['limit']:>7.0%}{format_bytes(found['written']):>12}{paused:>8}"
            f"{seconds:>8.0f}",
            flush=True,
        )


def resident():
    """Megabytes of memory of this process."""
    return psutil.Process().memory_info().rss / 1e6


def entries(least, dask_worker):
    """Containers that have at least so many more entries than at the last call: (more, kind, an entry)."""
    gc.collect()
    # Of containers that hold plain values only, the collector does not know.
    found = {id(one): one for owner in gc.get_objects() for one in (owner, *gc.get_referents(owner))}
    kinds = (dict, list, set, deque)
    lengths = {key: len(one) for key, one in found.items() if isinstance(one, kinds) and len(one)}
    before = getattr(dask_worker, "dasknn_lengths", {})
    dask_worker.dasknn_lengths = lengths
    grown = [(n - before[key], key) for key, n in lengths.items() if n - before.get(key, n) >= least]
    return [
        (more, type(found[key]).__name__, repr(next(iter(list(found[key])[-1:])))[:90])
        for more, key in sorted(grown, reverse=True)
    ]


FEW_RECORDS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.log-length": 10,
    "distributed.admin.log-length": 50,
    "distributed.admin.low-level-log-length": 50,
}


def again_and_again(n_fits, few_records):
    with (
        dask.config.set(FEW_RECORDS if few_records else {}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=40) as cluster,
        Client(cluster) as client,
    ):
        X = da.random.default_rng(0).standard_normal((2_000, 10), chunks=(500, -1), dtype="float32")
        X, y = client.persist([X, (X[:, 0] > 0).astype(np.int8)])
        print(f"{'fits':>6}{'workers, MB':>24}{'client and scheduler':>24}")
        halfway = None
        for n in range(1, n_fits + 1):
            MLPClassifier(
                (16,), strategy="gradients", transport="peer", batch_size=500, max_iter=2, random_state=0
            ).fit(X, y)
            if n % max(1, n_fits // 8) == 0 or n == 1:
                workers = list(client.run(resident).values())
                told = "".join(f"{mb:>12.1f}" for mb in workers)
                print(f"{n:>6}{told}{resident():>24.1f}", flush=True)
            if n == n_fits // 2:
                client.run(entries, 1)
                # Looking takes memory, too.
                halfway = list(client.run(resident).values())
        more = [
            (after - before) / (n_fits - n_fits // 2)
            for before, after in zip(halfway, client.run(resident).values(), strict=True)
        ]
        print("\nMB a fit in the second half: " + ", ".join(f"{mb:.3f}" for mb in more))
        print("containers of a worker with more entries than halfway:")
        for grown in next(iter(client.run(entries, max(1, n_fits // 10)).values())):
            print("{:>8}  {:<12} {}".format(*grown))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", default="800 MiB", help="memory of a worker")
    parser.add_argument(
        "--times", type=float, default=4.0, help="size of the data, in memories of all workers"
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--transport", choices=["peer", "tasks"], action="append")
    parser.add_argument("--fits", type=int, help="train small data so many times instead")
    parser.add_argument("--few-records", action="store_true", help="no profiles, and short logs of Dask")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.fits:
        again_and_again(args.fits, args.few_records)
        return
    limit = parse_bytes(args.limit)
    X, y = data(int(2 * limit * args.times))
    print(f"X: {format_bytes(X.nbytes)}, {X.npartitions} partitions; {args.epochs} epochs\n")
    names = ("limit", "peak", "share", "written", "pauses", "seconds")
    widths = (12, 12, 7, 12, 8, 8)
    header = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    print(f"{'':<24}{'worker':<24}{header}")
    for transport in args.transport or ["peer", "tasks"]:
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=limit, dashboard_address=":0", silence_logs=40
        )
        with cluster, Client(cluster) as client:
            pids = client.run(lambda: __import__("os").getpid())
            began = time.perf_counter()
            model = MLPClassifier(
                (64,),
                strategy="gradients",
                transport=transport,
                batch_size=2048 if transport == "peer" else 32_768,
                max_iter=args.epochs,
                random_state=0,
            ).fit(X, y)
            show(f"train, {transport}", client, time.perf_counter() - began)
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                found = dd.from_dask_array(model.predict(X), columns="prediction").to_frame()
                found.to_parquet(folder)
                show("predict to Parquet", client, time.perf_counter() - began)
            if client.run(lambda: __import__("os").getpid()) != pids:
                print("workers were killed and started again: their peaks are lost")
                sys.exit(1)


if __name__ == "__main__":
    main()
