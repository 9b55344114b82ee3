"""What each fault costs: seconds from the beginning of what was lost until work went on, as the history says.

Two workers, 200,000 rows of 54 columns in memory, a 54-128-64-4 network. The fault comes in the middle of
the third of six epochs. The last column: whether weights are those of a calm run, to the last bit.
"""

import logging
import os
import signal
import threading
import warnings

import dask
from dask.distributed import Client, LocalCluster
from soak import train, weights_of

from dasknn.callbacks import Callback

TRANSPORTS = ["peer", "tasks"]
N_EPOCHS, EPOCH = 6, 2
# Seconds: Dask's default for dasknn is 15.
SILENCE = 5


def kill_one(client):
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


def kill_all(client):
    for pid in client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)


def pause_one(client):
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGSTOP)


def retire_one(client):
    client.retire_workers([next(iter(client.nthreads()))])


def join(client):
    client.cluster.scale(3)
    client.wait_for_workers(3, timeout=60)


FAULTS = {
    "a worker is killed": kill_one,
    "all workers are killed": kill_all,
    f"a worker is paused, silence={SILENCE}": pause_one,
    "a worker retires": retire_one,
    "a worker joins": join,
}


class InTheMiddle(Callback):
    """Calls a function half-way through an epoch; one that waits for workers, before it."""

    def __init__(self, function):
        self.function = function

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != EPOCH or self.function is None:
            return
        if self.function is join:
            self.function(self.model.client)
            return
        delay = self.training.history[-1]["seconds"] / 2
        self.timer = threading.Timer(delay, self.function, [self.model.client])
        self.timer.start()

    def on_train_end(self, logs=None):
        if hasattr(self, "timer"):
            self.timer.join()


def run(transport, function=None):
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=60)
    with cluster, Client(cluster) as client:
        # A process that imports for the first time would be timed, too.
        client.run(lambda: __import__("dasknn.training.transport"))
        return train(client, transport, N_EPOCHS, [InTheMiddle(function)])


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("dasknn").setLevel(logging.CRITICAL)
    dask.config.set({"dasknn.silence": SILENCE})
    print(f"{'transport':<10}{'fault':<36}{'events':<34}{'seconds':>8}{'epoch':>8}{'same bits':>11}")
    for transport in TRANSPORTS:
        calm = run(transport)
        usual = sorted(entry["seconds"] for entry in calm.history_)[N_EPOCHS // 2]
        for name, function in FAULTS.items():
            model = run(transport, function)
            events = [event for entry in model.history_ for event in entry["faults"]]
            kinds = [event["what"].removeprefix("worker ") for event in events]
            told = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
            seconds = sum(event["seconds"] for event in events)
            same = "yes" if weights_of(model) == weights_of(calm) else "NO"
            print(f"{transport:<10}{name:<36}{told:<34}{seconds:>8.1f}{usual:>8.1f}{same:>11}", flush=True)


if __name__ == "__main__":
    main()
