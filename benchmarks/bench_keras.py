"""The same model in Keras and here: losses of each epoch, and the time that an epoch takes.

The first tables are the listing of the README with the same initial weights, no shuffling and full float32,
for
one replica and for two, with Keras given the rows in the order in which their steps take them: losses agree
to
1e-4, or this ends with an error. The last one times epochs in one process, in turn; above 1, dasknn is
faster.
"""

import argparse
import os
import time
from itertools import pairwise
from statistics import median

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")

try:
    import keras
except ImportError:
    keras = None

import dasknn
from dasknn import GradientAveraging, Sequential
from dasknn import layers as ours

# (rows, inputs, units of hidden layers, classes, rows of a step)
SIZES = [(20_000, 28, (100,), 2, 32), (20_000, 54, (128, 64), 7, 256), (8_000, 784, (256, 128), 10, 256)]


def rows(n_rows, n_inputs, n_classes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, n_inputs), dtype=np.float32)
    logits = x @ rng.standard_normal((n_inputs, n_classes)) + rng.standard_normal((n_rows, n_classes))
    return x, logits.argmax(axis=1)


def listing(model_class, layers, weights=None):
    model = model_class(
        [
            layers.Input(shape=(10,)),
            layers.Dense(10, activation="relu"),
            layers.Dense(10, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    if weights is not None:
        model.set_weights(weights)
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def order_of_steps(n_rows, replicas, batch_size=32):
    """Return rows in the order in which steps take them: of each step, every replica takes a share of its
    own.
    """
    done = [min(step * batch_size, n_rows) // replicas for step in range(-(-n_rows // batch_size) + 1)]
    first = np.arange(replicas) * (n_rows // replicas)
    steps = [[np.arange(begin, end) + at for at in first] for begin, end in pairwise(done)]
    return np.concatenate([rows for step in steps for rows in step])


def side_by_side(replicas, epochs=10):
    x, y = rows(1_000, 10, 2)
    strategy = GradientAveraging(replicas=replicas)
    with strategy.scope():
        here = listing(Sequential, ours)
    there = listing(keras.Sequential, keras.layers, here.get_weights())
    settings = {"epochs": epochs, "shuffle": False, "verbose": 0}
    with strategy.scope():
        found = here.fit(x, y, **settings).history
    order = order_of_steps(len(x), replicas)
    expected = there.fit(x[order], y[order], **settings).history
    title = f"the listing, {replicas} replica{'s' if replicas > 1 else ''}"
    print(f"\n{title:28}{'Keras':>10}{'dasknn':>10}{'difference':>12}{'accuracy':>17}")
    for i in range(epochs):
        loss, own = expected["loss"][i], found["loss"][i]
        accuracy = f"{expected['accuracy'][i]:.4f} {found['accuracy'][i]:.4f}"
        print(f"epoch {i + 1:<22}{loss:10.6f}{own:10.6f}{abs(loss - own):12.1e}{accuracy:>17}")
    worst = np.abs(np.subtract(expected["loss"], found["loss"])).max()
    outputs = np.abs(there.predict(x, verbose=0) - here.predict(x, verbose=0)).max()
    print(f"largest difference of losses {worst:.1e}, of predictions {outputs:.1e}")
    if worst > 1e-4:
        raise SystemExit("The losses differ by more than 1e-4.")


def deep(model_class, layers, n_inputs, hidden, n_classes):
    stack = [layers.Input(shape=(n_inputs,)), *(layers.Dense(units, activation="relu") for units in hidden)]
    model = model_class([*stack, layers.Dense(n_classes, activation="softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def seconds_of_epoch(model, x, y, batch_size):
    began = time.perf_counter()
    model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)
    return time.perf_counter() - began


def times(repeats):
    print(f"\n{'an epoch of fit, one process':36}{'Keras s':>10}{'dasknn s':>10}{'Keras ÷ dasknn':>16}")
    for n_rows, n_inputs, hidden, n_classes, batch_size in SIZES:
        x, y = rows(n_rows, n_inputs, n_classes)
        models = [
            deep(keras.Sequential, keras.layers, n_inputs, hidden, n_classes),
            deep(Sequential, ours, n_inputs, hidden, n_classes),
        ]
        found = [[seconds_of_epoch(model, x, y, batch_size) for model in models] for _ in range(repeats + 1)]
        there, here = (median(column) for column in zip(*found[1:], strict=True))
        name = f"{n_rows:,} x {n_inputs}, {hidden}, batch {batch_size}"
        print(f"{name:36}{there:10.3f}{here:10.3f}{there / here:16.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if keras is None:
        print("Keras is not installed: pip install keras")
        return
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, dasknn {dasknn.__version__}")
    side_by_side(1)
    side_by_side(2)
    times(arguments.repeats)


if __name__ == "__main__":
    main()
