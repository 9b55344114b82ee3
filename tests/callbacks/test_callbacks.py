"""Keras's callbacks, in both faces; their rules, their files, and trainings that go on where they stopped."""

import csv

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_squared_error

import dasknn
from dasknn import (
    GradientAveraging,
    MLPClassifier,
    MLPRegressor,
    Sequential,
    WeightAveraging,
    optimizers,
    schedules,
)
from dasknn.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)
from dasknn.exceptions import NonFiniteLossError
from dasknn.layers import BatchNormalization, Dense, Dropout, Input

pytestmark = pytest.mark.filterwarnings("ignore:Training interrupted by user")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.float32)


def small(**compiled):
    dasknn.set_random_seed(1)
    model = Sequential([Input((4,)), Dense(6, "relu"), Dense(1, "sigmoid")])
    model.compile(
        **({"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"]} | compiled)
    )
    return model


class Says(Callback):
    """Puts numbers of its own into the logs: what others look at."""

    def __init__(self, values, name="val_loss"):
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


# --- both faces ----------------------------------------------------------------------------------------


class Watching(Callback):
    """What a user writes for Keras."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, logs=None):
        assert self.params["epochs"] == 9
        self.seen.append("train")

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"end {epoch} {'loss' in logs} {len(self.model.predict(np.zeros((3, 4))))}")
        if epoch == 1:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.seen.append("done")


EVENTS = ["train", "epoch 0", "end 0 True 3", "epoch 1", "end 1 True 3", "done"]


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("face", ["keras", "scikit-learn"])
def test_callbacks_of_users_hear_of_everything_and_may_stop(rows, face, kind, client):
    watching = Watching()
    x, y = (
        rows
        if kind == "numpy"
        else [da.from_array(column, chunks=(50, *column.shape[1:])) for column in rows]
    )
    if face == "keras":
        small().fit(x, y, epochs=9, verbose=0, callbacks=[watching])
    else:
        model = MLPClassifier((4,), max_iter=9, callbacks=[watching]).fit(x, y)
        assert model.n_iter_ == 2
    assert watching.seen == EVENTS
    assert watching.model is None


def test_what_a_callback_adds_to_the_logs_is_in_the_history(rows):
    history = small().fit(*rows, epochs=2, verbose=0, callbacks=[Says([3.0, 4.0], "mine")])
    assert history.history["mine"] == [3.0, 4.0]
    model = MLPClassifier((4,), max_iter=2, callbacks=[Says([3.0, 4.0], "mine")]).fit(*rows)
    assert [entry["mine"] for entry in model.history_] == [3.0, 4.0]


def test_keras_callbacks_work_on_the_estimators(rows, tmp_path):
    stopping = EarlyStopping("loss", patience=2, min_delta=10.0)
    plateau = ReduceLROnPlateau("loss", patience=1, min_delta=10.0)
    path = tmp_path / "best.safetensors"
    checkpoint = ModelCheckpoint(path, "loss", save_best_only=True)
    log = CSVLogger(tmp_path / "log.csv")
    model = MLPClassifier((4,), max_iter=20, callbacks=[plateau, stopping, checkpoint, log], random_state=0)
    model.fit(*rows)
    assert model.n_iter_ == 3
    assert_allclose(model.history_[-1]["learning_rate"], 1e-4)
    assert_array_equal(dasknn.load(path).predict(rows[0]), model.predict(rows[0]))
    assert (tmp_path / "log.csv").read_text().startswith("epoch,learning_rate,loss\n0,0.001,")


def test_a_callback_may_set_weights_and_learning_rate_through_the_model(rows):
    rates = []

    class Sets(Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates.append(self.model.optimizer.learning_rate)
            self.model.optimizer.learning_rate = 0.0
            self.model.set_weights([np.zeros_like(weight) for weight in self.model.get_weights()])

    model = small()
    model.fit(*rows, epochs=3, verbose=0, callbacks=[Sets()])
    assert rates == [0.001, 0.0, 0.0]
    assert all((weight == 0).all() for weight in model.get_weights())


# --- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "values", "n_epochs"),
    [
        ({}, [3, 2, 2.5, 1, 1], 3),
        ({"patience": 2}, [3, 2, 2.5, 2.5, 1], 4),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.4, 2.0, 1, 1], 3),
        ({"mode": "max"}, [1, 2, 3, 2, 9], 4),
        ({"baseline": 0.5, "patience": 2}, [3, 2, 1, 1, 1], 2),
        ({"start_from_epoch": 3}, [1, 2, 3, 4, 5], 5),
    ],
)
def test_early_stopping_stops_where_keras_does(rows, settings, values, n_epochs):
    history = small().fit(*rows, epochs=5, verbose=0, callbacks=[Says(values), EarlyStopping(**settings)])
    assert len(history.epoch) == n_epochs


def test_early_stopping_restores_the_weights_of_the_best_epoch(rows, capsys):
    weights = []
    model = small()
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
    stopping = EarlyStopping(patience=2, restore_best_weights=True, verbose=1)
    model.fit(*rows, epochs=9, verbose=0, callbacks=[Says([3, 1, 2, 2, 2]), keep, stopping])
    assert len(weights) == 4
    for a, b in zip(model.get_weights(), weights[1], strict=True):
        assert_array_equal(a, b)
    shown = capsys.readouterr().out
    assert "Epoch 4: early stopping" in shown
    assert "Restoring model weights from the end of the best epoch: 2." in shown


def test_the_learning_rate_falls_on_a_plateau(rows):
    plateau = ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=3e-4)
    values = [1.0] * 10
    history = small().fit(*rows, epochs=10, verbose=0, callbacks=[Says(values), plateau])
    # Keras 3 gave these.
    expected = [1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4]
    assert_allclose(history.history["learning_rate"], expected, rtol=1e-6)


def test_a_learning_rate_scheduler_sets_the_rate_of_each_epoch(rows):
    by_both = LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    history = small().fit(*rows, epochs=3, verbose=0, callbacks=[by_both])
    assert_allclose(history.history["learning_rate"], [5e-4, 2.5e-4, 1.25e-4])
    by_epoch = LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    history = small().fit(*rows, epochs=2, verbose=0, callbacks=[by_epoch])
    assert_allclose(history.history["learning_rate"], [0.1, 0.05])
    model = small(optimizer=optimizers.SGD(schedules.ExponentialDecay(0.1, 10, 0.5)))
    with pytest.raises(TypeError, match="schedule"):
        model.fit(*rows, epochs=1, verbose=0, callbacks=[by_epoch])


def test_what_is_not_among_the_logs_draws_a_warning_that_names_what_is(rows):
    with pytest.warns(UserWarning, match="'val_loss', which is not available. Available are: accuracy, loss"):
        small().fit(*rows, epochs=1, verbose=0, callbacks=[EarlyStopping()])


def test_terminate_on_nan_ends_with_the_last_good_weights_and_no_error(rows, capsys):
    dasknn.set_random_seed(0)
    model = Sequential([Input((4,)), Dense(4), Dense(1)])
    model.compile(optimizers.SGD(1e3), "mse")
    with np.errstate(all="ignore"):
        model.fit(*rows, epochs=50, verbose=0, callbacks=[TerminateOnNaN()])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert "Terminating training" in capsys.readouterr().out


def test_lambda_callbacks_refuse_what_is_never_called():
    with pytest.raises(ValueError, match="on_epoch_finish"):
        LambdaCallback(on_epoch_finish=print)
    with pytest.raises(ValueError, match="on_train_batch_begin"):
        LambdaCallback(on_train_batch_begin=print)


# --- files ---------------------------------------------------------------------------------------------


def test_checkpoints_are_named_by_the_logs_and_hold_the_model_of_their_epoch(rows, tmp_path):
    model = small()
    path = str(tmp_path / "at-{epoch:02d}-{val_loss:.1f}.safetensors")
    model.fit(*rows, epochs=3, verbose=0, callbacks=[Says([3, 2, 1]), ModelCheckpoint(path)])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "at-01-3.0.safetensors",
        "at-02-2.0.safetensors",
        "at-03-1.0.safetensors",
    ]
    last = dasknn.load_model(tmp_path / "at-03-1.0.safetensors")
    assert_array_equal(last.predict(rows[0], verbose=0), model.predict(rows[0], verbose=0))
    with pytest.raises(KeyError, match=r"names of logs \(epoch, accuracy, loss\)"):
        small().fit(*rows, epochs=1, verbose=0, callbacks=[ModelCheckpoint(path)])


def test_only_the_best_is_saved_where_that_is_asked_for(rows, tmp_path, capsys):
    model, path = small(), tmp_path / "best.safetensors"
    weights = []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
    checkpoint = ModelCheckpoint(path, save_best_only=True, save_weights_only=True, verbose=1)
    model.fit(*rows, epochs=4, verbose=0, callbacks=[Says([3, 1, 2, 1.5]), keep, checkpoint])
    other = small()
    other.load_weights(path)
    for a, b in zip(other.get_weights(), weights[1], strict=True):
        assert_array_equal(a, b)
    shown = capsys.readouterr().out
    assert "Epoch 2: val_loss improved from 3.00000 to 1.00000, saving model to" in shown
    assert "Epoch 3: val_loss did not improve from 1.00000" in shown


def test_the_csv_has_a_line_an_epoch(rows, tmp_path):
    path = tmp_path / "log.csv"
    history = small().fit(*rows, epochs=2, verbose=0, callbacks=[CSVLogger(path)])
    small().fit(*rows, epochs=4, initial_epoch=2, verbose=0, callbacks=[CSVLogger(path, append=True)])
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["0", "1", "2", "3"]
    assert float(lines[1]["loss"]) == history.history["loss"][1]


def test_tensorboard_reads_the_event_files(rows, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = small()
    logs = TensorBoard(tmp_path, histogram_freq=1, write_steps_per_second=True)
    history = model.fit(*rows, epochs=3, verbose=0, validation_data=rows, callbacks=[logs])
    found = {}
    for folder in ("train", "validation"):
        accumulator = accumulators.EventAccumulator(str(tmp_path / folder))
        accumulator.Reload()
        found[folder] = accumulator
    train = found["train"].Scalars("epoch_loss")
    assert [event.step for event in train] == [0, 1, 2]
    assert_allclose([event.value for event in train], history.history["loss"], rtol=1e-6)
    validation = found["validation"].Scalars("epoch_loss")
    assert_allclose([event.value for event in validation], history.history["val_loss"], rtol=1e-6)
    tags = found["train"].Tags()
    assert {"epoch_accuracy", "epoch_learning_rate", "epoch_steps_per_second"} <= set(tags["scalars"])
    assert "dense/kernel" in tags["histograms"]


# --- going on ------------------------------------------------------------------------------------------


class Stops(Exception):
    """What ends a training in the middle of a test."""


def breaks_in(epoch):
    def check(number, logs):
        if number == epoch:
            raise Stops

    return LambdaCallback(on_epoch_begin=check)


def test_a_training_that_was_interrupted_goes_on_to_the_bits_of_one_that_was_not(rows, tmp_path):
    x, y = [da.from_array(column, chunks=(50, *column.shape[1:])) for column in rows]

    def run(seed, folder, *others):
        dasknn.set_random_seed(seed)
        with WeightAveraging(every=2, outer=dasknn.OuterNesterov(), replicas=2).scope():
            model = Sequential(
                [Input((4,)), Dense(6, "relu"), BatchNormalization(), Dropout(0.2), Dense(1, "sigmoid")]
            )
            model.compile(
                optimizers.Adam(0.01, use_ema=True), "binary_crossentropy", metrics=["accuracy", "AUC"]
            )
        plateau = ReduceLROnPlateau("loss", patience=0, factor=0.7, min_delta=1.0)
        log = CSVLogger(tmp_path / f"{folder}.csv")
        backup = BackupAndRestore(tmp_path / folder)
        history = model.fit(
            x, y, epochs=6, verbose=0, validation_split=0.2, callbacks=[plateau, log, backup, *others]
        )
        return (
            model._members.tobytes(),
            history.history,
            (tmp_path / f"{folder}.csv").read_text(),
            history.epoch,
        )

    calm = run(1, "calm", breaks_in(99))
    with pytest.raises(Stops):
        run(1, "broken", breaks_in(3))
    # Another seed, as a new process would have: the copy holds the one that the training began with.
    resumed = run(2, "broken", breaks_in(99))
    assert resumed == calm
    assert not (tmp_path / "broken" / "training.safetensors").exists()


def test_an_estimator_goes_on_from_its_backup_in_scikit_learns_order(rows, tmp_path):
    def run(*callbacks, seed=0):
        rng = np.random.RandomState(seed)
        model = MLPClassifier((5,), max_iter=6, tol=0, random_state=rng, callbacks=list(callbacks))
        return model.fit(*rows)

    calm = run(BackupAndRestore(tmp_path / "calm"), breaks_in(99))
    with pytest.raises(Stops):
        run(BackupAndRestore(tmp_path / "broken"), breaks_in(3))
    resumed = run(BackupAndRestore(tmp_path / "broken"), breaks_in(99), seed=7)
    assert_array_equal(resumed.coefs_[0], calm.coefs_[0])
    assert resumed.loss_curve_ == calm.loss_curve_


@pytest.mark.parametrize("kind", ["in process", "on Dask"])
def test_a_backup_is_refused_where_other_rows_are_held_out(rows, tmp_path, kind):
    """A backup comes too late for that: what was trained on would be what is scored."""
    data = (
        rows
        if kind == "in process"
        else [da.from_array(column, chunks=(50, -1)[: column.ndim]) for column in rows]
    )

    def run(seed, *callbacks):
        callbacks = [BackupAndRestore(tmp_path), *callbacks]
        rng = np.random.RandomState(seed)
        MLPClassifier((5,), max_iter=4, early_stopping=True, random_state=rng, callbacks=callbacks).fit(*data)

    with pytest.raises(Stops):
        run(1, breaks_in(2))
    with pytest.raises(ValueError, match="differs from this one: choice of rows held out: "):
        run(2)
    run(1)


def test_a_backup_of_another_training_is_refused_and_says_what_differs(rows, tmp_path):
    with pytest.raises(Stops):
        small().fit(*rows, epochs=5, verbose=0, callbacks=[BackupAndRestore(tmp_path), breaks_in(2)])
    with pytest.raises(ValueError, match="batch_size: 32 there, 20 here"):
        small().fit(
            *rows, epochs=5, batch_size=20, verbose=0, callbacks=[BackupAndRestore(tmp_path), breaks_in(9)]
        )


def test_a_training_on_a_cluster_goes_on_elsewhere(rows, tmp_path, client):
    x, y = [da.from_array(column, chunks=(50, *column.shape[1:])) for column in rows]

    def run(folder, *others):
        with GradientAveraging(replicas=2).scope():
            model = small()
        model.fit(x, y, epochs=4, verbose=0, callbacks=[BackupAndRestore(tmp_path / folder), *others])
        return model._members.tobytes()

    with pytest.raises(Stops):
        run("broken", breaks_in(2))
    on_cluster = run("broken", breaks_in(9))
    assert on_cluster == run("calm", breaks_in(9))


# --- what is followed, and where it is -------------------------------------------------------------------


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val_f1_score", mode="max"),
        ReduceLROnPlateau("val_f1_score", mode="max"),
        ModelCheckpoint("best.safetensors", "val_f1_score", save_best_only=True, mode="max"),
    ],
)
def test_a_metric_that_is_a_list_of_one_is_a_number(rows, callback, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = small(metrics=["f1_score"])
    model.fit(*rows, epochs=2, validation_data=rows, callbacks=[callback], verbose=0)
    assert callback.best == max(np.ravel(model.history.history["val_f1_score"]))


def test_a_metric_of_several_numbers_cannot_be_followed(rows):
    with pytest.raises(
        ValueError, match=r"EarlyStopping expects 'val_loss' to be one number, received 2: \[1, 2\]"
    ):
        small().fit(*rows, callbacks=[Says([[1, 2]]), EarlyStopping()], verbose=0)


def test_the_best_is_saved_each_time_where_nothing_says_what_is_best(rows, tmp_path):
    path = tmp_path / "{epoch}.safetensors"
    with pytest.warns(UserWarning, match=r"ModelCheckpoint monitors 'val_loss', which is not available"):
        small().fit(*rows, epochs=2, callbacks=[ModelCheckpoint(path, save_best_only=True)], verbose=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]
    several = [Says([[1, 2]]), ModelCheckpoint(tmp_path / "3.safetensors", save_best_only=True)]
    with pytest.warns(UserWarning, match="to be one number"):
        small().fit(*rows, callbacks=several, verbose=0)
    assert (tmp_path / "3.safetensors").exists()


def test_epochs_without_validation_are_passed_over_without_a_warning(rows, tmp_path):
    followers = [
        EarlyStopping(),
        ReduceLROnPlateau(),
        ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_best_only=True),
    ]
    validation = {"validation_data": rows, "validation_freq": 2}
    small().fit(*rows, epochs=5, callbacks=followers, verbose=0, **validation)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2.safetensors", "4.safetensors"]
    with pytest.warns(UserWarning, match="EarlyStopping monitors 'val_loss'"):
        small().fit(*rows, callbacks=[followers[0]], verbose=0, **validation)


@pytest.mark.parametrize(("every", "n_validations"), [(1, 4), (2, 2), ([3], 1)])
def test_the_csv_has_the_columns_of_validation_whenever_it_comes(rows, tmp_path, every, n_validations):
    model, path = small(), tmp_path / "log.csv"
    settings = {"validation_data": rows, "validation_freq": every}
    model.fit(*rows, epochs=4, callbacks=[CSVLogger(path)], verbose=0, **settings)
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    found = [float(line["val_loss"]) for line in lines if line["val_loss"] != "NA"]
    assert_allclose(found, model.history.history["val_loss"])
    assert len(found) == n_validations


def test_logs_without_a_column_in_the_csv_are_named_once(rows, tmp_path):
    path = tmp_path / "log.csv"
    small().fit(*rows, callbacks=[CSVLogger(path)], verbose=0)
    later = [Says([1, 2]), CSVLogger(path, append=True)]
    with pytest.warns(UserWarning, match=r"log\.csv has no column for val_loss") as found:
        small().fit(*rows, epochs=2, callbacks=later, verbose=0)
    assert len(found) == 1


def test_checkpoints_of_mini_batches_are_named_by_the_batch_of_the_epoch(rows, tmp_path):
    path = tmp_path / "{epoch}-{batch:02d}.safetensors"
    small().fit(*rows, epochs=2, callbacks=[ModelCheckpoint(path, save_freq=1)], verbose=0)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert {name[:2] for name in names} == {"1-", "2-"}
    assert all(1 <= int(name[2:4]) <= 7 for name in names), names


@pytest.mark.parametrize("kind", [BackupAndRestore, CSVLogger, ModelCheckpoint, TensorBoard])
def test_no_name_is_not_the_working_directory(kind):
    with pytest.raises(ValueError, match=r"Expected (backup_dir|filename|filepath|log_dir) to be the path"):
        kind("")


def test_a_type_error_of_a_schedule_is_the_users_to_see(rows):
    def schedule(epoch, rate):
        return rate + None

    with pytest.raises(TypeError, match="NoneType"):
        small().fit(*rows, callbacks=[LearningRateScheduler(schedule)], verbose=0)


def test_terminate_on_nan_may_raise_the_error(rows):
    x, y = rows[0] * 1e30, rows[1]
    wild, watchers = (
        small(optimizer=optimizers.SGD(1e38)),
        [TerminateOnNaN(), TerminateOnNaN(raise_error=True)],
    )
    with pytest.raises(NonFiniteLossError), np.errstate(all="ignore"):
        wild.fit(x, y, callbacks=watchers, verbose=0)


@pytest.mark.parametrize("face", ["keras", "scikit-learn"])
def test_the_end_of_training_is_told_with_the_logs_of_the_last_epoch_alone(rows, face):
    told = []
    watcher = LambdaCallback(
        on_epoch_end=lambda epoch, logs: told.append(dict(logs)),
        on_train_end=lambda logs: told.append(logs),
    )
    if face == "keras":
        small().fit(*rows, validation_data=rows, callbacks=watcher, verbose=0)
        assert set(told[-1]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    else:
        with pytest.warns(ConvergenceWarning):
            MLPClassifier(max_iter=2, callbacks=[watcher]).fit(*rows, validation_data=rows)
        assert set(told[-1]) == {"loss", "validation_score", "val_loss"}
    assert told[-1] == told[-2]


# --- the validation loss of the estimators -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_validation_rows_is_scikit_learns(rows, kind, weighted):
    x, y = rows[0].astype(np.float64), rows[1].astype(int) + (rows[0][:, 1] > 1)
    weight = np.random.default_rng(0).uniform(0, 2, 200) if weighted else None
    classifier = MLPClassifier(
        (5,), max_iter=2, callbacks=EarlyStopping("val_loss", patience=5), random_state=0
    )
    validation = [x, y, weight][: 3 if weighted else 2]
    data = [x, y, *validation]
    if kind == "dask":
        data = [da.from_array(part, chunks=(70, *part.shape[1:])) for part in data]
    with pytest.warns(ConvergenceWarning):
        classifier.fit(data[0], data[1], validation_data=tuple(data[2:]))
    expected = log_loss(y, classifier.predict_proba(x), sample_weight=weight)
    assert classifier.history_[-1]["val_loss"] == pytest.approx(expected, rel=1e-9)
    score = classifier.score(x, y, weight)
    assert classifier.history_[-1]["validation_score"] == pytest.approx(score, rel=1e-12)


def test_the_loss_of_a_regressors_validation_rows_is_half_the_squared_error(rows):
    x = rows[0].astype(np.float64)
    regressor = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        regressor.fit(x, x[:, :2], validation_data=(x, x[:, :2]))
    expected = mean_squared_error(x[:, :2], regressor.predict(x)) / 2
    assert regressor.history_[-1]["val_loss"] == pytest.approx(expected, rel=1e-9)


def test_early_stopping_on_the_loss_stops_an_estimator(rows):
    x = rows[0].astype(np.float64)
    noise = np.random.default_rng(0).integers(0, 2, 200)
    stopping = EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    model = MLPClassifier((50,), learning_rate_init=0.05, max_iter=100, callbacks=stopping, random_state=0)
    model.fit(x[:100], noise[:100], validation_data=(x[100:], noise[100:]))
    curve = [entry["val_loss"] for entry in model.history_]
    assert model.n_iter_ == int(np.argmin(curve)) + 4 < 100
    assert log_loss(noise[100:], model.predict_proba(x[100:])) == pytest.approx(min(curve), rel=1e-9)


def test_the_loss_of_labels_that_training_has_not_is_unknown(rows):
    x, y = rows[0], rows[1].astype(int)
    with pytest.warns(ConvergenceWarning):
        model = MLPClassifier((5,), max_iter=1).fit(x, y, validation_data=(x[:3], np.array([0, 1, 7])))
    assert np.isnan(model.history_[0]["val_loss"])
