"""Pictures in tests: drawn without a window, and closed in the end."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def figures_are_closed():
    """Draw all pictures for good, which is when matplotlib finds out what cannot be drawn."""
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
