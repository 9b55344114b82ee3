"""Write optimizers.json: what Keras computes with optimizers, schedules, activations, initializers, ...

Made with Keras 3.15.0 and torch 2.13.0, in float64. Run with

    KERAS_BACKEND=torch python tests/golden/make_optimizers_and_initializers.py
"""

import json
from pathlib import Path

import keras
import numpy as np
import torch
from keras import activations, constraints, initializers, optimizers, regularizers
from keras.optimizers import schedules

keras.backend.set_floatx("float64")
N_STEPS = 6
RNG = np.random.default_rng(0)
START = [RNG.normal(size=(3, 2)).round(3), RNG.normal(size=2).round(3)]
GRADIENTS = [[(2 * RNG.normal(size=part.shape)).round(3) for part in START] for _ in range(N_STEPS)]

DECAY = {
    "module": "keras.optimizers.schedules",
    "class_name": "ExponentialDecay",
    "config": {
        "initial_learning_rate": 0.1,
        "decay_steps": 3,
        "decay_rate": 0.5,
        "staircase": False,
        "name": "ExponentialDecay",
    },
    "registered_name": None,
}
OPTIMIZERS = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learning_rate": 0.1, "clipnorm": 1.0}),
    ("SGD", {"learning_rate": 0.1, "clipvalue": 0.7}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.5, "global_clipnorm": 2.0}),
    ("SGD", {"learning_rate": DECAY, "momentum": 0.9}),
    ("SGD", {"learning_rate": DECAY, "gradient_accumulation_steps": 2}),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.3}),
    ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.7}),
    ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 2}),
    ("RMSprop", {}),
    ("RMSprop", {"learning_rate": 0.05, "momentum": 0.8}),
    ("RMSprop", {"learning_rate": 0.05, "rho": 0.8, "centered": True}),
    ("RMSprop", {"learning_rate": 0.05, "momentum": 0.8, "centered": True, "epsilon": 1e-4}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.1, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 0.01}),
    ("Adam", {"learning_rate": 0.1, "beta_2": 0.5, "amsgrad": True}),
    ("Adam", {"learning_rate": DECAY}),
    ("Adam", {"learning_rate": 0.1, "weight_decay": 0.2, "clipnorm": 1.0}),
    ("Adam", {"learning_rate": 0.1, "gradient_accumulation_steps": 3, "global_clipnorm": 1.0}),
    (
        "Adam",
        {
            "learning_rate": DECAY,
            "gradient_accumulation_steps": 2,
            "weight_decay": 0.2,
            "use_ema": True,
            "ema_momentum": 0.6,
            "ema_overwrite_frequency": 2,
        },
    ),
    ("AdamW", {}),
    ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.4, "amsgrad": True}),
    ("Adamax", {}),
    ("Adamax", {"learning_rate": 0.1, "beta_1": 0.7, "beta_2": 0.5}),
    ("Nadam", {}),
    ("Nadam", {"learning_rate": 0.1, "beta_1": 0.7, "beta_2": 0.9}),
    ("Nadam", {"learning_rate": 0.1, "gradient_accumulation_steps": 2}),
    ("Adagrad", {}),
    ("Adagrad", {"learning_rate": 0.3, "initial_accumulator_value": 0.0}),
    ("Adadelta", {}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-3}),
    ("Lion", {}),
    ("Lion", {"learning_rate": 0.05, "beta_1": 0.6, "beta_2": 0.7, "weight_decay": 0.1}),
]
# Kernel and bias: their regularizers, their constraints.
L1, L2, L1L2 = (regularizers.L1(0.2), regularizers.L2(0.3), regularizers.L1L2(0.1, 0.2))
SURROUNDED = [
    ("SGD", {"learning_rate": 0.1}, (L2, L1), (None, None)),
    ("SGD", {"learning_rate": 0.1, "clipnorm": 1.0}, (L1L2, None), (None, constraints.NonNeg())),
    ("Adam", {"learning_rate": 0.1}, (L2, None), (constraints.MaxNorm(1.0), constraints.NonNeg())),
    (
        "Adam",
        {"learning_rate": 0.1, "gradient_accumulation_steps": 2, "use_ema": True},
        (L2, L2),
        (constraints.MinMaxNorm(0.2, 0.8, rate=0.5), constraints.UnitNorm()),
    ),
]
SCHEDULES = [
    schedules.ExponentialDecay(0.1, 10, 0.5),
    schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True),
    schedules.PiecewiseConstantDecay([3, 17], [0.1, 0.05, 0.01]),
    schedules.PolynomialDecay(0.1, 20),
    schedules.PolynomialDecay(0.1, 20, 0.01, power=2.0, cycle=True),
    schedules.InverseTimeDecay(0.1, 10, 0.5),
    schedules.InverseTimeDecay(0.1, 10, 0.5, staircase=True),
    schedules.CosineDecay(0.1, 20, alpha=0.1),
    schedules.CosineDecay(0.0, 20, warmup_target=0.2, warmup_steps=5),
    schedules.CosineDecayRestarts(0.1, 7),
    schedules.CosineDecayRestarts(0.1, 7, t_mul=1.0, m_mul=0.8, alpha=0.05),
]
STEPS = [0, 1, 3, 4, 9, 10, 17, 19, 20, 25, 41, 60]
POINTS = np.array([-30, -7.3, -3.4, -1.7, -0.8, -0.3, -0.05, 0.2, 0.7, 1.6, 3.3, 6.8, 30])
COTANGENT = np.array([1, 0.5, -1, 2, 0.3, -0.7, 1.5, 1, -2, 0.8, 0.4, 1.2, -0.6])
ACTIVATIONS = [
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "softplus", "softsign", "gelu", "silu",
    "swish", "hard_sigmoid", "hard_silu", "hard_swish", "mish", "sigmoid", "log_sigmoid", "tanh",
    "exponential", "softmax", "log_softmax", "tanh_shrink", "hard_tanh", "soft_shrink", "hard_shrink",
    "squareplus", "sparse_plus", "sparse_sigmoid",
]  # fmt: skip
LAYERS = [
    keras.layers.ReLU(),
    keras.layers.ReLU(max_value=6.0),
    keras.layers.ReLU(max_value=3.0, negative_slope=0.2, threshold=0.5),
    keras.layers.ReLU(negative_slope=0.1, threshold=1.0),
    keras.layers.LeakyReLU(),
    keras.layers.LeakyReLU(negative_slope=0.05),
    keras.layers.ELU(),
    keras.layers.ELU(alpha=0.5),
]
SHAPE = (400, 300)
INITIALIZERS = [
    initializers.Zeros(),
    initializers.Ones(),
    initializers.Constant(0.3),
    initializers.Identity(),
    initializers.Orthogonal(1.5, seed=1),
    initializers.RandomNormal(0.1, 0.2, seed=1),
    initializers.RandomUniform(-0.1, 0.3, seed=1),
    initializers.TruncatedNormal(0.1, 0.2, seed=1),
    initializers.GlorotUniform(seed=1),
    initializers.GlorotNormal(seed=1),
    initializers.HeUniform(seed=1),
    initializers.HeNormal(seed=1),
    initializers.LecunUniform(seed=1),
    initializers.LecunNormal(seed=1),
    *(
        initializers.VarianceScaling(0.7, mode, distribution, seed=1)
        for mode in ("fan_in", "fan_out", "fan_avg")
        for distribution in ("truncated_normal", "untruncated_normal", "uniform")
    ),
]
# With zeros, and a column of zeros.
W = np.array([[0.5, -1.5, 0.0], [0.0, 2.0, 0.0], [-0.1, 0.3, 0.0], [1.2, -0.7, 0.0]])
REGULARIZERS = [
    regularizers.L1(),
    regularizers.L1(0.2),
    regularizers.L2(),
    regularizers.L2(0.3),
    regularizers.L1L2(),
    regularizers.L1L2(0.1, 0.4),
]
CONSTRAINTS = [
    constraints.MaxNorm(),
    constraints.MaxNorm(1.0, axis=1),
    constraints.NonNeg(),
    constraints.UnitNorm(),
    constraints.UnitNorm(axis=[0, 1]),
    constraints.MinMaxNorm(),
    constraints.MinMaxNorm(1.5, 2.0, rate=0.5),
]


