"""Fitted estimators for tables as descriptions for files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dasknn import layers
from dasknn.data.tables.encoder import TableEncoder
from dasknn.data.tables.sketch import NumberSketch
from dasknn.engine.network import Network
from dasknn.estimators import conversion
from dasknn.estimators.recipe import Recipe
from dasknn.estimators.tabular_stopping import best_epoch_of
from dasknn.losses import MemberLoss
from dasknn.saving import schema
from dasknn.saving.serialization import JSONEncoder
from dasknn.training.prediction import Predictor

# So that sums of rows do not overflow.
_MOST_ROWS = 2**40
_LAYER = schema.record(
    {"class_name": schema.text, "config": schema.table(schema.anything)}, others=schema.anything
)
_RECIPE = schema.record(
    {
        "members": schema.integer(1),
        "hidden": schema.each(schema.integer(1)),
        "embeds": schema.flag,
        "epochs": schema.integer(1),
        "batch_size": schema.integer(1),
        "dropout": schema.number(finite=True),
        "weight_decay": schema.number(finite=True),
    },
    others=schema.anything,
)
_DESCRIPTION = schema.record(
    {
        **conversion.COMMON,
        "layers": schema.each(_LAYER, least=1),
        "table": schema.table(schema.anything),
        "recipe": _RECIPE,
        "temperature": schema.number(finite=True, least=1e-3, most=1e3),
    },
    {"selected_members": schema.optional(schema.each(schema.integer(), least=1))},
    others=schema.anything,
)


def parts_of(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (description in JSON's types, arrays) of a fitted estimator for tables."""
    predictor = model._predictor()
    description = conversion.common_parts(model, predictor) | {
        "layers": [layers.serialize(layer) for layer in predictor.network.layers],
        "table": model._table.describe(),
        "recipe": model.recipe_._asdict(),
        "temperature": vars(model).get("temperature_", 1.0),
        "selected_members": vars(model).get("selected_members_"),
    }
    arrays = {"members": predictor.members}
    errors = vars(model).get("_errors")
    if errors is not None:
        arrays |= {"errors": errors.values, "errors_rows": errors.weights}
    return JSONEncoder().encode(description, "the model"), arrays


def restore(model: Any, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Set the attributes that `parts_of` described. Mismatch, ModelFileError: parts that do not fit."""
    _DESCRIPTION(description, "")
    members = arrays["members"]
    table = TableEncoder.from_description(description["table"])
    names = tuple(description["feature_names_in"])
    if names and names != table.feature_names_in:
        raise schema.Mismatch("expected names of features that are those of the table, received others")
    encoder = conversion.encoder_from(description, members.nbytes)
    known = {name: value for name, value in description["recipe"].items() if name in Recipe._fields}
    model._table, model.recipe_ = table, Recipe(**known)._replace(hidden=tuple(known["hidden"]))
    found = tuple(layers.deserialize(config) for config in description["layers"])
    last = found[-1]
    if not isinstance(last, layers.MemberHeads):
        raise schema.Mismatch(f"expected MemberHeads as the last layer, received {type(last).__name__}")
    loss = MemberLoss(model._loss(encoder), last.members)
    network = Network(table.width, found, loss, description["dtype"])
    expected = model._units(encoder)
    if network.n_outputs != expected:
        raise schema.Mismatch(
            f"expected {expected} units in the last layer, for its targets, received {network.n_outputs}"
        )
    conversion.check_members(network, members)
    _check_codes(table, network, members[0])
    model._set_predictor(Predictor(network, members, encoder))
    model.n_features_in_ = table.n_features_in
    model.temperature_ = description["temperature"]
    model.selected_members_ = _selected_members(description, last.members)
    model._errors = _errors_from(arrays) if "errors" in arrays else None
    conversion.restore_attributes(model, description)
    if "best_epoch_" not in vars(model):
        # The first files did not say it.
        model.best_epoch_ = best_epoch_of(model.history_, model._monitor) if model.early_stopping else None


def _selected_members(description: Mapping[str, Any], members: int) -> list[int] | None:
    """Return the numbers of the members that were kept, or None. Mismatch: others than the network has."""
    found = description.get("selected_members")
    if found is not None and len(found) != members:
        raise schema.Mismatch(
            f"expected the numbers of {members} members that were kept, received {len(found)}"
        )
    return found


def _check_codes(table: TableEncoder, network: Network, params: np.ndarray) -> None:
    """Raise ValueError if the network does not take all codes that the table encodes categories by."""
    row = np.zeros((1, table.width), network.dtype)
    row[0, table.width - len(table.n_codes) :] = np.array(table.n_codes) - 1
    network.predict(params, row)


def _errors_from(arrays: Mapping[str, np.ndarray]) -> NumberSketch:
    """Return the errors on rows that were held out. Mismatch: arrays that are no sketch of some."""
    values, rows = arrays["errors"], arrays.get("errors_rows")
    if (
        rows is None
        or not values.ndim == rows.ndim == 1
        or not len(values) == len(rows) > 0
        or (values.dtype, rows.dtype) != (np.float64, np.int64)
        or not (np.isfinite(values).all() and (np.diff(values) > 0).all())
        or not ((rows > 0) & (rows < _MOST_ROWS)).all()
    ):
        raise schema.Mismatch("expected ascending errors and the number of rows of each, received others")
    return NumberSketch(values, rows)
