"""`dask nn` with the estimators for tables: dates, text and missing values in, labels and quantiles out."""

import json
import re

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import bits
from shell import Runner, runner_on

import dasknn
from dasknn.cli import nn, reports
from dasknn.data import readers


@pytest.fixture
def run(client):
    """Run a command in this process, on the two workers: run(*words, code=0) returns its result."""
    return runner_on(client.scheduler.address)


def orders(n_rows=400, seed=0):
    """A table of orders: dates, text, booleans, numbers, missing values, and targets that follow."""
    rng = np.random.default_rng(seed)
    days = pd.to_timedelta(rng.integers(0, 700, n_rows), "D")
    frame = pd.DataFrame(
        {
            "number": np.arange(n_rows) + 5_000,
            "day": pd.Timestamp("2024-01-01") + days,
            "shop": rng.choice(["north", "south", "web"], n_rows),
            "gift": rng.random(n_rows) < 0.3,
            "pieces": np.where(rng.random(n_rows) < 0.1, np.nan, rng.integers(1, 60, n_rows)),
        }
    )
    is_weekend = frame["day"].dt.day_of_week > 4
    frame["late"] = np.where(is_weekend | (frame["shop"] == "web"), "yes", "no")
    frame["hours"] = (frame["pieces"].fillna(20) / 4 + 8 * is_weekend + rng.normal(0, 1, n_rows)).round(3)
    frame["rank"] = rng.integers(0, 90, n_rows)
    frame.loc[:8, "day"] = pd.NaT
    frame.loc[rng.random(n_rows) < 0.1, "shop"] = None
    return frame


