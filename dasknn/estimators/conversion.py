"""Fitted estimators as descriptions for files, and as scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import sklearn.neural_network
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from dasknn import strategies
from dasknn.data import targets
from dasknn.engine import engines
from dasknn.engine.network import Network
from dasknn.exceptions import ModelFileError
from dasknn.layers import Dense
from dasknn.losses import Loss
from dasknn.saving import schema, snapshots
from dasknn.saving.serialization import JSONEncoder, decode
from dasknn.strategies import OuterNesterov, Strategy, auto
from dasknn.strategies.compression import Float16, PowerSGD
from dasknn.training.prediction import Predictor

# Settings that a strategy may hold.
_SETTINGS = (OuterNesterov, Float16, PowerSGD)

#: Attributes that solver="lbfgs" leaves undefined, as in scikit-learn.
ABSENT_AFTER_LBFGS = ("loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_")
# Attributes of a fitted estimator that scikit-learn's estimators have, too.
_SHARED_ATTRIBUTES = (
    *("loss_", "n_iter_", "t_", *ABSENT_AFTER_LBFGS),
    *("n_features_in_", "feature_names_in_", "classes_", "n_layers_", "n_outputs_", "out_activation_"),
)
_LOSSES = schema.each(schema.number())
# Attributes of a fitted estimator that a description has under "fitted". `strategy_`, `history_` and others
# have other names there.
FITTED: dict[str, schema.Check] = {
    "loss_": schema.number(),
    "n_iter_": schema.integer(),
    "t_": schema.integer(),
    "loss_curve_": _LOSSES,
    "best_loss_": schema.optional(schema.number()),
    "validation_scores_": schema.optional(_LOSSES),
    "best_validation_score_": schema.optional(schema.number()),
    # Of estimators for tables.
    "best_epoch_": schema.optional(schema.integer(1)),
    "target_name_": schema.text,
    "replicas_": schema.integer(1),
    "interrupted_": schema.flag,
    "transport_": schema.text,
    "strategy_reason_": schema.text,
    "engine_": schema.one_of(*engines.NAMES[1:]),
    "engine_reason_": schema.text,
}
_CLASSES = schema.each(schema.label, least=1)
_STANDARD = ("mean", "scale", "lowest", "highest", "levels")
_NUMBERS = schema.each(schema.number(finite=True))
_STANDARD_RECORD = schema.record(
    {"kind": schema.text, "n_outputs": schema.integer(1), **dict.fromkeys(_STANDARD, _NUMBERS)}
)


def _check_standard(value: Any, where: str) -> None:
    _STANDARD_RECORD(value, where)
    *of_columns, levels = (value[name] for name in _STANDARD)
    n_outputs = value["n_outputs"]
    if any(len(numbers) != n_outputs for numbers in of_columns) or not min(value["scale"]) > 0:
        raise schema.Mismatch(f"expected {n_outputs} means, scales above 0 and ranges at {where}")
    are_levels = all(low < high for low, high in pairwise([0, *levels, 1]))
    if levels and (n_outputs > 1 or not are_levels):
        raise schema.Mismatch(f"expected ascending levels between 0 and 1 of one target at {where}.levels")


_TARGETS: dict[str, schema.Check] = {
    "standard": _check_standard,
    "numbers": schema.record({"kind": schema.text, "n_outputs": schema.integer(1)}),
    **dict.fromkeys(
        ("classes", "multilabel"),
        schema.record({"kind": schema.text, "classes": _CLASSES, "classes_dtype": schema.text}),
    ),
}


def check_targets(value: Any, where: str) -> None:
    """Raise Mismatch if a value is not the description of an encoder of targets."""
    schema.record({"kind": schema.one_of(*_TARGETS)}, others=schema.anything)(value, where)
    _TARGETS[value["kind"]](value, where)


#: Items of the description of every kind of estimator.
COMMON: dict[str, schema.Check] = {
    "kind": schema.text,
    "dtype": schema.one_of("float32", "float64"),
    "targets": check_targets,
    "parameters": schema.table(schema.anything),
    "feature_names_in": schema.each(schema.text),
    "fitted": schema.record(
        {name: FITTED[name] for name in ("replicas_", "transport_", "strategy_reason_")}, FITTED
    ),
    "strategy": schema.optional(schema.record({"strategy": schema.text}, others=schema.anything)),
    "history": schema.each(snapshots.EPOCH),
}
_ESTIMATOR = schema.record(
    {
        **COMMON,
        "layers": schema.each(schema.pair(schema.integer(1), schema.text), least=1),
        "n_features_in": schema.integer(1),
    },
    {"feature_numbers_in": schema.optional(schema.each(schema.text))},
    schema.anything,
)


def parts_of(model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a fitted estimator, which its file holds."""
    predictor = model._predictor()
    network = predictor.network
    layers: list[Any] = list(network.layers)
    description = common_parts(model, predictor) | {
        "layers": [[layer.units, layer.activation.name] for layer in layers],
        "n_features_in": network.n_inputs,
    }
    return description, {"members": predictor.members}


