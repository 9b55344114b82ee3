"""Write tabular*.safetensors and tabular.json: fitted estimators for tables, and what they predict.

Later versions must open the files and predict these numbers. Write them again only for a new format, which
the version that reads it must have been released with. Run with

    python tests/golden/make_tabular.py
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from dasknn import TabularClassifier, TabularRegressor

HERE = Path(__file__).parent
SMALL = {
    "members": 2,
    "hidden_layer_sizes": (4,),
    "embedding_dim": 2,
    "n_bins": 6,
    "max_iter": 8,
    "early_stopping": True,
    "random_state": 0,
}


def table(n_rows=240):
    """Columns of each kind, with missing values."""
    rng = np.random.default_rng(0)
    moments = pd.Timestamp("2024-02-27") + pd.to_timedelta(rng.integers(0, 3_000_000, n_rows), unit="s")
    frame = pd.DataFrame(
        {
            "age": rng.integers(17, 90, n_rows).astype(float),
            "member": rng.random(n_rows) < 0.4,
            "job": rng.choice(["clerk", "farmer", "pilot"], n_rows),
            "town": [f"town {number}" for number in rng.integers(0, 20, n_rows)],
            "seen": moments,
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


def main():
    frame = table()
    age = frame["age"].fillna(50).to_numpy()
    classifier = TabularClassifier(**SMALL).fit(frame, np.where(age > 50, "old", "young"))
    regressor = TabularRegressor(**SMALL, quantiles=[0.1, 0.5, 0.9]).fit(frame, np.sqrt(age))
    classifier.save(HERE / "tabular.safetensors")
    regressor.save(HERE / "tabular_quantiles.safetensors")
    rows = frame[:12].astype({"seen": str})
    found = {
        "rows": json.loads(rows.to_json(orient="records")),
        "probabilities": classifier.predict_proba(frame[:12]).tolist(),
        "quantiles": regressor.predict_quantiles(frame[:12]).tolist(),
        "intervals": regressor.predict_interval(frame[:12], 0.8).tolist(),
    }
    (HERE / "tabular.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
