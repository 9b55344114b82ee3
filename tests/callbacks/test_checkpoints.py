"""A training that was interrupted goes on to the bits of one that was not; no file makes it go elsewhere."""

import errno
import json
import os
import pickle
import re
import time
import warnings

import dask.array as da
import fsspec
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

import dasknn
from dasknn import (
    Checkpoint,
    GradientAveraging,
    MLPClassifier,
    MLPRegressor,
    PredictionAveraging,
    Sequential,
    WeightAveraging,
    optimizers,
    schedules,
)
from dasknn.callbacks import Callback, EarlyStopping, LambdaCallback, ReduceLROnPlateau, checkpoints
from dasknn.engine import engines
from dasknn.exceptions import EngineError, ModelFileError, NonFiniteLossError
from dasknn.layers import BatchNormalization, Dense, Dropout, Input
from dasknn.saving import safetensors_file, storage
from tests.conftest import bits

# What a clock says of an epoch.
TIMES = ("seconds", "rows_per_second", "workers", "seconds_to_start")


class Stops(Exception):
    """What ends a training in the middle of a test."""


def stops_in(epoch, error=Stops):
    """A callback that interrupts training in that epoch, counted from 0."""

    def stop(number, logs):
        if number == epoch:
            raise error

    return LambdaCallback(on_epoch_begin=stop)


class Counts(LambdaCallback):
    def __init__(self):
        self.epochs = 0
        super().__init__(on_epoch_begin=self.count)

    def count(self, epoch, logs):
        self.epochs += 1


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((240, 4))
    return X, (X[:, 0] + 0.5 * rng.standard_normal(240) > 0).astype(int)


def on_dask(rows, chunks=(100, 20, 60, 60)):
    return [da.from_array(column, chunks=(chunks, *column.shape[1:])) for column in rows]


def classifier(callbacks=(), seed=3, **settings):
    # A RandomState, not a number: each process has another one.
    defaults = {"batch_size": 20, "max_iter": 6, "tol": 0.0, "random_state": np.random.RandomState(seed)}
    return MLPClassifier(**({"hidden_layer_sizes": (5,), "callbacks": list(callbacks)} | defaults | settings))


def small(**compiled):
    """A Sequential with noise, averages of its own and metrics."""
    model = Sequential(
        [Input((4,)), Dense(6, "relu"), BatchNormalization(), Dropout(0.2), Dense(1, "sigmoid")]
    )
    settings = {"optimizer": optimizers.Adam(0.01, use_ema=True), "loss": "binary_crossentropy"}
    model.compile(**(settings | {"metrics": ["accuracy", "AUC"]} | compiled))
    return model


def small_and_compiled(**compiled):
    """A Sequential with noise, a schedule and metrics, of which all has compiled steps."""
    model = Sequential([Input((4,)), Dropout(0.2), Dense(6, "relu"), Dropout(0.2), Dense(1, "sigmoid")])
    settings = {"optimizer": optimizers.AdamW(0.01), "loss": "binary_crossentropy", "engine": "numba"}
    model.compile(**(settings | {"metrics": ["accuracy", "AUC"]} | compiled))
    return model


def told(entries):
    """What a history says, without times."""
    return [{name: value for name, value in entry.items() if name not in TIMES} for entry in entries]


FITTED = (
    *("loss_", "best_loss_", "loss_curve_", "n_iter_", "t_", "validation_scores_", "best_validation_score_"),
    *("replicas_", "strategy_", "transport_", "strategy_reason_", "interrupted_", "n_features_in_"),
    "engine_",
)


def of_estimator(model):
    """All that a fit has come to."""
    found = {name: getattr(model, name) for name in FITTED if hasattr(model, name)}
    kept = model._kept_optimizer
    return found | {
        "bits": bits(model),
        "history": told(model.history_),
        "slots": None if kept is None else (kept.slots.tobytes(), kept.step, kept.learning_rate),
    }


def of_sequential(model, history):
    return {
        "bits": bits(model),
        "slots": model._slots.tobytes(),
        "step": model._step,
        "rate": model._rate,
        "epoch": history.epoch,
        "history": history.history,
        "entries": told(history.entries),
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def named(*epochs):
    return [f"epoch-{epoch:05d}.safetensors" for epoch in epochs]


# --- the same bits, in the estimators ------------------------------------------------------------------


def interrupted(fit, folder, epoch=3):
    """Run fit(callbacks, **arguments) until it is interrupted, and go on with another seed."""
    with pytest.raises(Stops):
        fit([stops_in(epoch)], checkpoint=folder)
    return fit([], seed=99, checkpoint=folder, resume=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"early_stopping": True, "n_iter_no_change": 3, "max_iter": 30, "validation_fraction": 0.2},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1, "max_iter": 20},
        {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.0},
        # float32 with a rate of numpy's: a number of Python's would give other bits.
        {"dtype": "float32", "learning_rate_init": np.float64(0.003)},
    ],
    ids=["adam", "early stopping", "adaptive", "invscaling", "float32"],
)
@pytest.mark.parametrize(
    ("kind", "engine"),
    [("in process", "numpy"), ("in process", "numba"), ("on Dask", "numpy"), ("on Dask", "numba")],
)
def test_an_estimator_goes_on_to_the_same_bits_and_attributes(rows, tmp_path, kind, engine, settings):
    data = rows if kind == "in process" else on_dask(rows)
    settings = {"engine": engine, **settings}

    def fit(callbacks, seed=3, **arguments):
        return classifier(callbacks, seed, **settings).fit(*data, **arguments)

    calm = fit([])
    resumed = interrupted(fit, tmp_path)
    assert resumed.n_iter_ > 4
    assert of_estimator(resumed) == of_estimator(calm)
    if "early_stopping" not in settings:
        # What is drawn after the fit is the same, too.
        assert bits(resumed.partial_fit(*data)) == bits(calm.partial_fit(*data))


