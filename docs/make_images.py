"""Make the example images of the docs: `python docs/make_images.py` writes docs/images/*.png.

Two worker processes train small networks on data that scikit-learn ships or generates; one of them is killed
on the way.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import matplotlib
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster
from PIL import Image
from scipy.stats import loguniform
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import dasknn
from dasknn import HyperbandSearch, MLPClassifier
from dasknn.callbacks import Callback
from dasknn.plots import (
    CalibrationDisplay,
    ConfusionMatrixDisplay,
    EpochTimesDisplay,
    ImportanceDisplay,
    LearningCurveDisplay,
    PartialDependenceDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    ScalingDisplay,
    SearchDisplay,
    SlicesDisplay,
)

IMAGES = Path(__file__).parent / "images"
# A figure of 7 inches is 800 pixels wide.
DOTS_PER_INCH = 800 / 7


def save(name: str, display) -> None:
    """Write a picture, in few colors so that its file is small, and close its figure."""
    file = io.BytesIO()
    display.figure_.savefig(file, dpi=DOTS_PER_INCH)
    Image.open(file).convert("RGB").quantize(128).save(IMAGES / f"{name}.png", optimize=True)
    matplotlib.pyplot.close(display.figure_)


def on_cluster(X, y, n_parts: int = 4):
    """Return X (n, p) and y (n,) as Dask arrays."""
    n_rows = -(-len(X) // n_parts)
    return da.from_array(X, chunks=(n_rows, -1)), da.from_array(y, chunks=n_rows)


class LosesAWorker(Callback):
    """Kills a worker in the middle of an epoch, as running out of memory does; another one comes."""

    def __init__(self, client, epoch: int):
        self.client, self.epoch = client, epoch
        self.pid = next(iter(client.run(os.getpid).values()))

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            threading.Timer(0.02, os.kill, (self.pid, signal.SIGKILL)).start()

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch + 3:
            # These epochs are so short that the training would end before.
            self.client.wait_for_workers(2)


def digits(client) -> None:
    """Ten classes, and a worker that dies."""
    X, y = load_digits(return_X_y=True)
    # Noise makes them harder.
    X = X / 16 + np.random.default_rng(0).normal(scale=0.35, size=X.shape)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=0)
    model = MLPClassifier(
        (256, 128),
        solver="sgd",
        learning_rate="adaptive",
        learning_rate_init=0.1,
        tol=0.01,
        n_iter_no_change=2,
        batch_size=64,
        max_iter=22,
        random_state=0,
        strategy="gradients",
        transport="peer",
        replicas=2,
        callbacks=[LosesAWorker(client, epoch=8)],
    )
    test = on_cluster(X_test, y_test)
    model.fit(*on_cluster(X, y), validation_data=test)
    save("learning-curve", LearningCurveDisplay.from_estimator(model))
    save("confusion-matrix", ConfusionMatrixDisplay.from_estimator(model, *test))
    save("roc-curve", RocCurveDisplay.from_estimator(model, *test, plot_chance_level=True))
    save("precision-recall", PrecisionRecallDisplay.from_estimator(model, *test))
    save("epoch-times", EpochTimesDisplay.from_estimator(model))
    save("epoch-times-by-epoch", EpochTimesDisplay.from_estimator(model, by="epoch"))


def scaling(client) -> None:
    """Predictions for clusters of one worker to 64, each on a host of its own."""
    X = da.random.default_rng(0).random((2_000_000, 64), chunks=(50_000, 64))
    model = MLPClassifier((256, 128), batch_size=6400, random_state=0, dtype="float32")
    sizes = {"workers": [1, 2, 4, 8, 16, 32, 64], "workers_per_host": 1}
    save("scaling", ScalingDisplay.from_recommendation(dasknn.recommend(client, model, X, **sizes)))


def two_classes() -> None:
    """Two models in one picture: the large one has learned its few rows by heart."""
    X, y = make_classification(8000, n_informative=4, flip_y=0.3, random_state=0)
    X, X_test, y, y_test = train_test_split(X, y, train_size=1000, random_state=0)
    test = on_cluster(X_test, y_test)
    display = None
    for name, units, max_iter in (("4 units", 4, 150), ("200 units", 200, 100)):
        model = MLPClassifier((units,), max_iter=max_iter, alpha=0, random_state=0).fit(X, y)
        ax = None if display is None else display.ax_
        display = CalibrationDisplay.from_estimator(model, *test, n_bins=8, name=name, ax=ax)
    save("calibration", display)


def regions() -> None:
    """Slices: one region is not like the others, and another has few rows."""
    X, y = make_classification(20_000, n_informative=6, flip_y=0.05, random_state=0)
    rng = np.random.default_rng(0)
    shares = {"north": 0.46, "south": 0.3, "east": 0.18, "west": 0.058, "islands": 0.002}
    region = rng.choice(list(shares), len(y), p=list(shares.values()))
    y = np.where((region == "west") & (rng.random(len(y)) < 0.15), 1 - y, y)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    data = dd.from_pandas(frame.assign(region=region, y=y), npartitions=4)
    X, y, region = data[list(frame.columns)], data["y"], data[["region"]]
    small = MLPClassifier((16,), max_iter=10, random_state=0).fit(X, y)
    large = MLPClassifier((64,), max_iter=10, random_state=0).fit(X, y)
    slices = ["region", dasknn.Buckets("x0", 4)]
    wanted = {"metrics": ["accuracy"], "slices": slices, "slice_data": region}
    found = dasknn.evaluate(small, X, y, **wanted)
    save("slices", SlicesDisplay.from_evaluation(found, "accuracy"))
    found = dasknn.compare(large, small, X, y, **wanted)
    save("slices-compared", SlicesDisplay.from_evaluation(found, "accuracy"))


def columns() -> None:
    """A raw table with text, of which one column says nothing."""
    rng = np.random.default_rng(0)
    n = 20_000
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "hours": rng.normal(38, 8, n),
            "region": rng.choice(["Asia", "EU", "US", None], n, p=[0.1, 0.5, 0.395, 0.005]),
            "color": rng.choice(["red", "green", "blue"], n),
        }
    )
    chance = (frame.hours - 38) / 4 + 2 * (frame.region == "US") - 0.02 * (frame.age - 50)
    frame["income"] = np.where(rng.random(n) < 1 / (1 + np.exp(-chance)), "high", "low")
    data = dd.from_pandas(frame, npartitions=8)
    X, y = data[["age", "hours", "region", "color"]], data["income"]
    model = make_pipeline(dasknn.TablePreprocessor(), MLPClassifier((16,), max_iter=10, random_state=0))
    model.fit(X, y)
    save("importance", ImportanceDisplay.from_estimator(model, X, y, random_state=0))
    shown = {"pos_label": "high", "random_state": 0}
    save(
        "partial-dependence", PartialDependenceDisplay.from_estimator(model, X, ["hours", "region"], **shown)
    )


def search_of(**settings) -> HyperbandSearch:
    """Return a search over widths, learning rates and more."""
    parameters = {
        "hidden_layer_sizes": [(16,), (64,), (64, 64)],
        "activation": ["relu", "tanh"],
        "learning_rate_init": loguniform(1e-4, 3e-1),
        "alpha": loguniform(1e-7, 1e-1),
    }
    return HyperbandSearch(MLPClassifier(), parameters, random_state=0, max_ensemble=0, **settings)


def searches() -> None:
    """Many trials in brackets."""
    X, y = load_digits(return_X_y=True)
    X = X / 16 + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
    search = search_of(n_trials=60, max_iter=27).fit(*on_cluster(X, y))
    save("search", SearchDisplay.from_estimator(search))
    save("search-settings", SearchDisplay.from_estimator(search, settings="all"))


def dashboard_of_a_search(client) -> None:
    """The page of Dask's dashboard, in a browser, while a search runs."""
    from playwright.sync_api import sync_playwright

    X, y = on_cluster(*make_classification(20_000, n_features=40, n_informative=12, random_state=0), 8)
    searching = threading.Thread(target=search_of(n_trials=60, max_iter=27).fit, args=(X, y))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(dasknn.dashboard.install(client))
        searching.start()
        is_halfway = """() => {
            const page = Bokeh.documents[0]
            const found = page && page.get_model_by_name("header").text.match(/<b>(\\d+)<.b> epochs/)
            return found && Number(found[1]) > 200
        }"""
        page.wait_for_function(is_halfway, timeout=120_000)
        page.wait_for_timeout(700)
        page.screenshot(path=IMAGES / "dashboard-search.png")
        browser.close()
    searching.join()


