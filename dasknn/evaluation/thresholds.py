"""Thresholds for evaluations: all slices pass, or an error lists those that do not."""

from __future__ import annotations

import warnings
from operator import ge, gt, le, lt
from typing import Any

import numpy as np

from dasknn.evaluation.metrics import METRICS
from dasknn.exceptions import caller_stacklevel
from dasknn.saving.serialization import did_you_mean

_COMPARISONS = {">=": ge, "<=": le, ">": gt, "<": lt}
# The number to judge: the metric, or the end of its interval that passes less or more easily.
_BOUNDS = ("value", "worst", "best")
# Slices that a message names.
_SHOWN = 10
_UNJUDGED = "Not judged, since they have too few rows or the metric is not defined there"


class ThresholdError(AssertionError):
    """Slices do not pass their thresholds.

    Attributes
    ----------
    failures : pandas.DataFrame
        One row for each slice and threshold: `slice`, `rows`, `metric`, `value`, `low`, `high`, `threshold`.
    """

    def __init__(self, message: str, failures: Any = None):
        super().__init__(message)
        self.failures = failures

    def __reduce__(self) -> tuple:
        return type(self), (self.args[0], self.failures)


def assert_thresholds(
    evaluation: Any, thresholds: dict[str, Any], *, bound: str = "value", slices: Any = None
) -> Any:
    """Return an evaluation if all its slices pass; otherwise raise a ThresholdError that lists the others.

    Parameters
    ----------
    evaluation : pandas.DataFrame
        The result of `evaluate` or `compare`.
    thresholds : dict
        For each metric a number, a pair such as `(">=", 0.8)` with `>=`, `<=`, `>` or `<`, or a list of such
        pairs. A number alone is a minimum for a score and a maximum for a loss or an error. The metrics of a
        comparison are `accuracy_difference`, `accuracy_a`, and so on.
    bound : {"value", "worst", "best"}, default="value"
        What is judged. "value": the metric. "worst": the end of its interval that passes less easily, so that
        a slice passes only if that is certain. "best": the other end, so that a slice fails only if that is
        certain.
    slices : str or list of str, default=None
        Names of the slices to judge; None: all.

    Returns
    -------
    pandas.DataFrame
        `evaluation` itself.

    Raises
    ------
    ThresholdError
        Slices do not pass, or no slice has a value of a metric. It is an AssertionError.
    ValueError
        Metrics or slices that are not in the evaluation, or a number alone for a metric that is neither a
        score nor a loss.

    Warns
    -----
    UserWarning
        Slices were not judged, because they have too few rows or the metric is not defined there.
    """
    if not thresholds:
        raise ValueError("Expected at least one threshold, such as {'accuracy': 0.8}, received none.")
    if bound not in _BOUNDS:
        raise ValueError(f"Expected bound to be one of {', '.join(_BOUNDS)}, received {bound!r}.")
    judged = evaluation if slices is None else _chosen(evaluation, slices)
    failures, skipped = [], {}
    for metric, wanted in thresholds.items():
        checks = _checks(evaluation, metric, wanted)
        for row in judged.to_dict("records"):
            if np.isnan(row[metric]):
                skipped[row["slice"]] = row["rows"]
                continue
            for sign, threshold in checks:
                if not _COMPARISONS[sign](_judged_number(row, metric, sign, bound), threshold):
                    failures.append(_failure(row, metric, sign, threshold))
        if judged[metric].isna().all():
            failures.append({"slice": "any slice", "rows": 0, "metric": metric, "threshold": "a value"})
    unjudged = "; ".join(f"{name} ({rows:,} rows)" for name, rows in list(skipped.items())[:_SHOWN])
    if len(skipped) > _SHOWN:
        unjudged += f"; and {len(skipped) - _SHOWN} more"
    if failures:
        raise _threshold_error(failures, len(judged), bound, unjudged)
    if unjudged:
        warnings.warn(f"{_UNJUDGED}: {unjudged}.", stacklevel=caller_stacklevel())
    return evaluation


