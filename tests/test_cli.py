"""`dask nn` as its users meet it: real files, a real cluster, mistakes."""

import os
import signal
import subprocess
import sys

import dask.dataframe as dd
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import dasknn

DASK = [sys.executable, "-W", "ignore", "-m", "dask", "nn"]


def run(*arguments, fails=False):
    done = subprocess.run(
        [*DASK, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) is fails, output
    assert "Traceback" not in output, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits")
    table = load_digits(as_frame=True).frame.rename(columns={"target": "digit"})
    table["height"] = table["pixel_2_3"] / 3.7
    frame = dd.from_pandas(table, npartitions=3, sort=False)
    frame.to_parquet(path / "train", write_index=False)
    return path


def test_train_then_predict_on_a_running_cluster(folder, cluster):
    scheduler = cluster.scheduler_address
    model = folder / "model.safetensors"
    output = run(
        "train", folder / "train" / "*.parquet", "--target", "digit", "--hidden", "32,16", "--epochs", 12,
        "--batch-size", 64, "--test", folder / "train", "--output", model, "--scheduler", scheduler,
    )  # fmt: skip
    assert f"cluster of 2 workers at {scheduler}" in output
    assert "epoch 12/12" in output
    assert "trained on 1,797 rows x 65 features, 2 replicas, strategy gradients: 12 epochs" in output
    assert "strategy chosen: gradients: 32 rows a replica compute for about" in output
    accuracy = float(output.split("test accuracy: ")[1].split()[0])
    assert accuracy > 0.9

    # The table may go on holding its target.
    run(
        "predict", model, folder / "train", "--output", folder / "predicted", "--proba",
        "--scheduler", scheduler,
    )  # fmt: skip
    predicted = dd.read_parquet(folder / "predicted").compute()
    labels = dd.read_parquet(folder / "train")["digit"].compute()
    assert (predicted["prediction"].to_numpy() == labels.to_numpy()).mean() == pytest.approx(
        accuracy, abs=1e-4
    )
    assert [f"probability_{digit}" for digit in range(10)] == list(predicted.columns[1:])
    assert len(list((folder / "predicted").glob("*.parquet"))) == 3


def test_a_target_of_numbers_is_regressed_on_a_cluster_of_its_own(folder):
    output = run(
        "train", folder / "train", "--target", "height", "--hidden", "16", "--epochs", 3,
        "--strategy", "weights", "--test", folder / "train", "--output", folder / "r", "--workers", 1,
    )  # fmt: skip
    assert "cluster of 1 workers on this machine" in output
    assert "test R^2: " in output
    assert "--proba is for classifiers" in run(
        "predict", folder / "r", folder / "train", "--output", folder / "p", "--proba", fails=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "digitt"], "Did you mean 'digit'?"),
        (["--target", "digit", "--hidden", "ten"], "expected numbers of units such as 128,64"),
        (["--target", "digit", "--batch-size", "some"], "expected auto, full or a number of rows"),
        (["--target", "digit", "--output", "nowhere/model"], "Expected a folder at"),
    ],
)
def test_mistakes_are_explained_in_one_message(folder, cluster, arguments, message):
    arguments = [
        "--output",
        folder / "m",
        "--scheduler",
        cluster.scheduler_address,
        "--epochs",
        1,
        *arguments,
    ]
    assert message in run("train", folder / "train", *arguments, fails=True)


def test_ctrl_c_saves_what_was_learned_and_says_so(folder, tmp_path):
    model = tmp_path / "m"
    arguments = ["--target", "digit", "--epochs", 100_000, "--hidden", 8, "--strategy", "weights"]
    command = [*DASK, "train", folder / "train", *arguments, "--workers", 1, "--output", model]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    seen = b""
    for character in iter(lambda: process.stdout.read(1), b""):
        seen += character
        if b"epoch 3/" in seen:
            # As a terminal does: to every process of the group, workers too.
            os.killpg(process.pid, signal.SIGINT)
            break
    output = (seen + process.communicate(timeout=60)[0]).decode()
    assert process.returncode == 130, output
    # distributed logs an error of its own when Ctrl-C comes just as Client.sync begins.
    if "cannot access free variable 'future'" not in output:
        assert "Traceback" not in output, output[-6000:]
    assert "of 100000 epochs" in output
    assert f"model saved to {model}" in output
    assert dasknn.load(model).n_iter_ >= 2


def test_predictions_are_not_mixed_with_files_that_are_there(folder, cluster, tmp_path):
    frame = dd.read_parquet(folder / "train").drop(columns=["digit"]).compute()
    dasknn.MLPClassifier((4,), max_iter=1).fit(frame, load_digits().target).save(tmp_path / "m")
    arguments = ["predict", tmp_path / "m", folder / "train", "--output", folder / "train"]
    scheduler = ["--scheduler", cluster.scheduler_address]
    assert "Expected a new or empty folder" in run(*arguments, *scheduler, fails=True)


def test_missing_files_models_columns_and_schedulers_are_explained(folder, cluster, tmp_path):
    scheduler = ["--scheduler", cluster.scheduler_address]
    output = ["--output", tmp_path / "m"]
    target = ["--target", "digit"]
    message = run("train", tmp_path / "*.parquet", *target, *output, *scheduler, fails=True)
    assert "Expected Parquet files at" in message
    message = run("predict", tmp_path / "none", folder / "train", *output, *scheduler, fails=True)
    assert "Expected a model file at" in message
    pd.DataFrame({"name": ["a", "b"], "digit": [1, 2]}).to_parquet(tmp_path / "text.parquet")
    message = run("train", tmp_path / "text.parquet", *target, *output, *scheduler, fails=True)
    assert "Expected columns of numbers, received 'name'" in message


def test_the_plug_in_is_part_of_dasks_command_line():
    output = subprocess.run([*DASK[:-1], "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "nn " in output.stdout
