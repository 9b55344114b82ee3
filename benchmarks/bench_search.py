"""A search over 24 settings of a network on Covertype, at most 9 epochs each: ours beside others.

    hop             SuccessiveHalvingSearch: networks travel, trials are paused and go on
    hop, all        RandomSearch: the same settings, each for all epochs
    one after other the same epochs in one process, one network after the other
    data parallel   MLPClassifier on Dask arrays, one setting after the other, for all epochs
    halving         scikit-learn's HalvingRandomSearchCV, joblib on Dask, over our MLPClassifier
    halving, theirs the same over scikit-learn's MLPClassifier
    optuna          optuna-integration's DaskStorage and SuccessiveHalvingPruner: each trial loads the data
    dask-ml         HyperbandSearchCV's bracket, in an environment of its own: --dask-ml PYTHON

Each line: seconds in all, seconds until a validation score was reached that all have reached, the best of
these, the score on rows that none has seen, epochs trained, the most memory of a worker, bytes over the
machine's own network. The same settings are drawn for all that can be given them.

python benchmarks/bench_search.py [--rows 100000] [--methods ...] [--workers 2] [--output runs.jsonl]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from search_settings import ETA, HIDDEN, MAX_ITER, N_TRIALS, PARAMETERS, SEED, SHARE, Watch
from workloads import load

from dasknn import MLPClassifier, RandomSearch, SuccessiveHalvingSearch


def _prepare():
    from dasknn.engine.engines import Preparation

    Preparation("float32")()
    MLPClassifier((8,), max_iter=1, engine="numba").fit(np.zeros((600, 4), np.float32), np.arange(600) % 2)


def drawn():
    """Return the settings that our searches draw, and that others are given."""
    from dasknn.search.sampling import RandomSampler
    from dasknn.search.space import Space

    seed = int(np.random.RandomState(SEED).randint(2**31 - 1))
    sampler = RandomSampler(Space(PARAMETERS), seed)
    return [sampler.propose(number, ()) for number in range(N_TRIALS)]


def dask_arrays(X, y, n=8):
    rows = -(-len(X) // n)
    return da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)


def curve_of(history):
    """Return (seconds, best score so far) of our searches."""
    points = sorted((entry["time"], entry["score"]) for entry in history)
    best = np.maximum.accumulate([score for _, score in points]).tolist()
    return list(zip((seconds for seconds, _ in points), best, strict=True))


# --- methods: each returns (curve of (seconds, best validation score), epochs, functions of X -> labels) ---


def hop(client, X, y, everything=False):
    kind = RandomSearch if everything else SuccessiveHalvingSearch
    search = kind(
        MLPClassifier(),
        PARAMETERS,
        n_trials=N_TRIALS,
        max_iter=MAX_ITER,
        validation=SHARE,
        random_state=SEED,
        verbose=False,
    ).fit(*dask_arrays(X, y))
    computed = sum(worker["compute"] for worker in search.workers_.values())
    busy = sum(worker["busy"] for worker in search.workers_.values())
    threads = sum(worker["threads"] for worker in search.workers_.values())
    seconds = max(worker["seconds"] for worker in search.workers_.values())
    print(
        f"   of {threads} x {seconds:.1f} s, workers had work for {busy / threads / seconds:.0%}, and "
        f"computed for {computed / threads / seconds:.0%}",
        flush=True,
    )
    epochs = int(search.cv_results_["n_epochs"].sum())
    return (
        curve_of(search.history_),
        epochs,
        {"": search.predict, "ensemble of 8": search.ensemble(8).predict},
    )


def in_turn(client, X, y, is_parallel):
    """All settings for all epochs, one after the other."""
    began, curve, best, model_of_best = time.perf_counter(), [], -1.0, None
    n_held = int(len(X) * SHARE)
    order = np.random.default_rng(SEED).permutation(len(X))
    held, left = order[:n_held], order[n_held:]
    rows = dask_arrays(X[left], y[left]) if is_parallel else (X[left], y[left])
    if is_parallel:
        rows = tuple(array.persist() for array in rows)

    for settings in drawn():
        model = MLPClassifier(
            **settings,
            max_iter=MAX_ITER,
            random_state=SEED,
            tol=0,
            n_iter_no_change=np.inf,
            engine="auto" if is_parallel else "numba",
        )
        model.fit(*rows, X_val=X[held], y_val=y[held])
        for entry in model.history_:
            best_before = best
            best = max(best, entry["validation_score"])
        curve.append((time.perf_counter() - began, best))
        if best > best_before or model_of_best is None:
            model_of_best = model
    return curve, N_TRIALS * MAX_ITER, {"": model_of_best.predict}


def halving(client, X, y, is_ours):
    import joblib
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV, ShuffleSplit
    from sklearn.neural_network import MLPClassifier as Theirs

    class Counted(HalvingRandomSearchCV):
        """Notes when each round has ended."""

        curve = None

        # scikit-learn passes more from 1.8 on, to those that name it.
        def _run_search(self, evaluate_candidates, *, callback_ctx=None):
            def noted(*args, **settings):
                found = evaluate_candidates(*args, **settings)
                self.curve.append((time.perf_counter() - began, max(found["mean_test_score"])))
                return found

            more = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
            super()._run_search(noted, **more)

    began = time.perf_counter()
    estimator = MLPClassifier(verbose=False) if is_ours else Theirs()
    search = Counted(
        estimator,
        PARAMETERS,
        n_candidates=N_TRIALS,
        factor=ETA,
        resource="max_iter",
        min_resources=1,
        max_resources=MAX_ITER,
        cv=ShuffleSplit(1, test_size=SHARE, random_state=SEED),
        random_state=SEED,
        refit=True,
    )
    Counted.curve = []
    with joblib.parallel_backend("dask"):
        search.fit(X, y)
    best = np.maximum.accumulate([score for _, score in Counted.curve])
    curve = [(seconds, float(score)) for (seconds, _), score in zip(Counted.curve, best, strict=True)]
    epochs = int(np.sum(search.cv_results_["n_resources"])) + MAX_ITER
    return curve, epochs, {"": search.predict}


def optuna_on_dask(client, X, y):
    import optuna
    from optuna_integration import DaskStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tempfile.mkdtemp()
    np.save(f"{folder}/X.npy", X)
    np.save(f"{folder}/y.npy", y)
    began = time.time()
    storage = DaskStorage(client=client)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)
    study = optuna.create_study(
        direction="maximize", storage=storage, pruner=pruner, sampler=optuna.samplers.RandomSampler(SEED)
    )
    n_workers = len(client.nthreads())
    futures = [
        client.submit(study.optimize, Objective(folder), n_trials=N_TRIALS // n_workers, pure=False)
        for _ in range(n_workers)
    ]
    client.gather(futures)
    points = []
    for trial in study.trials:
        for epoch, score in trial.intermediate_values.items():
            share = (epoch + 1) / max(1, len(trial.intermediate_values))
            end = trial.datetime_complete.timestamp() - began
            start = trial.datetime_start.timestamp() - began
            points.append((start + share * (end - start), score))
    points.sort()
    best = np.maximum.accumulate([score for _, score in points])
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    return [(t, float(b)) for (t, _), b in zip(points, best, strict=True)], epochs, {}


class Objective:
    """A trial of Optuna: loads the data, and trains epoch by epoch."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, trial):
        import optuna

        X, y = np.load(f"{self.folder}/X.npy"), np.load(f"{self.folder}/y.npy")
        order = np.random.default_rng(SEED).permutation(len(X))
        held, left = order[: int(len(X) * SHARE)], order[int(len(X) * SHARE) :]
        model = MLPClassifier(
            hidden_layer_sizes=HIDDEN[trial.suggest_categorical("hidden", range(len(HIDDEN)))],
            learning_rate_init=trial.suggest_float("rate", 3e-4, 1e-2, log=True),
            alpha=trial.suggest_float("alpha", 1e-7, 1e-3, log=True),
            random_state=SEED,
            engine="numba",
        )
        score = 0.0
        for epoch in range(MAX_ITER):
            model.partial_fit(X[left], y[left], classes=np.unique(y))
            score = model.score(X[held], y[held])
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score


