"""What all searches of `bench_search.py` try, and what is measured of them; it needs nothing of dasknn."""

import os
import threading
import time

import psutil
from scipy.stats import loguniform

HIDDEN = [(64,), (128,), (128, 64), (256, 128)]
PARAMETERS = {
    "hidden_layer_sizes": HIDDEN,
    "learning_rate_init": loguniform(3e-4, 1e-2),
    "alpha": loguniform(1e-7, 1e-3),
}
N_TRIALS, MAX_ITER, ETA, SEED, SHARE = 24, 9, 3, 0, 0.15


class Watch:
    """The most memory of each worker, and the bytes over the machine's own network."""

    def __init__(self, client):
        self._processes = [psutil.Process(pid) for pid in client.run(_pid).values()]
        self._stop = threading.Event()
        self._before = _bytes()
        self.began = time.perf_counter()
        self.most = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while not self._stop.wait(0.2):
            for process in self._processes:
                try:
                    # Jobs of joblib and trials may start processes of their own.
                    whole = [process, *process.children(recursive=True)]
                    self.most = max(self.most, sum(one.memory_info().rss for one in whole))
                except psutil.Error:
                    continue

    def end(self):
        self._stop.set()
        self._thread.join()
        seconds = time.perf_counter() - self.began
        return {"seconds": seconds, "MiB": self.most / 2**20, "MB moved": (_bytes() - self._before) / 1e6}


def _bytes():
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent


def _pid():
    return os.getpid()
