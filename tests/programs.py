"""Programs that tests start, each forked from a process that has imported what it needs."""

import json
import os
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

#: `dask` in the shell, for `serve_dask`: it needs no imports of its own.
ASKING = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


def run(output, own_session, function, args):
    """Call a function in this new process; what it writes goes to a file."""
    if own_session:
        os.setsid()
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Ctrl-C, which the process that was forked does not listen to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    function(*args)


def dask(*words):
    """Do what `dask` does in the shell, with the settings of this process's environment."""
    from dask import config
    from dask.__main__ import main

    config.refresh()
    sys.argv = ["dask", *map(str, words)]
    main()


def scheduler_without(package, file):
    """Be a scheduler where a package is not installed."""
    from distributed.cli.dask_scheduler import main

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    sys.modules[package] = None
    main(["--port", "0", "--dashboard-address", ":0", "--scheduler-file", str(file)])


def serve_dask(folder):
    """Put the command `dask` into a folder; a fork of this process runs it whenever it is called.

    This process must not have threads yet.
    """
    address = str(Path(folder) / "server")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        command = Path(folder) / "dask"
        command.write_text(ASKING.format(python=sys.executable, address=address))
        command.chmod(0o755)
        caller = os.getpid()
        if os.fork():
            return
        # Nobody waits for those that have ended.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        listener.settimeout(1)
        while os.getppid() == caller:
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)
                connection.close()
    os._exit(0)


def _answer(connection):
    """Run `dask` with the words, files, folder and environment of the process that asks."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    words, folder, environment = json.loads(connection.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        dask(*words)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code]))
        os._exit(0)
