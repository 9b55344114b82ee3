"""The lab itself: hosts that reach each other, or do not, and of which nothing is left."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from in_a_lab import there_is_a_lab  # noqa: F401
from netlab import Lab

pytestmark = [pytest.mark.usefixtures("there_is_a_lab"), pytest.mark.timeout(120)]

SERVER = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            data = b""
            while part := connection.recv(65536):
                data += part
            connection.sendall(sys.argv[2].encode() + b" got %d, %d" % (len(data), sum(data)))
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as connection:
    connection.settimeout(60)
    connection.sendall(bytes(range(250)) * int(sys.argv[4]))
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(1000).decode())
"""
PYTHON = [sys.executable, "-SE", "-c"]


def serve(lab, host, port=7000, name="it"):
    server = lab.run(host, *PYTHON, SERVER, port, name, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    return server


def ask(lab, host, other, port=7000, seconds=60, n=1):
    """What a server says, or None if it cannot be reached within so many seconds."""
    words = [lab.address(other), port, seconds, n]
    asking = lab.run(host, *PYTHON, ASK, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said, _ = asking.communicate(timeout=90)
    return said.strip() or None


@pytest.fixture
def lab(there_is_a_lab):  # noqa: F811
    with Lab(3) as lab, serve(lab, 0):
        yield lab
        lab.__exit__(None, None, None)


def test_hosts_reach_each_other(lab):
    assert ask(lab, 1, 0) == ask(lab, 0, 0) == f"it got 250, {sum(range(250))}"


def test_a_host_that_is_cut_off_is_not_reached_until_it_joins(lab):
    for cut in (0, 1):
        lab.cut(cut)
        assert ask(lab, 1, 0, seconds=1) is None
        lab.join(cut)
        assert ask(lab, 1, 0)
    lab.cut(2)
    assert ask(lab, 1, 0)


def test_a_firewall_drops_what_begins_elsewhere_and_counts_it(lab):
    with serve(lab, 0, 7001):
        lab.firewall((7001, 7010), (8000, 8000), hosts=[0])
        assert ask(lab, 1, 0, seconds=1) is None
        n_blocked = lab.n_blocked
        assert n_blocked
        assert ask(lab, 1, 0, 7001)
        lab.firewall()
        assert ask(lab, 1, 0)
        assert lab.n_blocked == n_blocked
        lab.run(0, "true").wait()
        # Its context waits for the server.
        lab.__exit__(None, None, None)


def test_everything_arrives_in_a_network_that_is_slow_and_loses_much(lab):
    lab.delay(0.005)
    lab.loss(0.02)
    lab.rate(1, 2_000_000)
    assert ask(lab, 1, 0, n=2000) == f"it got 500000, {2000 * sum(range(250))}"
    lab.loss(1)
    assert ask(lab, 1, 0, seconds=1) is None


def test_labs_do_not_meet():
    with ExitStack() as stack:
        labs = [stack.enter_context(Lab(2)) for _ in range(2)]
        servers = [serve(lab, 0, name=str(number)) for number, lab in enumerate(labs)]
        assert [ask(lab, 1, 0)[:1] for lab in labs] == ["0", "1"]
    for server in servers:
        server.stdout.close()


def test_nothing_is_left_of_a_lab_whose_process_is_killed(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from netlab import Lab\n"
        "with Lab(2) as lab:\n"
        "    print(lab._switch.pid, lab.run(0, 'sleep', '1000').pid, flush=True); time.sleep(1000)"
    )
    folder = os.path.dirname(sys.modules["netlab"].__file__)
    with subprocess.Popen([*PYTHON, code, folder], stdout=subprocess.PIPE, text=True) as owner:
        pids = owner.stdout.readline().split()
        assert all(map(is_running, pids))
        owner.kill()
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