@pytest.mark.parametrize(
    ("transport", "strategy"),
    [
        ("tasks", "weights"),
        ("peer", GradientAveraging(compression="float16")),
        ("peer", WeightAveraging(every=3, outer=dasknn.OuterNesterov())),
        ("tasks", PredictionAveraging(2, hop=False)),
        ("hop", PredictionAveraging(2)),
    ],
    ids=["tasks", "compressed", "peer", "ensemble", "members that hop"],
)
@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_an_estimator_goes_on_on_a_cluster(rows, tmp_path, client, engine, transport, strategy):
    def fit(callbacks, seed=3, **arguments):
        settings = {"strategy": strategy, "early_stopping": True, "max_iter": 4, "engine": engine}
        settings["transport"] = "auto" if transport == "hop" else transport
        return classifier(callbacks, seed, **settings).fit(*on_dask(rows), **arguments)

    calm = fit([])
    assert calm.transport_ == transport
    assert of_estimator(interrupted(fit, tmp_path, 2)) == of_estimator(calm)


def test_a_training_goes_on_over_another_transport_and_without_its_cluster(
    rows, tmp_path, client, monkeypatch
):
    """Two replicas, one for each worker; afterwards there is no cluster, and nobody has asked for two."""

    def fit(callbacks, seed=3, transport="auto", **arguments):
        settings = {"strategy": "gradients", "batch_size": 64, "transport": transport}
        return classifier(callbacks, seed, **settings).fit(*rows, **arguments)

    calm = fit([])
    assert (calm.replicas_, calm.transport_) == (2, "peer")
    with pytest.raises(Stops):
        fit([stops_in(2)], checkpoint=tmp_path)
    with pytest.raises(Stops):
        fit([stops_in(4)], seed=8, transport="tasks", checkpoint=tmp_path, resume=True)
    monkeypatch.setattr("dasknn.cluster.connect._current_client", lambda: None)
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    alone = fit([], seed=9, checkpoint=tmp_path, resume=True)
    assert alone.replicas_ == 2
    assert bits(alone) == bits(calm)
    assert alone.loss_curve_ == calm.loss_curve_


def test_a_warm_start_goes_on_with_what_the_fit_before_had_left(rows, tmp_path):
    def twice(folder, *callbacks, **arguments):
        model = classifier(warm_start=True, max_iter=3, random_state=0).fit(*rows)
        model.set_params(max_iter=5, callbacks=list(callbacks))
        return model.fit(*rows, checkpoint=folder, **arguments)

    calm = twice(tmp_path / "calm")
    with pytest.raises(Stops):
        twice(tmp_path / "broken", stops_in(6))
    # A new object, which has not been fitted before.
    new = classifier(warm_start=True, max_iter=5, random_state=0)
    new.fit(*rows, checkpoint=tmp_path / "broken", resume=True)
    assert of_estimator(new) == of_estimator(calm)
    assert (new.n_iter_, len(new.loss_curve_), new.t_) == (5, 8, 8 * 240)


def test_lbfgs_goes_on_from_the_weights_of_the_checkpoint(rows, tmp_path):
    def fit(*callbacks, max_iter=8, **arguments):
        model = classifier(callbacks, solver="lbfgs", alpha=1.0, max_iter=max_iter, random_state=1)
        return model.fit(*rows, **arguments)

    calm = fit()
    with pytest.raises(Stops):
        fit(stops_in(4), checkpoint=tmp_path)
    resumed = fit(checkpoint=tmp_path, resume=True)
    assert resumed.n_iter_ == calm.n_iter_ == 8
    assert told(resumed.history_[:4]) == told(calm.history_[:4])
    assert resumed.history_[7]["loss"] < calm.history_[3]["loss"]
    again = fit(checkpoint=tmp_path, resume=True)
    assert of_estimator(again) == of_estimator(resumed)
    # What SciPy has ended is not taken up again.
    ended = fit(max_iter=2000, checkpoint=tmp_path, resume=True)
    assert ended.n_iter_ < 2000
    again = fit(max_iter=3000, checkpoint=tmp_path, resume=True)
    assert of_estimator(again) == of_estimator(ended)


