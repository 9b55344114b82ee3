"""Messages of the package in the words of the shell: options of `dask nn` instead of arguments in Python.

    error or warning of the package ── in_shell ── message in the terminal

A message is written once, for Python, where it is raised. Only this module turns it into the words of a
command; parts that are not in the table read the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# (pattern in a message, its replacement in the shell), applied in this order: sentences before single words.
TABLE: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    # checkpoints, and connections that are gone
    (r"Pass resume=True to resume", "Add --resume to resume"),
    (r"Pass resume=True to go on", "Add --resume to go on"),
    (
        r"The model has the weights of the last complete epoch\. Connect a new client; with "
        r"fit\(\.\.\., checkpoint='folder', resume=True\) training resumes where it stopped\.",
        "Start the command again: with --checkpoint FOLDER and --resume it resumes from the last epoch.",
    ),
    (
        r"; the model has the weights of the last good epoch\.",
        ". Nothing was saved. Try a smaller --learning-rate, or standardized columns (--preprocess auto).",
    ),
    (r"max_faults=(\d+)", r"\1"),
    (r"dask\.config 'dasknn\.(\w+)'", lambda found: f"the variable DASK_DASKNN__{found[1].upper()}"),
    # columns
    (
        r"Convert it to numbers, such as the year or the days since the first date, or leave",
        "Use --model table, which takes dates, or leave",
    ),
    (r"drop=\['([^']*)'\]", r"--drop \1"),
    (r"categorical=\['([^']*)'\]", r"--categorical \1"),
    (r"min_frequency=(\d+)", r"--min-frequency \1"),
    (r"\bmax_categories\b", "--max-categories"),
    (
        r"Convert it, for instance to text: X.*?; or leave it out: X\.drop\(columns=\['([^']*)'\]\)",
        r"Convert it to text in the file, or leave it out: --drop \1",
    ),
    (r"Convert them to text: X\.astype\(.*?\)\.", "Convert them to text in the file."),
    (
        r"If they are numbers, convert them: X\.astype\(.*?\)\.",
        "If they are numbers, correct the values that are not.",
    ),
    (r"Convert them to text: X\.assign\(.*?\)\}\);", "Convert them to text in the file;"),
    (r": X\.(?:astype|assign)\((?:\*\*)?\{+.*\}+\)", ", in the file"),
    (r"Use X\['[^']*'\]\.dt\.tz_localize\(\.\.\.\)", "Correct them in the file"),
    (r"Convert them: X\['[^']*'\]\.dt\.tz_convert\(\.\.\.\)", "Convert them in the file"),
    (r", as in the data of fit\b", ", as in the data that was trained on"),
    (r"\bone column of X that varies\b", "one column that varies"),
    (r"'validation_fraction'", "--validation"),
    (r"\bheld out in fit\b", "held out in training"),
    (
        r"Fit with early_stopping=True, or with X_val and y_val\.",
        "Train without --validation 0 and --no-early-stopping.",
    ),
    (r"Hold out more rows \(validation_fraction\)", "Hold out more rows (dask nn train --validation)"),
    (r"Convert it: pandas\.to_datetime\(time\)", "Write dates as 2026-01-31 in the file"),
    (r"Leave (groups|time) out, or pass rows to validate with: X_val and y_val\.", r"Leave --\1 out."),
    (
        r"Hold out other rows \(hold_out, validation_fraction\), .* or use early_stopping=False\.",
        "Hold out other rows: --hold-out, --validation.",
    ),
    (
        r"Encode them first, in a pipeline: .*?; or drop them\.",
        "Leave out --preprocess none to encode them, or --drop them.",
    ),
    (
        r"Found array with 0 feature\(s\) .* is required by \w+\.",
        "Expected at least one column besides the target and the dropped ones.",
    ),
    (r" \(dask\.dataframe's fillna, or an imputer\)", ", as --preprocess auto does"),
    # rows
    (r"Shuffle the rows once: [^.;]*(\.shuffle\([^)]*\))?", "Shuffle the rows: --shuffle"),
    (
        r"Cut the data evenly before training: .* and y likewise\.",
        "Use --shuffle, which also cuts the rows evenly.",
    ),
    (r"persist it or write it", "write it"),
    # the target
    (r"Use a classifier for classes", "For classes, use --task classification"),
    (r"Use a regressor for numbers", "For numbers, use --task regression"),
    (r"\b(in|of|by|and|expected) y\b", r"\1 the target"),
    (r"(?<![\w,] )\by (holds|has)\b", r"the target \1"),
    (r"This is about validation data, .*y_val=y_val\)\.", "This is about --validation."),
    (r"\bsample_weight\b", "--weights"),
    (r"\bvalidation_data\b", "--validation"),
    # networks and strategies
    (r"\b(solver|transport|engine|strategy|bound|refit)='(\w+)'", r"--\1 \2"),
    (r"\bselect_members=True\b", "--select-members"),
    (r"\breplicas=(\d+)", r"--replicas \1"),
    (r"Leave replicas out", "Leave --replicas out"),
    (r"Use fewer replicas", "Use fewer --replicas"),
    (r"\bhidden_layer_sizes\b", "--hidden"),
    (r"`batch_size`", "--batch-size"),
    (r"WeightAveraging expects every='epoch'", "weights expects every=epoch"),
    (r"compression to be None, 'float16' or PowerSGD\(rank=4\)", "compression=float16"),
    # searches
    (r"\(validation=\)", "(--validation)"),
    (r"pass rows: validation=\(X, y\)", "name files: --validation FILES"),
    (r"hold_out='(\w+)'", r"--hold-out \1"),
    (r"more partitions \(X\.repartition, X\.rechunk\), or groups", "more files, or --groups COLUMN"),
    (r"Use RandomSearch, or give a list", "Use --method random, or give a list"),
    (r"Give it more time", "Give it a longer --budget"),
    # evaluations
    (r"metrics by name, functions or dasknn\.RowMetric", "names of metrics"),
    (r"for Buckets, received", "for ranges, received"),
    (r"Make buckets of numbers with Buckets\(column, 5\)", "Make ranges of numbers with --slices column:5"),
    (r"slices=\['([^']*)'\]", r"--slices \1"),
    (r"such as \('>=', 0\.1\)", "such as 'metric>=0.1'"),
    (r"Use dasknn\.load_model\.", "`dask nn inspect` reads it; to predict, use dasknn.load_model in Python."),
)


def in_shell(message: str) -> str:
    """Return a message of the package in the words of a shell."""
    for python, shell in TABLE:
        message = re.sub(python, shell, message)
    return message