def common_parts(model, predictor: Predictor) -> dict[str, Any]:
    """Return what a description has of every kind of estimator, in JSON's types."""
    return {
        "dtype": predictor.network.dtype,
        "targets": _describe_encoder(predictor.encoder),
        "kind": type(model).__name__,
        "parameters": _parameters_of(model),
        "feature_names_in": [str(name) for name in getattr(model, "feature_names_in_", [])],
        "feature_numbers_in": vars(model).get("_numbered"),
        "fitted": {name: getattr(model, name) for name in FITTED if hasattr(model, name)},
        "strategy": None if model.strategy_ is None else to_json(model.strategy_, "strategy"),
        "history": model.history_,
    }


def restore(model, description: Mapping[str, Any], members: np.ndarray) -> None:
    """Set the attributes that `parts_of` described. ModelFileError: the members do not fit the layers."""
    encoder = encoder_from(description, members.nbytes)
    model._set_predictor(_predictor_from(description, model._loss(encoder), encoder, members))
    model.n_features_in_ = model._network_.n_inputs
    restore_attributes(model, description)


def restore_attributes(model, description: Mapping[str, Any]) -> None:
    """Set the attributes of every kind of estimator that has its predictor."""
    encoder = model._encoder
    if description["feature_names_in"]:
        model.feature_names_in_ = np.array(description["feature_names_in"], dtype=object)
    # Files of older versions do not have it.
    model._numbered = description.get("feature_numbers_in")
    model.strategy_ = from_json(description["strategy"])
    model.history_ = description["history"]
    # Files that callbacks wrote during training may lack some of these.
    model.n_iter_, model.t_, model.interrupted_ = len(model.history_), 0, False
    model.__dict__.update(description["fitted"])
    if not isinstance(encoder, targets.NumberEncoder):
        model.classes_ = encoder.classes


def check(description: dict[str, Any], where: str = "") -> None:
    """Raise Mismatch if a description is not that of an estimator."""
    _ESTIMATOR(description, where)
    n_outputs = description["layers"][-1][0]
    classes = description["targets"].get("classes")
    expected = description["targets"].get("n_outputs") if classes is None else len(classes)
    if description["targets"]["kind"] == "classes" and expected <= 2:
        expected = 1
    if expected != n_outputs:
        raise schema.Mismatch(
            f"expected {expected} units in the last layer, for its targets, received {n_outputs}"
        )
    names = description["feature_names_in"]
    if names and len(names) != description["n_features_in"]:
        raise schema.Mismatch(
            f"expected names of {description['n_features_in']} features, received {len(names)}"
        )


