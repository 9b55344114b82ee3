"""Clusters that nobody has at hand: epochs and whole runs on up to 1,024 workers, simulated round by round.

A discrete-event model. Each worker computes for a while that varies; a sum is passed on as the algorithm of
`cluster.reduction` passes it, so a late worker delays those that wait for it; each wave of rounds goes
through the scheduler; faults come at random, and cost what they cost here: finding out, connecting again,
reading rows again, and the rounds of the wave once more. Figures are measured when the script starts.

    python benchmarks/simulate.py check                  2 to 16 processes of this machine, beside real epochs
    python benchmarks/simulate.py check --scheduler tcp://10.0.0.1:8786
    python benchmarks/simulate.py                        64, 256 and 1,024 workers
    python benchmarks/simulate.py --latency 1e-3 --gbit 1 --spread 0.2 --slow 0.02

What it leaves out: links that differ or share a bottleneck, switches that drop packets, a scheduler that has
other work, and memory.
"""

import argparse
import contextlib
import heapq
import io
import json
import os
import signal
import threading
import time
import warnings
from dataclasses import asdict, dataclass, replace
from statistics import median

import numpy as np
from bench_recommend import data, measure
from dask.distributed import Client, LocalCluster

import dasknn
from dasknn import GradientAveraging, MLPClassifier, OuterNesterov, PredictionAveraging, WeightAveraging
from dasknn.callbacks import Callback
from dasknn.cluster import reduction
from dasknn.cluster.reduction import DIRECT, DOUBLING, LinkCosts
from dasknn.training.cost_model import CostModel, Layout, last_of
from dasknn.training.probing import OFTEN_STEPS

