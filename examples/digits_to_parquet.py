"""Write scikit-learn's digits, 1,797 pictures of 8 x 8 pixels, to Parquet in FOLDER/train and FOLDER/test."""

import sys
from pathlib import Path

import dask.dataframe as dd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

folder = Path(sys.argv[1])
table = load_digits(as_frame=True).frame.rename(columns={"target": "digit"})
train, test = train_test_split(table, test_size=0.2, random_state=0, stratify=table["digit"])
dd.from_pandas(train, npartitions=4, sort=False).to_parquet(folder / "train", write_index=False)
dd.from_pandas(test, npartitions=2, sort=False).to_parquet(folder / "test", write_index=False)
print(f"{len(train)} rows to {folder / 'train'}, {len(test)} rows to {folder / 'test'}")
