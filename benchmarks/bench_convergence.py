"""What networks come to in the end: test scores of each strategy, trained until its own rule stops it.

Adult, Covertype, Fashion-MNIST and California housing (at most --rows training rows of each), with the
defaults of the estimators, early_stopping off and on. Accuracy, and R^2 of California without outliers, in
percent: of one process on plain arrays, and the difference to it, seed by seed, of replicas on Dask arrays.
The cluster changes no bit, so replicas train in this process. The table gives means over seeds, with the
standard error of the difference.

python benchmarks/bench_convergence.py [--seeds 3] [--rows 50000] [--tables adult ...] [--output runs.csv]

By default one seed of few rows, in minutes; the docs have more of both, which takes hours.
Runs that --output holds already are not made again.
"""

import argparse
import csv
import itertools
import time
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
from sklearn.model_selection import train_test_split
from tables import adult, california
from workloads import load

from dasknn import (
    MLPClassifier,
    MLPRegressor,
    OuterNesterov,
    PredictionAveraging,
    TablePreprocessor,
    WeightAveraging,
)

TABLES = ("adult", "california", "covertype", "fashion-mnist")
MOST_TEST_ROWS = 20_000
# What is compared, by name: settings of the estimator for so many replicas.
CONTENDERS = {
    "auto": lambda replicas: {},
    "gradients, rate x 1": lambda replicas: {"batch_size": 200 * replicas},
    "gradients, rate x root": lambda replicas: {
        "batch_size": 200 * replicas,
        "learning_rate_init": 1e-3 * replicas**0.5,
    },
    "gradients, rate x R": lambda replicas: {
        "batch_size": 200 * replicas,
        "learning_rate_init": 1e-3 * replicas,
    },
    "weights every 16": lambda replicas: {"strategy": WeightAveraging(every=16, outer=OuterNesterov())},
    "weights every epoch": lambda replicas: {"strategy": "weights"},
    "members that share the rows": lambda replicas: {"strategy": PredictionAveraging(members=replicas)},
    "members that hop": lambda replicas: {"strategy": PredictionAveraging(members=replicas, hop=True)},
}


def table(name, most_rows):
    """Return X, y, X_test, y_test as float32 arrays; classes as integers."""
    if name in ("covertype", "fashion-mnist"):
        X, y, X_test, y_test = load(name)
    else:
        X, y = {"adult": adult, "california": california}[name]()
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=0)
        preprocessor = TablePreprocessor().fit(X)
        X, X_test = (np.asarray(preprocessor.transform(part), np.float32) for part in (X, X_test))
        y, y_test = np.asarray(y), np.asarray(y_test)
    if name == "california":
        # 57 test rows lie so far off that R^2 of all rows is what a seed makes of these few: it spreads by
        # 2 points, where that of all others spreads by 0.2.
        usual = np.abs(X_test).max(axis=1) < 5
        X_test, y_test = X_test[usual], y_test[usual]
    return X[:most_rows], y[:most_rows], X_test[:MOST_TEST_ROWS], y_test[:MOST_TEST_ROWS]


def run(data, early_stopping, contender, replicas, seed):
    """Return test score in percent, epochs and seconds of one training."""
    X, y, X_test, y_test = data
    estimator = MLPRegressor if y.dtype.kind == "f" else MLPClassifier
    settings = {} if contender == "one process" else {**CONTENDERS[contender](replicas), "replicas": replicas}
    model = estimator(early_stopping=early_stopping, random_state=seed, **settings)
    if contender != "one process":
        rows = -(-len(X) // replicas)
        X, y = da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    return 100 * model.score(X_test, y_test), model.n_iter_, time.perf_counter() - began


def plan(options):
    """Yield (table, early_stopping, contender, replicas, seed) of all runs."""
    for seed, early, name in itertools.product(range(options.seeds), (False, True), options.tables):
        yield name, early, "one process", 1, seed
        for replicas, contender in itertools.product(options.replicas, options.contenders):
            yield name, early, contender, replicas, seed


def done_before(path):
    """Return the runs that a file holds: what was run -> (score, epochs, seconds)."""
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.reader(file))
    return {
        (name, early == "True", contender, int(replicas), int(seed)): (
            float(score),
            int(epochs),
            float(seconds),
        )
        for name, early, contender, replicas, seed, score, epochs, seconds in rows
    }


def show(found):
    """Print a line for each table, setting and contender: score, difference to one process, epochs."""
    titles = ("table", "stopping", "contender", "replicas", "score", "difference", "epochs")
    print("{:14} {:8} {:27} {:>8} {:>7} {:>16} {:>7}".format(*titles))
    groups = itertools.groupby(sorted(found), key=lambda run: run[:4])
    for (name, early, contender, replicas), runs in groups:
        runs = list(runs)
        scores = np.array([found[run][0] for run in runs])
        alone = np.array([found.get((name, early, "one process", 1, run[4]), (np.nan,))[0] for run in runs])
        epochs = np.mean([found[run][1] for run in runs])
        differences = scores - alone
        error = differences.std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.nan
        difference = "" if contender == "one process" else f"{differences.mean():+.2f} ± {error:.2f}"
        print(
            f"{name:14} {'early' if early else '':8} {contender:27} {replicas:8} {scores.mean():7.2f} "
            f"{difference:>16} {epochs:7.0f}"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=CONTENDERS,
        default=["auto", "weights every 16"],
    )
    parser.add_argument("--output", type=Path, help="a CSV file that keeps each run")
    options = parser.parse_args()
    found = {} if options.output is None else done_before(options.output)
    tables = {}
    for wanted in plan(options):
        if wanted in found:
            continue
        name = wanted[0]
        if name not in tables:
            tables[name] = table(name, options.rows)
        found[wanted] = run(tables[name], *wanted[1:])
        if options.output is not None:
            with options.output.open("a", newline="") as file:
                csv.writer(file).writerow([*wanted, *found[wanted]])
    show(found)


if __name__ == "__main__":
    main()