# --- the same bits, in Sequential ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in process", "tasks", "peer"])
@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_a_sequential_goes_on_to_the_same_bits_and_history(rows, tmp_path, client, engine, kind):
    make = {"numpy": small, "numba": small_and_compiled}[engine]

    def fit(callbacks, seed=3, **arguments):
        dasknn.set_random_seed(seed)
        if kind == "in process":
            model, data = make(), rows
        else:
            with WeightAveraging(every=2, outer=dasknn.OuterNesterov(), replicas=2).scope():
                model, data = make(transport=kind), on_dask(rows)
        watchers = [
            ReduceLROnPlateau("loss", patience=0, factor=0.7, min_delta=1.0),
            EarlyStopping("val_loss", patience=3, restore_best_weights=True),
            *callbacks,
        ]
        history = model.fit(*data, epochs=5, verbose=0, validation_split=0.2, callbacks=watchers, **arguments)
        first = of_sequential(model, history)
        assert model.engine_ == engine
        # And a second fit draws what it would have drawn.
        second = model.fit(*data, epochs=1, verbose=0)
        return first, of_sequential(model, second)

    calm = fit([])
    assert len(calm[0]["epoch"]) == 5
    assert interrupted(fit, tmp_path) == calm


def test_replicas_that_are_left_to_the_cluster_stay_what_they_were(rows, tmp_path, monkeypatch):
    def fit(callbacks, seed=3, **arguments):
        dasknn.set_random_seed(seed)
        model = small()
        history = model.fit(
            *on_dask(rows), epochs=4, batch_size=40, verbose=0, callbacks=callbacks, **arguments
        )
        return model.replicas_, of_sequential(model, history)

    monkeypatch.setattr("dask.system.CPU_COUNT", 3)
    calm = fit([])
    with pytest.raises(Stops):
        fit([stops_in(2)], checkpoint=tmp_path)
    monkeypatch.setattr("dask.system.CPU_COUNT", 5)
    assert fit([], seed=9, checkpoint=tmp_path, resume=True) == calm
    assert calm[0] == 3


def test_a_sequential_goes_on_from_initial_epoch(rows, tmp_path):
    def fit(*callbacks, **arguments):
        dasknn.set_random_seed(1)
        model = small()
        history = model.fit(
            *rows, initial_epoch=3, epochs=7, verbose=0, callbacks=list(callbacks), **arguments
        )
        return of_sequential(model, history)

    calm = fit()
    with pytest.raises(Stops):
        fit(stops_in(5), checkpoint=tmp_path)
    assert names(tmp_path) == named(4, 5)
    assert fit(checkpoint=tmp_path, resume=True) == calm


# --- what interrupts -----------------------------------------------------------------------------------


def digits_on_dask():
    X, y = load_digits(return_X_y=True)
    return da.from_array(X, chunks=(500, -1)), da.from_array(y, chunks=500)


def digits_classifier(callbacks=()):
    return MLPClassifier((16,), max_iter=8, batch_size=64, tol=0, random_state=0, callbacks=list(callbacks))


def train_slowly(folder):
    pause = LambdaCallback(on_epoch_begin=lambda epoch, logs: time.sleep(0.3))
    digits_classifier([pause]).fit(*digits_on_dask(), checkpoint=folder)


def test_a_process_that_is_killed_is_gone_on_with_in_another_one(tmp_path, start_program):
    calm = digits_classifier().fit(*digits_on_dask())
    folder, told = tmp_path / "checkpoints", tmp_path / "output"
    process = start_program(train_slowly, folder, output=told)
    deadline = time.monotonic() + 60
    while not (folder / named(3)[0]).exists():
        assert process.exitcode is None, told.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    counts = Counts()
    resumed = digits_classifier([counts]).fit(*digits_on_dask(), checkpoint=folder, resume=True)
    assert 0 < counts.epochs <= 5
    assert of_estimator(resumed) == of_estimator(calm)
    assert names(folder) == named(7, 8)


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
def test_ctrl_c_loses_no_epoch(rows, tmp_path, event):
    """With every=10 the last whole epoch is written when Ctrl-C comes, whatever it comes amidst."""
    calls = []

    def interrupt(number, logs):
        calls.append(number)
        if event.startswith("on_epoch") and number == 3:
            raise KeyboardInterrupt
        if event == "on_train_batch_end" and len(calls) == 4:
            raise KeyboardInterrupt

    def fit(*callbacks, **arguments):
        # A learning rate that each epoch halves: twice in one epoch would show.
        halving = dasknn.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        return classifier([halving, *callbacks]).fit(
            *rows, checkpoint=Checkpoint(tmp_path / "folder", every=10), **arguments
        )

    calm = fit()
    for path in (tmp_path / "folder").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="interrupted by user"):
        broken = fit(LambdaCallback(**{event: interrupt}))
    assert broken.interrupted_
    assert names(tmp_path / "folder") == named(3)
    assert of_estimator(fit(resume=True)) == of_estimator(calm)


