"""What a search has found, in scikit-learn's form: one row for each trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from scipy.stats import rankdata

from dasknn.search.course import Course
from dasknn.search.selection import Picks
from dasknn.search.trials import SCORE, Trial

#: Columns that differ from run to run.
TIMES = ("mean_fit_time", "std_fit_time")
# So far below the lower quartile, in distances from there to the best, scores are left out of pictures.
_FAR_BELOW = 2.0


def cv_results(course: Course, n_splits: int) -> dict[str, Any]:
    """Return the results of all trials, by column."""
    trials = course.trials
    of_splits = np.array(
        [[_score(trial, split) for split in range(n_splits)] for trial in trials], np.float64
    ).reshape(len(trials), n_splits)
    mean = of_splits.mean(axis=1)
    seconds = np.array([[_seconds(trial, k) for k in range(n_splits)] for trial in trials], np.float64)
    seconds = seconds.reshape(len(trials), n_splits)
    found: dict[str, Any] = {
        "mean_fit_time": seconds.mean(axis=1),
        "std_fit_time": seconds.std(axis=1),
        **_columns_of_settings(trials),
        "params": [dict(trial.settings) for trial in trials],
    }
    for split in range(n_splits):
        found[f"split{split}_test_score"] = of_splits[:, split]
    found |= {
        "mean_test_score": mean,
        "std_test_score": of_splits.std(axis=1),
        "rank_test_score": ranks(mean),
        "n_epochs": np.array([trial.n_epochs for trial in trials], dtype=np.int64),
        "best_epoch": np.array([trial.best_epoch for trial in trials], dtype=np.int64),
        "bracket": np.array([trial.bracket for trial in trials], dtype=np.int64),
        "rung": np.array([trial.rung for trial in trials], dtype=np.int64),
        "status": np.array([course.status(trial) for trial in trials], dtype=object),
        "error": np.array([_error(trial) for trial in trials], dtype=object),
    }
    return found


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks from 1, the best first; failed trials, whose score is NaN, come last."""
    found = rankdata(-np.nan_to_num(scores, nan=-np.inf), method="min")
    return found.astype(np.int32)


def lowest_to_show(scores: np.ndarray) -> float | None:
    """Return a bound for pictures, below which a few very bad scores lie; None: there are none.

    scores (n,): those that are not finite do not count.
    """
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    best, quartile = scores.max(), np.quantile(scores, 0.25)
    lowest = float(quartile - _FAR_BELOW * (best - quartile))
    return lowest if scores.min() < lowest and quartile < best else None


def add_ensemble(results: dict[str, Any], trials: Sequence[int], picks: Picks | None) -> None:
    """Add what each trial adds to the ensemble; trials: numbers of the candidates."""
    n = len(results["params"])
    results["ensemble_weight"] = np.zeros(n, dtype=np.int64)
    results["ensemble_gain"] = np.zeros(n)
    if picks is None:
        return
    # The first has nothing before it.
    before = nan
    for number, loss in zip(picks.numbers, picks.losses, strict=True):
        trial = trials[number]
        results["ensemble_weight"][trial] += 1
        if not isnan(before):
            results["ensemble_gain"][trial] += before - loss
        before = loss


def history(course: Course, began: float) -> list[dict[str, Any]]:
    """Return an entry for each epoch of each network, in the order of trials."""
    found = []
    for trial in course.trials:
        for run in trial.runs:
            for number, entry in enumerate(run.entries):
                kept = {
                    name: value for name, value in entry.items() if name not in (SCORE, "ended", "faults")
                }
                kept |= {
                    "trial": trial.number,
                    "split": run.split,
                    "epoch": number + 1,
                    "score": entry.get(SCORE, nan),
                    "time": max(0.0, entry["ended"] - began),
                }
                found.append(kept)
    return found


def faults(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what users are told of events of a cluster: no network of a search has a place of its own."""
    return [
        {name: event[name] for name in ("what", "worker", "time", "seconds", "error")} for event in events
    ]


def _score(trial: Trial, split: int) -> float:
    if trial.has_failed or split >= len(trial.runs):
        return nan
    run = trial.runs[split]
    return run.best_until(len(run.entries))


def _seconds(trial: Trial, split: int) -> float:
    """Return the seconds for which workers have trained a network."""
    if split >= len(trial.runs):
        return 0.0
    entries = trial.runs[split].entries
    return sum(times["compute"] for entry in entries for times in entry["workers"].values())


def _error(trial: Trial) -> str:
    failure = trial.failure
    return "" if failure is None else f"{type(failure).__name__}: {failure}"


def _columns_of_settings(trials: Sequence[Trial]) -> dict[str, MaskedArray]:
    """Return a masked column for each setting: trials need not all have it."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return {f"param_{name}": _column(name, [trial.settings for trial in trials]) for name in names}


def _column(name: str, settings: Sequence[Mapping[str, Any]]) -> MaskedArray:
    is_given = np.array([name in one for one in settings], dtype=bool)
    kinds = {type(one[name]) for one in settings if name in one}
    if kinds in ({bool}, {int}):
        dtype: Any = bool if kinds == {bool} else np.int64
    else:
        dtype = np.float64 if kinds <= {int, float} else object
    values = np.zeros(len(settings), dtype)
    for number, one in enumerate(settings):
        if name in one:
            values[number] = one[name]
    return MaskedArray(values, mask=~is_given)
