"""What a sampler brings: RandomSearch with settings drawn at random, by Sobol's sequence, and by Optuna.

Five settings of a network (layers, learning rate, alpha, batch size, activation) in wide ranges, nine epochs
each; Adult and California housing behind a TablePreprocessor, and Covertype. Each line is a mean over seeds:
the best validation score after a quarter of the trials, half of them, all of them; the median of the second
half, which says where a sampler looks; the score of the best network, and of an ensemble of 8, on rows that
none has seen. Scores are accuracies, for California housing R².

python benchmarks/bench_samplers.py [--trials 64] [--seeds 3] [--rows 50000] [--tables ...]
"""

import argparse
import warnings

import numpy as np
import optuna
from scipy.stats import loguniform
from sklearn.pipeline import make_pipeline
from tables import adult, california
from workloads import load

from dasknn import MLPClassifier, MLPRegressor, RandomSearch, TablePreprocessor

MAX_ITER = 9
HEADS = ("best of 1/4", "of 1/2", "of all", "median of 2nd half", "  test", "ensemble")
SPACE = {
    "hidden_layer_sizes": [(32,), (64,), (128,), (64, 64), (128, 64), (256, 128)],
    "learning_rate_init": loguniform(1e-5, 1e-1),
    "alpha": loguniform(1e-7, 1e-1),
    "batch_size": [50, 100, 200, 500, 1000],
    "activation": ["relu", "tanh", "logistic"],
}
SAMPLERS = {
    "random": lambda seed: "random",
    "sobol": lambda seed: "sobol",
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
}


def behind_a_preprocessor(network):
    """Return a pipeline, and the prefix of the network's settings."""
    pipeline = make_pipeline(TablePreprocessor(), network)
    return pipeline, f"{pipeline.steps[-1][0]}__"


def load_table(name):
    """Return (estimator, prefix of its settings, X, y, X_test, y_test)."""
    if name == "covertype":
        return MLPClassifier(), "", *load("covertype")
    X, y = {"adult": adult, "california": california}[name]()
    order = np.random.default_rng(0).permutation(len(X))
    test, rest = order[: len(X) // 4], order[len(X) // 4 :]
    network = MLPClassifier() if name == "adult" else MLPRegressor()
    if name == "california":
        y = (y - y.mean()) / y.std()
    return *behind_a_preprocessor(network), X.iloc[rest], y.iloc[rest], X.iloc[test], y.iloc[test]


def run(table, sampler, seed, n_trials, n_rows):
    estimator, prefix, X, y, X_test, y_test = table
    search = RandomSearch(
        estimator,
        {prefix + setting: values for setting, values in SPACE.items()},
        n_trials=n_trials,
        max_iter=MAX_ITER,
        sampler=SAMPLERS[sampler](seed),
        random_state=seed,
        verbose=False,
    ).fit(X[:n_rows], y[:n_rows])
    scores = search.cv_results_["mean_test_score"]
    best = np.maximum.accumulate(np.nan_to_num(scores, nan=-np.inf))
    return [
        *(best[max(0, round(share * n_trials) - 1)] for share in (0.25, 0.5, 1)),
        np.nanmedian(scores[n_trials // 2 :]),
        search.score(X_test, y_test),
        search.ensemble(8).score(X_test, y_test),
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tables", nargs="+", default=["california", "adult", "covertype"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'table':11} {'sampler':7}", *HEADS, flush=True)
    for name in arguments.tables:
        table = load_table(name)
        for sampler in SAMPLERS:
            runs = [
                run(table, sampler, seed, arguments.trials, arguments.rows) for seed in range(arguments.seeds)
            ]
            mean = np.mean(runs, axis=0)
            cells = (f"{value:>{len(head)}.4f}" for value, head in zip(mean, HEADS, strict=True))
            print(f"{name:11} {sampler:7}", *cells, flush=True)


if __name__ == "__main__":
    main()
