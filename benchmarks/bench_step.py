"""Steps a second of a 54-128-64-7 network, Adam, 256 rows a rank, two processes: against PyTorch's DDP.

Both train on rows of their own in memory. Runs are taken in turn; medians, and the ratio: above 1, dasknn
is faster. Ours is timed by whole epochs as its user sees them, through the client.
"""

import argparse
import warnings
from statistics import median

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster
from workloads import TorchTraining, free_port, join_gloo, leave_gloo, torch

from dasknn import GradientAveraging, MLPClassifier

ROWS, BATCH, HIDDEN = 256 * 2 * 1_000, 256, (128, 64)


def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, 54), dtype=np.float32), rng.integers(0, 7, ROWS)


def ours(X, y, epochs=4):
    model = MLPClassifier(
        HIDDEN,
        batch_size=2 * BATCH,
        max_iter=epochs,
        tol=0,
        replicas=2,
        strategy=GradientAveraging(),
        random_state=0,
    ).fit(X, y)
    return ROWS / (2 * BATCH) / median(entry["seconds"] for entry in model.history_[1:])


def ddp_rank(rank, port, queue):
    join_gloo(rank, port)
    X, y = rows()
    half = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    training = TorchTraining(X[half], y[half], HIDDEN, BATCH, parallel=True)
    training.epoch(50)
    seconds, n_steps = training.epoch(600)
    if rank == 0:
        queue.put(n_steps / seconds)
    leave_gloo()


def theirs():
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(ddp_rank, (free_port(), queue), nprocs=2)
    return queue.get()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    X, y = rows()
    found = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        arrays = da.from_array(X, chunks=(ROWS // 4, -1)), da.from_array(y, chunks=ROWS // 4)
        for _ in range(arguments.repeats):
            found.append((ours(*arrays), theirs() if torch is not None else float("nan")))
    print(f"{'54-128-64-7, 2 x 256 rows':28} {'dasknn /s':>10} {'DDP /s':>10} {'dasknn ÷ DDP':>13}")
    ratio = median(a / b for a, b in found)
    print(
        f"{'steps a second':28} {median(a for a, _ in found):10.0f} {median(b for _, b in found):10.0f}",
        end="",
    )
    print(f" {ratio:13.2f}")


if __name__ == "__main__":
    main()