STRATEGIES = {
    "gradients": GradientAveraging(),
    "gradients, delay=1": GradientAveraging(delay=1),
    "weights every 16, outer": WeightAveraging(every=16, outer=OuterNesterov()),
    "weights every epoch": WeightAveraging(),
    "predictions, members hop": PredictionAveraging(),
}
# As in `OnPeers`, and in the hopper.
WAVE_SECONDS, LEG_SECONDS = 2.0, 1.0
WAVES_IN_FULL = LEGS_IN_FULL = 20
HOUR = 3600.0


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes
    ----------
    step, row : float
        Seconds of a step whatever its rows, and of each row.
    apart : float
        What a step takes if replicas do not wait for one another after each, as a share of that.
    spread : float
        Standard deviation of the seconds of a step, as a share of them.
    links : LinkCosts
    wave_of_one, wave_of_each : float
        Seconds of an empty wave on one worker, and of each further worker.
    task : float
        Seconds of a task that does nothing, from the client and back.
    connecting : float
        Seconds of connecting, for each worker.
    noticing : float
        Seconds from the death of a worker until work resumes, less the rounds that are repeated.
    processors : float
        Of a host.
    row_bytes, params, slots : int
        Bytes of a row; numbers of the network, and vectors of the optimizer.
    """

    step: float
    row: float
    apart: float
    spread: float
    links: LinkCosts
    wave_of_one: float
    wave_of_each: float
    task: float
    connecting: float
    noticing: float
    processors: float
    row_bytes: int
    params: int
    slots: int


@dataclass(frozen=True)
class Job:
    """Rows, rows of a step over all replicas, and epochs."""

    n_rows: int
    batch: int
    epochs: int


class Cluster:
    """Workers in simulated time.

    Parameters
    ----------
    figures : Figures
    n_workers, n_hosts : int
    seed : int
    slow : float
        Share of workers that compute half as fast.
    """

    def __init__(self, figures, n_workers, n_hosts, seed, slow=0.0):
        self.figures, self.n = figures, n_workers
        self.rng = np.random.default_rng(seed)
        self.host = np.arange(n_workers) * n_hosts // n_workers
        per_host = n_workers / n_hosts
        self.crowding = max(1.0, per_host / figures.processors)
        self.leaders = np.unique(self.host, return_index=True)[1] if 1 < n_hosts < n_workers else None
        self.factor = np.where(self.rng.random(n_workers) < slow, 2.0, 1.0) * self.crowding
        self.spread = np.sqrt(np.log1p(figures.spread**2))

    def compute(self, seconds):
        """Return how long each worker computes what takes so many seconds on the mean one."""
        noise = self.rng.lognormal(-(self.spread**2) / 2, self.spread, self.n)
        return seconds * noise * self.factor

    def exchange(self, ready, n_bytes):
        """Return when each worker has the sum, given when each was ready."""
        if self.n == 1:
            return ready
        if self.leaders is None:
            return self._between(ready, n_bytes)
        # One of each host collects what the others have, and passes the sum on.
        of_hosts = np.maximum.reduceat(ready, self.leaders)
        within = self.n / len(self.leaders) * n_bytes * 0.5e-9 + 50e-6
        return self._between(of_hosts + within, n_bytes)[self.host] + within

    def _between(self, t, n_bytes):
        n = len(t)
        latency, overhead, per_byte = self.figures.links
        latency, overhead = latency * self.crowding, overhead * self.crowding
        algorithm = reduction.choose(n_bytes, n)
        if algorithm == DOUBLING:
            whole = latency + n_bytes * per_byte
            even = 1 << (n.bit_length() - 1)
            core, extra = t[:even].copy(), t[even:]
            core[: len(extra)] = np.maximum(core[: len(extra)], extra + whole)
            for step in range(even.bit_length() - 1):
                core = np.maximum(core, core[np.arange(even) ^ (1 << step)]) + whole
            return np.concatenate([core, core[: len(extra)] + whole])
        if algorithm == DIRECT:
            return np.full(n, t.max() + latency + (n - 2) * overhead + (n - 1) * n_bytes * per_byte)
        once = latency + (n - 2) * overhead + (n - 1) / n * n_bytes * per_byte
        return np.full(n, t.max() + 2 * once)

    def wave(self):
        """Return the seconds of a wave, without its rounds."""
        return self.figures.wave_of_one + (self.n - 1) * self.figures.wave_of_each


class Run:
    """A training in simulated time. per_hour: faults of one worker in an hour."""

    def __init__(self, cluster, job, strategy, per_hour):
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self.rate = per_hour * cluster.n / HOUR
        self.now = 0.0
        self.n_faults = 0
        # Rounds and seconds of waves, by how much longer the slowest worker computes since a fault.
        self.waves = {}
        self.hop_seconds = None
        self.next_fault = self._draw_fault()

    def _draw_fault(self):
        return self.now + self.cluster.rng.exponential(1 / self.rate) if self.rate else np.inf

    def train(self):
        """Return seconds of each epoch."""
        return [self.epoch() for _ in range(self.job.epochs)]

    def epoch(self):
        began = self.now
        # A worker that was lost has given its rows to another one until the next epoch.
        self.doubled = 1.0
        if isinstance(self.strategy, PredictionAveraging):
            self._hop(began)
        else:
            rounds, steps_of_round, n_bytes = self._rounds()
            done = 0
            while done < rounds:
                done += self._wave(rounds - done, steps_of_round, n_bytes)
        return self.now - began

    def _rounds(self):
        """Return rounds of an epoch, steps of each, and bytes of a vector."""
        job, figures = self.job, self.cluster.figures
        steps = -(-job.n_rows // job.batch)
        if isinstance(self.strategy, GradientAveraging):
            return steps, 1, 4 * figures.params
        # Replicas have a batch each.
        every = steps if self.strategy.every == "epoch" else min(self.strategy.every, steps)
        n_vectors = 1 + figures.slots
        return -(-steps // every), every, 4 * figures.params * n_vectors

    def _wave(self, left, steps, n_bytes):
        """Carry out the rounds of a wave; return how many, 0 if a fault came."""
        waves = self.waves.setdefault(self.doubled, [])
        if len(waves) < WAVES_IN_FULL:
            n, seconds = self._rounds_of_wave(left, steps, n_bytes)
            if n < left:
                waves.append((n, seconds))
        else:
            # Waves are alike, so the others are drawn from those that were simulated in full.
            n, seconds = waves[self.cluster.rng.integers(len(waves))]
            n, seconds = min(n, left), seconds * min(1.0, left / n)
        if self.next_fault < self.now + seconds:
            self._meet_fault()
            return 0
        self.now += seconds
        return n

    def _rounds_of_wave(self, left, steps, n_bytes):
        """Return how many rounds a wave has, and the seconds that it takes."""
        cluster, figures = self.cluster, self.cluster.figures
        rows = self.job.batch / cluster.n
        seconds = steps * (figures.step + figures.row * rows) * self.doubled
        if self.strategy.steps_apart:
            seconds *= figures.apart
        is_delayed = getattr(self.strategy, "delay", 0)
        before = t = computed = np.full(cluster.n, cluster.wave())
        n = 0
        while n < left and t.max() < WAVE_SECONDS + cluster.wave():
            if is_delayed and cluster.crowding == 1:
                # A step needs the sum of the step before the last one; its own goes out after that. On
                # processors that are full, an exchange takes its time from computing.
                computed = np.maximum(computed, before) + cluster.compute(seconds)
                before, t = t, cluster.exchange(np.maximum(computed, t), n_bytes)
            else:
                # Several steps vary less than one, as a share.
                took = seconds + (cluster.compute(seconds) - seconds) / np.sqrt(steps)
                t = cluster.exchange(t + took, n_bytes)
            n += 1
        return n, t.max()

    def _meet_fault(self):
        cluster, figures = self.cluster, self.cluster.figures
        self.n_faults += 1
        self.doubled = 2.0
        rows = self.job.n_rows / cluster.n
        again = rows * figures.row_bytes * figures.links.per_byte
        self.now = self.next_fault + figures.noticing + figures.connecting * cluster.n + again
        self.next_fault = self._draw_fault()

    def _hop(self, began):
        """Carry out an epoch of as many networks as workers, each of which visits the rows of all workers."""
        if self.hop_seconds is None:
            self.hop_seconds = self._legs()
        self.now = began + self.hop_seconds
        while self.next_fault < self.now:
            # A leg is done again, while other networks use the other workers.
            self.n_faults += 1
            at, self.now = self.now, self.next_fault
            self.next_fault = self._draw_fault()
            self.now = at + (LEG_SECONDS / 2 + self.cluster.figures.noticing) / self.cluster.n

    def _legs(self):
        """Return the seconds of an epoch without faults.

        A leg is about LEG_SECONDS of visits on one worker; where the worker that holds rows is busy, another
        one that has nothing to do takes a copy of them.
        """
        cluster, figures, n = self.cluster, self.cluster.figures, self.cluster.n
        rows = self.job.n_rows
        # As many rows in a step as one process takes.
        seconds = figures.apart * (rows / min(self.job.batch, rows) * figures.step + rows * figures.row)
        n_legs = max(1, round(seconds / LEG_SECONDS))
        # Long epochs are as many times a short one.
        n_simulated = min(n_legs, LEGS_IN_FULL)
        workers = [(0.0, worker) for worker in range(n)]
        networks = [(0.0, network, n_simulated) for network in range(n)]
        end = 0.0
        while networks:
            t, network, left = heapq.heappop(networks)
            free, worker = heapq.heappop(workers)
            noise = cluster.rng.lognormal(-(cluster.spread**2) / 2, cluster.spread)
            done = max(t, free) + seconds / n_legs * noise * cluster.factor[worker]
            heapq.heappush(workers, (done, worker))
            end = max(end, done + figures.task)
            if left > 1:
                heapq.heappush(networks, (done + figures.task, network, left - 1))
        return end * n_legs / n_simulated


# --- figures ---------------------------------------------------------------------------------------------


class Kill(Callback):
    """Kills a worker half-way through an epoch."""

    def __init__(self, pid, epoch):
        self.pid, self.epoch = pid, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.timer = threading.Timer(
                self.training.history[-1]["seconds"] / 2, os.kill, [self.pid, signal.SIGKILL]
            )
            self.timer.start()

    def on_train_end(self, logs=None):
        self.timer.join()


def recovery_seconds(hidden, batch):
    """Return the seconds that a worker's death costs on this machine, less the rounds that are repeated."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=60)
    with cluster, Client(cluster) as client:
        X, y = client.persist(data(40_000, 54, 4))
        pids = list(client.run(os.getpid).values())
        model = MLPClassifier(
            hidden, batch_size=batch, max_iter=6, replicas=2, random_state=0, dtype="float32"
        )
        model.callbacks = [Kill(pids[0], 3)]
        model.fit(X, y)
        events = [event for entry in model.history_ for event in entry["faults"]]
        usual = median(entry["seconds"] for entry in model.history_)
        return max(0.0, sum(event["seconds"] for event in events) - usual / 2)


