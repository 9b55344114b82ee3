"""What the outputs of a network say, by its loss and its last activation: numbers, labels or classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from dasknn.engine.network import Network
from dasknn.losses import CLASSES, LABELS, NUMBERS

PROBABILITIES, LOGITS, MARGINS = "probabilities", "logits", "margins"


@dataclass(frozen=True)
class Outputs:
    """What outputs (n, n_outputs) say.

    of: NUMBERS, LABELS (each output whether a row has one label; a single one, which of two classes it is of)
    or CLASSES (which of them a row is of). scale: PROBABILITIES, LOGITS, or MARGINS, whose sign alone says
    something.
    """

    of: str
    scale: str
    n_outputs: int

    @classmethod
    def by(cls, loss: Any, activation: str, n_outputs: int) -> Outputs:
        """Return what outputs say that were trained with a loss, or None, and end in an activation.

        Where the loss speaks of numbers, softmax still says classes, and a single sigmoid, which of two.
        """
        of = NUMBERS if loss is None else loss.judges
        if of != NUMBERS:
            if getattr(loss, "from_logits", False):
                return cls(of, LOGITS, n_outputs)
            return cls(of, MARGINS if loss.takes_margins else PROBABILITIES, n_outputs)
        if activation == "softmax":
            of = CLASSES
        # The sigmoid, by scikit-learn's name.
        elif activation == "logistic" and (loss is None or n_outputs == 1):
            of = LABELS
        return cls(of, PROBABILITIES, n_outputs)

    @classmethod
    def of_network(cls, network: Network) -> Outputs:
        """Return what the outputs of a network say; its loss may be None."""
        return cls.by(network.loss, network.layers[-1].activation_name, network.n_outputs)

    @property
    def classes(self) -> np.ndarray:
        """Numbers of the classes or labels, those of `scores`."""
        return np.arange(max(self.n_outputs, 2))

    @property
    def is_multilabel(self) -> bool:
        """Whether a row has any number of labels."""
        return self.of == LABELS and self.n_outputs > 1

    @property
    def has_probabilities(self) -> bool:
        """Whether `scores` are probabilities."""
        return self.of != NUMBERS and self.scale != MARGINS

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """Return a column for each class (n, n_classes): probabilities, or margins."""
        if self.scale == LOGITS:
            each = self.of == LABELS or self.n_outputs == 1
            outputs = expit(outputs) if each else softmax(outputs, axis=1)
        if self.n_outputs > 1:
            if self.of == CLASSES and self.scale == PROBABILITIES:
                # As cross-entropies do: outputs of other activations than softmax need not sum to 1.
                total = outputs.sum(axis=1, keepdims=True)
                outputs = np.divide(outputs, total, out=outputs.copy(), where=total > 0)
            return outputs
        return np.hstack([-outputs if self.scale == MARGINS else 1 - outputs, outputs])

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers of the likeliest classes (n,), by `scores`."""
        # As Keras's accuracy has it: what is on the border of two classes is not yet of the class 1. Two
        # outputs need not sum to 1: cross-entropies divide them by their sum.
        return scores.argmax(axis=1)


def from_signs(y: np.ndarray) -> np.ndarray:
    """Return labels 0 and 1 for those that losses of margins take: -1 and 1, or 0 and 1."""
    return np.where(y == -1, 0, y)