def numbers(array):
    """Flat list of 12 digits each."""
    flat = np.ravel(array.detach().numpy() if isinstance(array, torch.Tensor) else array)
    return [float(f"{value:.12g}") for value in flat]


def described(thing):
    """Class and configuration; names begin at 1 again."""
    return {"class_name": type(thing).__name__, "config": thing.get_config()}


def trained(kind, settings, penalties=(None, None), limits=(None, None)):
    """Parameters after every step, and at the end of training."""
    keras.backend.clear_session()
    made = getattr(optimizers, kind).from_config(dict(settings))
    variables = [keras.Variable(part, dtype="float64") for part in START]
    for variable, limit in zip(variables, limits, strict=True):
        variable.constraint = limit
    made.build(variables)
    steps = []
    for gradient in GRADIENTS:
        gradients = []
        for variable, part, penalty in zip(variables, gradient, penalties, strict=True):
            value = torch.tensor(variable.numpy(), requires_grad=True)
            loss = (value * torch.tensor(part)).sum() + (penalty(value) if penalty else 0)
            gradients.append(torch.autograd.grad(loss, value)[0])
        made.apply(gradients, variables)
        steps.append(numbers(np.concatenate([v.numpy().ravel() for v in variables])))
    made.finalize_variable_values(variables)
    return {
        **described(made),
        "regularizers": [penalty and described(penalty) for penalty in penalties],
        "constraints": [limit and described(limit) for limit in limits],
        "steps": steps,
        "final": numbers(np.concatenate([v.numpy().ravel() for v in variables])),
    }


