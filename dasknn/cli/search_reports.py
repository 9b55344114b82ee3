"""Reports of `dask nn search`: a dict for programs, text for people, files with a table of all trials."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

import click
import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from dasknn.cli import reports
from dasknn.cli.search_config import NETWORK_STEP
from dasknn.evaluation.responders import last_step
from dasknn.saving import storage

# So many trials are shown in the terminal.
_TOP = 5
# An ensemble is recommended if it has so much of what the largest gain is.
_ENOUGH = 0.9
_KINDS = (".html", ".md", ".csv")
_STATUSES = ("finished", "paused", "stopped", "failed")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: right; white-space: nowrap; }
img { max-width: 100%; }
"""


def line_of_plan(search: Any) -> str:
    """Return what a search that is not fitted will do."""
    settings = ", ".join(_short(name) for name in _names_of(search.parameters))
    budget = search.time_budget
    until = f", for at most {budget:,.0f} s" if isinstance(budget, int | float) else ""
    return f"{settings}; at most {search.max_iter} epochs each{until}"


def _names_of(parameters: Any) -> list[str]:
    parts = parameters if isinstance(parameters, list) else [parameters]
    return sorted({name for part in parts for name in part})


# --- as a dict ---------------------------------------------------------------------------------------


def of_search(search: Any, method: str, n_networks: int | None) -> dict[str, Any]:
    """Return the report on a fitted search.

    method: as on the command line. n_networks: of the ensemble that was written; None: the best network was.
    """
    found = search.cv_results_
    statuses = Counter(found["status"])
    trials = _trials(found)
    best = next(trial for trial in trials if trial["trial"] == search.best_index_)
    return {
        "method": method,
        "scoring": search.scoring or _score_of(search),
        "n_trials": len(trials),
        "statuses": {status: statuses[status] for status in _STATUSES if statuses[status]},
        "folds": search.n_splits_ if search.n_splits_ > 1 else None,
        "epochs": len(search.history_),
        "best": best | {"best_epoch": int(search.best_epoch_)},
        "ensemble": _of_ensemble(search, n_networks),
        "interrupted": bool(search.interrupted_),
        "timed_out": bool(search.timed_out_),
        "search_seconds": float(search.search_time_),
        "trials": trials,
    }


