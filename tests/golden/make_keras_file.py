"""Write made_by_keras.keras, and to made_by_keras.json what Keras predicts with it.

Made with Keras 3.15.1 and torch 2.13.0. Run with

    KERAS_BACKEND=torch python tests/golden/make_keras_file.py
"""

import json
from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent


def main():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu", kernel_regularizer="l2", name="first"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.LayerNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, y, epochs=2, batch_size=8, verbose=0)
    model.save(HERE / "made_by_keras.keras")
    learned = {weight.path.partition("/")[2].replace("/", "_") for weight in model.trainable_weights}
    slots = {}
    for variable in model.optimizer.variables[2:]:
        # sequential_first_kernel_momentum
        weight, _, kind = variable.name.removeprefix("sequential_").rpartition("_")
        assert weight in learned
        slots.setdefault(kind, {})[weight] = variable.numpy().tolist()
    loss, accuracy = model.evaluate(X, y, verbose=0)
    golden = {
        "keras": keras.__version__,
        "X": X.tolist(),
        "y": y.tolist(),
        "predictions": model.predict(X, verbose=0).tolist(),
        "loss": loss,
        "accuracy": accuracy,
        "iterations": int(model.optimizer.iterations),
        "learning_rate": float(model.optimizer.learning_rate),
        "slots": slots,
    }
    (HERE / "made_by_keras.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
