r"""dask-ml's search, for `bench_search.py`: in an environment of its own, with a Dask on which it runs.

pip install "dask[array,dataframe]==2025.2.0" distributed==2025.2.0 dask-ml==2025.1.0 \
    "scikit-learn<1.7" psutil

It trains scikit-learn's MLPClassifier chunk by chunk, since it needs partial_fit; 8 chunks are an epoch. The
last line that it prints is a run in JSON.
"""

import argparse
import json
import time
import warnings

import dask.array as da
import numpy as np
from dask_ml.model_selection import SuccessiveHalvingSearchCV
from distributed import Client, LocalCluster
from search_settings import ETA, MAX_ITER, N_TRIALS, PARAMETERS, SEED, SHARE, Watch
from sklearn.neural_network import MLPClassifier
from workloads import load

CHUNKS = 8


class ByName(MLPClassifier):
    """Takes hidden layers as text: dask-ml cannot make an array of tuples of several lengths."""

    def __init__(self, hidden="64", learning_rate_init=1e-3, alpha=1e-4, random_state=None):
        super().__init__(
            hidden_layer_sizes=tuple(map(int, hidden.split("-"))),
            learning_rate_init=learning_rate_init,
            alpha=alpha,
            random_state=random_state,
        )
        self.hidden = hidden

    def set_params(self, **parameters):
        super().set_params(**parameters)
        self.hidden_layer_sizes = tuple(map(int, self.hidden.split("-")))
        return self


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    X, y, X_test, y_test = load("covertype")
    X, y = X[: arguments.rows], y[: arguments.rows]
    rows = -(-len(X) // CHUNKS)
    lazy = da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)
    with (
        LocalCluster(n_workers=arguments.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        watch = Watch(client)
        search = SuccessiveHalvingSearchCV(
            ByName(),
            {
                "hidden": ["-".join(map(str, sizes)) for sizes in PARAMETERS["hidden_layer_sizes"]],
                **{name: PARAMETERS[name] for name in ("learning_rate_init", "alpha")},
            },
            n_initial_parameters=N_TRIALS,
            n_initial_iter=CHUNKS,
            max_iter=CHUNKS * MAX_ITER,
            aggressiveness=ETA,
            test_size=SHARE,
            random_state=SEED,
        )
        began = time.time()
        search.fit(*lazy, classes=np.unique(y).tolist())
        found = watch.end()
    points = sorted((entry["elapsed_wall_time"], entry["score"]) for entry in search.history_)
    best = np.maximum.accumulate([score for _, score in points])
    curve = [(seconds, float(score)) for (seconds, _), score in zip(points, best, strict=True)]
    calls = sum(records[-1]["partial_fit_calls"] for records in search.model_history_.values())
    test = float(np.mean(search.best_estimator_.predict(X_test) == y_test))
    row = {"method": "dask-ml", **found, "epochs": round(calls / CHUNKS), "curve": curve, "test": test}
    print(json.dumps({**row, "seconds": time.time() - began}))


if __name__ == "__main__":
    main()
