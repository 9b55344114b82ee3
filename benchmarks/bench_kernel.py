"""One epoch of training in this process: dasknn's engines against scikit-learn's MLP, PyTorch and JAX.

float32, Adam, one thread, five shapes of network. PyTorch (eager) and JAX (an epoch is one compiled call) run
where they are installed; they are spared the L2 penalty of dasknn and scikit-learn. Runs are taken in turn;
the table gives medians of ratios: above 1, dasknn's numba engine is faster. "products" is the time of the
matrix products alone, computed by NumPy, as a share of that engine's time: 100 % / products is how much
faster anything could get that computes the same products that way. The last line tells how many cores each
kept busy.
"""

import argparse
import time
import warnings
from itertools import pairwise
from statistics import median

import numpy as np
from jax_training import fit_in_jax, jax
from sklearn.neural_network import MLPClassifier as SklearnMLP
from threadpoolctl import threadpool_limits

from dasknn import MLPClassifier

try:
    import torch

    torch.set_num_threads(1)
except ImportError:
    torch = None

# rows, features, hidden layers, classes, batch
SHAPES = [
    (20_000, 28, (100,), 2, 200),
    (20_000, 54, (128, 64), 7, 256),
    (40_000, 28, (64, 64), 2, 1024),
    (8_000, 784, (256, 128), 10, 256),
    (8_000, 784, (1024, 1024), 10, 512),
]
# Columns of ratios to dasknn's numba engine.
PEERS = ["numpy", "sklearn", "torch", "jax"]


def clocks():
    return np.array([time.perf_counter(), time.process_time()])


def times_of_epoch(fit, epochs):
    """Time of one epoch, elapsed and of all cores: that of a fit of several, less that of a fit of one."""
    began = clocks()
    fit(1)
    once = clocks()
    fit(1 + epochs)
    return (clocks() - once - (once - began)) / epochs


def fit_of(kind, X, y, hidden, batch, **settings):
    return lambda epochs: kind(hidden, batch_size=batch, max_iter=epochs, random_state=0, **settings).fit(
        X, y
    )


def fit_in_torch(X, y, hidden, n_classes, batch):
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    widths = [X.shape[1], *hidden, n_classes if n_classes > 2 else 1]

    def fit(epochs):
        torch.manual_seed(0)
        layers = []
        for i, (n_inputs, units) in enumerate(pairwise(widths)):
            layers += [torch.nn.Linear(n_inputs, units)]
            layers += [torch.nn.ReLU()] if i < len(widths) - 2 else []
        network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.Adam(network.parameters())
        if n_classes > 2:
            loss, target = torch.nn.CrossEntropyLoss(), y
        else:
            loss, target = torch.nn.BCEWithLogitsLoss(), y[:, None].float()
        for _ in range(epochs):
            order = torch.randperm(len(X))
            for begin in range(0, len(X), batch):
                rows = order[begin : begin + batch]
                optimizer.zero_grad()
                loss(network(X[rows]), target[rows]).backward()
                optimizer.step()

    return fit


def times_of_products(n_rows, n_inputs, hidden, n_classes, batch):
    """Time, elapsed and of all cores, that the matrix products of an epoch take alone."""
    widths = [n_inputs, *hidden, n_classes if n_classes > 2 else 1]
    A = [np.ones((batch, width), "float32") for width in widths]
    W = [np.ones((rows, columns), "float32") for rows, columns in pairwise(widths)]

    def step():
        for i in range(len(W)):
            np.dot(A[i], W[i], out=A[i + 1])
        for i in range(len(W) - 1, -1, -1):
            np.dot(A[i].T, A[i + 1], out=W[i])
            if i:
                np.dot(A[i + 1], W[i].T, out=A[i])
        for array in (*A, *W):
            array.fill(1)

    def fill():
        for array in (*A, *W):
            array.fill(1)

    n_steps = max(5, int(2e9 // (batch * sum(w.size for w in W) * 6)))
    times = []
    for function in (step, fill):
        function()
        began = clocks()
        for _ in range(n_steps):
            function()
        times.append((clocks() - began) / n_steps)
    return (times[0] - times[1]) * n_rows / batch


def runs_of(shape, epochs, repeats):
    """Return one dict a turn: from the name of each column to its times of an epoch."""
    n_rows, n_inputs, hidden, n_classes, batch = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_inputs), dtype=np.float32)
    y = rng.integers(0, n_classes, n_rows)
    fits = {
        engine: fit_of(MLPClassifier, X, y, hidden, batch, engine=engine) for engine in ("numba", "numpy")
    }
    fits["sklearn"] = fit_of(SklearnMLP, X, y, hidden, batch)
    if torch is not None:
        fits["torch"] = fit_in_torch(X, y, hidden, n_classes, batch)
    if jax is not None:
        fits["jax"] = fit_in_jax(X, y, hidden, n_classes, batch)
    for fit in fits.values():
        # Compiles, so that no timed fit does.
        fit(1)
    return [
        {name: times_of_epoch(fit, epochs) for name, fit in fits.items()}
        | {"products": times_of_products(*shape)}
        for _ in range(repeats)
    ]


def line_of(shape, runs):
    n_rows, n_inputs, hidden, n_classes, batch = shape
    elapsed = [{name: times[0] for name, times in run.items()} for run in runs]
    ratios = {name: median(run[name] / run["numba"] for run in elapsed) for name in elapsed[0]}
    cells = [f"{ratios[name]:10.2f}" if name in ratios else f"{'-':>10}" for name in PEERS]
    milliseconds = 1e3 * median(run["numba"] for run in elapsed)
    name = f"{n_rows:,}x{n_inputs}, {hidden}, {n_classes}, {batch}"
    return f"{name:40} {milliseconds:9.1f} {' '.join(cells)} {ratios['products']:9.0%}"


def busy_cores(runs):
    """Return, by column, the time of all cores over the time elapsed."""
    return {name: sum(run[name][1] for run in runs) / sum(run[name][0] for run in runs) for name in runs[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    peers = " ".join(f"{name + ' ÷':>10}" for name in PEERS)
    print(f"{'rows x features, hidden, classes, batch':40} {'numba, ms':>9} {peers} {'products':>9}")
    all_runs = []
    for shape in SHAPES:
        runs = runs_of(shape, arguments.epochs, arguments.repeats)
        print(line_of(shape, runs), flush=True)
        all_runs += runs
    print("busy cores: " + ", ".join(f"{name} {cores:.2f}" for name, cores in busy_cores(all_runs).items()))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
