"""Hosts that come and go in a network: the same bits, little time lost, and everybody back in the end."""

import os
import signal

import dask
import pytest
from in_a_lab import there_is_a_lab  # noqa: F401
from netlab_training import DASK_PORTS, DaskLab, bits, classifier

from dasknn.cluster.faults import JOINED, LOST, SILENT
from dasknn.cluster.process_group import ProcessGroup

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("there_is_a_lab"), pytest.mark.timeout(240)]

# Seconds; how long a test may wait for anything.
DEADLINE = 120
SILENCE = 3
TRANSPORTS = ["peer", "tasks"]


@pytest.fixture(scope="module")
def hosts(there_is_a_lab):  # noqa: F811
    """Three workers, without nannies: whoever ends does not come back."""
    with DaskLab(3, config={"dasknn.silence": SILENCE}) as hosts:
        hosts.lab.delay(0.0005)
        yield hosts


@pytest.fixture
def three(hosts):
    """The three workers; mends the network in the end."""
    yield hosts
    hosts.lab.join(*hosts.lab.hosts)
    hosts.lab.firewall()
    hosts.lab.delay(0.0005)


def begin(hosts, **settings):
    """A training that has begun, with pauses, so that there are few epochs to be repeated in calm."""
    fit = hosts.train(**{"pause": 0.1, "transport": "peer", **settings})
    fit.epochs_more(3, DEADLINE)
    return fit


def calm_bits(n_epochs, **settings):
    """What a training of so many epochs gives in this process."""
    settings.pop("transport", None)
    model, X, y = classifier(**settings)
    with dask.config.set(scheduler="synchronous"):
        return bits(model.set_params(max_iter=n_epochs).fit(X, y))


def told(result, *words):
    """Messages of the log with one of these words."""
    return [message for _, message in result["log"] if any(word in message for word in words)]


def kinds(result):
    return {event["what"] for event in result["events"]}


def worker_at(hosts, host):
    """What is in the address of the worker on a host, and in no other."""
    return f"{hosts.lab.address(host)}:"


def is_back(hosts, *wanted):
    return lambda epoch: all(worker_at(hosts, host) in " ".join(epoch.workers) for host in wanted)


# --- a host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_host_that_vanishes_is_left_out_and_is_back_in_an_epoch_after_it_returns(three, transport):
    fit = begin(three, transport=transport)
    three.lab.cut(2)
    fit.until(lambda epoch: not is_back(three, 2)(epoch), DEADLINE)
    three.lab.join(2)
    fit.until(is_back(three, 1, 2, 3), DEADLINE)
    result = fit.stop(DEADLINE)
    assert {SILENT, JOINED} <= kinds(result)
    assert result["bits"] == calm_bits(result["n_epochs"])


def test_a_host_that_was_away_for_longer_than_dask_waits_comes_back_with_the_preload():
    config = {
        "dasknn.silence": SILENCE,
        # The least that Dask takes; 30 s unless set.
        "distributed.comm.timeouts.tcp": "11s",
        # Its nannies must not ask a process outside of the lab for new ones.
        "distributed.worker.multiprocessing-method": "spawn",
    }
    words = ("--preload", "dasknn.cluster.comeback")
    with DaskLab(2, nannies=True, words=words, config=config) as hosts:
        fit = begin(hosts)
        hosts.lab.cut(1)
        # Until Dask itself has given it up.
        fit.until(lambda epoch: not is_back(hosts, 1)(epoch), DEADLINE)
        hosts.until_gone(hosts.lab.address(1), DEADLINE)
        hosts.lab.join(1)
        fit.until(is_back(hosts, 1, 2), DEADLINE)
        result = fit.stop(DEADLINE)
    assert result["bits"] == calm_bits(result["n_epochs"])