def encoder_from(description: Mapping[str, Any], n_bytes: int = 0):
    """Return the encoder of targets that `parts_of` described. n_bytes: of the arrays in the file."""
    found, dtype = description["targets"], description["dtype"]
    if found["kind"] == "standard":
        parts = {name: tuple(found[name]) for name in _STANDARD}
        return targets.StandardEncoder(found["n_outputs"], dtype, **parts)
    if found["kind"] == "numbers":
        return targets.NumberEncoder(found["n_outputs"], dtype)
    classes = schema.array_of(found["classes"], found["classes_dtype"], "targets.classes", n_bytes)
    if found["kind"] == "multilabel":
        return targets.MultilabelEncoder(classes, dtype)
    return targets.ClassEncoder(classes, dtype)


def _predictor_from(description: Mapping[str, Any], loss: Loss, encoder, members: np.ndarray) -> Predictor:
    """Return the predictor that `parts_of` described. ModelFileError: members do not fit the layers."""
    layers = tuple(Dense(units, name) for units, name in description["layers"])
    network = Network(description["n_features_in"], layers, loss, description["dtype"])
    check_members(network, members)
    return Predictor(network, members, encoder)


def check_members(network: Network, members: np.ndarray) -> None:
    """Raise ModelFileError for arrays that are not the parameters of members of a network."""
    if members.ndim != 2 or not len(members) or members.shape[1] != network.n_params:
        raise ModelFileError(
            f"Expected parameters of shape (members, {network.n_params}) for the layers described, "
            f"received {members.shape}."
        )
    if members.dtype != network.dtype:
        raise ModelFileError(f"Expected parameters of {network.dtype}, received {members.dtype}.")


def _describe_encoder(encoder) -> dict[str, Any]:
    if isinstance(encoder, targets.StandardEncoder):
        parts = {name: list(getattr(encoder, name)) for name in _STANDARD}
        return {"kind": "standard", "n_outputs": encoder.n_outputs, **parts}
    if isinstance(encoder, targets.NumberEncoder):
        return {"kind": "numbers", "n_outputs": encoder.n_outputs}
    kind = "multilabel" if isinstance(encoder, targets.MultilabelEncoder) else "classes"
    dtype = "object" if encoder.classes.dtype.kind == "O" else encoder.classes.dtype.str
    return {"kind": kind, "classes": encoder.classes.tolist(), "classes_dtype": dtype}


class _ParametersEncoder(JSONEncoder):
    """Parameters of estimators, except for a RandomState and callbacks, which JSON cannot hold."""

    def encode_mapping(self, value: Mapping, where: str) -> Any:
        # Keys in JSON are text, and labels may be numbers.
        return {"items": self.encode(list(value.items()), where)}

    def encode_other(self, value: Any, where: str) -> Any:
        if isinstance(value, Strategy):
            kind = {"strategy": value.name}
        elif isinstance(value, _SETTINGS):
            kind = {"setting": type(value).__name__}
        else:
            return super().encode_other(value, where)
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        return kind | {name: self.encode(item, f"{where}.{name}") for name, item in own.items()}


to_json = _ParametersEncoder().encode


def _parameters_of(estimator) -> dict[str, Any]:
    """Return the parameters of an estimator in JSON's types, without those that JSON cannot hold."""
    found = {}
    for name, value in estimator.get_params().items():
        with suppress(TypeError):
            found[name] = to_json(value, name)
    return found


def from_json(value: Any) -> Any:
    """Return the parameter that `to_json` has written; lists become tuples."""
    return decode(value, _decode_parameter, tuple)


def _decode_parameter(found: dict[str, Any]) -> Any:
    if "items" in found:
        return dict(found["items"])
    if "setting" in found:
        kinds = {kind.__name__: kind for kind in _SETTINGS}
        return kinds[found.pop("setting")](**found)
    return type(strategies.get(found.pop("strategy")))(**found)


# --- scikit-learn ------------------------------------------------------------------------------------


