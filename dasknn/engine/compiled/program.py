"""What compiled functions know of a training: a network, its loss and its optimizer as arrays of numbers.

Compiled once, the same functions run every network: they read from these arrays which layers there are. So
there are two signatures, float32 and float64, whatever is trained. `reason_against` says what cannot be
written down in this way; it trains in numpy.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from dasknn import activations, regularizers
from dasknn.activations import SELU_ALPHA, SELU_SCALE
from dasknn.activations import Activation as Function
from dasknn.engine.network import Network
from dasknn.layers import ELU as EluLayer
from dasknn.layers import Activation, Dense, Dropout, Layer, LeakyReLU, ReLU, Softmax
from dasknn.losses import Form
from dasknn.optimizers import SGD, Adam, AdamW, Optimizer
from dasknn.regularizers import L1, L1L2

# Kinds of layers, and columns of `Program.layers`.
DENSE, ELEMENTWISE, DROPOUT = range(3)
KIND, N_INPUTS, N_OUTPUTS, KERNEL, BIAS, FUNCTION, OUTPUTS = range(7)
# Columns of `Program.settings`: three of the function of a layer; or the rate of dropout, then its factor.
N_SETTINGS = 3

# Functions.
IDENTITY, RELU, TANH, LOGISTIC, EXP, SOFTMAX = range(6)
(
    CLIPPED_RELU,
    ELU,
    SOFTPLUS,
    SOFTSIGN,
    GELU,
    SILU,
    HARD_SIGMOID,
    HARD_SILU,
    MISH,
    LOG_SIGMOID,
    TANH_SHRINK,
    HARD_TANH,
    SOFT_SHRINK,
    HARD_SHRINK,
    SQUAREPLUS,
    SPARSE_PLUS,
    SPARSE_SIGMOID,
) = range(6, 23)

# Kinds of losses; columns of `Program.loss` and of `Program.scales`.
LABELS_OF_CLASSES, CLASSES, BINARY, SQUARED = range(4)
LOSS, FROM_LOGITS, TO_LOGITS, OVER_ROWS = range(4)
LEAST, VALUE_SCALE, SLOPE_SCALE, SMOOTHING, SMOOTH_SHARE = range(5)

# Kinds of optimizers; columns of `Program.optimizer`.
SGD_STEP, ADAM_STEP = range(2)
MOMENTUM, NESTEROV, BETA_1, BETA_2, REST_1, REST_2, EPSILON, AMSGRAD, L2 = range(9)

# What a request to `kernels.serve` asks for; 0: nothing.
SUM, STEPS, PREDICTIONS = range(1, 4)
# Its columns: addresses and sizes of the columns of a shard, of the order of its rows and of the places where
# batches begin and end in it; addresses of parameters, slots, rates, states of random draws, the vector to
# add to or to set, and where outputs go (0: nowhere); how many batches were taken.
X_AT, X_SIZE, LABELS_AT, LABELS_SIZE, TARGETS_AT, TARGETS_SIZE, WEIGHT_AT, WEIGHT_SIZE = range(8)
WHAT, ORDER_AT, ORDER_SIZE, BOUNDS_AT, N_BATCHES, PARAMS_AT, SLOTS_AT, RATES_AT = range(8, 16)
NOISE_AT, N_NOISE, TOTAL_AT, IS_FIRST, SEEN_AT, N_TAKEN = range(16, 22)
N_COLUMNS = 24
# Columns of the sums: the numbers of a contribution.
LOSS_SUM, WEIGHT, ROWS, N_STEPS = range(4)

# The function of each activation, and its settings: those of the two with settings are read from them.
_FUNCTIONS: dict[str, tuple[int, tuple[float, ...]]] = {
    "identity": (IDENTITY, ()),
    "relu": (RELU, ()),
    "tanh": (TANH, ()),
    "logistic": (LOGISTIC, ()),
    "exp": (EXP, ()),
    "softmax": (SOFTMAX, ()),
    "relu6": (CLIPPED_RELU, (6.0, 0.0, 0.0)),
    "selu": (ELU, (SELU_SCALE, SELU_ALPHA)),
    "celu": (ELU, (1.0, 1.0)),
    "softplus": (SOFTPLUS, ()),
    "softsign": (SOFTSIGN, ()),
    "gelu": (GELU, ()),
    "silu": (SILU, ()),
    "hard_sigmoid": (HARD_SIGMOID, ()),
    "hard_silu": (HARD_SILU, ()),
    "mish": (MISH, ()),
    "log_sigmoid": (LOG_SIGMOID, ()),
    "tanh_shrink": (TANH_SHRINK, ()),
    "hard_tanh": (HARD_TANH, ()),
    "soft_shrink": (SOFT_SHRINK, ()),
    "hard_shrink": (HARD_SHRINK, ()),
    "squareplus": (SQUAREPLUS, ()),
    "sparse_plus": (SPARSE_PLUS, ()),
    "sparse_sigmoid": (SPARSE_SIGMOID, ()),
}
_ELEMENTWISE = (Activation, EluLayer, LeakyReLU, ReLU, Softmax)
_LOSSES = {Form.LABELS: LABELS_OF_CLASSES, Form.CLASSES: CLASSES, Form.BINARY: BINARY, Form.SQUARED: SQUARED}


def reason_against(network: Network, optimizer: Optimizer) -> str:
    """Return what of a training cannot be compiled, such as "BatchNormalization"; "" if all of it can."""
    if reason := reason_against_layers(network):
        return reason
    form, last = form_of(network), network.layers[-1].activation_name
    # Softmax has a derivative only together with that of a loss.
    if form is None or (last == "softmax" and not form.to_logits):
        return f"{type(network.loss).__name__} after {last}"
    if type(optimizer) not in (SGD, Adam, AdamW):
        return type(optimizer).__name__
    for name in ("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps"):
        if getattr(optimizer, name):
            return name
    for variable in network.variables:
        if variable.constraint is not None:
            return type(variable.constraint).__name__
        if variable.regularizer is not None and type(variable.regularizer) not in _PENALTIES:
            return type(variable.regularizer).__name__
    return ""


def reason_against_layers(network: Network) -> str:
    """Return which layer or function cannot be compiled; "" if the network can predict."""
    # Not cached: networks are equal if the names of their functions are.
    last = len(network.layers) - 1
    reasons = (_reason_against_layer(layer, number == last) for number, layer in enumerate(network.layers))
    return next(filter(None, reasons), "")


def _reason_against_layer(layer: Layer, is_last: bool) -> str:
    if type(layer) is not Dropout:
        # A subclass may compute something else.
        if type(layer) not in (Dense, *_ELEMENTWISE):
            return type(layer).__name__
        function = _function(layer)
        if (
            _function_of(function) is None
            or not _is_ours(function)
            or (function.name == "softmax" and not is_last)
        ):
            return f"the activation {function.name}"
    if getattr(layer, "activity_regularizer", None) is not None:
        return "activity_regularizer"
    return ""


def _function(layer: Any) -> Function:
    return layer.activation if isinstance(layer, Dense) else layer.function


def _is_ours(function: Function) -> bool:
    """Return whether a function is the one of its name, and not another with that name."""
    try:
        known = activations.get(function.name)
    except ValueError:
        return False
    if function.settings:
        known = getattr(activations, function.name)(**dict(function.settings))
    return _same(function.forward, known.forward) and _same(function.backward, known.backward)


def _same(left: Any, right: Any) -> bool:
    """Return whether two functions are the same; one of them may be an unpickled copy."""
    if isinstance(left, partial) and isinstance(right, partial):
        parts = zip((left.func, *left.args), (right.func, *right.args), strict=False)
        return len(left.args) == len(right.args) and all(_same(*pair) for pair in parts)
    return bool(left == right)


def _function_of(function: Function) -> tuple[int, tuple[Any, ...]] | None:
    """Return the number and the settings of a function; None for one that somebody else has written."""
    settings = dict(function.settings)
    if function.name == "elu":
        return ELU, (1.0, settings["alpha"])
    if function.name in ("relu", "leaky_relu") and settings:
        highest = settings.get("max_value")
        most = np.inf if highest is None else highest
        return CLIPPED_RELU, (most, settings["negative_slope"], settings.get("threshold", 0.0))
    return _FUNCTIONS.get(function.name)


def form_of(network: Network) -> Form | None:
    """Return the loss of a network as numbers; None for losses that cannot be written so."""
    # A subclass may compute another loss.
    if "form" not in vars(type(network.loss)):
        return None
    return network.loss.form(network.n_outputs, network.layers[-1].activation_name, network.dtype)


_PENALTIES = {L1: ("l1",), regularizers.L2: ("l2",), L1L2: ("l1", "l2")}


class Program(NamedTuple):
    """A network and its loss as arrays of numbers, in the form that compiled functions take.

    Attributes
    ----------
    layers : int64 (n_layers, 7)
    settings : (n_layers, 3)
    loss : int64 (4,)
    scales : (5,)
    """

    layers: np.ndarray
    settings: np.ndarray
    loss: np.ndarray
    scales: np.ndarray

    @property
    def network(self) -> tuple[np.ndarray, np.ndarray]:
        """Layers and their settings."""
        return self.layers, self.settings

    @property
    def loss_of(self) -> tuple[np.ndarray, np.ndarray]:
        """The loss and its scales."""
        return self.loss, self.scales


@lru_cache(maxsize=64)
def program_of(network: Network) -> Program:
    """Return the program of a network; its loss may be None, if it only predicts."""
    layers = np.full((len(network.layers), 7), -1, np.int64)
    settings = np.zeros((len(network.layers), N_SETTINGS), network.dtype)
    places = {(variable.layer, variable.name): variable.begin for variable in network.variables}
    width_before = 0
    for number, layer in enumerate(network.layers):
        row, n_inputs, n_outputs = layers[number], *network.widths[number : number + 2]
        row[[N_INPUTS, N_OUTPUTS, OUTPUTS]] = n_inputs, n_outputs, width_before
        width_before += n_outputs
        row[FUNCTION] = IDENTITY
        if isinstance(layer, Dropout):
            row[KIND] = DROPOUT
            settings[number, :2] = layer.rate, 1 / (1 - layer.rate) if layer.rate < 1 else 0
            continue
        is_dense = isinstance(layer, Dense)
        row[KIND] = DENSE if is_dense else ELEMENTWISE
        found = _function_of(_function(layer))
        assert found is not None, "reason_against says what cannot be compiled"
        row[FUNCTION] = found[0]
        settings[number, : len(found[1])] = found[1]
        if is_dense:
            row[[KERNEL, BIAS]] = places[number, "kernel"], places.get((number, "bias"), -1)
    form = None if network.loss is None else form_of(network)
    if form is None:
        return Program(layers, settings, np.zeros(4, np.int64), np.zeros(5, network.dtype))
    loss = np.array([_LOSSES[form.kind], form.from_logits, form.to_logits, form.over_rows], np.int64)
    scales = [form.least, form.value_scale, form.slope_scale, form.smoothing, form.smooth_share]
    return Program(layers, settings, loss, np.array(scales, network.dtype))


def optimization_of(network: Network, optimizer: Optimizer, l2: float) -> tuple:
    """Return what compiled functions know of an optimizer and of penalties.

    Returns
    -------
    (kind, optimizer (9,), n_weights, n_learned, penalized int64 (m, 2), penalties (m, 2), n_params, n_slots)
        l2 is the factor of the estimators' penalty on all kernels; the penalized are weights with a penalty
        of their own.
    """
    numbers = np.zeros(9, network.dtype)
    numbers[L2] = l2
    if isinstance(optimizer, Adam):
        kind = ADAM_STEP
        numbers[[BETA_1, BETA_2, EPSILON]] = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        # Rounded once: in float32, 1 - beta would be far off for a beta close to 1.
        numbers[[REST_1, REST_2]] = 1 - optimizer.beta_1, 1 - optimizer.beta_2
        numbers[AMSGRAD] = optimizer.amsgrad
    else:
        assert isinstance(optimizer, SGD), "reason_against says what cannot be compiled"
        kind = SGD_STEP
        numbers[[MOMENTUM, NESTEROV]] = optimizer.momentum, optimizer.nesterov
    own = [v for v in network.variables if v.is_learned and v.regularizer is not None]
    spans = [(v.span.start, v.span.stop) for v in own]
    factors = [[getattr(v.regularizer, name, 0.0) for name in ("l1", "l2")] for v in own]
    return (
        kind,
        numbers,
        min(network.n_weights, network.n_learned),
        network.n_learned,
        np.array(spans, np.int64).reshape(-1, 2),
        np.array(factors, network.dtype).reshape(-1, 2),
        network.n_params,
        optimizer.n_slots,
    )


def rates_of_step(optimizer: Optimizer, rate: float, step: int) -> tuple[float, float, float]:
    """Return the learning rate of a step, that with Adam's corrections, and the share of weight decay."""
    corrected = rate
    if isinstance(optimizer, Adam):
        corrected = rate * sqrt(1 - optimizer.beta_2**step) / (1 - optimizer.beta_1**step)
    return rate, corrected, rate * optimizer.decay(step)


def rates_of(optimizer: Optimizer, rates: list[float], first_step: int, dtype: str) -> np.ndarray:
    """Return the `rates_of_step` of consecutive steps (n, 3), given their learning rates."""
    found = [rates_of_step(optimizer, rate, first_step + i) for i, rate in enumerate(rates)]
    return np.array(found, dtype)