def test_a_training_that_is_interrupted_again_and_again_keeps_two_files(rows, tmp_path):
    calm = classifier().fit(*rows)
    for epoch in (1, 2, 3, 5):
        # A seed of its own for each, but for the first.
        model = classifier([stops_in(epoch)], seed=3 if epoch == 1 else epoch)
        with pytest.raises(Stops):
            model.fit(*rows, checkpoint=tmp_path, resume=True)
        assert names(tmp_path) == named(*range(max(1, epoch - 1), epoch + 1))
    # What a process leaves that is killed while it writes.
    (tmp_path / ".epoch-00006.safetensors.x81kd").write_bytes(b"half of it")
    resumed = classifier(seed=7).fit(*rows, checkpoint=str(tmp_path), resume=True)
    assert names(tmp_path) == named(5, 6)
    assert of_estimator(resumed) == of_estimator(calm)


# --- when it is written --------------------------------------------------------------------------------


def test_a_checkpoint_is_written_every_so_many_epochs_and_at_the_end(rows, tmp_path):
    seen = []
    watch = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(names(tmp_path)))
    classifier([watch], max_iter=8).fit(*rows, checkpoint=Checkpoint(tmp_path, every=3))
    assert seen == [[]] * 3 + [named(3)] * 3 + [named(3, 6)] * 2
    assert names(tmp_path) == named(6, 8)


def test_the_older_checkpoint_goes_only_after_the_new_one_is_whole(rows, tmp_path, monkeypatch):
    removed = []

    def remove(path):
        removed.append((os.path.basename(path), names(tmp_path)))
        os.unlink(path)

    monkeypatch.setattr(storage, "remove", remove)
    classifier(max_iter=4).fit(*rows, checkpoint=tmp_path)
    assert removed == [(named(1)[0], named(1, 2, 3)), (named(2)[0], named(2, 3, 4))]


