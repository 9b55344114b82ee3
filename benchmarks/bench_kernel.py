"""One epoch of training in this process, against scikit-learn's MLP and, where it is installed, PyTorch.

float32, Adam, one thread, four shapes of network. Runs are taken in turn; the table gives medians of ratios:
above 1, dasknn is faster. "products" is the share of dasknn's time that its matrix products take when they
run alone: 100 % / products is how much faster anything could get that computes the same products.
"""

import argparse
import time
import warnings
from itertools import pairwise
from statistics import median

import numpy as np
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
    (8_000, 784, (256, 128), 10, 256),
    (8_000, 784, (1024, 1024), 10, 512),
]


def seconds_of_epoch(fit, epochs):
    """Time of one epoch: that of a fit of several, less that of a fit of one."""
    began = time.perf_counter()
    fit(1)
    once = time.perf_counter()
    fit(1 + epochs)
    return (time.perf_counter() - once - (once - began)) / epochs


def fit_of(kind, X, y, hidden, batch):
    return lambda epochs: kind(hidden, batch_size=batch, max_iter=epochs, random_state=0).fit(X, y)


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


def seconds_of_products(n_rows, n_inputs, hidden, n_classes, batch):
    """Time that the matrix products of an epoch take alone."""
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
        began = time.perf_counter()
        for _ in range(n_steps):
            function()
        times.append((time.perf_counter() - began) / n_steps)
    return (times[0] - times[1]) * -(-n_rows // batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    print(f"{'rows x features, hidden, classes, batch':42} {'ms/epoch':>9} {'sklearn ÷':>10}", end="")
    print(f" {'torch ÷':>8} {'products':>9}")
    for n_rows, n_inputs, hidden, n_classes, batch in SHAPES:
        X = rng.standard_normal((n_rows, n_inputs), dtype=np.float32)
        y = rng.integers(0, n_classes, n_rows)
        fits = {
            "dasknn": fit_of(MLPClassifier, X, y, hidden, batch),
            "sklearn": fit_of(SklearnMLP, X, y, hidden, batch),
        }
        if torch is not None:
            fits["torch"] = fit_in_torch(X, y, hidden, n_classes, batch)
        runs = [
            {name: seconds_of_epoch(fit, arguments.epochs) for name, fit in fits.items()}
            for _ in range(arguments.repeats)
        ]
        ours = median(run["dasknn"] for run in runs)
        ratios = {name: median(run[name] / run["dasknn"] for run in runs) for name in fits}
        products = seconds_of_products(n_rows, n_inputs, hidden, n_classes, batch) / ours
        shape = f"{n_rows:,}x{n_inputs}, {hidden}, {n_classes}, {batch}"
        against_torch = f"{ratios['torch']:8.2f}" if torch is not None else f"{'-':>8}"
        print(f"{shape:42} {1e3 * ours:9.1f} {ratios['sklearn']:10.2f} {against_torch} {products:9.0%}")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