def _chosen(evaluation: Any, slices: Any) -> Any:
    names = [slices] if isinstance(slices, str) else list(slices)
    there = evaluation["slice"].tolist()
    for name in names:
        if name not in there:
            raise ValueError(
                f"Expected slices of the evaluation, received {name!r}."
                f"{did_you_mean(name, there)} There are: {', '.join(there[:20])}."
            )
    return evaluation[evaluation["slice"].isin(names)]


def _checks(evaluation: Any, metric: str, wanted: Any) -> list[tuple[str, float]]:
    """Return (comparison, number) pairs. ValueError: an unknown metric, or another kind of threshold."""
    there = [
        name
        for name in evaluation.columns
        if name not in ("slice", "rows") and not name.endswith(("_low", "_high", "_differs"))
    ]
    if metric not in there:
        raise ValueError(
            f"Expected thresholds of metrics of the evaluation, received {metric!r}."
            f"{did_you_mean(metric, there)} There are: {', '.join(there)}."
        )
    if isinstance(wanted, int | float | np.number):
        wanted = (_direction(evaluation, metric), wanted)
    checks = wanted if isinstance(wanted, list) else [wanted]
    for check in checks:
        is_pair = isinstance(check, tuple) and len(check) == 2 and check[0] in _COMPARISONS
        if not is_pair or not isinstance(check[1], int | float | np.number):
            raise ValueError(
                f"Expected a threshold of {metric!r} like 0.8 or ('>=', 0.8), received {check!r}."
            )
    return checks


def _direction(evaluation: Any, metric: str) -> str:
    known = {name: one.greater_is_better for name, one in METRICS.items()}
    known |= evaluation.attrs.get("greater_is_better", {})
    of = metric
    for ending in ("_difference", "_a", "_b"):
        if of not in known:
            of = metric.removesuffix(ending)
    if known.get(of) is None:
        raise ValueError(
            f"Expected a threshold of {metric!r} with a comparison, such as ('>=', 0.1), received a number "
            "alone: neither more nor less of it is better."
        )
    return ">=" if known[of] else "<="


def _judged_number(row: dict, metric: str, sign: str, bound: str) -> float:
    if bound == "value":
        return row[metric]
    end = "low" if (bound == "worst") == (sign in (">=", ">")) else "high"
    number = row.get(f"{metric}_{end}", float("nan"))
    if np.isnan(number):
        raise ValueError(
            f"Expected an interval of {metric!r} for bound={bound!r}, received none. Use bound='value', or "
            "evaluate with n_bootstrap > 0."
        )
    return number


def _failure(row: dict, metric: str, sign: str, threshold: float) -> dict[str, Any]:
    ends = {end: row.get(f"{metric}_{end}", float("nan")) for end in ("low", "high")}
    return {
        "slice": row["slice"],
        "rows": row["rows"],
        "metric": metric,
        "value": row[metric],
        **ends,
        "threshold": f"{sign} {threshold:g}",
    }


def _threshold_error(failures: list[dict], n_judged: int, bound: str, unjudged: str) -> ThresholdError:
    import pandas as pd

    frame = pd.DataFrame(failures)
    lines = [f"{frame['slice'].nunique()} of {n_judged} slices do not pass, judged by bound={bound!r}:"]
    for one in failures:
        if "value" not in one:
            lines.append(f"  {one['metric']} has no value in any slice: there is nothing to judge")
            continue
        lines.append(
            f"  {one['slice']} ({one['rows']:,} rows): {one['metric']} = {one['value']:.4g} "
            f"[{one['low']:.4g}, {one['high']:.4g}], expected {one['threshold']}"
        )
    if unjudged:
        lines.append(f"{_UNJUDGED}: {unjudged}.")
    return ThresholdError("\n".join(lines), frame)
