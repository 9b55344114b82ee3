"""Keras's API: Sequential."""

from dasknn.models.loading import from_keras, load_model, model_from_json, to_keras
from dasknn.models.sequential import Sequential, set_random_seed

__all__ = ["Sequential", "from_keras", "load_model", "model_from_json", "set_random_seed", "to_keras"]
