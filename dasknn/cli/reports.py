"""Reports of `dask nn` on models and trainings: dicts for programs, text for people."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from dasknn import descriptions, pipelines
from dasknn.cluster.connect import connect
from dasknn.cluster.faults import JOINED, RETIRED
from dasknn.data import partitions
from dasknn.data.column_kinds import Categories, Numbers
from dasknn.data.preprocessing import TablePreprocessor
from dasknn.data.tables.kinds import CategoryColumn
from dasknn.ensembles import EnsembleClassifier, EnsembleRegressor
from dasknn.ensembles import files as ensemble_files
from dasknn.estimators.scores import R2, Accuracy
from dasknn.estimators.tabular import BaseTabular
from dasknn.estimators.tabular_stopping import best_epoch_of
from dasknn.evaluation.responders import place_of
from dasknn.layers import MemberDense, MemberHeads
from dasknn.models import loading, sequential
from dasknn.saving import safetensors_file
from dasknn.saving.serialization import JSONEncoder
from dasknn.training import spent
from dasknn.training.datasets import score_parts

# Kinds of files that `dasknn.load` reads.
_ESTIMATORS = ("MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor")
_LOADED = (*_ESTIMATORS, *ensemble_files.KINDS, descriptions.PIPELINE, descriptions.TABLE)
# Most values of a column in a report.
_SHOWN = 8
# Plurals of kinds of columns, where they have one.
_PLURALS = {
    "number": "numbers",
    "boolean": "booleans",
    "duration": "durations",
    "date": "dates",
    "category": "categories",
    "hashed category": "hashed categories",
}
# A score that chose the epoch was maximized, so it is too high.
_OPTIMISTIC = "(optimistic, since it chose the epoch; for an unbiased estimate hold out --test rows)"


# --- scores ------------------------------------------------------------------------------------------


def scores(model: Any, X: Any, y: Any, weight: Any = None) -> dict[str, float]:
    """Return the accuracy of a classifier, or R^2 and RMSE of a regressor, on a Dask dataframe.

    They are computed where the data is, in one pass.
    """
    predictor = model._predictor()
    X = model._network_inputs(X)
    parts = partitions.parts(X, y, weight)
    metric = Accuracy if is_classifier(model) else R2
    with connect(**place_of(model), distributed=True, data=(X, y, weight)) as tasks:
        found = score_parts(tasks, metric, predictor, parts, list(X.columns))
    if isinstance(found, R2):
        return {"r2": found.result(), "rmse": float(np.sqrt(found.error / found.weight).mean())}
    return {"accuracy": found.result()}


_NAMES = {"accuracy": "accuracy", "r2": "R^2", "rmse": "RMSE"}


def text_of_scores(found: Mapping[str, float]) -> str:
    """Return scores as text, such as R^2 0.7912, RMSE 0.5213."""
    return ", ".join(f"{_NAMES.get(name, name)} {value:.4f}" for name, value in found.items())


# --- a training --------------------------------------------------------------------------------------


def of_training(model: Any, n_columns: int, seconds: float) -> dict[str, Any]:
    """Return the report on a training. n_columns: of the table. seconds: in total, with reading the data."""
    history = model.history_
    faults = [fault for entry in history for fault in entry.get("faults", [])]
    epochs_seconds = sum(entry.get("seconds", 0.0) for entry in history)
    rows_seen = sum(entry.get("n_samples", 0) for entry in history)
    report = {
        "rows": (history[-1] if _refit_epochs(model) else history[0])["n_samples"],
        "columns": n_columns,
        "features": int(model._network_.n_inputs),
        "kinds": _kinds(model),
        **_of_network(model),
        **_of_strategy(model),
        "epochs": int(model.n_iter_),
        "refit_epochs": _refit_epochs(model),
        "interrupted": bool(model.interrupted_),
        "seconds": seconds,
        "seconds_to_start": _seconds_to_start(history),
        "rows_per_second": rows_seen / epochs_seconds if epochs_seconds else None,
        "loss": model.loss_,
        "test": None,
        "faults": faults,
        "bytes_sent": sum(entry.get("bytes_sent", 0) for entry in history),
        "workers": _of_workers(history),
    }
    report["validation"] = _of_validation(model)
    return report


def _of_workers(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return on what workers spent their time, and the slowest; None in a single process."""
    workers = spent.total(history)
    if len(workers) < 2 or not (shares := spent.shares(workers)):
        return None
    slowest = spent.straggler(workers)
    return shares | {"straggler": None if slowest is None else slowest._asdict()}


