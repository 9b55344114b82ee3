"""Predictions of `dasknn.recommend` beside measurements: seconds and bytes of an epoch, for each strategy.

On clusters of processes of this machine, or with `--scheduler` on one that runs. Each strategy trains a few
epochs; the table gives medians without the first one, and what was predicted ÷ what was measured.
"""

import argparse
import contextlib
import io
import warnings
from statistics import median

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster

import dasknn
from dasknn import MLPClassifier

EPOCHS = 6


def data(n_rows, n_features, n_parts):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)).astype(np.float32)
    y = rng.integers(0, 7, n_rows)
    rows = -(-n_rows // n_parts)
    return da.from_array(X, (rows, -1)), da.from_array(y, rows)


def measure(model, X, y, strategy, transport):
    """Return seconds and bytes of an epoch of a strategy."""
    model = model.set_params(strategy=strategy, transport="auto" if transport == "hop" else transport)
    model.fit(X, y)
    epochs = model.history_[1:]
    return median(e["seconds"] for e in epochs), median(e["bytes_sent"] for e in epochs)


def compare(client, arguments):
    n_threads = sum(client.nthreads().values())
    X, y = data(arguments.rows, arguments.features, max(n_threads, arguments.replicas or 0))
    X, y = client.persist([X, y])
    settings = {
        "max_iter": EPOCHS,
        "random_state": 0,
        "dtype": "float32",
        "tol": 0.0,
        "n_iter_no_change": EPOCHS,
        "replicas": arguments.replicas,
        "batch_size": arguments.batch,
    }
    # A fitted one knows its classes, so its network is that of the fits below.
    model = MLPClassifier(tuple(arguments.hidden), **settings | {"max_iter": 1}).fit(X, y)
    with contextlib.redirect_stdout(io.StringIO()):
        found = dasknn.recommend(client, model, X)
    print(f"{len(client.nthreads())} workers")
    for row in found.rows:
        fresh = MLPClassifier(tuple(arguments.hidden), **settings)
        if row.seconds > 1:
            fresh.set_params(max_iter=2)
        seconds, n_bytes = measure(fresh, X, y, row.strategy, row.transport)
        print(
            f"  {row.strategy!s:70} {row.transport:6} {1e3 * row.seconds:9.1f} {1e3 * seconds:9.1f} ms "
            f"{row.seconds / seconds:6.2f}   {row.bytes_sent / 1e6:9.3f} {n_bytes / 1e6:9.3f} MB "
            f"{row.bytes_sent / n_bytes if n_bytes else float(row.bytes_sent == 0):6.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheduler", help="address of a running one")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=54)
    parser.add_argument("--hidden", type=int, nargs="*", default=[128, 64])
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--replicas", type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("predicted and measured seconds of an epoch, and their ratio; the same of the bytes sent")
    if arguments.scheduler:
        with Client(arguments.scheduler) as client:
            compare(client, arguments)
        return
    for n_workers in arguments.workers:
        cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")
        with cluster, Client(cluster) as client:
            compare(client, arguments)


if __name__ == "__main__":
    main()
