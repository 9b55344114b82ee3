"""The same bits over any network: long ways, lost packets, both kinds of links, several workers on a host."""

import pytest
from in_a_lab import there_is_a_lab  # noqa: F401
from netlab_training import DASK_PORTS, DaskLab
from test_coming_and_going import DEADLINE, calm_bits, told

from dasknn import GradientAveraging, OuterNesterov, WeightAveraging

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("there_is_a_lab"), pytest.mark.timeout(240)]

N_EPOCHS = 2
STRATEGIES = {
    "gradients": GradientAveraging(),
    "weights": WeightAveraging(every=2, outer=OuterNesterov()),
    "delayed": GradientAveraging(delay=1),
}


@pytest.fixture(scope="module", params=[1, 2], ids=["hosts of 1", "hosts of 2"])
def hosts(request, there_is_a_lab):  # noqa: F811
    """Two hosts with one worker each, or two hosts of which one has two."""
    with DaskLab(2) as hosts:
        if request.param == 2:
            hosts.workers.append(hosts.start_worker(1))
        yield hosts, len(hosts.workers)


@pytest.fixture(scope="module")
def expected():
    """What one process gives."""
    return {name: calm_bits(N_EPOCHS, strategy=strategy) for name, strategy in STRATEGIES.items()}


@pytest.mark.parametrize(
    ("delay", "loss", "links"),
    [
        (0.0, 0.0, "sockets"),
        (2.5e-3, 0.0, "sockets"),
        (10e-3, 0.0, "sockets"),
        (1e-3, 0.01, "sockets"),
        (2.5e-3, 0.0, "dask"),
    ],
    ids=["0", "5 ms", "20 ms", "1 % lost", "5 ms, dask's links"],
)
def test_networks_change_no_bit(hosts, expected, delay, loss, links):
    cluster, n_workers = hosts
    cluster.lab.delay(delay)
    cluster.lab.loss(loss)
    if links == "dask":
        cluster.lab.firewall(DASK_PORTS, hosts=cluster.worker_hosts)
    try:
        for name, strategy in STRATEGIES.items():
            fit = cluster.train(N_EPOCHS, strategy=strategy, transport="peer")
            result = fit.until_end(DEADLINE)
            assert result["bits"] == expected[name], name
            assert not result["events"]
            assert len(told(result, "firewall")) == (links == "dask")
            assert len(fit.epochs[-1].workers) == n_workers
    finally:
        cluster.lab.firewall()
        cluster.lab.loss(0.0)
        cluster.lab.delay(0.0)
