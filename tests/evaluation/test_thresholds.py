"""Slices that do not pass their thresholds are named."""

import numpy as np
import pandas as pd
import pytest
from given_models import Given, probabilities

import dasknn


def evaluation():
    frame = pd.DataFrame(
        {
            "slice": ["all", "v=a", "v=b", "v=c"],
            "rows": [1000, 600, 395, 5],
            "accuracy": [0.84, 0.9, 0.76, np.nan],
            "accuracy_low": [0.81, 0.88, 0.7, np.nan],
            "accuracy_high": [0.87, 0.92, 0.82, np.nan],
            "log_loss": [0.4, 0.3, 0.55, np.nan],
            "log_loss_low": [0.38, 0.28, 0.49, np.nan],
            "log_loss_high": [0.42, 0.32, 0.6, np.nan],
        }
    )
    return frame


def test_every_slice_that_fails_is_named_with_its_numbers():
    with pytest.raises(dasknn.ThresholdError) as caught:
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.85, "log_loss": ("<=", 0.5)})
    message = str(caught.value)
    assert "2 of 4 slices do not pass" in message
    assert "all (1,000 rows): accuracy = 0.84 [0.81, 0.87], expected >= 0.85" in message
    assert "v=b (395 rows): accuracy = 0.76 [0.7, 0.82], expected >= 0.85" in message
    assert "v=b (395 rows): log_loss = 0.55 [0.49, 0.6], expected <= 0.5" in message
    assert "v=a" not in message
    assert "Not judged" in message
    assert "v=c (5 rows)" in message
    assert caught.value.failures["slice"].tolist() == ["all", "v=b", "v=b"]
    assert isinstance(caught.value, AssertionError)


def test_no_threshold_at_all_is_refused():
    with pytest.raises(ValueError, match="Expected at least one threshold"):
        dasknn.assert_thresholds(evaluation(), {})


@pytest.mark.parametrize(
    ("thresholds", "bound", "failing"),
    [
        ({"accuracy": 0.75}, "value", set()),
        ({"accuracy": 0.75}, "worst", {"v=b"}),
        ({"accuracy": 0.81}, "worst", {"v=b"}),
        ({"accuracy": 0.82}, "best", set()),
        ({"accuracy": 0.83}, "best", {"v=b"}),
        ({"accuracy": (">", 0.9)}, "value", {"all", "v=a", "v=b"}),
        ({"log_loss": 0.55}, "value", set()),
        ({"log_loss": 0.55}, "worst", {"v=b"}),
        ({"log_loss": 0.5}, "best", set()),
        ({"log_loss": [(">", 0.3), ("<", 0.5)]}, "value", {"v=a", "v=b"}),
    ],
)
def test_bounds_say_which_end_of_the_interval_is_judged(thresholds, bound, failing):
    frame = evaluation().iloc[:3]
    if not failing:
        assert dasknn.assert_thresholds(frame, thresholds, bound=bound) is frame
        return
    with pytest.raises(dasknn.ThresholdError) as caught:
        dasknn.assert_thresholds(frame, thresholds, bound=bound)
    assert set(caught.value.failures["slice"]) == failing


def test_slices_with_too_few_rows_are_said_and_not_judged():
    with pytest.warns(UserWarning, match=r"Not judged.*v=c \(5 rows\)"):
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.7})
    with pytest.raises(dasknn.ThresholdError, match="nothing to judge"):
        dasknn.assert_thresholds(evaluation(), {"accuracy": 0.7}, slices=["v=c"])


def test_a_comparison_can_be_asked_for_no_slice_that_is_worse():
    P, y, _ = probabilities(2)
    both = np.hstack([P, 0.5 * P + 0.25])
    found = dasknn.compare(Given(0).fit(), Given(2).fit(), both, y, ["accuracy", "log_loss"])
    assert dasknn.assert_thresholds(found, {"accuracy_difference": -0.01}, bound="worst") is found
    dasknn.assert_thresholds(found, {"log_loss_difference": 0})
    with pytest.raises(dasknn.ThresholdError):
        dasknn.assert_thresholds(found, {"log_loss_difference": (">=", 0)}, bound="best")


def test_thresholds_that_make_no_sense_are_refused():
    frame = evaluation()
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        dasknn.assert_thresholds(frame, {"acuracy": 0.7})
    with pytest.raises(ValueError, match=r"like 0.8 or \('>=', 0.8\)"):
        dasknn.assert_thresholds(frame, {"accuracy": "0.7"})
    with pytest.raises(ValueError, match="Did you mean 'v=a'"):
        dasknn.assert_thresholds(frame, {"accuracy": 0.7}, slices="v=aa")
    frame["bias"] = 0.0
    with pytest.raises(ValueError, match="with a comparison"):
        dasknn.assert_thresholds(frame, {"bias": 0.7})
    with pytest.raises(ValueError, match="Expected an interval of 'bias'"):
        dasknn.assert_thresholds(frame, {"bias": ("<=", 0.7)}, bound="worst")
