"""A training in a storm: another process kills a random worker every 5 to 20 seconds, and starts new ones.

For each transport, a storm of so many seconds; then the same training on a calm cluster, whose weights must
be the same to the last bit. Exit code 1: they were not.

    python benchmarks/soak.py --seconds 600
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import dask.array as da
from dask.distributed import Client, LocalCluster

from dasknn import MLPClassifier
from dasknn.callbacks import Callback
from dasknn.cluster.faults import JOINED, LOST

N_WORKERS, MOST_WORKERS = 2, 4
N_ROWS, N_FEATURES, N_PARTITIONS = 200_000, 54, 16


def chaos(address, seed, end, told):
    """Keep workers at work, and kill one of them now and then; in a process of its own."""
    rng = random.Random(seed)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    command += ["--nthreads", "1", "--memory-limit", "0"]

    def start():
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    workers = [start() for _ in range(N_WORKERS)]
    n_killed = 0
    try:
        while not end.wait(rng.uniform(5, 20)):
            victim = workers.pop(rng.randrange(len(workers)))
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            n_killed += 1
            # Sometimes two come for the one that went, and sometimes none.
            wanted = min(MOST_WORKERS, max(N_WORKERS, len(workers) + rng.choice([0, 1, 1, 2])))
            workers += [start() for _ in range(wanted - len(workers))]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        told.put(n_killed)


class Until(Callback):
    """Stops a training after so many seconds, and says every half minute how it goes."""

    def __init__(self, seconds):
        self.ends = time.monotonic() + seconds
        self.tells = time.monotonic()

    def state(self):
        return None

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        if now > self.tells:
            events = [event for entry in self.training.history for event in entry["faults"]]
            lost = sum(event["what"] == LOST for event in events)
            print(f"  epoch {epoch + 1}, loss {logs['loss']:.4f}, {lost} workers lost", flush=True)
            self.tells = now + 30
        self.training.stop_training = now > self.ends


def data():
    X = da.random.default_rng(0).standard_normal(
        (N_ROWS, N_FEATURES), chunks=(N_ROWS // N_PARTITIONS, -1), dtype="float32"
    )
    y = ((X[:, 0] * X[:, 1] > 0) + 2 * (X[:, 2] > 0.5)).astype(int)
    return X, y


def train(client, transport, n_epochs, callbacks=()):
    model = MLPClassifier(
        (128, 64),
        strategy="gradients",
        transport=transport,
        batch_size=2048 if transport == "tasks" else 512,
        replicas=4,
        max_iter=n_epochs,
        tol=0,
        n_iter_no_change=10**9,
        learning_rate_init=1e-4,
        random_state=0,
        callbacks=list(callbacks),
    )
    model.client = client
    return model.fit(*data(), max_faults=10**6)


def weights_of(model):
    digest = hashlib.sha256()
    for part in (*model.coefs_, *model.intercepts_):
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def storm(transport, seconds, seed):
    """Return the model, the number of workers killed, and the seconds that it took."""
    context = multiprocessing.get_context("spawn")
    end, told = context.Event(), context.Queue()
    cluster = LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=logging.CRITICAL)
    with cluster, Client(cluster) as client:
        demon = context.Process(target=chaos, args=(cluster.scheduler_address, seed, end, told))
        demon.start()
        try:
            client.wait_for_workers(N_WORKERS, timeout=120)
            began = time.monotonic()
            model = train(client, transport, 10**6, [Until(seconds)])
            took = time.monotonic() - began
        finally:
            end.set()
            demon.join(60)
        n_killed = told.get(timeout=10)
    return model, n_killed, took


def calm(transport, n_epochs):
    cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        began = time.monotonic()
        model = train(client, transport, n_epochs)
        return model, time.monotonic() - began


def report(transport, seconds, seed):
    """Print a line of the table; return whether the weights were the same."""
    print(f"\nstorm, {transport}", flush=True)
    model, n_killed, took = storm(transport, seconds, seed)
    print(f"calm, {transport}: {model.n_iter_} epochs", flush=True)
    twin, calm_seconds = calm(transport, model.n_iter_)
    entries = model.history_
    events = [event for entry in entries for event in entry["faults"]]
    lost = [event for event in events if event["what"] != JOINED]
    same = weights_of(model) == weights_of(twin)
    return {
        "transport": transport,
        "seconds": f"{took:.0f}",
        "epochs": model.n_iter_,
        "killed": n_killed,
        "joined": sum(event["what"] == JOINED for event in events),
        "survived": len(lost),
        "epochs repeated": sum(any(e["error"] for e in entry["faults"]) for entry in entries),
        "seconds lost": f"{sum(event['seconds'] for event in events):.1f}",
        "most": f"{max((event['seconds'] for event in events), default=0):.1f}",
        "calm run": f"{calm_seconds:.0f}",
        "same bits": "yes" if same else "NO",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of storm in all")
    parser.add_argument("--transport", choices=["peer", "tasks"], action="append")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("dasknn").setLevel(logging.ERROR)
    transports = args.transport or ["peer", "tasks"]
    rows = [report(transport, args.seconds / len(transports), args.seed) for transport in transports]
    print("\n" + " | ".join(rows[0]))
    for row in rows:
        print(" | ".join(str(value).rjust(len(name)) for name, value in row.items()))
    sys.exit(any(row["same bits"] != "yes" for row in rows))


if __name__ == "__main__":
    main()
