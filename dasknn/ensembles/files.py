"""Ensembles from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dasknn import descriptions
from dasknn.ensembles.estimators import EnsembleClassifier, EnsembleRegressor
from dasknn.estimators import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor
from dasknn.models import Sequential
from dasknn.saving import schema

#: The classes, as files name them.
KINDS: dict[str, type[EnsembleClassifier] | type[EnsembleRegressor]] = {
    kind.__name__: kind for kind in (EnsembleClassifier, EnsembleRegressor)
}
_OF_MEMBERS = (MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, Sequential)
_MEMBER = schema.record(
    {"kind": schema.one_of(descriptions.PIPELINE, *(kind.__name__ for kind in _OF_MEMBERS))},
    others=schema.anything,
)
_ENSEMBLE = schema.record(
    {
        "kind": schema.one_of(*KINDS),
        "members": schema.each(_MEMBER, least=1),
        "weights": schema.optional(schema.each(schema.number(finite=True))),
        "versions": schema.table(schema.text),
    },
    others=schema.anything,
)


def from_parts(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    custom_objects: Mapping[str, Any] | None = None,
) -> EnsembleClassifier | EnsembleRegressor:
    """Return the ensemble with these parts. ModelFileError, which names the path: others."""
    with schema.refusing(path, "an ensemble", descriptions.REMEDY):
        _ENSEMBLE(description, "")
        described = description["members"]
        members = [
            descriptions.from_parts(one, own, f"members[{number}]", custom_objects)
            for number, (one, own) in enumerate(
                zip(described, _by_member(arrays, len(described)), strict=True)
            )
        ]
        ensemble = KINDS[description["kind"]](members, description["weights"])
        # Members and weights go together.
        ensemble._council()
    return ensemble


def _by_member(arrays: Mapping[str, np.ndarray], n_members: int) -> list[dict[str, np.ndarray]]:
    """Return the arrays of each member by name. Mismatch: some are missing, or of no member."""
    found: list[dict[str, np.ndarray]] = [{} for _ in range(n_members)]
    places = {str(number): own for number, own in enumerate(found)}
    for full_name, array in arrays.items():
        place, _, name = full_name.partition(".")
        if place not in places:
            raise schema.Mismatch(f"expected arrays of {n_members} members, received {full_name[:60]!r}")
        places[place][name] = array
    for number, own in enumerate(found):
        if "members" not in own:
            raise schema.Mismatch(f"expected the array '{number}.members', received none")
    return found