def test_hosts_that_vanish_at_one_moment_are_one_fault():
    with DaskLab(4, config={"dasknn.silence": SILENCE}) as hosts:
        fit = begin(hosts, max_faults=2)
        hosts.lab.cut(1, 2)
        fit.until(lambda epoch: len(epoch.workers) == 2, DEADLINE)
        hosts.lab.join(1, 2)
        fit.until(is_back(hosts, 1, 2, 3, 4), DEADLINE)
        # With a word this time: their machines live on and say that nobody is there any more.
        for worker in hosts.workers[:2]:
            os.kill(worker.process.pid, signal.SIGKILL)
        fit.until(lambda epoch: len(epoch.workers) == 2, DEADLINE)
        result = fit.stop(DEADLINE)
    assert len([event for event in result["events"] if event["what"] in (SILENT, LOST)]) >= 4
    assert result["n_faults"] == 2
    assert result["bits"] == calm_bits(result["n_epochs"])


# --- those that workers depend on -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "who"), [("peer", "scheduler"), ("peer", "client"), ("tasks", "scheduler")]
)
def test_without_scheduler_or_client_for_a_while_nothing_is_given_up_and_it_is_told(three, transport, who):
    fit = begin(three, transport=transport)
    host = three.scheduler_host if who == "scheduler" else three.client_host
    three.lab.cut(host)
    # More than twice the silence.
    fit.during(8)
    three.lab.join(host)
    fit.epochs_more(5, DEADLINE)
    result = fit.stop(DEADLINE)
    assert not result["events"]
    (away,) = told(result, "has not answered")
    (again,) = told(result, "answers again")
    assert three.address in away
    assert three.address in again
    assert result["bits"] == calm_bits(result["n_epochs"])


# --- firewalls ------------------------------------------------------------------------------------


def test_a_firewall_that_lets_only_dask_through_is_found_once_and_told_once(three):
    three.lab.firewall(DASK_PORTS, hosts=three.worker_hosts)
    fit = three.train(3, transport="peer", repeats=3)
    fit.epochs_more(3, DEADLINE)
    n_blocked = three.lab.n_blocked
    assert n_blocked
    result = fit.until_end(DEADLINE)
    assert three.lab.n_blocked == n_blocked
    (message,) = told(result, "firewall")
    assert "dasknn.ports" in message
    assert not result["events"]


# --- the rendezvous -------------------------------------------------------------------------------


class StopAt:
    """Holds a training at a point of the first rendezvous of its workers, until a message comes."""

    def __init__(self, point):
        self.point = point

    def __call__(self, talk):
        connect, together = ProcessGroup.connect, ProcessGroup._together
        left = ["before", "connecting"]

        def come_to(point):
            if point == self.point and point in left:
                left.remove(point)
                talk.send("here")
                talk.receive()

        def stopping_connect(self):
            come_to("before")
            return connect(self)

        def stopping_together(self, name, calls):
            if name == "dasknn-connect":
                self.executor.fetch = fetching(self.executor)
            return together(self, name, calls)

        def fetching(executor):
            def fetch(*args, **settings):
                del executor.fetch
                come_to("connecting")
                return executor.fetch(*args, **settings)

            return fetch

        ProcessGroup.connect, ProcessGroup._together = stopping_connect, stopping_together


@pytest.mark.parametrize("point", ["before", "connecting"])
def test_a_host_that_vanishes_while_workers_connect_is_left_out(three, point):
    # Slow, so that connecting takes its time.
    three.lab.delay(0.04)
    fit = three.train(transport="peer", pause=0.1, before=StopAt(point))
    fit.until_is_said("here", DEADLINE)
    three.lab.cut(3)
    fit.send("go on")
    fit.until(lambda epoch: len(epoch.workers) == 2, DEADLINE)
    three.lab.delay(0)
    three.lab.join(3)
    fit.until(is_back(three, 1, 2, 3), DEADLINE)
    result = fit.stop(DEADLINE)
    assert result["n_faults"] <= 2
    assert result["bits"] == calm_bits(result["n_epochs"])
