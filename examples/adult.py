"""Train on a table with columns of text: Adult (UCI), in one process and on a cluster.

python examples/adult.py [adult.parquet]; without a file, scikit-learn fetches the table from OpenML.
In a shell: dask nn train adult.parquet --target income --output adult.safetensors
"""

import sys

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client
from sklearn.datasets import fetch_openml
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import MLPClassifier, TablePreprocessor


def adult():
    """Return Adult as a dataframe; the target is the column 'income'."""
    if len(sys.argv) > 1:
        return pd.read_parquet(sys.argv[1])
    return fetch_openml("adult", version=2, as_frame=True).frame.rename(columns={"class": "income"})


def pipeline():
    """Return a pipeline for a raw table: it encodes the columns and trains a network."""
    model = MLPClassifier((64,), early_stopping=True, random_state=0)
    return Pipeline([("table", TablePreprocessor()), ("mlp", model)])


def main():
    """Print the test accuracy of the pipeline in this process, on a cluster, and read from a file."""
    train, test = train_test_split(adult(), test_size=0.2, random_state=0)
    X_test, y_test = test.drop(columns="income"), test["income"]

    here = pipeline().fit(train.drop(columns="income"), train["income"])
    print(f"one process: {here.score(X_test, y_test):.4f}")

    with Client(n_workers=2, threads_per_worker=1):
        rows = dd.from_pandas(train, npartitions=8, sort=False)
        there = pipeline().fit(rows.drop(columns="income"), rows["income"])
    print(f"two workers: {there.score(X_test, y_test):.4f}")

    dasknn.save(there, "adult.safetensors")
    print(f"from a file: {dasknn.load('adult.safetensors').score(X_test, y_test):.4f}")


if __name__ == "__main__":
    main()
