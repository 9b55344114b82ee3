"""Live views of a `Sequential`: `model.layers` and `model.optimizer`, whose settings are frozen."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np


class LayerHandle:
    """A layer of a model: its settings, its weights, and whether they are trained."""

    def __init__(self, model, number: int):
        self._model, self._number = model, number

    @property
    def settings(self):
        """The layer's frozen settings."""
        return self._model._layers[self._number]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.settings, name)

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; set it before `compile`, as in Keras."""
        return self.settings.trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._model._set_trainable(self._number, bool(value))

    @property
    def weights(self) -> list[np.ndarray]:
        """Copies of all weights, as `get_weights`; none before the model is built."""
        return self.get_weights() if self._model.built else []

    @property
    def trainable_weights(self) -> list[np.ndarray]:
        """Copies of the weights that training changes."""
        return [weight for weight, is_learned in self._weights_learned() if is_learned]

    @property
    def non_trainable_weights(self) -> list[np.ndarray]:
        """Copies of the weights that are frozen, or are moving averages."""
        return [weight for weight, is_learned in self._weights_learned() if not is_learned]

    def _weights_learned(self) -> list[tuple[np.ndarray, bool]]:
        weights, learned = self.weights, self._model._learned_of(self._number)
        return list(zip(weights, learned, strict=True))

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights: kernel, bias; or gamma, beta, moving mean, moving variance."""
        return [weight.copy() for weight in self._model._weights_of(self._number)]

    def set_weights(self, weights) -> None:
        """Replace the weights. ValueError: another number of weights, or other shapes."""
        self._model._set_weights_of(self._number, weights)

    def adapt(self, data) -> None:
        """Let a preprocessing layer, such as `Normalization`, learn from data what it needs to know.

        AttributeError: the layer has nothing to adapt.
        """
        self._model._adapt(self._number, data)

    def count_params(self) -> int:
        """Return the number of its parameters."""
        return sum(weight.size for weight in self._model._weights_of(self._number))

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of its outputs, (None, ...), where None is the number of rows."""
        return (None, *self._model._shapes[self._number + 1])

    def __repr__(self):
        return f"<{self.settings!r} of {self._model.name!r}>"


class OptimizerHandle:
    """The optimizer of a compiled model: its settings, the current learning rate, and the steps taken."""

    def __init__(self, model, settings):
        self._model = model
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "settings":
            raise AttributeError(name)
        return getattr(self.settings, name)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next epoch, or the schedule; callbacks may set a number."""
        if not isinstance(self.settings.learning_rate, Real):
            return self.settings.learning_rate
        return self._model._learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._model._set_learning_rate(float(rate))

    @property
    def iterations(self) -> int:
        """Steps taken so far."""
        return self._model._step

    def __repr__(self):
        return repr(self.settings)
