"""`dask nn` as its users meet it: real files, real clusters, mistakes."""

import json
import os
import re
import signal
import time

import dask.dataframe as dd
import numpy as np
import pandas as pd
import programs
import psutil
import pytest
from conftest import bits
from shell import Runner, people, run_process, runner_on
from sklearn.pipeline import Pipeline

import dasknn
from dasknn.cli import nn
from dasknn.cli.options import slices_of
from dasknn.data import readers
from dasknn.engine import engines
from dasknn.saving import safetensors_file


@pytest.fixture
def run(client):
    """Run a command in this process, on the two workers: run(*words, code=0) returns its result."""
    return runner_on(client.scheduler.address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of people: train/ (3 partitions of Parquet), test.parquet, train.csv."""
    path = tmp_path_factory.mktemp("people")
    dd.from_pandas(people(), npartitions=3, sort=False).to_parquet(path / "train", write_index=False)
    people(300, 1).to_parquet(path / "test.parquet", index=False)
    people().to_csv(path / "train.csv", index=False)
    return path


# A quick network of the default kind.
SMALL = ["--hidden", 8, "--members", 2]
# All rows are trained on.
NO_VALIDATION = ["--validation", 0]
INCOME = ["--target", "income", "--drop", "id,wage", "--weights", "weight", "--hidden", 16, "--model", "mlp"]


@pytest.fixture(scope="module")
def trained(folder, cluster):
    """The file of a model that has learned incomes."""
    path = folder / "income.safetensors"
    words = [
        "train",
        folder / "train",
        *INCOME,
        *NO_VALIDATION,
        "--epochs",
        60,
        "--batch-size",
        40,
        "--output",
        path,
        "--quiet",
    ]
    result = Runner().invoke(nn, [*map(str, words), "--scheduler", cluster.scheduler_address])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return path


# --- separate processes ------------------------------------------------------------------------------


def test_a_raw_table_becomes_predictions_on_a_cluster_of_other_processes(folder, tmp_path, start_program):
    file = tmp_path / "scheduler.json"
    where = ["--scheduler-file", file]
    start_program(
        programs.dask, "scheduler", *where, "--port", 0, "--no-dashboard", "--dashboard-address", ":0"
    )
    for _ in range(2):
        worker = ["--nthreads", 1, "--no-dashboard", "--no-nanny", "--local-directory", tmp_path]
        start_program(programs.dask, "worker", *where, *worker)
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, "no scheduler file"
        time.sleep(0.1)
    model = tmp_path / "m.safetensors"
    text = run_process(
        "nn", "train", folder / "train.csv", *INCOME, *NO_VALIDATION, "--epochs", 60, "--batch-size", 40,
        "--replicas", 2, "--test", folder / "test.parquet", "--output", model, *where,
    )  # fmt: skip
    assert "data        600 rows, 5 columns (11 after encoding)" in text
    assert "faults      none" in text
    accuracy = float(text.split("test        accuracy ")[1].split()[0])
    assert accuracy > 0.85
    predicted = tmp_path / "p.csv"
    words = ["predict", model, folder / "test.parquet", "--keep", "id,income", "--output", predicted]
    result = Runner().invoke(nn, [*map(str, words), *map(str, where)])
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = pd.read_csv(predicted)
    assert found["id"].tolist() == people(300, 1)["id"].tolist()
    right = np.average(found["prediction"] == found["income"], weights=people(300, 1)["weight"])
    assert right == pytest.approx(accuracy, abs=1e-4)
    words = ["evaluate", model, folder / "test.parquet", "--weights", "weight"]
    result = Runner().invoke(nn, list(map(str, [*words, "--json", *where])))
    # A scheduler announces a port for its pages, whether it has some or not.
    assert "dashboard" not in result.stderr
    assert json.loads(result.stdout)["slices"][0]["accuracy"] == pytest.approx(accuracy, abs=1e-4)


def worker_of(process):
    """The process of the only worker of a cluster that a command has started."""
    found = psutil.Process(process.pid).children(recursive=True)
    spawned = [child for child in found if "spawn_main" in " ".join(child.cmdline())]
    return max(spawned, key=lambda child: child.cpu_times().user)


def test_ctrl_c_saves_what_was_learned_and_says_so(folder, tmp_path, start_program):
    model = tmp_path / "m"
    words = [
        "--target",
        "income",
        "--epochs",
        100_000,
        "--no-early-stopping",
        "--model",
        "mlp",
        "--hidden",
        8,
        "--strategy",
        "weights",
        "--workers",
        1,
    ]
    words = ["nn", "train", folder / "train", *words, "--output", model]
    told = tmp_path / "output"
    process = start_program(programs.dask, *words, output=told, own_session=True)
    killed_at = None
    while process.exitcode is None:
        output = told.read_text(errors="replace")
        # The bar does not show each epoch.
        if killed_at is None and re.search(r"epoch (?:[3-9]|\d\d+)/", output):
            # Its nanny starts another worker, which Ctrl-C is not for, either.
            worker_of(process).kill()
            killed_at = len(output)
        elif killed_at is not None and re.search(r"worker lost.*epoch \d", output[killed_at:], re.DOTALL):
            # As a terminal does: to every process of the group, workers too.
            os.killpg(process.pid, signal.SIGINT)
            process.join(60)
            break
        time.sleep(0.02)
    output = told.read_text(errors="replace")
    assert process.exitcode == 130, output
    # distributed logs an error of its own when Ctrl-C comes just as Client.sync begins.
    if "cannot access free variable 'future'" not in output:
        assert "Traceback" not in output, output[-6000:]
    assert "of 100000 epochs" in output
    assert f"model file  {model}" in output
    assert dasknn.load(model)["mlp"].n_iter_ >= 2


# --- train -------------------------------------------------------------------------------------------


def test_the_report_is_one_object_on_stdout_and_progress_goes_to_stderr(run, folder, tmp_path):
    model = tmp_path / "m.safetensors"
    result = run(
        "train", folder / "train", *INCOME, "--epochs", 3, "--validation", 0.25, "--test",
        folder / "test.parquet", "--output", model, "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert "epoch 3/3" in result.stderr
    assert "validation=" in result.stderr
    assert "dashboard http" in result.stderr
    assert (report["columns"], report["features"], report["epochs"]) == (5, 11, 3)
    # A quarter of the rows, chosen at random.
    assert 400 < report["rows"] < 500
    assert report["test"]["accuracy"] > 0.4
    assert report["validation"]["accuracy"] == report["validation"]["best"]
    assert report["faults"] == []
    assert report["output"] == str(model)
    assert isinstance(dasknn.load(model), Pipeline)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_the_engine_can_be_chosen_and_reports_name_it(run, folder, tmp_path, engine):
    if engine == "numba":
        pytest.importorskip("numba")
    words = [*INCOME, *NO_VALIDATION, "--epochs", 1, "--engine", engine, "--output", tmp_path / "m"]
    trained = run("train", folder / "train", *words).stdout
    reason = dasknn.load(tmp_path / "m")["mlp"].engine_reason_
    assert reason.startswith(f"{engine}: asked for")
    assert f"\nengine      {reason}\n" in trained
    assert re.search(rf"^engine +{re.escape(reason)}$", run("inspect", tmp_path / "m").stdout, re.MULTILINE)
    report = json.loads(run("inspect", tmp_path / "m", "--json").stdout)
    assert (report["engine"], report["engine_reason"]) == (engine, reason)


def test_numba_that_is_missing_is_explained_in_the_words_of_the_shell(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "numba_version", lambda: None)
    words = [*INCOME, "--epochs", 1, "--engine", "numba", "--output", tmp_path / "m"]
    said = " ".join(run("train", folder / "train", *words, code=1).stderr.split())
    assert "Expected numba for --engine numba (asked for), but this process has no numba." in said
    assert "pip install 'dasknn[fast]', or use --engine numpy." in said


def test_files_from_before_there_were_engines_are_inspected_without_a_line_for_them(run, tmp_path):
    model = dasknn.MLPRegressor(max_iter=1).fit([[0.0], [1.0]], [0.0, 1.0])
    del model.engine_, model.engine_reason_
    model.save(tmp_path / "m")
    assert "engine" not in run("inspect", tmp_path / "m").stdout
    assert json.loads(run("inspect", tmp_path / "m", "--json").stdout)["engine"] is None


def test_quiet_means_nothing_but_the_result(run, folder, tmp_path):
    words = [*INCOME, *NO_VALIDATION, "--epochs", 1, "--output", tmp_path / "m", "--quiet"]
    result = run("train", folder / "train", *words)
    assert result.stderr == ""
    assert result.stdout.startswith("data        600 rows, 5 columns")


def test_floats_are_regressed_and_scored_by_r2_and_rmse(run, folder, tmp_path):
    words = [
        "--target",
        "wage",
        "--drop",
        "income",
        "--epochs",
        30,
        "--learning-rate",
        0.01,
        "--model",
        "mlp",
        "--json",
        "--quiet",
    ]
    result = run(
        "train", folder / "train.csv", *words, "--test", folder / "test.parquet", "--output", tmp_path / "m"
    )
    scores = json.loads(result.stdout)["test"]
    frame, model = people(300, 1), dasknn.load(tmp_path / "m")
    wrong = model.predict(frame) - frame["wage"]
    assert scores["rmse"] == pytest.approx(np.sqrt(np.square(wrong).mean()), rel=1e-4)
    assert scores["r2"] == pytest.approx(model.score(frame, frame["wage"]), rel=1e-4)
    # As classes, each distinct number would be one.
    result = run(
        "train", folder / "train", "--target", "wage", "--task", "classification", "--epochs", 1,
        "--model", "mlp", "--output", tmp_path / "c", code=1,
    )  # fmt: skip
    assert "continuous" in result.stderr


def test_a_tenth_of_the_rows_is_held_out_unless_validation_is_0(run, folder, tmp_path):
    words = [
        "train",
        folder / "train",
        *INCOME,
        "--epochs",
        2,
        "--output",
        tmp_path / "m",
        "--json",
        "--quiet",
    ]
    report = json.loads(run(*words).stdout)
    assert 500 < report["rows"] < 580
    assert 0 < report["validation"]["accuracy"] < 1
    assert report["validation"]["kept_epoch"] == report["validation"]["best_epoch"]
    assert dasknn.load(tmp_path / "m")["mlp"].early_stopping
    report = json.loads(run(*words, *NO_VALIDATION).stdout)
    assert report["rows"] == 600
    assert report["validation"] is None
    message = run(*words, *NO_VALIDATION, "--early-stopping", code=2).stderr
    assert "--early-stopping needs rows for it: --validation 0.1" in message
    # L-BFGS takes no notice of it.
    report = json.loads(run(*words, "--solver", "lbfgs").stdout)
    assert report["validation"]["kept_epoch"] == report["epochs"]
    assert "--solver adam or sgd" in run(*words, "--solver", "lbfgs", "--early-stopping", code=2).stderr


@pytest.mark.parametrize("model", ["table", "mlp"])
def test_a_table_of_a_few_rows_is_trained_on_without_validation(run, tmp_path, model):
    (tmp_path / "t.csv").write_text("a,y\n1,u\n2,v\n3,u\n")
    words = ["--target", "y", "--model", model, "--epochs", 1, "--output", tmp_path / "m"]
    result = run("train", tmp_path / "t.csv", *words)
    assert result.stderr.count("too few rows to hold some out for validation") == 1
    assert result.stdout.startswith("data        3 rows, ")


def test_many_whole_numbers_as_classes_are_pointed_out(run, folder, tmp_path):
    words = ["train", folder / "train", *SMALL, "--epochs", 1, "--output", tmp_path / "m"]
    told = run(*words, "--target", "age").stderr
    assert "different whole numbers, and each is taken as a class" in told
    assert "--task regression" in told
    assert "--task" not in run(*words, "--target", "age", "--task", "classification").stderr
    assert "--task" not in run(*words, "--target", "member").stderr


@pytest.mark.filterwarnings("default:The data looks sorted")
def test_sorted_rows_are_mixed_where_it_is_asked_for(run, tmp_path):
    frame = people(400).sort_values("income")
    dd.from_pandas(frame, npartitions=4, sort=False).to_parquet(tmp_path / "t", write_index=False)
    words = ["train", tmp_path / "t", *INCOME, "--epochs", 2, "--output", tmp_path / "m", "--json", "--quiet"]
    assert "warning: The data looks sorted by class" in run(*words).stderr
    assert "Shuffle the rows: --shuffle." in run(*words).stderr
    mixed = run(*words, "--shuffle", *NO_VALIDATION)
    assert mixed.stderr == ""
    assert json.loads(mixed.stdout)["rows"] == 400


def test_validation_keeps_the_best_epoch_unless_told_otherwise(run, folder, tmp_path):
    words = [*INCOME, "--validation", folder / "test.parquet", "--epochs", 3, "--json", "--quiet"]
    model = tmp_path / "m"
    kept = json.loads(run("train", folder / "train", *words, "--output", model).stdout)["validation"]
    assert kept["kept_epoch"] == kept["best_epoch"]
    assert dasknn.load(model)["mlp"].early_stopping
    words.append("--no-early-stopping")
    last = json.loads(run("train", folder / "train", *words, "--output", model).stdout)["validation"]
    assert last["kept_epoch"] == 3
    frame = people(300, 1)
    score = dasknn.load(model).score(frame, frame["income"], mlp__sample_weight=None)
    assert score == pytest.approx(last["accuracy"], abs=0.05)


def test_rows_without_a_target_are_refused_unless_they_are_dropped(run, tmp_path):
    frame = people(200)
    frame.loc[:9, "income"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    words = ["train", tmp_path / "t.parquet", *INCOME, *NO_VALIDATION, "--epochs", 1]
    words += ["--output", tmp_path / "m"]
    assert "--drop-missing-target" in run(*words, code=1).stderr
    report = json.loads(run(*words, "--drop-missing-target", "--json").stdout)
    assert report["rows"] == 190


def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(run, folder, tmp_path):
    words = ["train", folder / "train", *INCOME, *NO_VALIDATION, "--quiet", "--replicas", 2]
    run(*words, "--epochs", 4, "--output", tmp_path / "whole")
    checkpoint = ["--checkpoint", tmp_path / "checkpoints"]
    run(*words, "--epochs", 2, "--output", tmp_path / "half", *checkpoint)
    run(*words, "--epochs", 4, "--output", tmp_path / "resumed", *checkpoint, "--resume")
    models = [dasknn.load(tmp_path / name)["mlp"] for name in ("whole", "half", "resumed")]
    assert bits(models[2]) == bits(models[0]) != bits(models[1])
    assert "FileExistsError" not in run(*words, "--output", tmp_path / "m", *checkpoint, code=1).stderr


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("weights:every=4,outer", dasknn.WeightAveraging(4, dasknn.OuterNesterov())),
        ("predictions:members=2", dasknn.PredictionAveraging(members=2)),
        ("predictions:members=2,hop=false", dasknn.PredictionAveraging(members=2, hop=False)),
    ],
)
def test_strategies_take_settings(run, folder, tmp_path, strategy, expected):
    run("train", folder / "train", *INCOME, "--epochs", 1, "--strategy", strategy, "--output", tmp_path / "m")
    assert dasknn.load(tmp_path / "m")["mlp"].strategy_ == expected


def test_without_preprocessing_columns_are_taken_as_they_are(run, folder, tmp_path):
    words = ["train", folder / "train", "--target", "income", "--model", "mlp", "--preprocess", "none"]
    words += ["--epochs", 1, "--output", tmp_path / "m"]
    assert "Expected columns of numbers, received 'job'" in run(*words, code=1).stderr
    run(*words, "--drop", "job,sex,hours")
    assert isinstance(dasknn.load(tmp_path / "m"), dasknn.MLPClassifier)


# --- options in a file -------------------------------------------------------------------------------


def test_a_file_sets_options_and_the_command_line_wins(run, folder, tmp_path):
    config = tmp_path / "train.toml"
    config.write_text(
        f"data = '{folder / 'train'}'\ntarget = 'income'\nmodel = 'mlp'\ndrop = ['id', 'wage']\n"
        "hidden = [8, 4]\nepochs = 7\nbatch-size = 100\nquiet = true\njson = true\n"
        f"output = '{tmp_path / 'm'}'\n"
    )
    report = json.loads(run("train", "--config", config, "--epochs", 2).stdout)
    assert report["epochs"] == 2
    assert [units for units, _ in report["layers"]] == [8, 4, 1]
    assert report["columns"] == 6
    assert dasknn.load(tmp_path / "m")["mlp"].batch_size == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 0", "0 is not in the range"),
        ("epochs =", "expected a TOML file"),
    ],
)
def test_mistakes_in_a_file_are_explained(run, folder, tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    result = run("train", folder / "train", *INCOME, "--config", tmp_path / "c.toml", "--output", "m", code=2)
    assert message in " ".join(result.stderr.split())


# --- tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("t.csv.gz", {}), ("t.csv", {"sep": ";"}), ("t.tsv", {"sep": "\t"}), ("t.csv", {"sep": "|"})],
)
def test_csv_is_read_with_any_usual_separator_and_compression(run, tmp_path, name, settings):
    people(200).to_csv(tmp_path / name, index=False, **settings)
    url = f"file://{tmp_path}/t*"
    report = run("train", url, *INCOME, "--epochs", 1, "--output", tmp_path / "m", "--json", "--quiet").stdout
    assert json.loads(report)["features"] == 11


def test_fractions_and_missing_values_may_come_late_in_a_csv(monkeypatch, tmp_path):
    monkeypatch.setattr(readers, "_SAMPLE_ROWS", 2)
    (tmp_path / "t.csv").write_text("id,x,b,y\n1,1,True,0\n2,2,False,1\n3,1.5,,0\n4,,True,1\n")
    frame = readers.read([str(tmp_path / "t.csv")], readers.Wanted("y", kept=["id"])).compute()
    assert frame["x"].tolist()[:3] == [1, 2, 1.5]
    assert frame["x"].isna().sum() == frame["b"].isna().sum() == 1
    # Labels and what is only kept stay whole numbers.
    assert {str(frame[name].dtype) for name in ("id", "y")} == {"Int64"}


def test_a_column_of_csv_that_becomes_text_late_is_read_as_text_where_it_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setattr(readers, "_SAMPLE_ROWS", 2)
    pd.DataFrame({"code": ["1", "2", "x", "1"], "y": list("abab")}).to_csv(tmp_path / "t.csv", index=False)
    words = ["train", tmp_path / "t.csv", *SMALL, "--epochs", 1, "--output", tmp_path / "m"]
    for target in ("y", "code"):
        message = " ".join(run(*words, "--target", target, code=1).stderr.split())
        assert "Name it in --categorical" in message
        run(*words, "--target", target, "--categorical", "code")


def test_arrays_of_npz_are_trained_on_and_scored(run, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (500, 4, 3)).astype(np.uint8)
    y = (X[:, 0, 0] > 127).astype(np.int64)
    np.savez(tmp_path / "d.npz", x_train=X[:400], y_train=y[:400], x_test=X[400:], y_test=y[400:])
    words = ["--target", "y", *NO_VALIDATION, "--epochs", 40, "--learning-rate", 0.01, "--model", "mlp"]
    words += ["--json", "--quiet"]
    data, model = tmp_path / "d.npz", tmp_path / "m"
    report = json.loads(run("train", data, *words, "--test", data, "--output", model).stdout)
    assert (report["rows"], report["columns"]) == (400, 12)
    assert report["test"]["accuracy"] > 0.9
    np.savez_compressed(tmp_path / "new.npz", X=X[400:])
    run("predict", model, tmp_path / "new.npz", "--output", tmp_path / "p.csv")
    right = (pd.read_csv(tmp_path / "p.csv")["prediction"] == y[400:]).mean()
    assert right == pytest.approx(report["test"]["accuracy"])
    message = run("train", data, "--target", "z", "--output", model, code=1).stderr
    assert "Expected column 'z'" in message
    assert "x_train" in message


def test_pickles_in_npz_are_not_opened(run, tmp_path):
    np.savez(tmp_path / "d.npz", X=np.zeros((3, 1)), y=np.array([1, "a", None], dtype=object))
    message = run("train", tmp_path / "d.npz", "--target", "y", "--output", tmp_path / "m", code=1).stderr
    assert "allow_pickle=False" in message


def test_files_of_no_known_format_or_of_several_are_explained(run, folder, tmp_path):
    words = ["--target", "income", "--output", tmp_path / "m"]
    (tmp_path / "people.data").write_bytes((folder / "train.csv").read_bytes())
    message = run("train", tmp_path / "people.data", *words, code=1).stderr
    assert "Use --format parquet, csv or npz" in message
    run("train", tmp_path / "people.data", *words, *SMALL, "--format", "csv", "--epochs", 1)
    message = run("train", folder / "train", folder / "train.csv", *words, code=1).stderr
    assert "Expected files of one format" in message
    message = run("train", tmp_path / "*.parquet", *words, code=1).stderr
    assert "Expected Parquet, CSV or npz files at" in message


# --- predict -----------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_model_whatever_the_format(run, folder, trained, tmp_path):
    frame, model = people(), dasknn.load(trained)
    run("predict", trained, folder / "train", "--output", tmp_path / "p", "--proba", "--keep", "id")
    found = dd.read_parquet(tmp_path / "p").compute()
    assert list(found.columns) == ["id", "prediction", "probability_<=50K", "probability_>50K"]
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["prediction"].tolist() == model.predict(frame).tolist()
    np.testing.assert_allclose(found.iloc[:, 2:], model.predict_proba(frame), atol=1e-6)
    run("predict", trained, folder / "train.csv", "--output", tmp_path / "p.csv", "--keep", "id")
    found = pd.read_csv(tmp_path / "p.csv", dtype=str)
    # Whole numbers that are kept are not written as 10000.0.
    assert found["id"].tolist() == frame["id"].astype(str).tolist()
    assert found["prediction"].tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize("model", [[*SMALL], ["--model", "mlp"]])
def test_text_that_looks_like_numbers_is_text_again_when_predicting(run, tmp_path, model):
    frame = pd.DataFrame({"zip": ["01", "x2", "01", "x2"] * 20, "y": ["a", "b"] * 40})
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = ["--target", "y", *model, "--epochs", 30, "--learning-rate", 0.05, "--output", tmp_path / "m"]
    run("train", tmp_path / "t.csv", *words)
    frame[frame["zip"] == "01"].to_csv(tmp_path / "new.csv", index=False)
    run("predict", tmp_path / "m", tmp_path / "new.csv", "--output", tmp_path / "p.csv")
    assert set(pd.read_csv(tmp_path / "p.csv")["prediction"]) == {"a"}


def test_the_index_is_kept_by_its_name_or_as_index(run, folder, trained, tmp_path):
    # Numbers without gaps would become a RangeIndex, of which pandas writes no column.
    frame = people(50, 2).sample(frac=1, random_state=0)
    frame.set_index("id").to_parquet(tmp_path / "named.parquet")
    frame.set_axis(frame["id"] * 2).rename_axis(None).to_parquet(tmp_path / "bare.parquet")
    words = ["--output", tmp_path / "p.csv", "--overwrite", "--keep"]
    run("predict", trained, tmp_path / "named.parquet", *words, "age,id")
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found.columns) == ["age", "id", "prediction"]
    assert found["id"].tolist() == frame["id"].tolist()
    run("predict", trained, tmp_path / "bare.parquet", *words, "index")
    assert pd.read_csv(tmp_path / "p.csv")["index"].tolist() == (frame["id"] * 2).tolist()
    assert (
        "Expected column 'name'" in run("predict", trained, folder / "train", *words, "name", code=1).stderr
    )


def test_predictions_are_not_mixed_with_files_that_are_there(run, folder, trained, tmp_path):
    message = run("predict", trained, folder / "train", "--output", folder / "train", code=1).stderr
    assert "Expected no files at" in message
    (tmp_path / "p.csv").write_text("old")
    words = ["predict", trained, folder / "test.parquet", "--output", tmp_path / "p.csv"]
    assert "add --overwrite" in run(*words, code=1).stderr
    run(*words, "--overwrite")
    assert len(pd.read_csv(tmp_path / "p.csv")) == 300


# --- evaluate ----------------------------------------------------------------------------------------


def test_an_evaluation_has_slices_and_says_whether_thresholds_are_met(run, folder, trained, tmp_path):
    words = ["evaluate", trained, folder / "test.parquet", "--target", "income", "--metrics", "accuracy"]
    slices = ["--slices", "sex", "--slices", "age:2+sex", "--min-rows", 20]
    result = run(*words, *slices, "--threshold", "accuracy=0.3", "--output", tmp_path / "e.csv")
    assert result.stdout.count("\n") == 1 + 1 + 2 + 4
    assert "sex=female" in result.stdout
    table = pd.read_csv(tmp_path / "e.csv")
    frame = people(300, 1)
    assert table["accuracy"][0] == pytest.approx(dasknn.load(trained).score(frame, frame["income"]))
    assert table["rows"].tolist()[1:3] == frame["sex"].value_counts().sort_index().tolist()
    result = run(*words, "--threshold", "accuracy>=0.99", "--json", code=3)
    report = json.loads(result.stdout)
    assert report["slices"][0]["rows"] == 300
    assert not report["passed"]
    assert report["failures"][0]["slice"] == "all"
    assert "expected >= 0.99" in result.stderr
    # What is judged is computed, whether it was asked for or not.
    report = json.loads(run(*words, "--threshold", "f1>=0.01", "--json").stdout)
    assert report["passed"]
    assert report["slices"][0]["f1"] > 0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["sex,job"], ["sex", "job"]),
        (["sex+job", "age:3"], [("sex", "job"), dasknn.Buckets("age", 3)]),
        (["age:2+sex, job"], [(dasknn.Buckets("age", 2), "sex"), "job"]),
        (["a+b", "c:3"], ["a+b", "c:3"]),
    ],
)
def test_a_comma_makes_several_slices_and_a_plus_one_of_several_columns(texts, expected):
    assert slices_of(texts, ["sex", "job", "age", "a+b", "c:3"]) == expected


def test_the_target_is_the_one_that_was_learned_unless_another_is_named(run, folder, trained, tmp_path):
    frame = people(300, 1)
    frame.rename(columns={"income": "earned"}).to_parquet(tmp_path / "t.parquet")
    words = ["evaluate", trained, "--metrics", "accuracy", "--json"]
    scores = [
        json.loads(run(*words, data, *more).stdout)["slices"][0]["accuracy"]
        for data, more in ((folder / "test.parquet", []), (tmp_path / "t.parquet", ["--target", "earned"]))
    ]
    assert scores[0] == scores[1]
    assert "Expected column 'income'" in run(*words, tmp_path / "t.parquet", code=1).stderr
    model = dasknn.load(trained)["mlp"]
    del model.target_name_
    model.save(tmp_path / "m")
    message = run("evaluate", tmp_path / "m", folder / "test.parquet", code=2).stderr
    assert "Expected --target COLUMN" in message


# --- inspect, recommend ------------------------------------------------------------------------------


def test_a_model_tells_what_it_is_and_how_it_was_trained(run, trained):
    text = run("inspect", trained).stdout
    assert "MLPClassifier: 16 relu - 1 logistic; 209 parameters, float32" in text
    assert "job: 4 values: clerk, farmer, pilot, missing" in text
    assert "age: numbers, mean" in text
    assert "60 epochs on 600 rows" in text
    assert re.search(r"^target +income$", text, re.MULTILINE)
    report = json.loads(run("inspect", trained, "--json").stdout)
    assert report["classes"] == ["<=50K", ">50K"]
    assert report["columns"][1]["values"] == ["clerk", "farmer", "pilot", None]
    assert report["versions"]["dasknn"] == dasknn.__version__


@pytest.mark.parametrize("name", ["m.safetensors", "m.keras"])
def test_models_of_keras_are_inspected_too(run, tmp_path, name):
    layers = [dasknn.layers.Dense(3, activation="relu"), dasknn.layers.Dense(1)]
    dasknn.Sequential([dasknn.Input((4,)), *layers]).save(tmp_path / name)
    text = run("inspect", tmp_path / name).stdout
    assert "Dense 'dense', 15 parameters" in text
    assert json.loads(run("inspect", tmp_path / name, "--json").stdout)["parameters"] == 19


def test_a_bare_estimator_and_a_damaged_file_are_inspected(run, tmp_path):
    X = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]})
    dasknn.MLPRegressor(max_iter=1).fit(X, [0.0, 1.0]).save(tmp_path / "m")
    assert "100 relu - 1 identity" in run("inspect", tmp_path / "m").stdout
    data = bytearray((tmp_path / "m").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m").write_bytes(data)
    assert "is damaged" in run("inspect", tmp_path / "m", code=1).stderr


def test_crafted_files_are_refused_without_a_traceback(run, tmp_path):
    X = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]})
    path = tmp_path / "m.safetensors"
    dasknn.MLPRegressor(max_iter=1).fit(X, [0.0, 1.0]).save(path)
    X.to_csv(tmp_path / "x.csv")
    description, arrays = safetensors_file.read(path)
    for change in ({"fitted": {"predict": 5}}, {"layers": [[-1, "relu"]]}, {"parameters": {"evil": 1}}):
        safetensors_file.write(path, description | change, arrays)
        for words in (
            ["inspect", path],
            ["predict", path, tmp_path / "x.csv", "--output", tmp_path / "o.csv"],
        ):
            said = run(*words, code=1).stderr
            assert f"{path} is damaged, or not a model" in said
            assert "Traceback" not in said


def test_a_table_and_a_pipeline_that_ends_in_a_sequential_are_inspected(run, tmp_path):
    X = pd.DataFrame({"a": [0.0, 1.0], "b": ["x", "y"]})
    table = dasknn.TablePreprocessor().fit(X)
    dasknn.save(table, tmp_path / "t")
    assert "b: 2 values: x, y" in run("inspect", tmp_path / "t").stdout
    model = dasknn.Sequential([dasknn.Input((3,)), dasknn.layers.Dense(2)])
    dasknn.save(Pipeline([("table", table), ("net", model)]), tmp_path / "m")
    said = run("inspect", tmp_path / "m").stdout
    assert "b: 2 values: x, y" in said
    assert "Dense 'dense', 8 parameters" in said
    X.to_csv(tmp_path / "x.csv")
    said = run("predict", tmp_path / "t", tmp_path / "x.csv", "--output", tmp_path / "o.csv", code=1).stderr
    assert "received a TablePreprocessor without a network" in said


def test_strategies_are_recommended_for_a_raw_table(run, folder):
    words = ["recommend", folder / "train", *INCOME[:4], "--model", "mlp", "--hidden", 16]
    assert "600 rows x 12 features" in run(*words).stdout
    report = json.loads(run(*words, "--json").stdout)
    assert {row["transport"] for row in report["rows"]} == {"hop", "peer", "tasks"}
    assert report["engine_reason"].startswith(report["engine"])
    report = json.loads(run(*words, "--engine", "numpy", "--json").stdout)
    assert report["engine_reason"] == "numpy: asked for"


def test_clusters_of_other_sizes_are_predicted(run, folder):
    words = ["recommend", folder / "train", *INCOME[:4], "--model", "mlp", "--hidden", 16]
    said = run(*words, "--scaling", "1,4,64", "--workers-per-host", 2, "--json").stdout
    sizes = [(size["n_workers"], size["n_hosts"]) for size in json.loads(said)["scaling"]]
    assert sizes == [(1, 1), (4, 2), (64, 32)] * 2
    for wrong in ("0,2", "two", ""):
        message = run(*words, "--scaling", wrong, code=2).stderr
        assert f"expected numbers of workers such as 1,2,4, received {wrong!r}" in " ".join(message.split())


# --- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "incme"], 1, "Did you mean 'income'?"),
        (["--drop", "jobs"], 1, "Did you mean 'job'?"),
        (["--max-categories", "2"], 1, "--drop job"),
        (["--output", "."], 1, "received the folder ."),
        (["--hidden", "ten"], 2, "expected numbers of units such as 128,64"),
        (["--batch-size", "some"], 2, "expected auto, full or a number of rows"),
        (
            ["--strategy", "weights:often=3"],
            2,
            "weights has the settings every, outer, balance, received 'often'",
        ),
        (["--engine", "jax"], 2, "'jax' is not one of 'auto', 'numpy', 'numba'"),
        (["--strategy", "votes"], 2, "expected auto, gradients, weights or predictions"),
        (["--output", "nowhere/model"], 1, "Expected an existing folder"),
        (["--validation", "2"], 2, "expected a share of the rows such as 0.2, files, or 0 for none"),
        (["--learning-rate", "-1"], 2, "-1.0 is not in the range x>0"),
        (["--strategy", "weights:every=0"], 2, "weights expects every=epoch or a number of steps"),
        (["--preprocess", "none"], 1, "Leave out --preprocess none"),
        (["--replicas", "9000"], 1, "Use fewer --replicas"),
        (["--solver", "lbfgs", "--strategy", "weights"], 1, "Use --strategy gradients, or --solver adam"),
        (["--resume"], 2, "--resume needs --checkpoint"),
        (["--max-categories", "2"], 1, "Column 'job' holds more than 2 distinct values"),
        (["--scheduler-file", "nowhere.json"], 2, "received both"),
    ],
)
def test_mistakes_are_explained_in_one_message(run, folder, tmp_path, words, code, message):
    words = ["--target", "income", "--model", "mlp", "--output", tmp_path / "m", "--epochs", 1, *words]
    assert message in " ".join(run("train", folder / "train", *words, code=code).stderr.split())


def test_a_checkpoint_that_is_there_is_explained_in_the_words_of_the_shell(run, folder, tmp_path):
    words = ["train", folder / "train", *INCOME, "--epochs", 1, "--output", tmp_path / "m", "--quiet"]
    words += ["--checkpoint", tmp_path / "c"]
    run(*words)
    assert "Add --resume to resume from it" in run(*words, code=1).stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "Expected a CSV file with column names in the first line at"),
        ("t.csv", "a b\n1 2\n", "Expected columns separated by comma, semicolon, tab or | in"),
        ("t.csv", "a,b\n1,2\n", "Expected column 'income' in the data."),
        ("t.csv", "income,a\n", "Expected at least one row to learn from"),
        ("t.parquet", "", "Expected Parquet files at"),
    ],
)
def test_files_that_are_no_tables_are_explained(run, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    told = run("train", tmp_path / name, "--target", "income", "--output", tmp_path / "m", code=1).stderr
    assert message in told
    assert "Original Message" not in told


def test_missing_models_columns_and_schedulers_are_explained(run, folder, trained, tmp_path):
    output = ["--output", tmp_path / "p"]
    message = run("predict", tmp_path / "none", folder / "train", *output, code=1).stderr
    assert "Expected a model file at" in message
    people(9).drop(columns="age").to_parquet(tmp_path / "t.parquet")
    assert "Expected column 'age'" in run("predict", trained, tmp_path / "t.parquet", *output, code=1).stderr
    words = ["predict", trained, folder / "train", *output, "--scheduler-file", tmp_path / "s.json"]
    result = Runner().invoke(nn, list(map(str, words)))
    assert result.exit_code == 1
    assert "Expected a scheduler file at" in result.stderr
