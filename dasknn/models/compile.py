"""What `compile` is given: looked up, and described again."""

from __future__ import annotations

from inspect import isfunction
from typing import Any, NamedTuple

from dasknn import metrics

# Names of losses that the shape of y chooses.
BY_THE_DATA = ("crossentropy", "ce")


class Compiled(NamedTuple):
    """What `compile` was given, looked up."""

    optimizer: Any
    loss: Any
    metrics: tuple
    weighted_metrics: tuple
    transport: str


# --- arguments ---------------------------------------------------------------------------------------


def listed(wanted) -> list:
    if wanted is None:
        return []
    if isinstance(wanted, dict):
        raise ValueError(f"Expected a list of metrics, since there is one output, received {wanted!r}.")
    if not isinstance(wanted, list | tuple):
        return [wanted]
    return [metric for item in wanted for metric in (item if isinstance(item, list | tuple) else [item])]


def described_metric(metric):
    if isfunction(metric):
        return {
            "module": "builtins",
            "class_name": "function",
            "config": metric.__name__,
            "registered_name": "function",
        }
    return metric if isinstance(metric, str | dict) else metrics.serialize(metrics.resolve(metric, None, 1))


def looked_up(described, custom_objects: dict[str, Any]):
    """Return what a description stands for among objects of the user's; other functions by their names."""
    if isinstance(described, list | tuple):
        return [looked_up(item, custom_objects) for item in described]
    if isinstance(described, str):
        return custom_objects.get(described, described)
    if not isinstance(described, dict):
        return described
    if described.get("class_name") == "function":
        return looked_up(str(described.get("config")), custom_objects)
    kind = custom_objects.get(str(described.get("class_name")))
    return described if kind is None else kind.from_config(described["config"])
