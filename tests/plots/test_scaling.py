"""The picture of predictions for clusters of several sizes."""

import matplotlib.pyplot as plt
import pytest
from numpy.testing import assert_allclose
from pictures import figures_are_closed  # noqa: F401

from dasknn import GradientAveraging
from dasknn.plots import ScalingDisplay
from dasknn.training.probing import OFTEN
from dasknn.training.recommend import ClusterSize


def size(n, seconds, computing=0.5, strategy=None):
    return ClusterSize(n, n, n, strategy or GradientAveraging(), seconds, computing)


def test_there_is_a_line_for_each_strategy_by_the_number_of_workers():
    sizes = [
        size(4, 3.0, 0.4),
        size(1, 8.0, 1.0),
        size(2, 5.0, 0.7),
        size(1, 8.0, 1.0, OFTEN),
        size(4, 2.2, 0.9, OFTEN),
    ]
    display = ScalingDisplay(sizes).plot()
    assert list(display.lines_) == ["gradients", "weights every 16 steps, outer"]
    workers, seconds = display.lines_["gradients"].get_data()
    assert (list(workers), list(seconds)) == ([1, 2, 4], [8.0, 5.0, 3.0])
    assert list(display.curves["weights every 16 steps, outer"][0]) == [1, 4]
    labels = {text.get_text() for text in display.ax_.texts}
    assert labels == {"100%", "70%", "40%", "90%"}
    # The line that halves with twice the workers begins where the first curve does.
    ideal = display.ax_.lines[0]
    assert_allclose(ideal.get_ydata(), [8.0, 4.0, 2.0])
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["1", "2", "4"]
    assert display.figure_ is display.ax_.figure


def test_it_is_drawn_on_given_axes_with_given_properties():
    _, ax = plt.subplots()
    display = ScalingDisplay([size(1, 8.0)]).plot(ax=ax, linewidth=3)
    assert display.ax_ is ax
    assert display.lines_["gradients"].get_linewidth() == 3


@pytest.mark.parametrize("sizes", [[], [3]])
def test_without_predictions_the_message_says_how_to_get_them(sizes):
    with pytest.raises(ValueError, match=r"workers=\[1, 2, 4, 8\]"):
        ScalingDisplay(sizes)
