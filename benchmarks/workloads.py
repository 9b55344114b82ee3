"""Data, and what peers are asked to do with it. PyTorch is optional: its columns stay empty."""

import os
import socket
import time

import numpy as np
from tables import covertype, fashion

try:
    import torch
except ImportError:
    torch = None


def load(name):
    """Return X, y, X_test, y_test of "covertype" or "fashion-mnist", columns scaled, float32.

    From the folder DASKNN_DATA, or else by scikit-learn's fetchers.
    """
    X, y, X_test, y_test = {"covertype": covertype, "fashion-mnist": fashion}[name]()
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    deviation[deviation == 0] = 1
    if name == "fashion-mnist":
        # Pixels of one size: dividing each by its own deviation would magnify the empty ones.
        mean, deviation = 0, 255
    scaled = [np.ascontiguousarray((part - mean) / deviation, dtype=np.float32) for part in (X, X_test)]
    return scaled[0], y.astype(np.int64), scaled[1], y_test.astype(np.int64)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- PyTorch --------------------------------------------------------------------------------------------


def join_gloo(rank, port):
    """Make this process one of two ranks of gloo, with one thread."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)


def leave_gloo():
    """End this process, rank 0 last: a rank that loses the others while it takes gloo down aborts."""
    torch.distributed.barrier()
    time.sleep(0.5 * (torch.distributed.get_rank() == 0))
    os._exit(0)


def torch_network(n_inputs, hidden, n_outputs):
    widths = [n_inputs, *hidden]
    layers = []
    for width, units in zip(widths[:-1], hidden, strict=True):
        layers += [torch.nn.Linear(width, units), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], n_outputs))


class TorchTraining:
    """Epochs of Adam on X, y in this process; `parallel` wraps the network in DDP."""

    def __init__(self, X, y, hidden, batch, rate=1e-3, parallel=False):
        torch.manual_seed(0)
        self.X, self.y, self.batch = torch.from_numpy(X), torch.from_numpy(y), batch
        self.network = torch_network(X.shape[1], hidden, int(y.max()) + 1)
        if parallel:
            self.network = torch.nn.parallel.DistributedDataParallel(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
        self.loss = torch.nn.CrossEntropyLoss()

    def epoch(self, most_steps=None):
        """Train for an epoch; return its seconds and steps."""
        began = time.perf_counter()
        order = torch.randperm(len(self.X))
        n_steps = min(-(-len(self.X) // self.batch), most_steps or len(self.X))
        for step in range(n_steps):
            rows = order[step * self.batch : (step + 1) * self.batch]
            self.optimizer.zero_grad()
            self.loss(self.network(self.X[rows]), self.y[rows]).backward()
            self.optimizer.step()
        return time.perf_counter() - began, n_steps

    def accuracy(self, X, y):
        with torch.no_grad():
            found = self.network(torch.from_numpy(X)).argmax(1).numpy()
        return float((found == y).mean())