def dask_ml(python, rows, workers):
    """Run dask-ml's HyperbandSearchCV in its own environment; return what it prints."""
    script = Path(__file__).parent / "dask_ml_search.py"
    found = subprocess.run(
        [python, script, "--rows", str(rows), "--workers", str(workers)], capture_output=True, text=True
    )
    if found.returncode:
        raise RuntimeError(found.stderr[-2000:])
    return json.loads(found.stdout.splitlines()[-1])


METHODS = {
    "hop": hop,
    "hop, all": lambda client, X, y: hop(client, X, y, everything=True),
    "one after other": lambda client, X, y: in_turn(client, X, y, False),
    "data parallel": lambda client, X, y: in_turn(client, X, y, True),
    "halving": lambda client, X, y: halving(client, X, y, True),
    "halving, theirs": lambda client, X, y: halving(client, X, y, False),
    "optuna": optuna_on_dask,
}


def run(method, arguments, data):
    X, y, X_test, y_test = data
    with (
        LocalCluster(n_workers=arguments.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Workers have imported what they need, and have compiled steps.
        client.run(_prepare)
        watch = Watch(client)
        curve, epochs, predictors = METHODS[method](client, X, y)
        row = {"method": method, **watch.end(), "epochs": epochs, "curve": curve}
        for name, predict in predictors.items():
            row[f"test {name}".strip()] = float(np.mean(predict(X_test) == y_test))
    return row


def show(rows):
    reached = min(row["curve"][-1][1] for row in rows)
    print(f"\nseconds to {reached:.4f}, the least of the best validation scores\n")
    print(
        f"{'method':17} {'seconds':>8} {'to score':>9} {'best':>7} {'test':>7} {'of 8':>7} {'epochs':>7}",
        end="",
    )
    print(f" {'MiB':>6} {'MB moved':>9}")
    for row in sorted(rows, key=lambda row: seconds_to(row, reached)):
        test, of_8 = row.get("test", np.nan), row.get("test ensemble of 8", np.nan)
        print(
            f"{row['method']:17} {row['seconds']:8.1f} {seconds_to(row, reached):9.1f} "
            f"{row['curve'][-1][1]:7.4f} {test:7.4f} {of_8:7.4f} {row['epochs']:7d} {row['MiB']:6.0f} "
            f"{row['MB moved']:9.0f}"
        )


def seconds_to(row, score):
    return next(seconds for seconds, best in row["curve"] if best >= score)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--dask-ml", help="a Python with dask-ml and a Dask on which it runs")
    parser.add_argument("--output", type=Path, help="a file of runs, a line each, which are not made again")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    X, y, X_test, y_test = load("covertype")
    data = (X[: arguments.rows], y[: arguments.rows], X_test, y_test)
    rows = []
    if arguments.output and arguments.output.exists():
        rows = [json.loads(line) for line in arguments.output.read_text().splitlines()]
    for method in arguments.methods:
        if any(row["method"] == method for row in rows):
            continue
        print(method, flush=True)
        rows.append(run(method, arguments, data))
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    if arguments.dask_ml:
        rows.append(dask_ml(arguments.dask_ml, arguments.rows, arguments.workers))
    show(rows)


if __name__ == "__main__":
    sys.exit(main())