def figures_of(client, arguments, noticing):
    """Measure the cluster of a client."""
    n = sum(client.nthreads().values())
    X, y = client.persist(data(arguments.check_rows, arguments.features, n))
    hidden = tuple(arguments.hidden)
    model = MLPClassifier(
        hidden, batch_size=arguments.check_batch, max_iter=1, random_state=0, dtype="float32", replicas=n
    ).fit(X, y)
    with contextlib.redirect_stdout(io.StringIO()):
        found = dasknn.recommend(client, model, X)
    measured, costs = found.measured, found.measured.cluster
    here = Layout(n, len(set(measured.hosts)), 1, n, arguments.check_batch / n)
    costs_of_steps = CostModel(measured, here, here)
    crowding = max(1.0, n / here.n_hosts / costs.n_processors)
    spread = measured.gradients.waiting / last_of(n) / measured.gradients.computing if n > 1 else 0.1
    return Figures(
        step=costs_of_steps.of_step / crowding,
        row=costs_of_steps.of_row / crowding,
        # Where processes share processors, one that waits in each step leaves its time to others.
        apart=measured.weights.computing / OFTEN_STEPS / measured.gradients.computing,
        spread=min(1.0, spread),
        links=costs.links,
        wave_of_one=costs.wave_of_one + 2 * measured.question,
        wave_of_each=max(0.0, measured.wave - costs.wave_of_one) / max(1, costs.n_workers - 1),
        task=costs.task_round,
        connecting=costs.connecting / costs.n_workers,
        noticing=noticing,
        processors=costs.n_processors,
        row_bytes=4 * arguments.features,
        params=model._network_.n_params,
        slots=2,
    )


