"""Weights of trainings in all ways, in numpy, as they were when `golden/bits.json` was written.

Where numpy and BLAS are those of the file, the weights are the same to the last bit; elsewhere they agree
within rounding. `python tests/test_bits.py` writes the file again: only for a change that is meant to change
weights.
"""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import threadpoolctl
from conftest import assert_nothing_left
from distributed import Client

import dasknn
from dasknn import MLPClassifier, MLPRegressor, Sequential
from dasknn.data import loading, shards
from dasknn.layers import BatchNormalization, Dense, Dropout, Input
from dasknn.strategies import GradientAveraging, OuterNesterov, PredictionAveraging, WeightAveraging
from dasknn.strategies.compression import Float16, PowerSGD

GOLDEN = Path(__file__).parent / "golden" / "bits.json"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Uneven; one partition has fewer rows than a batch has for a replica.
CHUNKS = (37, 4, 60, 43)
STRATEGIES = {
    "gradients": GradientAveraging(),
    "float16": GradientAveraging(compression=Float16()),
    "powersgd": GradientAveraging(compression=PowerSGD(rank=2)),
    "weights": WeightAveraging(),
    "weights-every-2": WeightAveraging(every=2),
    "nesterov": WeightAveraging(every=2, outer=OuterNesterov()),
    "predictions": PredictionAveraging(hop=False),
}
MODELS = ("classifier", "regressor", "sequential", "sequential-norm")


@dataclass(frozen=True)
class Way:
    """A training: which model, strategy and transport, data held or streamed, and which settings."""

    model: str
    strategy: str
    transport: str
    data: str = "held"
    settings: tuple = ()

    def __str__(self):
        named = (f"{name}={value}" for name, value in self.settings)
        return "-".join([self.model, self.strategy, self.transport, self.data, *named])


def ways():
    for model, name, data in product(MODELS, STRATEGIES, ("held", "streamed")):
        if name in ("float16", "powersgd"):
            # Replicas remember what they have not sent, so their data is held.
            transports = ("peer",) if data == "held" else ()
        else:
            transports = ("tasks",) if name == "predictions" else ("peer", "tasks")
        for transport in transports:
            yield Way(model, name, transport, data)
    for model in MODELS:
        yield Way(model, "auto", "process", "plain")
        yield Way(model, "auto", "auto", "held")
        yield Way(model, "gradients", "peer", "held", (("batch_size", 2),))
        yield Way(model, "weights", "tasks", "held", (("weighted", True),))
    for model in MODELS[:2]:
        for settings in (
            {"solver": "lbfgs"},
            {"solver": "sgd", "learning_rate": "adaptive"},
            {"early_stopping": True},
            {"batch_size": "auto"},
            {"dtype": "float32"},
        ):
            yield Way(model, "auto", "process", "plain", tuple(settings.items()))
            yield Way(model, "auto", "auto", "held", tuple(settings.items()))


def data_of(way):
    """Return X (144, 6), y and weights, of which no arithmetic depends on the machine."""
    rng = np.random.default_rng(3)
    X = rng.integers(-8, 8, (sum(CHUNKS), 6)) / 4
    y = X[:, 0] * X[:, 1] - X[:, 2]
    if way.model == "classifier" or way.model.startswith("sequential"):
        y = np.digitize(y, [-0.5, 0.5])
    weight = rng.integers(1, 4, len(X)) / 2
    if way.data == "plain":
        return X, y, weight
    return (
        da.from_array(X, chunks=(CHUNKS, -1)),
        da.from_array(y, chunks=(CHUNKS,)),
        da.from_array(weight, chunks=(CHUNKS,)),
    )


def train(way):
    """Return all parameters of a training, (members, n_params)."""
    X, y, weight = data_of(way)
    settings = dict(way.settings)
    weight = weight if settings.pop("weighted", False) else None
    with pytest.MonkeyPatch.context() as patch:
        if way.data == "streamed":
            patch.setattr(loading, "_MEMORY_SHARE", 1e-12)
            patch.setattr(shards, "_SHARD_BYTES", 1)
        fit = fit_sequential if way.model.startswith("sequential") else fit_estimator
        return np.atleast_2d(fit(way, X, y, weight, settings))


def fit_estimator(way, X, y, weight, settings):
    make = {"classifier": MLPClassifier, "regressor": MLPRegressor}[way.model]
    settings = {"batch_size": 32, "solver": "adam", "max_iter": 3, "replicas": 3} | settings
    if way.data == "plain":
        settings["replicas"] = None
    model = make(
        hidden_layer_sizes=(5, 4),
        activation="tanh",
        strategy=STRATEGIES.get(way.strategy, "auto"),
        transport="auto" if way.transport == "process" else way.transport,
        engine="numpy",
        random_state=1,
        **settings,
    )
    return model.fit(X, y, sample_weight=None if settings["solver"] == "lbfgs" else weight)._members


def fit_sequential(way, X, y, weight, settings):
    dasknn.set_random_seed(1)
    between = [BatchNormalization(), Dropout(0.25)] if way.model == "sequential-norm" else []
    model = Sequential([Input((6,)), Dense(5, "tanh"), *between, Dense(3, "softmax")])
    if way.strategy == "auto":
        model.compile("adam", "sparse_categorical_crossentropy", engine="numpy")
    else:
        with replace(STRATEGIES[way.strategy], replicas=3).scope():
            loss, transport = "sparse_categorical_crossentropy", way.transport
            model.compile("adam", loss, transport=transport, engine="numpy")
    model.fit(X, y, settings.get("batch_size", 32), epochs=3, verbose=0, sample_weight=weight)
    members = model.members or [model]
    return [np.concatenate([W.ravel() for W in member.get_weights()]) for member in members]


def described(params):
    """Return what the file says of parameters: their hash, and numbers that follow from all of them."""
    directions = np.random.default_rng(0).integers(0, 2, (4, params.size)) * 2.0 - 1
    return {
        "sha256": sha256(np.ascontiguousarray(params).tobytes()).hexdigest(),
        "sums": [float(direction @ params.ravel().astype(float)) for direction in directions],
    }


def arithmetic():
    """Return what decides about the last bits: numpy, and which kernels BLAS takes on this processor."""
    blas = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    found = sorted({f"{lib['internal_api']} {lib['version']} {lib.get('architecture')}" for lib in blas})
    return [f"numpy {np.__version__}", *found]


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def client(cluster):
    """One client for all, which costs as much as a short training."""
    with Client(cluster) as client:
        yield client
        assert_nothing_left(client)


@pytest.mark.parametrize("way", list(ways()), ids=str)
def test_weights_are_what_they_were(client, golden, way):
    params = train(way)
    found, expected = described(params), golden["ways"][str(way)]
    rtol = 1e-4 if params.dtype == np.float32 else 1e-8
    np.testing.assert_allclose(found["sums"], expected["sums"], rtol=rtol, atol=rtol)
    if arithmetic() == golden["arithmetic"]:
        assert found["sha256"] == expected["sha256"]


def test_the_file_has_no_way_that_is_not_tested(golden):
    assert set(golden["ways"]) == {str(way) for way in ways()}


if __name__ == "__main__":
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        table = {str(way): described(train(way)) for way in ways()}
    GOLDEN.write_text(json.dumps({"arithmetic": arithmetic(), "ways": table}, indent=1) + "\n")