def _line_of_workers(workers: Mapping[str, Any] | None) -> str | None:
    if workers is None:
        return None
    line = (
        f"computed {workers['compute']:.0%} of the time, exchanged {workers['communication']:.0%}, "
        f"waited {workers['waiting']:.0%}"
    )
    if (slowest := workers["straggler"]) is not None:
        line += f"; for {slowest['address']}, which took {slowest['factor']:.1f} times as long as the others"
    return line


def _seconds_to_start(history: list[dict[str, Any]]) -> float | None:
    # Of a training that was resumed, the last one.
    found = [entry["seconds_to_start"] for entry in history if "seconds_to_start" in entry]
    return found[-1] if found else None


def _of_validation(model: Any) -> dict[str, Any] | None:
    """Return the validation score of the kept weights, the best score, and the epochs of both.

    After a refit, the kept weights are those that said how many epochs it takes.
    """
    found = np.array([e["validation_score"] for e in model.history_ if "validation_score" in e], np.float64)
    if not len(found):
        return None
    if isinstance(model, BaseTabular):
        best = (best_epoch_of(model.history_, model._monitor) or len(found)) - 1
        keeps_best = model.best_epoch_ is not None
    else:
        best = _best(found)
        # L-BFGS keeps the weights of the last epoch.
        keeps_best = model.early_stopping and model.solver != "lbfgs"
    kept = best if keeps_best else len(found) - 1
    name = "accuracy" if is_classifier(model) else "r2"
    return {
        name: float(found[kept]),
        "best": float(found[best]),
        "best_epoch": best + 1,
        "kept_epoch": kept + 1,
        "scored_epochs": len(found),
    }


def _refit_epochs(model: Any) -> int:
    """Return how many epochs a second network was trained on all rows; 0: there is none, or no whole one."""
    if not isinstance(model, BaseTabular) or model.interrupted_:
        return 0
    return _epochs_of_refit(model)


def _epochs_of_refit(model: BaseTabular) -> int:
    """Return how many epochs of the second stage are in the history; a stage that was interrupted counts."""
    if model.refit is None or model.best_epoch_ is None:
        return 0
    return sum("validation_score" not in entry for entry in model.history_)


def _best(scores: np.ndarray) -> int:
    """Return the place of the first of the best scores, or the last place if none is known."""
    return int(np.nanargmax(scores)) if np.isfinite(scores).any() else len(scores) - 1


def text_of_interruption(model: Any) -> str:
    """Return when the training of an estimator was interrupted."""
    is_of_table = isinstance(model, BaseTabular)
    if is_of_table and (n := _epochs_of_refit(model)):
        of_all = f"{n} of {model.best_epoch_} epochs on all rows"
        return f"interrupted after {of_all}; the model is the one that was trained before them"
    return f"interrupted after {model.n_iter_} of {model._n_epochs if is_of_table else model.max_iter} epochs"


def _kinds(model: Any) -> dict[str, int] | None:
    """Return how many columns there are of each kind; None for an MLP, which gets numbers."""
    if not isinstance(model, BaseTabular):
        return None
    return dict(Counter(column.kind for column in model._table.columns))


def _of_network(model: Any) -> dict[str, Any]:
    network = model._network_
    layers = network.layers
    if isinstance(model, BaseTabular):
        # The others embed columns, or scale and drop units.
        layers = [layer for layer in layers if isinstance(layer, MemberDense | MemberHeads)]
    return {
        "model": type(model).__name__,
        "layers": [[layer.units, layer.activation_name] for layer in layers],
        "parameters": int(network.n_params),
        "members": model._predictor().n_members,
        "quantiles": list(getattr(model._encoder, "levels", ())) or None,
        "dtype": network.dtype,
    }


def _of_strategy(model: Any) -> dict[str, Any]:
    return {
        "strategy": "none" if model.strategy_ is None else model.strategy_.name,
        "strategy_reason": model.strategy_reason_,
        "transport": model.transport_,
        "replicas": int(model.replicas_),
        # Models in files from before there were engines have none.
        "engine": getattr(model, "engine_", None),
        "engine_reason": getattr(model, "engine_reason_", None),
    }