# --- tables ----------------------------------------------------------------------------------------------


def check(client, arguments, figures, of_large_steps):
    """Print simulated beside real seconds of an epoch.

    of_large_steps: figures of a cluster of few workers, for networks that take steps of all rows of a batch.
    """
    n = sum(client.nthreads().values())
    n_hosts = len({address.split("//")[-1].split(":")[0] for address in client.nthreads()})
    X, y = client.persist(data(arguments.check_rows, arguments.features, n))
    for name, strategy in STRATEGIES.items():
        transport = "hop" if strategy.sees_all_rows else "peer"
        model = MLPClassifier(
            tuple(arguments.hidden),
            batch_size=arguments.check_batch,
            max_iter=6,
            random_state=0,
            dtype="float32",
            replicas=n,
            tol=0.0,
            n_iter_no_change=10,
        )
        real, _ = measure(model, X, y, strategy, transport)
        job = Job(arguments.check_rows, arguments.check_batch, 5)
        fitting = of_large_steps if strategy.sees_all_rows else figures
        seconds = median(Run(Cluster(fitting, n, n_hosts, 0), job, strategy, 0.0).train())
        print(f"{n:8} {name:28} {seconds:12.3f} {real:12.3f} {seconds / real:8.2f}", flush=True)


def simulate(figures, arguments):
    """Print epochs and whole runs of large clusters."""
    print(
        f"{arguments.rows:,} rows, {figures.params:,} parameters, {arguments.epochs} epochs; one fault an "
        f"hour for {arguments.workers_per_fault:g} workers"
    )
    print(
        f"{'workers':>8} {'strategy':28} {'batch':>8} {'epoch':>10} {'computing':>10} {'run':>10} "
        f"{'faults':>7} {'with faults':>12} {'lost':>7}"
    )
    for n in arguments.workers:
        for name, strategy in STRATEGIES.items():
            batch = arguments.batch or dasknn.strategies.auto.auto_batch_size(strategy, arguments.rows, n)
            job = Job(arguments.rows, batch, arguments.epochs)
            n_hosts = max(1, n // arguments.workers_per_host)
            one = replace(job, epochs=min(3, job.epochs))
            epoch = median(Run(Cluster(figures, n, n_hosts, 0, arguments.slow), one, strategy, 0.0).train())
            whole = epoch * job.epochs
            storm = Run(
                Cluster(figures, n, n_hosts, 1, arguments.slow),
                job,
                strategy,
                1 / arguments.workers_per_fault,
            )
            with_faults = sum(storm.train())
            steps = -(-job.n_rows // batch)
            computing = steps * (figures.step + figures.row * batch / n) / epoch
            if isinstance(strategy, PredictionAveraging):
                computing = job.n_rows * (figures.row + figures.step / min(batch, job.n_rows)) / epoch
            print(
                f"{n:8} {name:28} {batch:8,} {epoch:8.2f} s {min(1.0, computing):10.0%} "
                f"{whole / HOUR:8.3f} h {storm.n_faults:7} {with_faults / HOUR:10.3f} h "
                f"{max(0.0, with_faults / whole - 1):7.1%}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["simulate", "check"], default="simulate")
    parser.add_argument("--scheduler", help="address of a running one, on which figures are measured")
    parser.add_argument(
        "--figures", help="JSON file of measured figures: read, or written if it is not there"
    )
    parser.add_argument("--workers", type=int, nargs="*")
    parser.add_argument("--workers-per-host", type=int, default=1)
    parser.add_argument(
        "--workers-per-fault", type=float, default=50.0, help="so many have one fault an hour"
    )
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--features", type=int, default=54)
    parser.add_argument("--hidden", type=int, nargs="*", default=[256, 128])
    parser.add_argument(
        "--batch", type=int, help="rows of a step over all replicas; default: batch_size='auto'"
    )
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--latency", type=float, help="seconds of a message, instead of what was measured")
    parser.add_argument("--gbit", type=float, help="Gbit/s out of a worker, instead of what was measured")
    parser.add_argument("--spread", type=float, help="of the seconds of a step, as a share of them")
    parser.add_argument("--slow", type=float, default=0.0, help="share of workers at half speed")
    parser.add_argument("--check-rows", type=int, default=40_000)
    parser.add_argument("--check-batch", type=int, default=400)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.what == "check":
        print(f"{'workers':>8} {'strategy':28} {'simulated':>12} {'real':>12} {'ratio':>8}")
        base = None
        for place in [arguments.scheduler] if arguments.scheduler else arguments.workers or [2, 4, 8, 16]:
            with on(place) as client:
                figures = figures_of(client, arguments, 0.0)
                base = base or figures
                check(client, arguments, figures, replace(base, task=figures.task))
        return
    simulate(changed(figures_for(arguments), arguments), arguments)


@contextlib.contextmanager
def on(place):
    """Yield a client of a scheduler's address, or of so many processes of this machine."""
    if isinstance(place, str):
        with Client(place) as client:
            yield client
        return
    settings = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 60, "memory_limit": 0}
    with LocalCluster(n_workers=place, **settings) as cluster, Client(cluster) as client:
        yield client


def figures_for(arguments):
    """Return measured figures, from a file or anew."""
    if arguments.figures and os.path.exists(arguments.figures):
        with open(arguments.figures) as file:
            found = json.load(file)
        return Figures(**found | {"links": LinkCosts(*found["links"])})
    began = time.perf_counter()
    noticing = recovery_seconds(tuple(arguments.hidden), arguments.check_batch)
    with on(arguments.scheduler or 2) as client:
        figures = figures_of(client, arguments, noticing)
    print(f"measured in {time.perf_counter() - began:.0f} s: {figures}")
    if arguments.figures:
        with open(arguments.figures, "w") as file:
            json.dump(asdict(figures), file)
    return figures


def changed(figures, arguments):
    """Return the figures with what the options say."""
    latency, overhead, per_byte = figures.links
    latency = latency if arguments.latency is None else arguments.latency
    per_byte = per_byte if arguments.gbit is None else 8e-9 / arguments.gbit
    arguments.workers = arguments.workers or [64, 256, 1024]
    figures = replace(figures, links=LinkCosts(latency, min(overhead, latency), per_byte))
    if arguments.spread is not None:
        figures = replace(figures, spread=arguments.spread)
    # Workers of a large cluster have a processor each.
    return replace(figures, processors=max(figures.processors, arguments.workers_per_host))


if __name__ == "__main__":
    main()