def dashboard(client) -> None:
    """The page of Dask's dashboard, in a browser, while a training runs that has lost a worker."""
    from playwright.sync_api import sync_playwright

    X, y = on_cluster(*make_classification(200_000, n_features=50, n_informative=12, random_state=0), 8)
    lost = LosesAWorker(client, 5)
    seen = threading.Event()

    class UntilSeen(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.training.stop_training = seen.is_set()

    settings = {"strategy": "gradients", "batch_size": 512, "learning_rate_init": 3e-4, "max_iter": 1000}
    model = MLPClassifier(
        (128, 64), random_state=0, early_stopping=True, replicas=2, dtype="float32", **settings
    )
    model.set_params(callbacks=[lost, UntilSeen()], n_iter_no_change=1000)
    training = threading.Thread(target=model.fit, args=(X, y))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 770})
        page.goto(dasknn.dashboard.install(client))
        training.start()
        page.get_by_text("worker joined").first.wait_for(timeout=120_000)
        page.get_by_text("epoch 14").first.wait_for(timeout=120_000)
        # Within an epoch.
        page.wait_for_timeout(1_500)
        page.screenshot(path=IMAGES / "dashboard.png")
        browser.close()
    seen.set()
    training.join()


def main() -> None:
    """Write all images; that of the dashboard where a Chromium is installed."""
    matplotlib.use("Agg")
    IMAGES.mkdir(exist_ok=True)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        digits(client)
        client.wait_for_workers(2)
        scaling(client)
        two_classes()
        regions()
        columns()
        searches()
        if shutil.which("chromium"):
            dashboard(client)
            dashboard_of_a_search(client)


if __name__ == "__main__":
    main()
