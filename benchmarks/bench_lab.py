"""What a training loses when hosts come and go in a network, in a lab of namespaces on this machine.

Each row is a training on three or four workers, each on a host of its own. "lost" is the longest time in
which no epoch ended, "log" how many messages said something of it. "same bits": as in this process, in calm.
It needs root, Linux and a C compiler, and tells so where they lack.

    sudo python benchmarks/bench_lab.py --silence 15
"""

import argparse
import multiprocessing
import os
import signal
import time
import warnings

import dask
from netlab import missing
from netlab_training import DASK_PORTS, DaskLab, Fit, bits, classifier

# Seconds; how long anything may take.
DEADLINE = 180
PRELOAD = ("--preload", "dasknn.cluster.comeback")
# Nannies in a lab must not fork from a process outside of it.
NANNIES = {"distributed.worker.multiprocessing-method": "spawn"}


def vanish(hosts: DaskLab, fit: Fit, *cut: int, seconds: float) -> str:
    """Cut hosts off for so many seconds; return how long they took to be back after that."""
    hosts.lab.cut(*cut)
    fit.during(seconds)
    hosts.lab.join(*cut)
    joined, names = time.monotonic(), [f"{hosts.lab.address(host)}:" for host in cut]
    if not set(cut) <= set(hosts.worker_hosts):
        fit.epochs_more(3, DEADLINE)
        return ""
    try:
        back = fit.until(lambda epoch: all(name in " ".join(epoch.workers) for name in names), 60)
    except TimeoutError:
        return "never"
    return f"{back.at - joined:.0f} s"


def die(hosts: DaskLab, fit: Fit) -> str:
    """Kill two workers at one moment."""
    for worker in hosts.workers[:2]:
        os.kill(worker.process.pid, signal.SIGKILL)
    fit.until(lambda epoch: len(epoch.workers) == len(hosts.workers) - 2, DEADLINE)
    return ""


# What happens, in which transports, with how many workers and which options, and how it is done.
SCENARIOS = [
    ("a host vanishes for 20 s", ("peer", "tasks"), 3, {}, lambda *at: vanish(*at, 1, seconds=20)),
    ("a host vanishes for 40 s", ("peer",), 3, {"nannies": True}, lambda *at: vanish(*at, 1, seconds=40)),
    (
        "the same, with the preload",
        ("peer", "tasks"),
        3,
        {"nannies": True, "words": PRELOAD},
        lambda *at: vanish(*at, 1, seconds=40),
    ),
    ("two hosts vanish for 20 s", ("peer",), 4, {}, lambda *at: vanish(*at, 1, 2, seconds=20)),
    ("two workers are killed", ("peer", "tasks"), 4, {}, die),
    ("no scheduler for 10 s", ("peer", "tasks"), 3, {}, lambda *at: vanish(*at, 0, seconds=10)),
    ("no client for 10 s", ("peer", "tasks"), 3, {}, lambda *at: vanish(*at, 4, seconds=10)),
]


def run(transport: str, n_workers: int, options: dict, happen, silence: float) -> tuple:
    """Return (seconds lost, how long until hosts were back, faults, messages, whether bits are the same)."""
    config = {"dasknn.silence": silence, **(NANNIES if options.get("nannies") else {})}
    with DaskLab(n_workers, config=config, **options) as hosts:
        hosts.lab.delay(0.0005)
        fit = hosts.train(transport=transport, pause=0.2)
        fit.epochs_more(5, DEADLINE)
        began = time.monotonic()
        back = happen(hosts, fit)
        result = fit.stop(DEADLINE)
    model, X, y = classifier()
    with dask.config.set(scheduler="synchronous"):
        calm = model.set_params(max_iter=result["n_epochs"]).fit(X, y)
    return fit.longest_gap(began), back, result["n_faults"], len(result["log"]), bits(calm) == result["bits"]


def firewall(silence: float) -> str:
    """Return how long the first epochs of three fits took behind a firewall that lets only Dask through."""
    with DaskLab(3, config={"dasknn.silence": silence}) as hosts:
        calm = hosts.train(2, transport="peer", repeats=2)
        usual = first_epochs(calm)[1]
        hosts.lab.firewall(DASK_PORTS, hosts=hosts.worker_hosts)
        fit = hosts.train(2, transport="peer", repeats=4)
        seconds = ", ".join(f"{found:.1f}" for found in first_epochs(fit)[1:])
        told = sum("firewall" in message for _, message in fit.result["log"])
    return (
        f"a firewall: told {told} times; seconds until epoch 1 of fits 2, 3, 4: {seconds}; open {usual:.1f}"
    )


def first_epochs(fit: Fit) -> list[float]:
    """Return the seconds until the first epoch of each of the fits of a training."""
    fit.until_end(DEADLINE)
    at = [epoch.at for epoch in fit.epochs]
    return [at[i] - at[max(i - 1, 0)] for i, epoch in enumerate(fit.epochs) if epoch.number == 0]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a training loses when hosts come and go.")
    parser.add_argument("--silence", type=float, default=15, help="dasknn.silence, in seconds")
    silence = parser.parse_args().silence
    warnings.simplefilter("ignore")
    if lacking := missing():
        print(f"A lab needs {lacking}.")
        return
    multiprocessing.set_forkserver_preload(["netlab_training", "dask.dataframe", "dasknn.training.transport"])
    print(
        f"{'what happens':<30}{'transport':<11}{'lost':>8}{'back':>8}{'faults':>8}{'log':>5}{'same bits':>11}"
    )
    for name, transports, n_workers, options, happen in SCENARIOS:
        for transport in transports:
            lost, back, n_faults, n_told, same = run(transport, n_workers, options, happen, silence)
            told = f"{back:>8}{n_faults:>8}{n_told:>5}{'yes' if same else 'NO':>11}"
            print(f"{name:<30}{transport:<11}{lost:>6.1f} s{told}", flush=True)
    print(firewall(silence))


if __name__ == "__main__":
    main()
