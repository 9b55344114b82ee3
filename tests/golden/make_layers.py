"""Write layers.json: what Keras computes in layers that normalize.

Made with Keras 3.15.0 and torch 2.13.0; Keras takes moments in float32. Run with

    KERAS_BACKEND=torch python tests/golden/make_layers.py
"""

import json
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers

keras.backend.set_floatx("float64")
RNG = np.random.default_rng(0)
N_ROWS, UNITS = 5, 3
BATCHES = (RNG.normal(size=(3, N_ROWS, UNITS)) * [1, 5, 0.5] + [0, 3, 1]).round(3)
COTANGENT = RNG.normal(size=(N_ROWS, UNITS)).round(3)
GAMMA, BETA = np.array([0.7, -1.2, 2.0]), np.array([0.3, 0.0, -0.5])
LAYERS = [
    layers.BatchNormalization(),
    layers.BatchNormalization(momentum=0.8, epsilon=0.01),
    layers.BatchNormalization(scale=False, momentum=0.6),
    layers.BatchNormalization(center=False, momentum=0.6),
    layers.LayerNormalization(),
    layers.LayerNormalization(epsilon=0.1, scale=False),
    layers.LayerNormalization(center=False),
]


def numbers(array):
    """Nested lists of 12 digits each."""
    array = array.detach().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    return [numbers(row) for row in array] if array.ndim else float(f"{array:.12g}")


def figures(layer):
    """Outputs and derivatives of the batches in training, then the weights, and the outputs for new data."""
    config = layer.get_config()
    layer.build((None, UNITS))
    for name, value in (("gamma", GAMMA), ("beta", BETA)):
        if getattr(layer, name, None) is not None:
            getattr(layer, name).assign(value)
    outputs, derivatives = [], []
    for batch in BATCHES:
        X = torch.tensor(batch, requires_grad=True)
        A = layer(X, training=True)
        learned = [weight.value for weight in layer.trainable_weights]
        of_inputs, *of_weights = torch.autograd.grad(A, [X, *learned], torch.tensor(COTANGENT))
        outputs.append(numbers(A))
        derivatives.append({"inputs": numbers(of_inputs), "weights": [numbers(part) for part in of_weights]})
    return {
        "class_name": type(layer).__name__,
        "config": config,
        "outputs": outputs,
        "derivatives": derivatives,
        "weights": {weight.name: numbers(weight.numpy()) for weight in layer.weights},
        "new_data": numbers(layer(torch.tensor(BATCHES[0]), training=False)),
    }


def main():
    """Write the file."""
    golden = {
        "batches": BATCHES.tolist(),
        "cotangent": COTANGENT.tolist(),
        "gamma": GAMMA.tolist(),
        "beta": BETA.tolist(),
        "layers": [figures(layer) for layer in LAYERS],
    }
    for case in golden["layers"]:
        # Figures are in float64; ours compute in the dtype of the network.
        case["config"]["dtype"] = "float32"
    Path(__file__).with_name("layers.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
