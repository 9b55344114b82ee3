"""What outputs say: decided once, by the loss and the last activation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dasknn import losses
from dasknn.engine.outputs import LOGITS, MARGINS, PROBABILITIES, Outputs
from dasknn.losses import CLASSES, LABELS, NUMBERS


@pytest.mark.parametrize(
    ("loss", "activation", "of", "scale"),
    [
        ("binary_crossentropy", "logistic", LABELS, PROBABILITIES),
        (losses.BinaryCrossentropy(from_logits=True), "identity", LABELS, LOGITS),
        ("categorical_crossentropy", "softmax", CLASSES, PROBABILITIES),
        (losses.SparseCategoricalCrossentropy(from_logits=True), "identity", CLASSES, LOGITS),
        ("categorical_focal_crossentropy", "softmax", CLASSES, PROBABILITIES),
        ("hinge", "tanh", LABELS, MARGINS),
        ("categorical_hinge", "identity", CLASSES, MARGINS),
        ("kl_divergence", "softmax", CLASSES, PROBABILITIES),
        ("mse", "softmax", CLASSES, PROBABILITIES),
        ("mse", "identity", NUMBERS, PROBABILITIES),
        (None, "softmax", CLASSES, PROBABILITIES),
        (None, "logistic", LABELS, PROBABILITIES),
    ],
)
def test_loss_and_activation_say_what_outputs_say(loss, activation, of, scale):
    assert Outputs.by(losses.get(loss), activation, 3) == Outputs(of, scale, 3)


def test_a_sigmoid_with_a_loss_of_numbers_says_classes_only_if_it_is_alone():
    assert Outputs.by(losses.get("mse"), "logistic", 1).of == LABELS
    assert Outputs.by(losses.get("mse"), "logistic", 3).of == NUMBERS


def test_every_loss_of_labels_or_classes_is_known():
    told = {name for name, loss in vars(losses).items() if getattr(loss, "judges", NUMBERS) != NUMBERS}
    speaks = {name for name in vars(losses) if name[0] != "_" and name.endswith(("Hinge", "Crossentropy"))}
    assert speaks <= told


def test_scores_have_a_column_for_each_class_and_labels_are_the_likeliest():
    margins = Outputs(LABELS, MARGINS, 1)
    assert_array_equal(margins.scores(np.array([[-3.0], [0.0], [2.0]])), [[3, -3], [0, 0], [-2, 2]])
    assert_array_equal(margins.labels(margins.scores(np.array([[-3.0], [0.0], [0.25]]))), [0, 0, 1])
    logits = Outputs(CLASSES, LOGITS, 3).scores(np.log([[1.0, 2.0, 1.0]]))
    assert_allclose(logits, [[0.25, 0.5, 0.25]])
    assert_array_equal(Outputs(LABELS, PROBABILITIES, 1).labels(np.array([[0.5, 0.5], [0.4, 0.6]])), [0, 1])


def test_two_outputs_that_do_not_sum_to_1_are_compared_with_one_another():
    assert_array_equal(Outputs(CLASSES, PROBABILITIES, 2).labels(np.array([[0.9, 0.6], [0.1, 0.3]])), [0, 1])


def test_scores_of_classes_sum_to_1_as_in_their_losses():
    said = Outputs.by(losses.get("categorical_crossentropy"), "logistic", 3)
    outputs = np.array([[0.2, 0.1, 0.1], [0.9, 0.9, 0.6], [0.0, 0.0, 0.0]], np.float32)
    assert_allclose(said.scores(outputs), [[0.5, 0.25, 0.25], [0.375, 0.375, 0.25], [0, 0, 0]], rtol=1e-6)
    assert outputs[0, 0] == np.float32(0.2)
