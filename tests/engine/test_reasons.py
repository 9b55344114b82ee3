"""What has no compiled steps trains in numpy, and the model says why."""

import numpy as np
import pytest
from given_jobs import N_INPUTS
from scipy.special import expit

import dasknn
from dasknn import (
    MLPClassifier,
    MLPRegressor,
    Sequential,
    activations,
    constraints,
    losses,
    regularizers,
)
from dasknn.engine.compiled.program import reason_against
from dasknn.engine.network import Network
from dasknn.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    Input,
    LayerNormalization,
    ReLU,
    Softmax,
)
from dasknn.optimizers import SGD, Adam, AdamW, RMSprop

pytestmark = pytest.mark.timeout(600)


class OwnDense(Dense):
    """Might compute anything."""


class OwnReLU(ReLU):
    """Does not stop at 0."""

    def bind(self, n_rows, n_inputs, dtype):
        return Activation("linear").bind(n_rows, n_inputs, dtype)


class OwnDropout(Dropout):
    """Might draw other numbers."""


class OwnLoss(losses.MeanSquaredError):
    """Might be another loss."""


class OwnSGD(SGD):
    """Might take other steps."""


class OwnL2(regularizers.L2):
    """Might be another penalty."""


# A function of a user's own, with the name of one that has been compiled.
own_tanh = activations.Activation(
    "tanh",
    lambda Z, scratch=None: expit(Z, out=Z),
    lambda A, dA, scratch=None: np.multiply(dA, A * (1 - A), out=dA),
)
own_name = activations.Activation("mine", own_tanh.forward, own_tanh.backward)

LAYERS = {
    "BatchNormalization": BatchNormalization(),
    "LayerNormalization": LayerNormalization(),
    "GaussianNoise": GaussianNoise(0.1),
    "GaussianDropout": GaussianDropout(0.1),
    "OwnDense": OwnDense(3),
    "OwnReLU": OwnReLU(),
    "OwnDropout": OwnDropout(0.1),
    "the activation softmax": Dense(3, "softmax"),
    "the activation softmax ": Softmax(),
    "the activation softmax  ": Activation("softmax"),
    "the activation log_softmax": Dense(3, "log_softmax"),
    "the activation tanh": Dense(3, own_tanh),
    "the activation tanh ": Activation(own_tanh),
    "the activation mine": Dense(3, own_name),
    "activity_regularizer": Dense(3, "relu", activity_regularizer="l2"),
    "MaxNorm": Dense(3, kernel_constraint=constraints.MaxNorm()),
    "NonNeg": Dense(3, bias_constraint=constraints.NonNeg()),
    "OwnL2": Dense(3, kernel_regularizer=OwnL2(0.1)),
}
OPTIMIZERS = {
    "RMSprop": RMSprop(),
    "OwnSGD": OwnSGD(),
    "clipnorm": Adam(clipnorm=1.0),
    "clipvalue": SGD(clipvalue=1.0),
    "global_clipnorm": AdamW(global_clipnorm=1.0),
    "use_ema": Adam(use_ema=True),
    "gradient_accumulation_steps": SGD(gradient_accumulation_steps=2),
}
LOSSES = {
    "MeanAbsoluteError after identity": (losses.MeanAbsoluteError(), None),
    "Huber after identity": (losses.Huber(), None),
    "KLDivergence after softmax": (losses.KLDivergence(), "softmax"),
    "OwnLoss after identity": (OwnLoss(), None),
    "MeanSquaredError after softmax": (losses.MeanSquaredError(), "softmax"),
    "CategoricalCrossentropy after logistic": (losses.CategoricalCrossentropy(), "sigmoid"),
    "SparseCategoricalCrossentropy after softmax": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        "softmax",
    ),
    "BinaryCrossentropy after softmax": (losses.BinaryCrossentropy(), "softmax"),
}
KINDS = {
    **{reason: (layer, SGD(), losses.MeanSquaredError(), None) for reason, layer in LAYERS.items()},
    **{
        reason: (None, optimizer, losses.MeanSquaredError(), None) for reason, optimizer in OPTIMIZERS.items()
    },
    **{reason: (None, SGD(), *loss) for reason, loss in LOSSES.items()},
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((30, N_INPUTS)), rng.uniform(0.1, 0.9, (30, 2))


def fitted(rows, kind, engine):
    layer, optimizer, loss, last = kind
    dasknn.set_random_seed(3)
    model = Sequential([Input((N_INPUTS,)), *([] if layer is None else [layer]), Dense(2, last)])
    model.compile(optimizer, loss, engine=engine)
    X, y = rows
    model.fit(X, (y[:, 0] > 0.5).astype(int) if loss.takes_labels else y, epochs=2, batch_size=10, verbose=0)
    return model


@pytest.mark.parametrize(("reason", "kind"), KINDS.items(), ids=KINDS)
def test_what_has_no_compiled_steps_trains_in_numpy_even_if_numba_is_asked_for(rows, reason, kind):
    # Its look-alike may have been compiled before.
    if reason.startswith("the activation tanh"):
        assert fitted(rows, (Dense(3, "tanh"), *kind[1:]), "numba").engine_ == "numba"
    model = fitted(rows, kind, "numba")
    assert model.engine_ == "numpy"
    assert model.engine_reason_ == f"numpy: there are no compiled steps for {reason.strip()}"
    assert {entry["engine"] for entry in model.history.entries} == {"numpy"}
    weights = zip(model.get_weights(), fitted(rows, kind, "numpy").get_weights(), strict=True)
    for found, expected in weights:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("Model", [MLPClassifier, MLPRegressor])
def test_lbfgs_and_poisson_stay_in_numpy(Model):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 4)), rng.integers(0, 2, 40)
    model = Model(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=3, engine="numba").fit(X, y)
    assert (model.engine_, model.engine_reason_) == ("numpy", "numpy: there are no compiled steps for LBFGS")
    if Model is MLPRegressor:
        model = Model(hidden_layer_sizes=(3,), loss="poisson", max_iter=3, engine="numba").fit(X, y + 1.0)
        assert (model.engine_, model.engine_reason_.split(" for ")[1]) == ("numpy", "HalfPoisson after exp")


COMPILED = {
    "dropout": ([Dropout(0.1), Dense(3, "relu")], SGD()),
    "layers of activations": ([Dense(3), ReLU(6.0, 0.1), Activation("gelu")], Adam()),
    "penalties": ([Dense(3, kernel_regularizer="l1", bias_regularizer="l2")], AdamW()),
    "frozen": ([Dense(3, trainable=False)], SGD(0.1, 0.9, True)),
}


@pytest.mark.parametrize(("layers", "optimizer"), COMPILED.values(), ids=COMPILED)
def test_what_has_compiled_steps_has_no_reason_against_it(layers, optimizer):
    assert reason_against(Network(4, (*layers, Dense(2)), losses.MeanSquaredError()), optimizer) == ""