def _trials(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what became of each trial, the best first."""
    # Of equal ones, the first.
    order = np.argsort(found["rank_test_score"], kind="stable")
    return [
        {
            "trial": int(number),
            "rank": int(found["rank_test_score"][number]),
            "score": float(found["mean_test_score"][number]),
            "epochs": int(found["n_epochs"][number]),
            "status": str(found["status"][number]),
            "settings": {_short(name): value for name, value in found["params"][number].items()},
            "error": found["error"][number] or None,
            "in_ensemble": int(found["ensemble_weight"][number]),
        }
        for number in order
    ]


def _of_ensemble(search: Any, n_networks: int | None) -> dict[str, Any] | None:
    """Return what an ensemble adds: that which was written, or else a small one that adds most."""
    losses = np.asarray(search.ensemble_losses_)
    if not len(losses):
        return None
    gains = losses[0] - losses
    n = int(np.argmax(gains >= _ENOUGH * gains.max())) + 1 if n_networks is None else n_networks
    path = search.ensemble_path_[:n]
    return {
        "networks": n,
        "trials": sorted(set(path)),
        "loss": float(losses[n - 1]),
        "loss_of_one": float(losses[0]),
        "is_written": n_networks is not None,
    }


def _score_of(search: Any) -> str:
    """Return what a network's own score is called."""
    network = last_step(search.estimator)
    if is_classifier(network):
        return "accuracy"
    # Of quantiles it is their loss, negated.
    return "score" if getattr(network, "quantiles", None) else "r2"


def _short(name: str) -> str:
    return name.removeprefix(NETWORK_STEP)


# --- as text -----------------------------------------------------------------------------------------


def text_of_search(report: Mapping[str, Any]) -> str:
    """Return the report as text: what was found, and the best trials."""
    table = _table(report, report["trials"][:_TOP])
    top = table.drop(columns=["error"]).to_string(index=False)
    return f"{_summary(report)}\n\n{top}"


def _summary(report: Mapping[str, Any]) -> str:
    return reports.aligned(
        {
            "search": _line_of_search(report),
            "best": _line_of_best(report),
            "": f"(optimistic, since it chose the network; for an unbiased estimate: dask nn evaluate "
            f"{report['output']} FILES)",
            "ensemble": _line_of_ensemble(report["ensemble"]),
            "failed": _line_of_failed(report["trials"]),
            "model file": report["output"],
        }
    )


def _line_of_search(report: Mapping[str, Any]) -> str:
    statuses = ", ".join(f"{n} {status}" for status, n in report["statuses"].items())
    ended = " by Ctrl-C" if report["interrupted"] else " by the budget" if report["timed_out"] else ""
    folds = f" in {report['folds']} folds" if report["folds"] else ""
    return (
        f"{report['method']}: {reports.count(report['n_trials'], 'trial')}{folds} ({statuses}), "
        f"{reports.count(report['epochs'], 'epoch')}; {report['seconds']:.1f} s in total"
        + (f", ended{ended}" if ended else "")
    )


def _line_of_best(report: Mapping[str, Any]) -> str:
    best = report["best"]
    score = reports.text_of_scores({report["scoring"]: best["score"]})
    return f"{score} of trial {best['trial']}, in its epoch {best['best_epoch']}"


def _line_of_ensemble(found: Mapping[str, Any] | None) -> str | None:
    if found is None:
        return None
    of = f"{reports.count(found['networks'], 'network')} of {reports.count(len(found['trials']), 'trial')}"
    losses = f"loss {found['loss']:.4f}, of the first alone {found['loss_of_one']:.4f}"
    if found["is_written"]:
        return f"the mean of {of}: {losses}"
    if found["networks"] == 1:
        return "no mean of several networks predicts better"
    return f"the mean of {of} has {losses}: --ensemble {found['networks']} writes it"


def _line_of_failed(trials: Iterable[Mapping[str, Any]]) -> str | None:
    failed = [trial for trial in trials if trial["error"]]
    if not failed:
        return None
    first = min(failed, key=lambda trial: trial["trial"])
    return f"{reports.count(len(failed), 'trial')}; trial {first['trial']}: {first['error']}"


def _table(report: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table of trials, as text."""
    rows = [
        {
            "rank": trial["rank"],
            "trial": trial["trial"],
            report["scoring"]: "-" if isnan(trial["score"]) else f"{trial['score']:.4f}",
            "epochs": trial["epochs"],
            "status": trial["status"],
            **{name: _value(value) for name, value in trial["settings"].items()},
            "error": trial["error"] or "",
        }
        for trial in trials
    ]
    # Trials need not have the same settings.
    names = dict.fromkeys(name for row in rows for name in row if name != "error")
    return pd.DataFrame(rows, columns=[*names, "error"]).fillna("")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return ",".join(map(_value, value))
    return "none" if value is None else str(value)


# --- as files ----------------------------------------------------------------------------------------


def check_kinds(paths: Sequence[str]) -> None:
    """Raise BadParameter for files of a kind that is not written."""
    for path in paths:
        if not path.endswith(_KINDS):
            raise click.BadParameter(
                f"expected a file that ends in {', '.join(_KINDS)}, received {path}", param_hint="--report"
            )


def write(path: str, report: Mapping[str, Any], search: Any) -> None:
    """Write a report to a file or fsspec URL, by its ending. OSError: it cannot be written."""
    table = _table(report, report["trials"])
    if not any(table["error"]):
        table = table.drop(columns=["error"])
    if path.endswith(".csv"):
        text = _exact(report).to_csv(index=False)
    elif path.endswith(".md"):
        text = _as_markdown(report, table)
    else:
        text = _as_html(report, table, _pictures(search))
    storage.write(path, text.encode())


def _exact(report: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of all trials with all digits, for programs."""
    left_out = ("settings", "error")
    rows = [
        {name: value for name, value in trial.items() if name not in left_out}
        | {name: _value(v) if isinstance(v, tuple) else v for name, v in trial["settings"].items()}
        | {"error": trial["error"]}
        for trial in report["trials"]
    ]
    return pd.DataFrame(rows)


def _as_markdown(report: Mapping[str, Any], table: pd.DataFrame) -> str:
    lines = [
        " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        for row in [table.columns, ["---"] * len(table.columns), *table.to_numpy().tolist()]
    ]
    rows = "\n".join(f"| {line} |" for line in lines)
    return f"# Search for {report['target']}\n\n```text\n{_summary(report)}\n```\n\n{rows}\n"


def _as_html(report: Mapping[str, Any], table: pd.DataFrame, pictures: Mapping[str, bytes]) -> str:
    title = html.escape(f"Search for {report['target']}")
    images = "".join(
        f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">\n'
        for name, picture in pictures.items()
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n<pre>{html.escape(_summary(report))}</pre>\n{images}"
        f"<div>\n{table.to_html(index=False, border=0)}\n</div>\n</html>\n"
    )


def _pictures(search: Any) -> dict[str, bytes]:
    """Return pictures of the trials as PNG, by what they show; none if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return {}
    from dasknn.plots import SearchDisplay

    found = {}
    shown = {"scores of the trials by epoch": None, "scores of the trials against their settings": "all"}
    for name, settings in shown.items():
        figure = Figure(figsize=(10, 5 if settings is None else 7), layout="constrained")
        SearchDisplay.from_estimator(search, settings=settings, ax=figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
        found[name] = file.getvalue()
    return found
