"""Seconds of training until a test accuracy is reached: 0.85 on Covertype, 0.87 on Fashion-MNIST.

From data that is loaded, in the memory of whoever trains. The accuracy is looked at after each epoch; the
time that takes does not count. All have the same network, Adam at 1e-3 and batches of 200 rows a rank; with
two ranks the learning rate is twice that, except where members of an ensemble train apart. Contenders take
turns; the table gives medians over seeds, and ratios to dasknn's default: above 1, the default is faster.
"""

import argparse
import time
import warnings
from statistics import median

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster
from sklearn.neural_network import MLPClassifier as SklearnMLP
from workloads import TorchTraining, free_port, join_gloo, leave_gloo, load, torch

from dasknn import MLPClassifier, OuterNesterov, PredictionAveraging, WeightAveraging
from dasknn.callbacks import Callback

try:
    from dask_ml.wrappers import Incremental
except ImportError:
    Incremental = None

TASKS = {"covertype": ((128, 128), 0.85), "fashion-mnist": ((256, 128), 0.87)}
BATCH, MOST_EPOCHS = 200, 15


class UntilAccurate(Callback):
    """Stop at the accuracy wanted, and keep the time that looking at it takes."""

    def __init__(self, X, y, wanted):
        self.X, self.y, self.wanted = X, y, wanted
        self.looking, self.accuracy, self.epochs = 0.0, 0.0, 0

    def on_epoch_end(self, epoch, logs=None):
        began = time.perf_counter()
        network = self.training.transport.job.network
        members = np.atleast_2d(self.training.state.params)
        probabilities = sum(network.predict(member, self.X) for member in members)
        self.accuracy = float((probabilities.argmax(axis=1) == self.y).mean())
        self.epochs += 1
        if self.accuracy >= self.wanted:
            self.training.stop_training = True
        self.looking += time.perf_counter() - began


def ours(strategy):
    def run(data, hidden, wanted, seed, arrays):
        watch = UntilAccurate(data[2], data[3], wanted)
        model = MLPClassifier(
            hidden,
            strategy=strategy,
            replicas=2,
            max_iter=MOST_EPOCHS,
            tol=0,
            random_state=seed,
            callbacks=[watch],
        )
        began = time.perf_counter()
        model.fit(*arrays)
        return time.perf_counter() - began - watch.looking, watch.epochs, watch.accuracy

    return run


def epochs_until(wanted, epoch, accuracy):
    """Return (seconds, epochs, accuracy) of repeated calls of epoch() -> seconds."""
    seconds, n_epochs, found = 0.0, 0, 0.0
    while found < wanted and n_epochs < MOST_EPOCHS:
        seconds += epoch()
        n_epochs += 1
        found = accuracy()
    return seconds, n_epochs, found


def timed(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def sklearn(data, hidden, wanted, seed, arrays):
    X, y, X_test, y_test = data
    model = SklearnMLP(hidden, batch_size=BATCH, random_state=seed)
    classes = np.unique(y)
    return epochs_until(
        wanted,
        lambda: timed(lambda: model.partial_fit(X, y, classes=classes)),
        lambda: model.score(X_test, y_test),
    )


def dask_ml(data, hidden, wanted, seed, arrays):
    _, y, X_test, y_test = data
    model = Incremental(SklearnMLP(hidden, batch_size=BATCH, random_state=seed), shuffle_blocks=False)
    classes = np.unique(y)
    return epochs_until(
        wanted,
        lambda: timed(lambda: model.partial_fit(*arrays, classes=classes)),
        lambda: model.estimator_.score(X_test, y_test),
    )


def torch_threads(data, hidden, wanted, seed, arrays):
    X, y, X_test, y_test = data
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    training = TorchTraining(X, y, hidden, BATCH)
    return epochs_until(wanted, lambda: training.epoch()[0], lambda: training.accuracy(X_test, y_test))


def ddp_rank(rank, port, queue, name, hidden, wanted, seed):
    X, y, X_test, y_test = load(name)
    join_gloo(rank, port)
    torch.manual_seed(seed)
    training = TorchTraining(X[rank::2], y[rank::2], hidden, BATCH, rate=2e-3, parallel=True)

    def epoch():
        torch.distributed.barrier()
        return training.epoch()[0]

    found = epochs_until(wanted, epoch, lambda: training.accuracy(X_test, y_test))
    if rank == 0:
        queue.put(found)
    leave_gloo()


def torch_ddp(name):
    def run(data, hidden, wanted, seed, arrays):
        queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
        arguments = (free_port(), queue, name, hidden, wanted, seed)
        torch.multiprocessing.spawn(ddp_rank, arguments, nprocs=2)
        return queue.get()

    return run


def contenders(name):
    found = {
        "dasknn, default": ours("auto"),
        "dasknn, gradients": ours("gradients"),
        "dasknn, weights every 16, outer": ours(WeightAveraging(every=16, outer=OuterNesterov())),
        "dasknn, weights every 16": ours(WeightAveraging(every=16)),
        "dasknn, weights every epoch": ours("weights"),
        "dasknn, predictions of 2": ours(PredictionAveraging()),
        "scikit-learn, one process": sklearn,
    }
    if Incremental is not None:
        found["dask-ml Incremental"] = dask_ml
    if torch is not None:
        found["PyTorch, 2 threads"] = torch_threads
        found["PyTorch DDP, 2 processes"] = torch_ddp(name)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=TASKS, default=list(TASKS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        for name in arguments.data:
            hidden, wanted = TASKS[name]
            data = load(name)
            chunk = -(-len(data[0]) // 8)
            arrays = [da.from_array(part, chunks=(chunk, *part.shape[1:])) for part in data[:2]]
            arrays = client.persist(arrays)
            # Workers import what they need.
            ours("auto")(data, hidden, 0.0, 0, arrays)
            runs = {}
            for seed in range(arguments.repeats):
                for contender, run in contenders(name).items():
                    found = run(data, hidden, wanted, seed, arrays)
                    runs.setdefault(contender, []).append(found)
            table(name, hidden, wanted, runs)


def table(name, hidden, wanted, runs):
    print(
        f"{f'{name} {hidden} to {wanted}':34} {'seconds':>8} {'epochs':>7} {'accuracy':>9} {'÷ default':>10}"
    )
    default = [seconds for seconds, _, _ in next(iter(runs.values()))]
    for contender, found in runs.items():
        accuracy = median(accuracy for _, _, accuracy in found)
        reached = accuracy >= wanted
        ratio = median(seconds / d for (seconds, _, _), d in zip(found, default, strict=True))
        print(
            f"{contender:34} {median(s for s, _, _ in found):8.2f} {median(n for _, n, _ in found):7.0f} "
            f"{accuracy:9.4f} {'' if reached else '>'}{ratio:.2f}{'' if reached else ' not reached'}",
            flush=True,
        )
    print()


if __name__ == "__main__":
    main()
