"""What evaluations must come to: thresholds that every slice passes, or a list of those that do not."""

from __future__ import annotations

import warnings
from operator import ge, gt, le, lt
from typing import Any

import numpy as np

from dasknn.evaluation import metrics as evaluation_metrics
from dasknn.saving.serialization import did_you_mean

_COMPARISONS = {">=": ge, "<=": le, ">": gt, "<": lt}
# Which end of an interval is judged: the one that passes less easily, or the one that does so more easily.
_BOUNDS = ("value", "worst", "best")
# So many of them are named.
_SHOWN = 10
_UNJUDGED = "Not judged, since they have too few rows or the metric is not defined"


class ThresholdError(AssertionError):
    """Slices that do not pass; `failures` is a dataframe of them."""

    def __init__(self, message: str, failures=None):
        super().__init__(message)
        self.failures = failures

    def __reduce__(self):
        return type(self), (self.args[0], self.failures)


def assert_thresholds(evaluation, thresholds: dict[str, Any], *, bound: str = "value", slices=None):
    """Return an evaluation if all its slices pass; raise ThresholdError, which names those that do not.

    Parameters
    ----------
    evaluation : what `evaluate` or `compare` returned.
    thresholds : for each metric a number, or (">=", number) with >=, <=, > or <, or a list of such pairs. A
        number alone is the least of a score, and the most of a loss or error. Of a comparison, the metrics
        are `accuracy_difference`, `accuracy_a`, and so on.
    bound : what is judged. "value": the metric itself. "worst": the end of its interval that passes less
        easily, so that a slice passes only where it is sure to. "best": the other end, so that a slice fails
        only where it is sure to.
    slices : names of the slices that are judged; None: all.

    Slices with too few rows, or where a metric is not defined, are not judged; a UserWarning names them. If
    that leaves none, a metric fails. ThresholdError is an AssertionError. ValueError: metrics or slices that
    are not there, a number alone for a metric of which neither more nor less is better.
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
        warnings.warn(f"{_UNJUDGED}: {unjudged}.", stacklevel=2)
    return evaluation


def _chosen(evaluation, slices):
    names = [slices] if isinstance(slices, str) else list(slices)
    there = evaluation["slice"].tolist()
    for name in names:
        if name not in there:
            raise ValueError(
                f"Expected slices of the evaluation, received {name!r}."
                f"{did_you_mean(name, there)} There are: {', '.join(there[:20])}."
            )
    return evaluation[evaluation["slice"].isin(names)]


def _checks(evaluation, metric: str, wanted) -> list[tuple[str, float]]:
    """Return (comparison, number) pairs. ValueError: a metric that is not there, or something else."""
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


def _direction(evaluation, metric: str) -> str:
    known = {name: one.greater_is_better for name, one in evaluation_metrics.METRICS.items()}
    known |= evaluation.attrs.get("greater_is_better", {})
    of = metric
    for ending in ("_difference", "_a", "_b"):
        if of not in known:
            of = metric.removesuffix(ending)
    if known.get(of) is None:
        raise ValueError(
            f"Expected a threshold of {metric!r} with a comparison, such as ('>=', 0.1), since neither more "
            "nor less of it is better."
        )
    return ">=" if known[of] else "<="


def _judged_number(row: dict, metric: str, sign: str, bound: str) -> float:
    if bound == "value":
        return row[metric]
    end = "low" if (bound == "worst") == (sign in (">=", ">")) else "high"
    number = row.get(f"{metric}_{end}", float("nan"))
    if np.isnan(number):
        raise ValueError(
            f"Expected an interval of {metric!r} for bound={bound!r}, and there is none. Use bound='value', "
            "or evaluate with n_bootstrap > 0."
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