def test_a_disk_that_is_full_does_not_end_training(rows, tmp_path, monkeypatch):
    fsync = os.fsync

    def full(handle):
        if any(f"epoch-0000{epoch}" in os.readlink(f"/proc/self/fd/{handle}") for epoch in (3, 4, 6)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    calm = classifier().fit(*rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = classifier().fit(*rows, checkpoint=tmp_path)
    said = [str(warning.message) for warning in caught if "checkpoint" in str(warning.message)]
    assert [text.split("(")[0] for text in said] == [
        f"The checkpoint of epoch {epoch} could not be written " for epoch in (3, 4, 6)
    ]
    assert all("No space left on device" in text for text in said)
    last = [os.path.basename(text.rstrip(".").split(" is ")[-1]) for text in said]
    assert last == named(2, 2, 5)
    assert of_estimator(model) == of_estimator(calm)
    # No temporary file is left, and the last whole one is: the one before had to make room.
    assert names(tmp_path) == named(5)
    monkeypatch.setattr(os, "fsync", fsync)
    assert of_estimator(classifier(seed=5).fit(*rows, checkpoint=tmp_path, resume=True)) == of_estimator(calm)


def test_where_there_is_room_for_two_checkpoints_one_is_kept_and_that_is_said(rows, tmp_path, monkeypatch):
    def fsync(handle):
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        if sum(sizes) > 2.5 * max(sizes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier().fit(*rows, checkpoint=tmp_path)
    said = [str(warning.message) for warning in caught if "checkpoint" in str(warning.message)]
    assert len(said) == 1
    assert re.search("no space in .* for 3 checkpoints .* keeps one from now on: .*epoch-00003", said[0])
    assert names(tmp_path) == named(classifier().max_iter)


def test_a_first_checkpoint_that_cannot_be_written_says_that_there_is_none(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.warns(UserWarning, match="epoch 1 could not be written .*broken.*last complete .* none yet"):
        classifier(max_iter=1).fit(*rows, checkpoint=tmp_path)
    assert names(tmp_path) == []


# --- files that are damaged ----------------------------------------------------------------------------


def cut(share):
    return lambda whole: whole[: int(len(whole) * share)]


def flipped(place):
    def flip(whole):
        changed = bytearray(whole)
        changed[place if place >= 0 else len(whole) + place] ^= 0x10
        return bytes(changed)

    return flip


DAMAGE = {
    "empty": cut(0),
    "cut in the header": cut(0.02),
    "cut in the middle": cut(0.5),
    "last byte missing": lambda whole: whole[:-1],
    "byte added": lambda whole: whole + b"\0",
    "zeros": lambda whole: bytes(len(whole)),
    "length": flipped(1),
    "header": flipped(90),
    "last byte": flipped(-1),
    "pickle": lambda whole: pickle.dumps(Bomb()),
}


class Bomb:
    """A pickle that leaves a trace."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(rows, tmp_path, damage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calm = classifier().fit(*rows)
    with pytest.raises(Stops):
        classifier([stops_in(4)]).fit(*rows, checkpoint="folder")
    newest = tmp_path / "folder" / named(4)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"damaged.* epoch 3: .*epoch-00004.safetensors is damaged"):
        resumed = classifier(seed=8).fit(*rows, checkpoint="folder", resume=True)
    assert of_estimator(resumed) == of_estimator(calm)
    assert names(tmp_path / "folder") == named(5, 6)
    assert not (tmp_path / "executed").exists()


def test_no_byte_can_be_changed_and_no_end_be_cut_unnoticed(rows, tmp_path):
    classifier(max_iter=1).fit(*rows, checkpoint=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    places = [*range(8), *range(header - 4, header + 4), *rng.integers(8, header, 150)]
    places += [*rng.integers(header, len(whole), 50)]
    altered = [flipped(int(place))(whole) for place in places]
    altered += [whole[: int(length)] for length in rng.integers(0, len(whole), 60)]
    for data in altered:
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match="All checkpoints in"):
            checkpoints.begin(tmp_path, resume=True)
    path.write_bytes(whole)
    assert checkpoints.begin(tmp_path, resume=True).found.epoch == 1


def test_a_damaged_checkpoint_takes_the_place_of_no_whole_one(rows, tmp_path):
    """Epoch 9 is damaged: 6 is not removed for 7 and 9, but for 7 and 8."""
    calm = classifier(max_iter=9).fit(*rows)
    classifier(max_iter=9).fit(*rows, checkpoint=Checkpoint(tmp_path, every=3))
    newest = tmp_path / named(9)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged checkpoint is skipped.* epoch 6"), pytest.raises(Stops):
        classifier([stops_in(7)], max_iter=9).fit(*rows, checkpoint=tmp_path, resume=True)
    assert names(tmp_path) == named(6, 7, 9)
    with pytest.warns(UserWarning, match="damaged checkpoint is skipped.* epoch 7"), pytest.raises(Stops):
        classifier([stops_in(8)], max_iter=9).fit(*rows, checkpoint=tmp_path, resume=True)
    assert names(tmp_path) == named(7, 8, 9)
    with pytest.warns(UserWarning, match="damaged checkpoint is skipped.* epoch 8"):
        resumed = classifier(max_iter=9).fit(*rows, checkpoint=tmp_path, resume=True)
    assert names(tmp_path) == named(8, 9)
    assert bits(resumed) == bits(calm)


def test_where_all_are_damaged_the_error_names_them(rows, tmp_path):
    classifier(max_iter=3).fit(*rows, checkpoint=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelFileError, match=r"All .* damaged: .*epoch-00003\.s.*epoch-00002\.s.* Remove"):
        classifier().fit(*rows, checkpoint=tmp_path, resume=True)


def test_a_model_in_the_place_of_a_checkpoint_is_passed_over(rows, tmp_path):
    calm = classifier().fit(*rows)
    with pytest.raises(Stops):
        classifier([stops_in(3)]).fit(*rows, checkpoint=tmp_path)
    calm.save(tmp_path / named(4)[0])
    with pytest.warns(UserWarning, match="Expected a checkpoint of a training"):
        resumed = classifier(seed=4).fit(*rows, checkpoint=tmp_path, resume=True)
    assert bits(resumed) == bits(calm)


# --- trainings that are over ---------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_training_that_its_rule_has_stopped_is_not_taken_up_again(rows, tmp_path, early_stopping):
    def fit(max_iter=60, callbacks=(), **arguments):
        rule = {"early_stopping": early_stopping, "n_iter_no_change": 2, "tol": 0.05}
        return classifier(callbacks, max_iter=max_iter, **rule).fit(*rows, checkpoint=tmp_path, **arguments)

    calm, counts = fit(), Counts()
    assert calm.n_iter_ < 60
    assert names(tmp_path)[-1] == named(calm.n_iter_)[0]
    again = fit(100, [counts], resume=True)
    assert counts.epochs == 0
    assert of_estimator(again) == of_estimator(calm)


def test_a_sequential_that_was_stopped_early_is_not_taken_up_again(rows, tmp_path):
    def fit(epochs, *callbacks, **arguments):
        dasknn.set_random_seed(1)
        model = small()
        stopping = EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True)
        history = model.fit(
            *rows,
            epochs=epochs,
            verbose=0,
            callbacks=[stopping, *callbacks],
            checkpoint=tmp_path,
            **arguments,
        )
        return of_sequential(model, history)

    calm, counts = fit(9), Counts()
    assert calm["epoch"] == [0, 1]
    assert fit(20, counts, resume=True) == calm
    assert counts.epochs == 0


def test_a_training_that_ended_at_max_iter_returns_at_once_and_goes_on_with_more(rows, tmp_path):
    calm, longer = classifier(max_iter=4).fit(*rows), classifier(max_iter=7).fit(*rows)
    classifier(max_iter=4).fit(*rows, checkpoint=tmp_path)
    counts = Counts()
    again = classifier([counts], seed=9, max_iter=4).fit(*rows, checkpoint=tmp_path, resume=True)
    assert counts.epochs == 0
    assert of_estimator(again) == of_estimator(calm)
    more = classifier([counts], seed=9, max_iter=7).fit(*rows, checkpoint=tmp_path, resume=True)
    assert counts.epochs == 3
    assert of_estimator(more) == of_estimator(longer)


def test_a_training_that_diverged_keeps_its_last_good_epoch(rows, tmp_path):
    def leap(epoch, logs):
        if epoch == 3:
            model.training.learning_rate = 1e300

    model = LambdaCallback(on_epoch_begin=leap)
    regressor = MLPRegressor(hidden_layer_sizes=(4,), solver="sgd", random_state=0, callbacks=[model])
    with np.errstate(all="ignore"), pytest.raises(NonFiniteLossError):
        regressor.fit(*rows, checkpoint=Checkpoint(tmp_path, every=2))
    assert names(tmp_path) == named(2, 3)
    assert_array_equal(
        safetensors_file.read(tmp_path / named(3)[0])[1]["state.params"], regressor._members[0]
    )


# --- another training ----------------------------------------------------------------------------------

OTHER_ESTIMATORS = {
    "layers": ({"hidden_layer_sizes": (5, 3)}, "layer: [Dense, Dense] there, [Dense, Dense, Dense] here"),
    "units": ({"hidden_layer_sizes": (9,)}, "layer 0.units: 5 there, 9 here"),
    "activation": ({"activation": "tanh"}, "layer 0.activation: relu there, tanh here"),
    "optimizer": ({"solver": "sgd"}, "optimizer: Adam there, SGD here"),
    "rate": ({"learning_rate_init": 0.1}, "optimizer.learning_rate: 0.001 there, 0.1 here"),
    "penalty": ({"alpha": 0.5}, "regularizer.strength: 0.0001 there, 0.5 here"),
    "batch_size": ({"batch_size": 30}, "batch_size: 20 there, 30 here"),
    "shuffle": ({"shuffle": False}, "shuffle: True there, False here"),
    "tol": ({"tol": 0.5}, "tol: 0.0 there, 0.5 here"),
    "patience": ({"n_iter_no_change": 3}, "n_iter_no_change: 10 there, 3 here"),
    "seed": ({"random_state": 8}, "random_state: 0 there, 8 here"),
    "dtype": ({"dtype": "float32"}, "dtype: float64 there, float32 here"),
    "early stopping": ({"early_stopping": True}, "early_stopping: False there, True here"),
    "weights of classes": ({"class_weight": {0: 2}}, "weights of classes: None there, [2.0, 1.0] here"),
    "callbacks": (
        {"callbacks": [EarlyStopping("loss")]},
        "callbacks: [Patience] there, [Patience, EarlyStopping] here",
    ),
}


@pytest.mark.parametrize(("other", "expected"), OTHER_ESTIMATORS.values(), ids=OTHER_ESTIMATORS)
def test_a_checkpoint_of_an_estimator_with_other_settings_is_refused(rows, tmp_path, other, expected):
    classifier(random_state=0, max_iter=2).fit(*rows, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="differs from this one: ") as caught:
        classifier(**({"random_state": 0} | other)).fit(*rows, checkpoint=tmp_path, resume=True)
    assert expected in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("there", ["numpy", "numba"])
def test_a_resumed_training_keeps_its_engine(rows, tmp_path, monkeypatch, there):
    version = engines.numba_version() or pytest.skip("numba is missing")
    data, here = on_dask(rows), {"numpy": "numba", "numba": "numpy"}[there]
    described = {"numpy": "numpy", "numba": f"numba {version}"}

    def resume(**settings):
        return classifier(random_state=0, **settings).fit(*data, checkpoint=tmp_path, resume=True)

    classifier(random_state=0, max_iter=1, engine=there).fit(*data, checkpoint=tmp_path)
    expected = re.escape(f"engine: {described[there]} there, {described[here]} here")
    with pytest.raises(ValueError, match=expected):
        resume(engine=here)
    assert "as before the training was resumed" in resume(max_iter=2).engine_reason_
    if there == "numba":
        monkeypatch.setattr(engines, "numba_version", lambda: None)
        with pytest.raises(EngineError, match="or start over in another folder with engine='numpy'"):
            resume(max_iter=3)


def test_a_checkpoint_of_other_data_is_refused(rows, tmp_path):
    X, y = rows
    classifier(max_iter=2).fit(X, y, checkpoint=tmp_path / "here")
    classifier(max_iter=2, strategy="weights", replicas=2).fit(*on_dask(rows), checkpoint=tmp_path / "dask")
    names = np.array(["no", "yes"])
    for folder, data, settings, expected in (
        ("here", (X[1:], y[1:]), {}, "rows: 240 there, 239 here"),
        ("here", (X[:, 1:], y), {}, "features: 4 there, 3 here"),
        ("here", (X, names[y]), {}, "classes: [0, 1] there, [no, yes] here"),
        ("here", (X, y, np.ones(240)), {}, "sample_weight: False there, True here"),
        ("here", on_dask(rows), {}, "trains: in this process there, by replicas here"),
        ("dask", on_dask(rows, (100, 20, 50, 70)), {}, "partition 2.rows: 60 there, 50 here"),
        ("dask", on_dask(rows, (100, 20, 120)), {}, "rows: 60] there, [rows: 100, rows: 20, rows: 120] here"),
        ("dask", on_dask(rows), {"replicas": 3}, "replicas: 2 there, 3 here"),
        ("dask", on_dask(rows), {"strategy": "gradients"}, "WeightAveraging there, GradientAveraging here"),
        (
            "dask",
            on_dask(rows),
            {"strategy": WeightAveraging(every=7)},
            "strategy.every: epoch there, 7 here",
        ),
    ):
        settings = ({"strategy": "weights", "replicas": 2} if folder == "dask" else {}) | settings
        with pytest.raises(ValueError, match="differs from this one") as caught:
            classifier(**settings).fit(*data, checkpoint=tmp_path / folder, resume=True)
        assert expected in str(caught.value)


OTHER_SEQUENTIALS = {
    "metrics": ({"metrics": ["accuracy"]}, {}, "metrics: [BinaryAccuracy, AUC] there, [BinaryAccuracy] here"),
    "loss": ({"loss": "mse"}, {}, "loss: BinaryCrossentropy there, MeanSquaredError here"),
    "schedule": (
        {"optimizer": optimizers.Adam(schedules.ExponentialDecay(0.1, 10, 0.5), use_ema=True)},
        {},
        "optimizer.learning_rate: 0.01 there, ExponentialDecay here",
    ),
    "steps": ({}, {"steps_per_epoch": 2}, "steps_per_epoch: None there, 2 here"),
    "patience": (
        {},
        {"callbacks": [EarlyStopping("loss", patience=9)]},
        "callbacks 0.patience: 5 there, 9 here",
    ),
    "validation": ({}, {"validation_split": 0.5}, "validation rows: None there, 120 here"),
    "class_weight": ({}, {"class_weight": {1: 3.0}}, "class_weight: None there, 1: 3.0 here"),
}


@pytest.mark.parametrize(
    ("compiled", "arguments", "expected"), OTHER_SEQUENTIALS.values(), ids=OTHER_SEQUENTIALS
)
def test_a_checkpoint_of_a_sequential_with_other_settings_is_refused(
    rows, tmp_path, compiled, arguments, expected
):
    def fit(model, **arguments):
        stopping = {"callbacks": [EarlyStopping("loss", patience=5)]}
        model.fit(*rows, verbose=0, checkpoint=tmp_path, **(stopping | arguments))

    fit(small())
    with pytest.raises(ValueError, match="differs from this one: ") as caught:
        fit(small(**compiled), resume=True, epochs=4, **arguments)
    assert expected in str(caught.value)


def test_the_two_faces_refuse_each_others_checkpoints(rows, tmp_path):
    classifier(max_iter=1).fit(*on_dask(rows), checkpoint=tmp_path / "a")
    small().fit(*rows, verbose=0, checkpoint=tmp_path / "b")
    with pytest.raises(ValueError, match="model: MLPClassifier there, Sequential here"):
        small().fit(*on_dask(rows), verbose=0, checkpoint=tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match="model: Sequential there, MLPClassifier here"):
        classifier().fit(*on_dask(rows), checkpoint=tmp_path / "b", resume=True)


def test_what_is_shown_or_keeps_nothing_may_change(rows, tmp_path, capsys):
    calm = classifier().fit(*rows)
    with pytest.raises(Stops):
        classifier([stops_in(3)], verbose=True).fit(*rows, checkpoint=tmp_path)
    resumed = classifier(
        [dasknn.callbacks.BackupAndRestore(tmp_path / "backup")], seed=9, verbose=2, max_iter=6
    ).fit(*rows, checkpoint=tmp_path, resume=True)
    assert bits(resumed) == bits(calm)
    assert "Iteration 3, loss" in capsys.readouterr().out


class Remembers(Callback):
    """A callback of a user's, which sets the learning rate by what it has counted, in numpy's types."""

    def __init__(self, verbose=0):
        self.verbose = verbose
        self.count, self.losses = np.float32(0.5), np.zeros(3, np.float32)
        # In numpy 2 a product with it is float64; with one of Python's floats it would be float32.
        self.third = np.float64(1) / 3
        self.seen, self.by_name = [], {"rates": [], "none": None}

    def on_epoch_begin(self, epoch, logs=None):
        # In place: also of the epoch that is interrupted.
        self.losses *= np.float32(0.5)

    def on_epoch_end(self, epoch, logs=None):
        self.count = self.count * np.float32(0.9)
        self.losses[1:] = self.losses[:-1]
        self.losses[0] = logs["loss"]
        self.seen.append((epoch, logs["loss"]))
        self.by_name["rates"].append(float((self.losses * self.third).sum()))
        self.training.learning_rate = self.count * self.losses.sum() * np.float32(0.01)


def test_callbacks_of_users_go_on_with_their_numbers_and_dtypes(rows, tmp_path):
    def fit(watching, *callbacks, **arguments):
        return classifier([watching, *callbacks], dtype="float32").fit(*rows, **arguments)

    first, last = Remembers(), Remembers(verbose=5)
    calm = fit(first)
    with pytest.raises(Stops):
        fit(Remembers(), stops_in(3), checkpoint=Checkpoint(tmp_path, every=10))
    assert of_estimator(fit(last, checkpoint=tmp_path, resume=True)) == of_estimator(calm)
    assert type(last.count) is np.float32
    assert (last.count, last.losses.dtype, last.verbose) == (first.count, np.float32, 5)
    assert [tuple(item) for item in last.seen] == first.seen
    assert last.by_name == first.by_name


def test_what_no_file_can_hold_is_said_in_the_first_epoch(rows, tmp_path):
    def add(epoch, logs):
        logs["odd"] = object()

    with pytest.raises(TypeError, match="odd is <object"):
        classifier([LambdaCallback(on_epoch_end=add)]).fit(*rows, checkpoint=Checkpoint(tmp_path, every=3))


# --- where it is written -------------------------------------------------------------------------------


@pytest.fixture
def memory():
    """A folder in fsspec's memory; a URL."""
    store = fsspec.filesystem("memory")
    yield "memory://training/run"
    store.rm("/training", recursive=True)


def test_checkpoints_go_to_an_object_store(rows, memory, recwarn):
    store = fsspec.filesystem("memory")
    calm = classifier().fit(*rows)
    with pytest.raises(Stops):
        classifier([stops_in(4)]).fit(*rows, checkpoint=memory)
    assert storage.names(memory) == named(3, 4)
    newest = f"{memory}/{named(4)[0]}"
    store.pipe_file(newest, store.cat_file(newest)[:-5])
    with pytest.warns(UserWarning, match="memory://training/run/epoch-00004.safetensors is damaged"):
        resumed = classifier(seed=8).fit(*rows, checkpoint=Checkpoint(memory), resume=True)
    assert of_estimator(resumed) == of_estimator(calm)
    assert storage.names(memory) == named(5, 6)


def test_an_object_store_that_fails_does_not_end_training(rows, memory, monkeypatch):
    store = fsspec.filesystem("memory")
    move = type(store).mv

    def fail(self, old, new, **settings):
        if named(2)[0] in new:
            # Stores have errors of their own kinds.
            raise RuntimeError("503 Slow Down")
        move(self, old, new, **settings)

    monkeypatch.setattr(type(store), "mv", fail)
    with pytest.warns(UserWarning, match="epoch 2 could not be written .*503 Slow Down.* is memory://"):
        classifier(max_iter=3).fit(*rows, checkpoint=memory)
    assert storage.names(memory) == named(1, 3)


def test_a_folder_that_holds_checkpoints_is_refused_without_resume(rows, tmp_path):
    folder = tmp_path / "new" / "folder"
    classifier(max_iter=2).fit(*rows, checkpoint=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for fit in (classifier().fit, small().fit):
        with pytest.raises(FileExistsError, match=r"newest of epoch 2.*resume=True.*another folder"):
            fit(*rows, checkpoint=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_files_in_the_folder_are_left_alone(rows, tmp_path):
    others = {"notes.txt", "epoch-1.safetensors", "epoch-00001.safetensors.bak", ".hidden"}
    for name in others:
        (tmp_path / name).write_text("mine")
    classifier(max_iter=4).fit(*rows, checkpoint=tmp_path)
    classifier(max_iter=5).fit(*rows, checkpoint=tmp_path, resume=True)
    assert set(names(tmp_path)) == others | set(named(4, 5))
    assert all((tmp_path / name).read_text() == "mine" for name in others)


def test_resume_begins_at_the_beginning_where_there_is_nothing(rows, tmp_path):
    calm = classifier().fit(*rows)
    assert bits(classifier().fit(*rows, checkpoint=tmp_path / "none", resume=True)) == bits(calm)
    assert names(tmp_path / "none") == named(5, 6)


def test_arguments_that_make_no_sense_are_refused(rows, tmp_path):
    for fit in (classifier().fit, small().fit):
        with pytest.raises(ValueError, match=r"Expected the folder to resume from.* Pass checkpoint="):
            fit(*rows, resume=True)
        with pytest.raises(ValueError, match=r"Expected checkpoint to be a folder.*received 3"):
            fit(*rows, checkpoint=3)
    with pytest.raises(ValueError, match="every to be an integer of at least 1, received 0"):
        Checkpoint(tmp_path, every=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        classifier().fit(*rows, checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match="nowhere"):
        classifier().fit(*rows, checkpoint="nowhere://folder")


def test_without_a_seed_the_numbers_of_the_process_are_left_alone(rows, tmp_path):
    """random_state=None draws from the stream of the process; a resumed fit draws by itself."""

    def fit(*callbacks, **arguments):
        model = classifier(callbacks, random_state=None, early_stopping=True)
        return model.fit(*rows, checkpoint=tmp_path, **arguments)

    np.random.seed(5)
    calm = classifier(random_state=None, early_stopping=True).fit(*rows)
    left = np.random.get_state()[1].copy()
    np.random.seed(5)
    with pytest.raises(Stops):
        fit(stops_in(3))
    np.random.seed(6)
    resumed = fit(resume=True)
    assert of_estimator(resumed) == of_estimator(calm)
    assert (np.random.get_state()[1] != left).any()


def test_what_is_kept_is_json_and_arrays(rows, tmp_path):
    classifier(max_iter=2, early_stopping=True).fit(*rows, checkpoint=tmp_path)
    description, arrays = safetensors_file.read(tmp_path / named(2)[0])
    assert description["epoch"] == 2
    json.dumps(description)
    assert {"state.params", "state.slots", "transport.order"} <= set(arrays)
