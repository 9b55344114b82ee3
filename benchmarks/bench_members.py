"""A step of a network of 16 members against 16 steps of a network of one, and of a plain MLP.

54 columns of numbers, two hidden layers of 256, 256 rows a step, float32, one thread. The aim: a step of 16
members takes at most 0.7 of 16 steps of the same network without members. The MLP has neither embeddings, nor
dropout, nor scaled inputs. "products" is the time of the matrix products of 16 members alone, as NumPy
computes them: no ratio can be below that of this time. Runs are taken in turn; the table gives medians.

Set OPENBLAS_NUM_THREADS=1 (or the variable of your BLAS) for a comparison without its threads.
"""

import argparse
import time
import warnings
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from dasknn import MLPClassifier, TabularClassifier

ROWS, COLUMNS, CLASSES, BATCH, UNITS, MEMBERS = 256 * 60, 54, 7, 256, 256, 16
EMBEDDING_DIM = 16


def step_of(model, X, y):
    """Return milliseconds of a step: the median of epochs, without the first."""
    seconds = [entry["seconds"] for entry in model.fit(X, y).history_[1:]]
    return 1e3 * median(seconds) / (len(X) // BATCH)


def tabular(members, embedding):
    return TabularClassifier(
        hidden_layer_sizes=(UNITS, UNITS),
        members=members,
        embedding=embedding,
        embedding_dim=EMBEDDING_DIM,
        batch_size=BATCH,
        max_iter=4,
        early_stopping=False,
        replicas=1,
        random_state=0,
    )


def mlp(engine):
    return MLPClassifier(
        (UNITS, UNITS), batch_size=BATCH, max_iter=6, tol=0, engine=engine, replicas=1, random_state=0
    )


def products(n_inputs, rows):
    """Return milliseconds of the products of a step of so many rows through both hidden layers."""
    rng = np.random.default_rng(0)
    found = 0.0
    for width in (n_inputs, UNITS):
        X, W = rng.random((rows, width), np.float32), rng.random((width, UNITS), np.float32)
        D = rng.random((rows, UNITS), np.float32)
        for A, B in ((X, W), (X.T, D), (D, W.T)):
            times = []
            for _ in range(9):
                began = time.perf_counter()
                A @ B
                times.append(time.perf_counter() - began)
            found += 1e3 * median(times)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    X, y = rng.random((ROWS, COLUMNS), np.float32), rng.integers(0, CLASSES, ROWS)
    engines = ["numpy"]
    try:
        mlp("numba").fit(X[:BATCH], y[:BATCH])
        engines.append("numba")
    except ImportError as error:
        print(error)
    models = {f"MLP, {engine} engine": mlp(engine) for engine in engines}
    for embedding in (None, "piecewise_linear"):
        for members in (1, MEMBERS):
            models[f"tabular, {embedding or 'no'} embedding, {members}"] = tabular(members, embedding)
    times = {name: [] for name in models}
    with threadpool_limits(1):
        for _ in range(arguments.repeats):
            for name, model in models.items():
                times[name].append(step_of(model, X, y))
        floor = {width: products(width, MEMBERS * BATCH) for width in (COLUMNS, COLUMNS * EMBEDDING_DIM)}
    print(f"{'network':42} {'ms a step':>10} {'16 members ÷ 16 steps of this':>30}")
    for name, of_model in times.items():
        embedding = "piecewise_linear" if "piecewise" in name else "no"
        of_members = times[f"tabular, {embedding} embedding, {MEMBERS}"]
        ratio = median(a / (MEMBERS * b) for a, b in zip(of_members, of_model, strict=True))
        shown = "" if of_model is of_members else f"{ratio:.2f}"
        print(f"{name:42} {median(of_model):10.2f} {shown:>30}")
    for width, found in floor.items():
        print(f"{f'products of 16 members, {width} inputs':42} {found:10.2f}")


if __name__ == "__main__":
    main()