FEATURES = ["day", "shop", "gift", "pieces"]
# A quick network.
SMALL = ["--hidden", 16, "--members", 2, "--batch-size", 32, "--quiet"]
LATE = ["--target", "late", "--drop", "number,hours,rank", *SMALL]
HOURS = ["--target", "hours", "--drop", "number,late,rank", *SMALL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of orders: train/ (2 partitions of Parquet), train.csv, and test.parquet and test.csv."""
    path = tmp_path_factory.mktemp("orders")
    dd.from_pandas(orders(), npartitions=2, sort=False).to_parquet(path / "train", write_index=False)
    orders().to_csv(path / "train.csv", index=False)
    orders(200, 1).to_parquet(path / "test.parquet", index=False)
    orders(200, 1).to_csv(path / "test.csv", index=False)
    return path


def train_once(cluster, *words):
    result = Runner().invoke(nn, ["train", *map(str, words), "--scheduler", cluster.scheduler_address])
    assert result.exit_code == 0, (result.stderr, result.exception)


@pytest.fixture(scope="module")
def late(folder, cluster):
    """The file of a model that has learned from CSV which orders are late."""
    path = folder / "late.safetensors"
    train_once(cluster, folder / "train.csv", *LATE, "--epochs", 20, "--output", path)
    return path


@pytest.fixture(scope="module")
def hours(folder, cluster):
    """The file of a model that has learned quantiles of hours."""
    path = folder / "hours.safetensors"
    words = ["--quantiles", "0.9,0.1,0.5", "--epochs", 15, "--output", path]
    train_once(cluster, folder / "train", *HOURS, *words)
    return path


# --- train, predict, evaluate ------------------------------------------------------------------------


def test_a_raw_table_trains_and_is_predicted_and_evaluated(run, folder, late, tmp_path):
    model, frame = dasknn.load(late), orders(200, 1)
    assert isinstance(model, dasknn.TabularClassifier)
    assert model.score(frame[FEATURES], frame["late"]) > 0.8
    for data in ("test.parquet", "test.csv"):
        path = tmp_path / f"{data}.csv"
        run("predict", late, folder / data, "--keep", "number", "--proba", "--output", path)
        found = pd.read_csv(path)
        assert list(found.columns) == ["number", "prediction", "probability_no", "probability_yes"]
        assert found["number"].tolist() == frame["number"].tolist()
        assert found["prediction"].tolist() == model.predict(frame[FEATURES]).tolist()
        np.testing.assert_allclose(found.iloc[:, 2:], model.predict_proba(frame[FEATURES]), atol=1e-6)
        words = ["--metrics", "accuracy", "--slices", "gift", "--json"]
        slices = json.loads(run("evaluate", late, folder / data, *words).stdout)["slices"]
        assert slices[0]["accuracy"] == pytest.approx(model.score(frame[FEATURES], frame["late"]))
        assert [one["rows"] for one in slices[1:]] == frame["gift"].value_counts().sort_index().tolist()


def test_dates_are_read_from_parquet_and_csv_alike(run, folder, late, tmp_path):
    run("train", folder / "train", *LATE, "--epochs", 1, "--output", tmp_path / "m")
    models = [dasknn.load(path) for path in (tmp_path / "m", late)]
    columns = [model._table.columns for model in models]
    assert columns[0] == columns[1]
    assert [column.kind for column in columns[0]] == ["date", "category", "binary", "number"]


def test_the_report_has_members_columns_and_engine(run, folder, tmp_path):
    words = ["--epochs", 2, "--test", folder / "test.csv", "--output", tmp_path / "m"]
    text = run("train", folder / "train", *LATE, *words).stdout
    assert re.search(
        r"^data +3\d\d rows, 4 columns: 1 date, 1 category, 1 binary, 1 number$", text, re.MULTILINE
    )
    assert "TabularClassifier: 16 relu - 1 logistic; " in text
    assert ", float32, an ensemble of 2\n" in text
    assert "\nengine      numpy: " in text
    report = json.loads(run("train", folder / "train", *LATE, *words, "--json").stdout)
    assert (report["columns"], report["members"], report["epochs"]) == (4, 2, 2)
    assert report["kinds"] == {"date": 1, "category": 1, "binary": 1, "number": 1}
    frame = orders(200, 1)
    assert report["test"]["accuracy"] == pytest.approx(
        dasknn.load(tmp_path / "m").score(frame[FEATURES], frame["late"])
    )


def test_quantiles_are_predicted_in_ascending_order(run, folder, hours, tmp_path):
    run("predict", hours, folder / "test.csv", "--output", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found.columns) == ["prediction", *(f"quantile_{level}" for level in (0.1, 0.5, 0.9))]
    assert (found["prediction"] == found["quantile_0.5"]).all()
    assert (np.diff(found.iloc[:, 1:]) >= 0).all()
    frame = orders(200, 1)
    assert 0.6 < frame["hours"].between(found["quantile_0.1"], found["quantile_0.9"]).mean() < 0.97
    score = json.loads(run("evaluate", hours, folder / "test.parquet", "--json").stdout)["slices"][0]["r2"]
    assert score == pytest.approx(dasknn.load(hours).score(frame[FEATURES], frame["hours"]), abs=1e-5)
    assert "--proba needs a classifier" in (
        run("predict", hours, folder / "test.csv", "--proba", "--output", tmp_path / "q.csv", code=2).stderr
    )


def test_intervals_are_written_beside_predictions(run, folder, late, hours, tmp_path):
    run("predict", hours, folder / "test.csv", "--interval", 0.8, "--output", tmp_path / "p.csv")
    found, model = pd.read_csv(tmp_path / "p.csv"), dasknn.load(hours)
    expected = model.predict_interval(orders(200, 1)[FEATURES], 0.8)
    np.testing.assert_allclose(found[["lower", "upper"]], expected, rtol=1e-5)
    told = run(
        "predict", late, folder / "test.csv", "--interval", 0.8, "--output", tmp_path / "q.csv", code=2
    )
    assert "--interval needs a model of --model table that predicts numbers" in " ".join(told.stderr.split())
    model._errors = None
    model.save(tmp_path / "m")
    words = ["predict", tmp_path / "m", folder / "test.csv", "--output", tmp_path / "q.csv"]
    told = " ".join(run(*words, "--interval", 0.8, code=1).stderr.split())
    assert "held out in training, and there were none. Train without --validation 0" in told
    assert "0<x<1" in run(*words, "--interval", 1.5, code=2).stderr


def test_quantiles_ask_for_a_regression_of_whole_numbers(run, folder, tmp_path):
    words = ["--target", "rank", "--quantiles", "0.5", *SMALL, "--epochs", 1, "--output", tmp_path / "m"]
    text = run("train", folder / "train.csv", *words).stdout
    assert "TabularRegressor: 16 relu - 1 identity; " in text
    assert "an ensemble of 2; quantiles 0.5\n" in text


def test_options_of_the_network_reach_the_estimator(run, folder, tmp_path):
    config = tmp_path / "train.toml"
    config.write_text(
        "dropout = 0.25\nweight-decay = 0.5\nembedding = 'none'\n"
        "quantiles = [0.25, 0.75]\nmembers = 3\nlearning-rate = 0.01\nmax-categories = 9\nmin-frequency = 2\n"
        "categorical = ['pieces']\nepochs = 1\nactivation = 'tanh'\n"
    )
    words = ["--target", "hours", "--hidden", "8,4", "--config", config, "--output", tmp_path / "m"]
    report = json.loads(run("train", folder / "train", *words, "--json", "--quiet").stdout)
    assert (report["quantiles"], report["members"]) == ([0.25, 0.75], 3)
    assert report["layers"] == [[8, "tanh"], [4, "tanh"], [2, "identity"]]
    model = dasknn.load(tmp_path / "m")
    assert list(model.categorical_features) == ["pieces"]
    assert (model.embedding, model.dropout, model.weight_decay) == (None, 0.25, 0.5)
    assert (model.learning_rate_init, model.max_categories, model.min_frequency) == (0.01, 9, 2)


def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(run, folder, tmp_path):
    words = ["train", folder / "train", *LATE, "--replicas", 2, "--epochs", 3]
    run(*words, "--output", tmp_path / "whole", "--checkpoint", tmp_path / "c")
    newest = max((tmp_path / "c").iterdir(), key=lambda file: file.name)
    newest.unlink()
    run(*words, "--output", tmp_path / "resumed", "--checkpoint", tmp_path / "c", "--resume")
    models = [dasknn.load(tmp_path / name) for name in ("whole", "resumed")]
    assert bits(models[0]) == bits(models[1])


# --- rows for validation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rows", "is_best"),
    [
        ([], (300, 370), True),
        (["--validation", 0.4], (200, 280), True),
        (["--validation", 0.4, "--no-early-stopping"], (200, 280), False),
        (["--no-early-stopping"], (400, 400), None),
        (["--validation", 0], (400, 400), None),
        (["--validation", "test.csv"], (400, 400), True),
        (["--validation", "test.parquet", "--no-early-stopping"], (400, 400), False),
    ],
)
def test_validation_is_a_share_or_files_or_none(run, folder, tmp_path, words, rows, is_best):
    words = [folder / word if str(word).startswith("test") else word for word in words]
    words = [*words, "--epochs", 3, "--output", tmp_path / "m", "--json"]
    result = run("train", folder / "train", *LATE, *words)
    report, model = json.loads(result.stdout), dasknn.load(tmp_path / "m")
    assert rows[0] <= report["rows"] <= rows[1]
    assert bool(model.early_stopping) == bool(is_best)
    found = report["validation"]
    assert (found is None) == (is_best is None)
    if found is None:
        return
    scores = [entry["validation_score"] for entry in model.history_]
    kept = scores[found["kept_epoch"] - 1]
    assert found["accuracy"] == pytest.approx(kept)
    assert found["best"] == max(scores)
    assert kept == (max(scores) if is_best else scores[-1])


def test_rows_of_whole_groups_are_held_out_and_the_column_is_not_learned(run, folder, tmp_path):
    words = ["--groups", "rank", "--target", "late", "--drop", "number,hours", *SMALL, "--epochs", 1]
    report = json.loads(run("train", folder / "train", *words, "--output", tmp_path / "m", "--json").stdout)
    frame, model = orders(), dasknn.load(tmp_path / "m")
    assert model.feature_names_in_.tolist() == FEATURES
    # The same groups as in Python, from the same seed and partitions.
    data = dd.read_parquet(folder / "train")
    settings = {"members": 2, "hidden_layer_sizes": (16,), "batch_size": 32, "max_iter": 1, "random_state": 0}
    same = dasknn.TabularClassifier(**settings)
    same.fit(data[FEATURES], data["late"], groups=data["rank"])
    assert report["rows"] == same.history_[0]["n_samples"] < len(frame)
    assert bits(model) == bits(same)


def test_the_last_rows_are_held_out_and_a_refit_takes_all(run, folder, tmp_path):
    words = ["--hold-out", "last", "--validation", 0.25, "--refit", "all", "--epochs", 2]
    text = run("train", folder / "train", *LATE, *words, "--output", tmp_path / "m").stdout
    model = dasknn.load(tmp_path / "m")
    assert (model.hold_out, model.refit, model.validation_fraction) == ("last", "all", 0.25)
    assert [entry["n_samples"] for entry in model.history_] == [300] * 2 + [400] * model.best_epoch_
    assert re.search(r"^data +400 rows, ", text, re.MULTILINE)
    assert f"the best of 2; then a second network was trained for {model.best_epoch_} epoch" in text


def test_the_latest_rows_are_held_out_and_members_are_selected(run, folder, tmp_path):
    frame = orders().dropna(subset="day")
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "mixed.parquet", index=False)
    words = ["--time", "day", "--validation", 0.2, "--select-members", "--epochs", 1]
    report = json.loads(
        run("train", tmp_path / "mixed.parquet", *LATE, *words, "--output", tmp_path / "m", "--json").stdout
    )
    model = dasknn.load(tmp_path / "m")
    assert model.feature_names_in_.tolist() == FEATURES[1:]
    # Whole days are on one side.
    rows_from = frame["day"].value_counts().sort_index(ascending=False).cumsum()
    assert len(frame) - report["rows"] in rows_from.to_numpy()
    assert report["rows"] == pytest.approx(0.8 * len(frame), abs=3)
    assert model.select_members
    assert report["members"] == len(model.selected_members_)


def test_times_in_csv_are_dates_even_if_their_column_is_dropped(run, tmp_path):
    orders().dropna(subset="day").to_csv(tmp_path / "orders.csv", index=False)
    words = ["--drop", "day", "--time", "day", "--epochs", 1, "--output", tmp_path / "m"]
    run("train", tmp_path / "orders.csv", *LATE, *words)
    assert dasknn.load(tmp_path / "m").feature_names_in_.tolist() == FEATURES[1:]
    words[3] = "shop"
    result = run("train", tmp_path / "orders.csv", *LATE, *words, code=1)
    assert "received text. Write dates as 2026-01-31 in the file." in result.stderr


# --- inspect -----------------------------------------------------------------------------------------


def test_a_model_shows_its_columns_and_what_was_learned_of_them(run, late, hours):
    text = run("inspect", late).stdout
    assert re.search(r"^network +TabularClassifier: 16 relu - 1 logistic; .* an ensemble of 2$", text, re.M)
    assert re.search(r"^target +late$", text, re.MULTILINE)
    assert re.search(r"^settings +epochs 20, batch_size 32, ", text, re.MULTILINE)
    shop = "category; 3 values: north, south, web; may be missing; becomes 3 one-hot inputs"
    assert f"\n  shop: {shop}\n" in text
    assert "\n  gift: binary; 0 or 1; becomes -1 or 1\n" in text
    assert re.search(r"^  day: date; year: .*; may be missing; becomes \d vectors of 16, .*$", text, re.M)
    pieces = "bins from 1 to 59; may be missing; becomes a vector of 16, 1 where missing"
    assert re.search(rf"^  pieces: number; median .* {pieces}$", text, re.MULTILINE)
    report = json.loads(run("inspect", late, "--json").stdout)
    assert [column["name"] for column in report["columns"]] == FEATURES
    assert [column["kind"] for column in report["columns"]] == ["date", "category", "binary", "number"]
    assert report["columns"][1]["values"] == ["north", "south", "web"]
    assert report["classes"] == ["no", "yes"]
    assert "an ensemble of 2; quantiles 0.1, 0.5, 0.9\n" in run("inspect", hours).stdout


def test_a_refit_is_described_as_two_trainings(run, tmp_path):
    frame = orders(200)
    model = dasknn.TabularClassifier(
        refit="all", members=2, hidden_layer_sizes=(8,), max_iter=4, batch_size=32, random_state=0
    )
    model.fit(frame[FEATURES], frame["late"]).save(tmp_path / "m")
    best = model.best_epoch_
    text = " ".join(run("inspect", tmp_path / "m").stdout.split())
    assert f"trained 4 epochs on 170 rows, then {best} on all 200 rows, loss " in text
    score = f"accuracy {model.best_validation_score_:.4f} in epoch {best}, the best of 4"
    assert f"validation {score}; then a second network was trained for {best} epoch" in text
    assert json.loads(run("inspect", tmp_path / "m", "--json").stdout)["refit_epochs"] == best


def test_an_interruption_says_of_which_training(late):
    model = dasknn.load(late)
    assert reports.text_of_interruption(model) == f"interrupted after {model.n_iter_} of 20 epochs"
    model.refit, model.interrupted_ = "all", True
    model.history_ = [*model.history_, {"epoch": 21, "loss": 1.0}]
    found = reports.text_of_interruption(model)
    assert found.startswith(
        f"interrupted after 1 of {model.best_epoch_} epochs on all rows; the model is the"
    )


# --- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--solver", "sgd"], 2, "--solver is an option of --model mlp, received with --model table"),
        (["--alpha", "0"], 2, "Leave --alpha out, or use --model mlp"),
        (["--preprocess", "none"], 2, "--preprocess is an option of --model mlp"),
        (["--model", "mlp", "--members", "4"], 2, "--members is an option of --model table"),
        (["--model", "mlp", "--quantiles", "0.5"], 2, "Leave --quantiles out, or use --model table"),
        (["--model", "mlp"], 1, "Use --model table, which takes dates, or leave it out (--drop day)"),
        (["--model", "forest"], 2, "'forest' is not one of 'table', 'mlp'"),
        (["--quantiles", "5,95"], 2, "expected numbers between 0 and 1 such as 0.05,0.5,0.95"),
        (["--quantiles", "0.5", "--task", "classification"], 2, "--quantiles needs a regression"),
        (["--quantiles", "0.5"], 1, "For classes, use --task classification"),
        (["--early-stopping", "--validation", "0"], 2, "--early-stopping needs rows for it"),
        (["--groups", "shops"], 1, "Did you mean 'shop'?"),
        (["--groups", "late"], 2, "--groups to be another column than --target"),
        (["--groups", "shop", "--validation", "0"], 2, "and --validation 0 holds out none. Leave it out."),
        (["--refit", "all", "--validation", "test.csv"], 2, "--refit needs rows of DATA that are held out"),
        (["--hold-out", "last", "--no-early-stopping"], 2, "--no-early-stopping chooses no epoch by them"),
        (["--hold-out", "last", "--groups", "shop"], 2, "--hold-out last or --groups, received both"),
        (["--time", "hours", "--groups", "shop"], 2, "--groups or --time, received both"),
        (["--time", "shop"], 1, "Expected time to be dates or numbers, received text"),
        (["--select-members", "--no-early-stopping"], 2, "--select-members needs rows that are held out"),
        (["--model", "mlp", "--select-members"], 2, "Leave --select-members out, or use --model table"),
        (["--hold-out", "last", "--shuffle"], 2, "--hold-out last or --shuffle, received both"),
        (["--model", "mlp", "--refit", "all"], 2, "Leave --refit out, or use --model table"),
        (["--dropout", "1"], 2, "0<=x<1"),
        (["--validation", "0.001"], 1, "Increase --validation"),
        (["--drop", "shops"], 1, "Did you mean 'shop'?"),
        (["--categorical", "shops"], 1, "Did you mean 'shop'?"),
        (["--drop", "number,hours,rank,day,shop,gift,pieces"], 1, "Expected at least one column"),
    ],
)
def test_mistakes_are_explained_in_one_message(run, folder, tmp_path, words, code, message):
    words = ["--target", "late", "--epochs", 1, "--hidden", 4, "--output", tmp_path / "m", *words]
    told = run("train", folder / "train", *words, code=code).stderr
    assert message in " ".join(told.split())
    assert "Traceback" not in told


def test_columns_that_became_something_else_are_named(run, folder, late, tmp_path):
    output = ["--output", tmp_path / "p.csv", "--overwrite"]
    frame = orders(30, 2).astype({"number": str})
    for change, message in [
        ({"pieces": "many"}, "Expected numbers in column 'pieces', as in the data that was trained on"),
        ({"day": "monday"}, "Expected dates such as 2026-01-31 in column 'day'"),
        ({"pieces": np.inf}, "Column 'pieces' holds infinity in row 0"),
    ]:
        frame.assign(**change).to_csv(tmp_path / "t.csv", index=False)
        told = run("predict", late, tmp_path / "t.csv", *output, code=1).stderr
        assert message in " ".join(told.split())
    frame.drop(columns="day").to_csv(tmp_path / "t.csv", index=False)
    assert "Expected column 'day'" in run("predict", late, tmp_path / "t.csv", *output, code=1).stderr
    # Values that were never seen, and none at all, are no mistakes.
    frame.assign(shop="phone", pieces=None, day=None).to_csv(tmp_path / "t.csv", index=False)
    run("predict", late, tmp_path / "t.csv", *output)
    assert pd.read_csv(tmp_path / "p.csv")["prediction"].isin(["yes", "no"]).all()


def test_text_that_begins_after_dates_is_explained(run, monkeypatch, tmp_path):
    monkeypatch.setattr(readers, "_SAMPLE_ROWS", 2)
    days = ["2024-01-01", "2024-01-02", "soon", "2024-01-04"]
    pd.DataFrame({"day": days, "x": [1, 2, 3, 4], "y": list("abab")}).to_csv(tmp_path / "t.csv", index=False)
    words = ["train", tmp_path / "t.csv", "--target", "y", *SMALL, "--epochs", 1, "--output", tmp_path / "m"]
    told = " ".join(run(*words, code=1).stderr.split())
    assert "Expected dates such as 2026-01-31 in column 'day', as in its first rows, received 'soon'" in told
    run(*words, "--categorical", "day")
    run(*words, "--drop", "day")


def test_recommendations_are_for_the_network_that_would_be_trained(run, folder, late):
    words = [folder / "train", *LATE, "--json"]
    report = json.loads(run("recommend", *words).stdout)
    assert {row["transport"] for row in report["rows"]} == {"hop", "peer", "tasks"}
    text = run("recommend", *words[:-1]).stdout
    assert "340 of 400 rows x 4 columns, " in text
    assert f" {dasknn.load(late)._network_.n_params:,} parameters (as for 2 classes)" in text
    message = run("recommend", *words, "--model", "mlp", code=2).stderr
    assert "--members is an option of --model table" in " ".join(message.split())
