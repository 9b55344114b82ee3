"""Train on a table with columns of text: Adult (UCI), in one process and on a cluster.

python examples/adult.py [adult.parquet]; without a file, scikit-learn fetches the table from OpenML.
"""

import sys

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import fetch_openml
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dasknn import MLPClassifier


def adult():
    """Return Adult as a dataframe; the target is the column that begins with 'income' or 'class'."""
    if len(sys.argv) > 1:
        return pd.read_parquet(sys.argv[1])
    return fetch_openml("adult", version=2, as_frame=True).frame.rename(columns={"class": "income"})


def main():
    """Print the test accuracy of a pipeline here, and of the same on a cluster."""
    train, test = train_test_split(adult(), test_size=0.2, random_state=0)
    X_train, y_train = train.drop(columns="income"), train["income"]
    X_test, y_test = test.drop(columns="income"), test["income"]
    prepare = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            make_column_selector(dtype_exclude="number"),
        ),
    )

    pipeline = make_pipeline(prepare, MLPClassifier((64,), early_stopping=True, random_state=0))
    print(f"one process: {pipeline.fit(X_train, y_train).score(X_test, y_test):.4f}")

    with Client(n_workers=2, threads_per_worker=1):
        X, y = dd.from_pandas(X_train, npartitions=8, sort=False), dd.from_pandas(y_train, 8, sort=False)
        sample = X_train.sample(10_000, random_state=0)
        encoder = clone(prepare).set_output(transform="pandas").fit(sample)
        columns = encoder.transform(sample[:1])[:0]

        def encode(frame):
            return frame.map_partitions(encoder.transform, meta=columns)

        model = MLPClassifier((64,), batch_size=256, early_stopping=True, random_state=0)
        model.fit(encode(X), y)
        print(f"two workers: {model.score(encoder.transform(X_test), y_test):.4f}")


if __name__ == "__main__":
    main()