def to_sklearn(model):
    """Return scikit-learn's estimator for a fitted model. See `BaseMLP.to_sklearn`."""
    predictor = model._predictor()
    if len(predictor.members) > 1:
        raise ValueError(
            f"scikit-learn's MLP is one network, and this model is an ensemble of {len(predictor.members)}. "
            "Convert each of members_; the outputs of the ensemble are the mean of theirs."
        )
    kind = getattr(sklearn.neural_network, type(model)._twin)
    known = kind().get_params()
    parameters = {name: value for name, value in model.get_params().items() if name in known}
    if parameters["batch_size"] == "full":
        parameters["batch_size"] = "auto"
    parameters["verbose"] = parameters["verbose"] or False
    twin = kind(**parameters)
    for name in _SHARED_ATTRIBUTES:
        if hasattr(model, name):
            setattr(twin, name, copy(getattr(model, name)))
    _give_weights(predictor, twin)
    return twin


def _give_weights(predictor: Predictor, estimator) -> None:
    """Give a scikit-learn estimator the weights of a predictor that has one member."""
    views = predictor.network.views(predictor.members[0])
    estimator.coefs_ = [W for W, _ in views]
    estimator.intercepts_ = [b for _, b in views]
    # From these, scikit-learn's partial_fit, and fit with warm_start, continue.
    estimator._best_coefs = [W.copy() for W in estimator.coefs_]
    estimator._best_intercepts = [b.copy() for b in estimator.intercepts_]
    estimator._no_improvement_count = 0
    encoder = predictor.encoder
    if isinstance(encoder, targets.MultilabelEncoder):
        estimator._label_binarizer = LabelBinarizer().fit(np.eye(len(encoder.classes), dtype=int))
    elif isinstance(encoder, targets.ClassEncoder):
        estimator._label_binarizer = LabelBinarizer().fit(encoder.classes)


def from_sklearn(kind, estimator):
    """Return a fitted model of a class of dasknn with the weights of a fitted scikit-learn MLP."""
    check_is_fitted(estimator)
    known = kind().get_params()
    model = kind(**{name: value for name, value in estimator.get_params().items() if name in known})
    restore(model, *_parts_of_sklearn(estimator))
    for name in _SHARED_ATTRIBUTES:
        if hasattr(estimator, name):
            setattr(model, name, copy(getattr(estimator, name)))
    model.replicas_, model.interrupted_ = 1, False
    model.transport_, model.strategy_reason_ = auto.PROCESS, "none: trained by scikit-learn"
    model.engine_, model.engine_reason_ = engines.NUMPY, "numpy: trained by scikit-learn"
    return model


def _parts_of_sklearn(estimator) -> tuple[dict[str, Any], np.ndarray]:
    """Return (a description as in `parts_of`, members (1, n_params)) of a fitted scikit-learn MLP."""
    parts = [*estimator.coefs_, *estimator.intercepts_]
    members = np.concatenate([np.ravel(part) for part in parts])[np.newaxis]
    units = [W.shape[1] for W in estimator.coefs_]
    activations = [estimator.activation] * (len(units) - 1) + [estimator.out_activation_]
    dtype = members.dtype.name
    encoder: Any = targets.NumberEncoder(units[-1], dtype)
    if hasattr(estimator, "classes_"):
        multilabel = estimator._label_binarizer.y_type_.startswith("multilabel")
        kind = targets.MultilabelEncoder if multilabel else targets.ClassEncoder
        encoder = kind(estimator.classes_, dtype)
    description = {
        "dtype": dtype,
        "layers": [list(layer) for layer in zip(units, activations, strict=True)],
        "n_features_in": estimator.coefs_[0].shape[0],
        "targets": _describe_encoder(encoder),
        "feature_names_in": [],
        "fitted": {},
        "strategy": None,
        "history": [
            {"epoch": i + 1, "loss": loss} for i, loss in enumerate(getattr(estimator, "loss_curve_", []))
        ],
    }
    return description, members
