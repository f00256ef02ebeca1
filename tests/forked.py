"""Programs that have TensorFlow and more at once: forks of a process that has only imported it.

Importing it takes longer than most of what the tests run in processes of their own. A fork is a
program like any other: it has its own arguments, folder, environment, output and exit code, and it
imports this package by itself. A test of what an interpreter imports starts an interpreter.

`python tests/forked.py serve SOCKET` forks; `python tests/forked.py SOCKET ARGUMENTS` does what
`python ARGUMENTS` would do, and ends as that does. If it is killed, so is what it runs.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types

# Triton, which comes with PyTorch for CUDA, is first: see conftest.py.
_HEAVY = (
    "triton",
    "tensorflow",
    "tensorflow_datasets.public_api",
    "pandas",
    "apache_beam",
    "torch",
    "keras",
    "matplotlib.pyplot",
)


def command(*arguments: object) -> list[str]:
    """The command for subprocess of `python ARGUMENTS`; see `conftest.py` for the server."""
    # Without the site module: nothing but the standard library is used.
    return [sys.executable, "-S", "-E", __file__, os.environ["FORKED"], *map(str, arguments)]


def ask(path: str, arguments: list[str]) -> int:
    """Has a program run; returns its exit code, -N if signal N ended it."""
    what = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(what).encode()], [0, 1, 2])
        return os.waitstatus_to_exitcode(int(connection.recv(64)))


def serve(path: str) -> None:
    """Forks a program for each connection, until stdin ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while server in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if not gc.get_freeze_count():
                _import_what_is_heavy()
            if os.fork() == 0:
                server.close()
                _keep(connection)
            connection.close()


def _import_what_is_heavy() -> None:
    """Forks then share its million objects: nothing looks through them, so nothing copies them."""
    gc.set_threshold(50_000, 20, 50)  # as in conftest.py
    for name in _HEAVY:
        with contextlib.suppress(ImportError):  # the program's to find out
            __import__(name)
    gc.collect()
    gc.freeze()


def _keep(connection: socket.socket) -> None:
    """Runs a program in another fork and tells how it ended; kills it if nobody listens."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, fds, _, _ = socket.recv_fds(connection, 2**20, 3)
    program = os.fork()
    if program == 0:
        connection.close()
        _become(fds, **json.loads(message))
    for fd in fds:  # so that its pipes end with the program
        os.close(fd)
    ended = os.pidfd_open(program)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(program, signal.SIGKILL)
    status = os.waitpid(program, 0)[1]
    try:
        connection.send(str(status).encode())
    finally:
        os._exit(0)


def _become(fds: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    own = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = ["", *own]
    try:
        code = _run(*arguments)
    except SystemExit as e:
        code = e.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def _run(first: str, *others: str) -> None:
    if first == "-c":
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        sys.argv = ["-c", *others[1:]]
        exec(others[0], main.__dict__)
    elif first == "-m":
        sys.argv = [others[0], *others[1:]]
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *others]
        sys.path[0] = os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        code = ask(sys.argv[1], sys.argv[2:])
        if code < 0:
            os.kill(os.getpid(), -code)
        sys.exit(code)
