"""A raw table as people keep them, for the tests of this folder."""

import numpy as np
import pandas as pd


def mixed(n_rows=300, seed=0):
    """A column of each kind, most of them with missing values."""
    rng = np.random.default_rng(seed)

    def some(values, share=0.1):
        return pd.Series(values).mask(rng.random(n_rows) < share)

    moments = pd.Timestamp("2024-02-27") + pd.to_timedelta(rng.integers(0, 3_000_000, n_rows), unit="s")
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, n_rows),
            "income": some(rng.lognormal(10, 1, n_rows)),
            "gain": np.where(rng.random(n_rows) < 0.8, 0.0, rng.normal(5000, 2000, n_rows)),
            "member": rng.random(n_rows) < 0.4,
            "owner": some(rng.random(n_rows) < 0.4).astype("boolean"),
            "job": some(rng.choice(["clerk", "farmer", "pilot"], n_rows)),
            "region": pd.Categorical(rng.choice(["north", "south"], n_rows), ["south", "north", "unused"]),
            "seen": some(moments),
            "stay": some(pd.to_timedelta(rng.integers(0, 500, n_rows), unit="h")),
            "constant": "same",
            "nothing": pd.Series([None] * n_rows, dtype="float64"),
        }
    )
