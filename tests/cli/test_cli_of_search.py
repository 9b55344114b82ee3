"""`dask nn search`: files and a budget in, the best network or an ensemble out."""

import json
import os
import re
import signal
import time
from types import SimpleNamespace

import dask.dataframe as dd
import numpy as np
import pandas as pd
import programs
import pytest
from shell import people, runner_on
from sklearn.pipeline import Pipeline

import dasknn
from dasknn import EnsembleClassifier, TabularClassifier
from dasknn.cli import search_reports
from dasknn.search.course import Course

INCOME = ["--target", "income", "--drop", "id,wage,weight"]
# Quick trials.
CONFIG = """
[settings]
n_iter_no_change = 50

[parameters]
hidden_layer_sizes = [[4], [8, 4]]
alpha = {low = 1e-4, high = 1e-1, log = true}
batch_size = {low = 30, high = 90}
"""
TABLES = """
[settings]
members = 2
hidden_layer_sizes = [8]

[parameters]
dropout = [0.0, 0.1]
learning_rate_init = {low = 0.01, high = 0.1, log = true}
"""


@pytest.fixture
def run(client):
    """Run a command in this process, on the two workers: run(*words, code=0) returns its result."""
    return runner_on(client.scheduler.address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of people: train/ (3 partitions of Parquet), train.csv, test.parquet; mlp.toml, table.toml."""
    path = tmp_path_factory.mktemp("people")
    dd.from_pandas(people(), npartitions=3, sort=False).to_parquet(path / "train", write_index=False)
    people(300, 1).to_parquet(path / "test.parquet", index=False)
    people().to_csv(path / "train.csv", index=False)
    (path / "mlp.toml").write_text(CONFIG)
    (path / "table.toml").write_text(TABLES)
    return path


def quick(folder, tmp_path, *words, trials=2, epochs=2):
    """The words of a quick search of MLPs."""
    some = ["--trials", trials] if trials else []
    where = ["--config", folder / "mlp.toml", "--output", tmp_path / "m.safetensors"]
    return [
        "search", folder / "train", *INCOME, "--model", "mlp", *where, *some, "--epochs", epochs, *words,
    ]  # fmt: skip


def report_of(result):
    return json.loads(result.stdout)


# --- what comes out ----------------------------------------------------------------------------------


def test_the_best_network_is_written_with_the_encoding_of_its_table(run, folder, tmp_path):
    words = quick(folder, tmp_path, "--method", "random", "--json", trials=3, epochs=8)
    report = report_of(run(*words))
    assert report["n_trials"] == len(report["trials"]) == 3
    assert report["best"] == {**report["trials"][0], "best_epoch": report["best"]["best_epoch"]}
    assert set(report["best"]["settings"]) == {"alpha", "batch_size", "hidden_layer_sizes"}
    model = dasknn.load(tmp_path / "m.safetensors")
    assert isinstance(model, Pipeline)
    assert list(model[-1].hidden_layer_sizes) == list(report["best"]["settings"]["hidden_layer_sizes"])
    assert model[-1].alpha == report["best"]["settings"]["alpha"]
    assert 30 <= model[-1].batch_size <= 90
    assert model[-1].n_iter_no_change == 50
    # The file knows its target and its columns.
    found = json.loads(run("evaluate", tmp_path / "m.safetensors", folder / "test.parquet", "--json").stdout)
    right = model.predict(people(300, 1)[list(model.feature_names_in_)]) == people(300, 1)["income"]
    assert found["slices"][0]["accuracy"] == pytest.approx(np.mean(right))


def test_a_raw_table_is_left_to_the_estimators_for_tables(run, folder, tmp_path):
    result = run(
        "search", folder / "train.csv", *INCOME, "--config", folder / "table.toml", "--trials", 2,
        "--epochs", 2, "--output", tmp_path / "m",
    )  # fmt: skip
    model = dasknn.load(tmp_path / "m")
    assert isinstance(model, TabularClassifier)
    assert list(model.hidden_layer_sizes) == [8]
    assert "searching: dropout, learning_rate_init; at most 2 epochs each" in result.stderr
    assert re.search(
        r"^search +hyperband: 2 trials \(.*\), \d epochs; [\d.]+ s in total$", result.stdout, re.M
    )
    assert re.search(r"^best +accuracy 0\.\d{4} of trial [01], in its epoch [12]$", result.stdout, re.M)
    assert re.search(
        r"^ *rank +trial +accuracy +epochs +status +dropout +learning_rate_init$", result.stdout, re.M
    )


def test_an_ensemble_is_written_and_its_file_predicts(run, folder, tmp_path):
    words = quick(folder, tmp_path, "--method", "random", "--ensemble", 3, "--json", trials=3, epochs=4)
    report = report_of(run(*words))
    found = report["ensemble"]
    assert found["is_written"]
    assert found["networks"] == 3
    assert found["loss_of_one"] > 0
    model = dasknn.load(tmp_path / "m.safetensors")
    assert isinstance(model, EnsembleClassifier)
    assert len(model.members_) == len(found["trials"])
    run("predict", tmp_path / "m.safetensors", folder / "test.parquet", "--output", tmp_path / "p.csv")
    columns = ["age", "job", "sex", "member", "hours"]
    expected = model.predict(people(300, 1)[columns]).tolist()
    assert pd.read_csv(tmp_path / "p.csv")["prediction"].tolist() == expected


def test_a_regression_is_searched_by_r2_or_by_any_scorer(run, folder, tmp_path):
    words = [
        "search", folder / "train", "--target", "wage", "--drop", "id,income", "--model", "mlp",
        "--config", folder / "mlp.toml", "--trials", 2, "--epochs", 2, "--output", tmp_path / "m", "--json",
    ]  # fmt: skip
    assert report_of(run(*words))["scoring"] == "r2"
    report = report_of(run(*words, "--scoring", "neg_mean_absolute_error"))
    assert report["scoring"] == "neg_mean_absolute_error"
    assert report["best"]["score"] < 0


def test_reports_have_all_trials(run, folder, tmp_path):
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"r.{kind}" for kind in ("html", "md", "csv")]
    words = [word for file in files for word in ("--report", file)]
    report = report_of(run(*quick(folder, tmp_path, *words, "--json", trials=7)))
    html, markdown = files[0].read_text(), files[1].read_text()
    assert html.count("<tr") == 1 + 7
    assert html.count('src="data:image/png;base64,') == 2
    assert markdown.count("\n| ") == 2 + 7
    table = pd.read_csv(files[2])
    assert table["trial"].tolist() == [trial["trial"] for trial in report["trials"]]
    assert table["alpha"].tolist() == [trial["settings"]["alpha"] for trial in report["trials"]]


# --- how it is searched ------------------------------------------------------------------------------


def test_the_same_seed_finds_the_same_and_another_something_else(run, folder, tmp_path):
    first, second, other = (
        report_of(run(*quick(folder, tmp_path, "--json", "--seed", seed)))["trials"] for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("method", ["halving", "random"])
def test_a_budget_ends_a_search_of_no_certain_number_of_trials(run, folder, tmp_path, method):
    words = quick(folder, tmp_path, "--method", method, "--budget", "3s", "--json", trials=None)
    report = report_of(run(*words))
    assert report["timed_out"]
    assert (tmp_path / "m.safetensors").exists()


def test_trials_have_27_epochs_unless_told_otherwise(run, folder, tmp_path):
    words = quick(folder, tmp_path, "--method", "random", "--json", trials=1)
    place = words.index("--epochs")
    del words[place : place + 2]
    assert report_of(run(*words))["best"]["epochs"] == 27


def test_a_grid_tries_all_combinations(run, folder, tmp_path):
    config = tmp_path / "grid.toml"
    config.write_text("[parameters]\nalpha = [0.1, 0.2]\nhidden_layer_sizes = [[2], [3]]\n")
    words = quick(folder, tmp_path, "--method", "grid", "--config", config, "--json", trials=None, epochs=1)
    settings = [trial["settings"] for trial in report_of(run(*words))["trials"]]
    assert sorted((one["alpha"], one["hidden_layer_sizes"][0]) for one in settings) == [
        (0.1, 2), (0.1, 3), (0.2, 2), (0.2, 3),
    ]  # fmt: skip


def test_tpe_proposes_where_optuna_is_installed(run, folder, tmp_path):
    pytest.importorskip("optuna")
    words = quick(folder, tmp_path, "--sampler", "tpe", "--checkpoint", tmp_path / "kept", "--json")
    report = report_of(run(*words))
    assert report["n_trials"] == 2
    assert report_of(run(*words, "--resume"))["trials"] == report["trials"]


def test_folds_are_made_of_a_table_of_one_partition(run, folder, tmp_path):
    words = quick(folder, tmp_path, "--cv", 3, "--json")
    words[1] = folder / "train.csv"
    report = report_of(run(*words))
    assert report["folds"] == 3
    model = dasknn.load(tmp_path / "m.safetensors")
    # The best settings are trained on all rows in the end.
    assert model[-1].history_[0]["n_samples"] == 600


def test_rows_are_scored_from_files_or_by_groups_or_time(run, folder, tmp_path):
    scored = report_of(run(*quick(folder, tmp_path, "--validation", folder / "test.parquet", "--json")))
    # 300 rows are scored, so a score is a number of them.
    assert scored["best"]["score"] * 300 == pytest.approx(round(scored["best"]["score"] * 300))
    for way in ("--groups", "--time"):
        run(*quick(folder, tmp_path, way, "age"))
        model = dasknn.load(tmp_path / "m.safetensors")
        assert "age" not in model.feature_names_in_
        assert model[-1].history_[0]["n_samples"] < 600


def test_a_search_goes_on_from_its_folder_to_the_same_trials(run, folder, tmp_path):
    where = ["--checkpoint", tmp_path / "kept", "--json"]
    whole = report_of(run(*quick(folder, tmp_path, *where, trials=3)))
    result = run(*quick(folder, tmp_path, *where, trials=3), code=1)
    assert "already holds a search. Add --resume to go on with it" in result.stderr
    again = report_of(run(*quick(folder, tmp_path, *where, "--resume", trials=3)))
    assert again["trials"] == whole["trials"]
    result = run(*quick(folder, tmp_path, *where, "--resume", trials=4), code=1)
    assert "n_trials was 3, and is 4 now" in result.stderr


def test_ctrl_c_keeps_what_was_found_and_says_so(folder, tmp_path, start_program):
    kept = tmp_path / "kept"
    words = [
        "nn", *quick(folder, tmp_path, "--checkpoint", kept, "--workers", 1, trials=500, epochs=2000),
    ]  # fmt: skip
    told = tmp_path / "output"
    process = start_program(programs.dask, *words, output=told, own_session=True)
    deadline = time.monotonic() + 100
    while not list(kept.glob("**/*.safetensors")):
        assert process.exitcode is None, told.read_text()
        assert time.monotonic() < deadline, told.read_text()
        time.sleep(0.2)
    # To every process of the group, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    output = told.read_text()
    assert process.exitcode == 130, output
    assert f"interrupted; {tmp_path / 'm.safetensors'} has the best of what was found until then" in output
    assert "ended by Ctrl-C" in output
    assert isinstance(dasknn.load(tmp_path / "m.safetensors"), Pipeline)


def test_ctrl_c_in_the_middle_of_a_step_keeps_what_was_found(run, folder, tmp_path, monkeypatch):
    tick, interrupted = Course.tick, []

    def interrupt(course):
        # As the second Ctrl-C does, as soon as there is something to keep.
        if course.best() is not None and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return tick(course)

    monkeypatch.setattr(Course, "tick", interrupt)
    result = run(*quick(folder, tmp_path, "--method", "random", trials=30, epochs=3000), code=130)
    model = tmp_path / "m.safetensors"
    assert f"interrupted; {model} has the best of what was found until then" in result.stderr
    assert "ended by Ctrl-C" in result.stdout
    assert isinstance(dasknn.load(model), Pipeline)


def test_ctrl_c_before_there_is_anything_to_keep_says_so(run, folder, tmp_path, monkeypatch):
    tick, interrupted = Course.tick, []

    def interrupt(course):
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return tick(course)

    monkeypatch.setattr(Course, "tick", interrupt)
    result = run(*quick(folder, tmp_path), code=130)
    assert "interrupted before any network was scored; nothing was saved" in result.stderr
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # Nine tenths of what is there to gain.
        ([0.5, 0.42, 0.41, 0.40], 3),
        ([0.5, 0.5, 0.51], 1),
    ],
)
def test_the_smallest_ensemble_that_adds_about_as_much_is_recommended(losses, expected):
    search = SimpleNamespace(ensemble_losses_=losses, ensemble_path_=[2, 0, 2, 1])
    found = search_reports._of_ensemble(search, None)
    assert (found["networks"], found["is_written"]) == (expected, False)
    assert search_reports._of_ensemble(search, 2)["networks"] == 2


# --- files of settings -------------------------------------------------------------------------------


def test_a_file_sets_options_and_arguments_and_the_command_line_wins(run, folder, tmp_path):
    config = tmp_path / "search.toml"
    config.write_text(
        f'data = ["{folder / "train"}"]\ntarget = "income"\ndrop = ["id", "wage"]\nmodel = "mlp"\n'
        f'output = "{tmp_path / "m"}"\nmethod = "random"\n[search]\nn_trials = 5\nmax_iter = 2\n'
        'time_budget = "5m"\nvalidation = 0.3\n[settings]\nhidden_layer_sizes = [3]\n'
        "[parameters]\nalpha = [0.1, 0.2, 0.3]\n"
    )
    report = report_of(run("search", "--config", config, "--trials", 2, "--json"))
    assert report["method"] == "random"
    assert report["n_trials"] == 2
    assert {trial["epochs"] for trial in report["trials"]} == {2}
    network = dasknn.load(tmp_path / "m")[-1]
    assert list(network.hidden_layer_sizes) == [3]
    rows = network.history_[0]["n_samples"]
    assert rows == pytest.approx(0.7 * 600, abs=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[parameters]\nalpa = [1]", "mlp.toml, [parameters]: unknown name 'alpa'. Did you mean 'alpha'?"),
        ("[settings]\nsolvr = 'sgd'", "[settings]: unknown name 'solvr'. Did you mean 'solver'?"),
        (
            "[search]\nn_trails = 3",
            "[search] of --method hyperband: unknown name 'n_trails'. Did you mean 'n_trials'?",
        ),
        ("[paramters]\nalpha = [1]", "received [paramters]. Did you mean 'parameters'?"),
        ("trails = 3", "has an unknown key 'trails'. Did you mean 'trials'?"),
        ("[settings]\nmax_iter = 3", "[settings]: max_iter is set by an option. Use --epochs."),
        ("[search]\nrandom_state = 3", "[search]: random_state is set by an option. Use --seed."),
        ("[parameters]\nalpha = 0.1", "alpha: expected a list of values such as [0.1, 0.01], or a range"),
        ("[parameters]\nalpha = []", "received an empty list"),
        ("[parameters]\nalpha = {low = 1, hgh = 2}", "alpha: unknown name 'hgh'. Did you mean 'high'?"),
        ("[parameters]\nalpha = {low = 1}", "alpha: expected low and high, received no high."),
        ("[parameters]\nalpha = {low = 2, high = 1}", "Expected low to be less than high, received low = 2"),
        (
            "[parameters]\nalpha = {low = 0, high = 1, log = true}",
            "greater than 0 for log = true, received 0",
        ),
        ("[parameters]\nalpha = {low = 'a', high = 1}", "alpha: expected a number for low, received 'a'"),
        ("[parameters]\nalpha = {low = 1, high = 2, log = 1}", "expected log = true or false, received 1"),
        ("[settings]\nalpha = 1\n[parameters]\nalpha = [1]", "alpha is in [settings] and in [parameters]"),
        ("[search]\ntime_budget = '3 days'", "expected a time such as 90s, 30m or 2h, received '3 days'"),
        ("[search]\ncv = 'x'", "expected a number of folds for cv, received 'x'"),
        ("[parameters", "expected a TOML file"),
    ],
)
def test_mistakes_in_a_file_name_the_place(run, folder, tmp_path, text, message):
    (tmp_path / "mlp.toml").write_text(text)
    result = run(*quick(folder, tmp_path, "--config", tmp_path / "mlp.toml"), code=2)
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "incme"], 1, "Did you mean 'income'?"),
        (["--budget", "soon"], 2, "expected a time such as 90s, 30m or 2h, received 'soon'"),
        (["--budget", "0s"], 2, "expected a time such as 90s, 30m or 2h, received '0s'"),
        (["--resume"], 2, "--resume needs --checkpoint FOLDER."),
        (["--report", "r.pdf"], 2, "expected a file that ends in .html, .md, .csv, received r.pdf"),
        (["--method", "grid"], 2, "--method grid has no --trials"),
        (["--validation", 0], 2, "A search needs rows to score."),
        (["--cv", 3, "--validation", 0.2], 2, "received --validation 0.2 and --cv 3"),
        (["--cv", 3, "--time", "age"], 2, "received --time age and --cv 3"),
        (["--groups", "age", "--hold-out", "last"], 2, "received --groups age and --hold-out last"),
        (["--groups", "income"], 2, "Expected --groups to be another column than --target"),
        (["--scoring", "acuracy"], 1, "Did you mean 'accuracy'?"),
    ],
)
def test_mistakes_are_explained_in_one_message(run, folder, tmp_path, words, code, message):
    result = run(*quick(folder, tmp_path, *words), code=code)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("cv = 1", [], "Expected cv to be a number of folds, at least 2"),
        ("max_ensemble = 'x'", ["--ensemble", 2], "The 'max_ensemble' parameter of HyperbandSearch must be"),
        ("time_budget = [1]", [], "The 'time_budget' parameter of HyperbandSearch must be"),
        ("eta = 1", [], "The 'eta' parameter of HyperbandSearch must be"),
    ],
)
def test_values_of_arguments_are_checked_by_the_search(run, folder, tmp_path, text, words, message):
    (tmp_path / "c.toml").write_text(f"[search]\n{text}\n")
    result = run(*quick(folder, tmp_path, "--config", tmp_path / "c.toml", *words), code=1)
    assert message in " ".join(result.stderr.split())


def test_a_search_whose_trials_all_fail_tells_the_first_error(run, folder, tmp_path):
    (tmp_path / "c.toml").write_text('[parameters]\nsolver = ["adm"]\n')
    result = run(*quick(folder, tmp_path, "--config", tmp_path / "c.toml"), code=1)
    assert "None of 1 trials could be scored" in result.stderr
    assert "'solver' parameter" in result.stderr


def test_a_grid_needs_lists(run, folder, tmp_path):
    words = quick(folder, tmp_path, "--method", "grid", trials=None)
    assert "Use --method random, or give a list." in run(*words, code=1).stderr
    (tmp_path / "none.toml").write_text("")
    result = run(*words, "--config", tmp_path / "none.toml", code=2)
    assert "--method grid needs lists of values" in result.stderr