def with_derivative(function):
    """Values and the product of COTANGENT with the Jacobian."""
    points = torch.tensor(POINTS[np.newaxis], requires_grad=True)
    values = function(points)
    derivative = torch.autograd.grad(values, points, torch.tensor(COTANGENT[np.newaxis]))[0]
    return {"values": numbers(values), "derivative": numbers(derivative)}


def penalty(regularizer):
    """Penalty on W, and its derivative."""
    weights = torch.tensor(W, requires_grad=True)
    # Of a penalty that is 0, torch knows no derivative.
    value = regularizer(weights) + 0 * weights.sum()
    gradient = torch.autograd.grad(value, weights)[0]
    return {**described(regularizer), "value": numbers(value)[0], "gradient": numbers(gradient)}


def moments(initializer):
    """What a large draw is like."""
    draw = np.asarray(initializer(SHAPE, dtype="float64").detach())
    # With torch, a few of the truncated normal numbers are not truncated; so no extremes.
    low, high = np.quantile(draw, [0.001, 0.999])
    figures = {"mean": draw.mean(), "std": draw.std(), "low": low, "high": high}
    return {**described(initializer), **{name: float(f"{value:.6g}") for name, value in figures.items()}}


def main():
    """Write the file."""
    golden = {
        "start": [part.tolist() for part in START],
        "gradients": [[part.tolist() for part in step] for step in GRADIENTS],
        "optimizers": [trained(*case) for case in (*OPTIMIZERS, *SURROUNDED)],
        "schedule_steps": STEPS,
        "schedules": [
            {**described(schedule), "rates": numbers([float(schedule(step)) for step in STEPS])}
            for schedule in SCHEDULES
        ],
        "points": POINTS.tolist(),
        "cotangent": COTANGENT.tolist(),
        "activations": {name: with_derivative(activations.get(name)) for name in ACTIVATIONS},
        "layers": [{**described(layer), **with_derivative(layer)} for layer in LAYERS],
        "shape": SHAPE,
        "initializers": [moments(initializer) for initializer in INITIALIZERS],
        "W": W.tolist(),
        "regularizers": [penalty(regularizer) for regularizer in REGULARIZERS],
        "constraints": [
            {**described(constraint), "value": numbers(constraint(torch.tensor(W)))}
            for constraint in CONSTRAINTS
        ],
    }
    Path(__file__).with_name("optimizers.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