def text_of_training(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    lines = {
        "data": f"{count(report['rows'], 'row')}, {count(report['columns'], 'column')}"
        + _line_of_features(report),
        "model": _network_line(report),
        "strategy": f"{report['strategy_reason']}; {count(report['replicas'], 'replica')}, "
        f"transport {report['transport']}",
        "engine": report["engine_reason"],
        "epochs": f"{report['epochs']}"
        + (f" at {report['rows_per_second']:,.0f} rows/s" if report["rows_per_second"] else "")
        + f"; {report['seconds']:.1f} s in total"
        + ("" if (start := report["seconds_to_start"]) is None else f", {start:.1f} s before the first"),
        "workers": _line_of_workers(report["workers"]),
        "loss": f"{report['loss']:.4f} in the last epoch",
        "validation": _line_of_validation(report["validation"], report["refit_epochs"]),
        "": _OPTIMISTIC if report["test"] is None and _is_best(report["validation"]) else None,
        "test": None if report["test"] is None else text_of_scores(report["test"]),
        "faults": _line_of_faults(report["faults"]),
        "sent": f"{report['bytes_sent'] / 1e6:,.1f} MB between workers" if report["bytes_sent"] else None,
        "model file": report.get("output"),
    }
    return aligned(lines)


def _line_of_features(report: Mapping[str, Any]) -> str:
    """Return what columns became, as the end of a line."""
    if report["kinds"] is not None:
        return ": " + ", ".join(
            f"{n:,} {_PLURALS.get(kind, kind) if n > 1 else kind}" for kind, n in report["kinds"].items()
        )
    if report["features"] != report["columns"]:
        return f" ({report['features']:,} after encoding)"
    return ""


def _network_line(report: Mapping[str, Any]) -> str:
    layers = " - ".join(f"{units} {activation}" for units, activation in report["layers"])
    members = f", an ensemble of {report['members']}" if report["members"] > 1 else ""
    quantiles = f"; quantiles {', '.join(map(str, report['quantiles']))}" if report["quantiles"] else ""
    return (
        f"{report['model']}: {layers}; {report['parameters']:,} parameters, {report['dtype']}{members}"
        f"{quantiles}"
    )


def _is_best(validation: Mapping[str, Any] | None) -> bool:
    return validation is not None and validation["kept_epoch"] == validation["best_epoch"]


def _line_of_validation(found: Mapping[str, Any] | None, refit_epochs: int = 0) -> str | None:
    if found is None:
        return None
    line = text_of_scores({name: found[name] for name in _NAMES if name in found})
    if refit_epochs:
        return (
            f"{line} in epoch {found['best_epoch']}, the best of {found['scored_epochs']}; then a second "
            f"network was trained for {count(refit_epochs, 'epoch')} on all rows"
        )
    if _is_best(found):
        return f"{line} with the weights of epoch {found['kept_epoch']}, the best"
    return f"{line} with the weights of the last epoch; epoch {found['best_epoch']} had {found['best']:.4f}"


def _line_of_faults(faults: Sequence[Mapping[str, Any]]) -> str:
    if not faults:
        return "none"
    told = [
        f"epoch {fault.get('epoch')}: {fault.get('what')} {fault.get('worker') or ''}".strip()
        for fault in faults
    ]
    # Workers that join, or leave because they were retired, are not faults.
    n = sum(fault.get("what") not in (JOINED, RETIRED) for fault in faults)
    return f"{n or 'none'}; " + "; ".join(told)


def count(n: int, what: str) -> str:
    """Return a number of things, such as 1 row or 2,125 rows."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def aligned(lines: Mapping[str, str | None]) -> str:
    """Return lines by their names as text; those that are None are left out."""
    shown = {name: line for name, line in lines.items() if line is not None}
    width = max(map(len, shown))
    return "\n".join(f"{name:<{width}}  {line}" for name, line in shown.items())


def as_json(report: Any) -> str:
    """Return a report as one line of JSON, with null for numbers that are not finite."""
    return json.dumps(_ReportEncoder().encode(report, "the report"))


class _ReportEncoder(JSONEncoder):
    def encode_float(self, value: float) -> Any:
        # Standard JSON has no NaN.
        return value if math.isfinite(value) else None

    def encode_other(self, value: Any, where: str) -> Any:
        return str(value)


# --- an evaluation -----------------------------------------------------------------------------------


def text_of_evaluation(table: Any) -> str:
    """Return the table of `dasknn.evaluate` as text: metrics with their intervals."""
    width = max(map(len, table["slice"]))
    shown = table[["slice", "rows"]].assign(
        slice=table["slice"].str.ljust(width), rows=[f"{rows:,}" for rows in table["rows"]]
    )
    for name in table.columns[2:]:
        if f"{name}_low" in table.columns:
            columns = (table[name], table[f"{name}_low"], table[f"{name}_high"])
            shown[name] = [
                "-" if m != m else f"{m:.4f} [{low:.4f}, {high:.4f}]"
                for m, low, high in zip(*columns, strict=True)
            ]
    return shown.to_string(index=False)


# --- a file ------------------------------------------------------------------------------------------


def of_file(path: str) -> dict[str, Any]:
    """Return the report on a model file. FileNotFoundError, ModelFileError: as for loading it."""
    if path.endswith(".keras"):
        return {"file": path, **_of_sequential(loading.load_model(path, compile=False))}
    description, arrays = safetensors_file.read(path)
    kind = description.get("kind")
    if kind == sequential.Sequential.__name__:
        return {"file": path, **_of_sequential(loading.load_model(path, compile=False))}
    if kind not in _LOADED:
        # A checkpoint, or weights alone.
        shapes = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
        return {"file": path, "kind": str(kind), "arrays": shapes}
    model: Any = pipelines.load(path)
    report: dict[str, Any] = {"file": path, **_of_model(model)}
    if "versions" in description:
        report["versions"] = description["versions"]
    return report


def _of_model(model: Any) -> dict[str, Any]:
    """Return the report on a model, or on a preprocessing alone, without the file that it comes from."""
    if isinstance(model, EnsembleClassifier | EnsembleRegressor):
        return _of_ensemble(model)
    report: dict[str, Any] = {"kind": type(model).__name__}
    if isinstance(model, Pipeline | TablePreprocessor):
        table, model = (model[0], model[1]) if isinstance(model, Pipeline) else (model, None)
        report |= {"columns": _of_table(table), "rows_of_table": table.n_samples_seen_}
    elif isinstance(model, BaseTabular):
        report |= {"columns": _of_columns(model)}
    else:
        report |= {"columns": [{"name": name} for name in getattr(model, "feature_names_in_", [])]}
    if model is None:
        return report
    if isinstance(model, sequential.Sequential):
        return _of_sequential(model) | report
    return report | _of_estimator(model)


def _of_ensemble(model: EnsembleClassifier | EnsembleRegressor) -> dict[str, Any]:
    """Return the report on an ensemble, with one on each member."""
    members = [_of_model(member) for member in model.members_]
    return {
        "kind": type(model).__name__,
        "columns": next((one["columns"] for one in members if one["columns"]), []),
        "features": model.n_features_in_,
        "target": getattr(model, "target_name_", None),
        "classes": list(model.classes_) if isinstance(model, EnsembleClassifier) else None,
        "shares": model.weights_.tolist(),
        "of_members": members,
    }


def _of_estimator(model: Any) -> dict[str, Any]:
    history = model.history_
    settings: dict[str, Any] = {}
    if isinstance(model, BaseTabular):
        chosen = ("epochs", "batch_size", "dropout", "weight_decay")
        settings = {name: getattr(model.recipe_, name) for name in chosen}
    else:
        settings = {name: getattr(model, name) for name in ("solver", "alpha", "batch_size")}
    return {
        **_of_network(model),
        "features": int(model._network_.n_inputs),
        "kinds": _kinds(model),
        "target": getattr(model, "target_name_", None),
        "classes": list(model.classes_) if is_classifier(model) else None,
        **_of_strategy(model),
        "epochs": len(history),
        "refit_epochs": _refit_epochs(model),
        "rows": history[-1].get("n_samples") if history else None,
        "rows_of_first": history[0].get("n_samples") if history else None,
        "loss": getattr(model, "loss_", None),
        "validation": _of_validation(model),
        "interrupted": bool(model.interrupted_),
        "faults": [fault for entry in history for fault in entry.get("faults", [])],
        "settings": settings
        | {name: getattr(model, name) for name in ("learning_rate_init", "random_state")},
    }


def _of_table(table: TablePreprocessor) -> list[dict[str, Any]]:
    return [_of_column(column) for column in table.columns_]


def _of_column(column: Numbers | Categories) -> dict[str, Any]:
    if isinstance(column, Numbers):
        return {
            "name": column.name,
            "kind": "numbers",
            "mean": column.mean,
            "scale": column.scale,
            "indicator": column.indicator,
        }
    return {
        "name": column.name,
        "kind": "categories",
        "values": list(column.values),
        "infrequent": list(column.infrequent),
    }


def _of_columns(model: BaseTabular) -> list[dict[str, Any]]:
    """Return what an estimator for tables has learned of its columns; of categories also the values."""
    return [
        found._asdict() | ({"values": list(column.values)} if isinstance(column, CategoryColumn) else {})
        for found, column in zip(model.columns_, model._table.columns, strict=True)
    ]


def _of_sequential(model: Any) -> dict[str, Any]:
    return {
        "kind": "Sequential",
        "name": model.name,
        "layers": [
            [type(layer.settings).__name__, layer.name, int(layer.count_params())] for layer in model.layers
        ],
        "parameters": int(model.count_params()),
    }


def text_of_file(report: Mapping[str, Any]) -> str:
    """Return the report on a file as text."""
    lines: dict[str, str | None] = {"file": report["file"], "kind": report["kind"]}
    if "arrays" in report:
        lines |= {name: f"{dtype} {tuple(shape)}" for name, (dtype, shape) in report["arrays"].items()}
        return aligned(lines)
    columns = [
        f"  {column['name']}: {_line_of_column(column)}".rstrip(": ") for column in report.get("columns", ())
    ]
    if "of_members" in report:
        lines |= _lines_of_ensemble(report)
        return "\n".join([aligned(lines), *(["columns", *columns] if columns else [])])
    if "classes" not in report:
        layers = [f"{kind} {name!r}, {count(n, 'parameter')}" for kind, name, n in report.get("layers", ())]
        lines |= {f"layer {number}": layer for number, layer in enumerate(layers)}
        if "parameters" in report:
            lines |= {"parameters": f"{report['parameters']:,}"}
        return "\n".join([aligned(lines), *(["columns", *columns] if columns else [])])
    classes = report["classes"]
    loss = report["loss"]
    lines |= {
        "network": _network_line(report),
        "target": report["target"],
        "classes": None if classes is None else _some(classes),
        "features": f"{report['features']:,}" if report["kinds"] is None else None,
        "trained": _line_of_epochs(report)
        + (f", loss {loss:.4f} in the last" if isinstance(loss, float) else "")
        + (", interrupted" if report["interrupted"] else ""),
        "validation": _line_of_validation(report["validation"], report["refit_epochs"]),
        "strategy": f"{report['strategy_reason']}; {count(report['replicas'], 'replica')}, "
        f"transport {report['transport']}",
        "engine": report["engine_reason"],
        "faults": _line_of_faults(report["faults"]),
        "settings": ", ".join(f"{name} {value}" for name, value in report["settings"].items()),
        "versions": ", ".join(f"{name} {value}" for name, value in report.get("versions", {}).items())
        or None,
    }
    return "\n".join([aligned(lines), *(["columns", *columns] if columns else [])])


def _lines_of_ensemble(report: Mapping[str, Any]) -> dict[str, str | None]:
    """Return lines on an ensemble by their names: what it predicts, and one for each member."""
    classes = report["classes"]
    lines = {
        "target": report["target"],
        "classes": None if classes is None else _some(classes),
        "features": f"{report['features']:,}",
    }
    for number, (share, member) in enumerate(zip(report["shares"], report["of_members"], strict=True)):
        lines[f"member {number}"] = f"share {share:.3g}; {_line_of_member(member)}"
    lines["versions"] = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    return lines


def _line_of_member(member: Mapping[str, Any]) -> str:
    before = "a table's preprocessing, then " if member["kind"] == descriptions.PIPELINE else ""
    if "members" in member:
        return before + _network_line(member)
    return f"{before}Sequential of {len(member['layers'])} layers; {member['parameters']:,} parameters"


def _line_of_epochs(report: Mapping[str, Any]) -> str:
    n_all, n_refit, rows = report["epochs"], report["refit_epochs"], report["rows"] or 0
    if not n_refit:
        return f"{count(n_all, 'epoch')} on {count(rows, 'row')}"
    first = count(report["rows_of_first"] or 0, "row")
    return f"{count(n_all - n_refit, 'epoch')} on {first}, then {n_refit} on all {count(rows, 'row')}"


def _line_of_column(column: Mapping[str, Any]) -> str:
    if "kind" not in column:
        return ""
    if "learned" in column:
        text = f"{column['kind']}; {column['learned']}"
        if column.get("values"):
            text += f": {_some(column['values'])}"
        if "values" in column and column["has_missing"]:
            text += "; may be missing"
        return text if column["kind"] == "ignored" else f"{text}; becomes {column['becomes']}"
    if column["kind"] == "numbers":
        marked = ", some missing" if column["indicator"] else ""
        return f"numbers, mean {column['mean']:.4g}, deviation {column['scale']:.4g}{marked}"
    rare = f", and {len(column['infrequent'])} infrequent ones" if column["infrequent"] else ""
    return f"{count(len(column['values']), 'value')}: {_some(column['values'])}{rare}"


def _some(values: Iterable[Any]) -> str:
    values = ["missing" if value is None else str(value) for value in values]
    more = f", ... ({len(values)} in total)" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
