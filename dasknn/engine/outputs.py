"""What the outputs of a network mean, by its loss and its last activation: numbers, labels or classes."""

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
    """The meaning of outputs (n, n_outputs).

    Attributes
    ----------
    of : {NUMBERS, LABELS, CLASSES}
        LABELS: each output says whether a row has that label; a single one, which of two classes the row
        belongs to. CLASSES: the outputs say which of the classes a row belongs to.
    scale : {PROBABILITIES, LOGITS, MARGINS}
        Only the sign of MARGINS has a meaning.
    n_outputs : int
    """

    of: str
    scale: str
    n_outputs: int

    @classmethod
    def by(cls, loss: Any, activation: str, n_outputs: int) -> Outputs:
        """Return the meaning of outputs of a network with this loss, or None, and this last activation.

        If the loss is one for numbers, outputs of softmax still mean classes, and a single one of the sigmoid
        one of two classes.
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
        """Return the meaning of the outputs of a network; its loss may be None."""
        return cls.by(network.loss, network.layers[-1].activation_name, network.n_outputs)

    @property
    def classes(self) -> np.ndarray:
        """Numbers of the classes or labels, one for each column of `scores`."""
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
                # As cross-entropies do: outputs of activations other than softmax need not sum to 1.
                total = outputs.sum(axis=1, keepdims=True)
                outputs = np.divide(outputs, total, out=outputs.copy(), where=total > 0)
            return outputs
        return np.hstack([-outputs if self.scale == MARGINS else 1 - outputs, outputs])

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers of the most likely classes (n,), by `scores`."""
        # As in Keras's accuracy, a row on the border of two classes belongs to class 0. Two outputs need not
        # sum to 1, since cross-entropies divide them by their sum.
        return scores.argmax(axis=1)


def from_signs(y: np.ndarray) -> np.ndarray:
    """Return labels 0 and 1, given those that losses of margins take: -1 and 1, or 0 and 1."""
    return np.where(y == -1, 0, y)
