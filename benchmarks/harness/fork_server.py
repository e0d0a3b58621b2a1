"""A server that runs Python programs in forks of a process with imported libraries; started by `forked.py`.

    python benchmarks/harness/fork_server.py SOCKET

A request carries the standard streams of its client. The program runs as if Python had been started for it, except that
the libraries are already imported. No module of the project is, so a fork imports those that its PYTHONPATH names.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

# isort: split
with suppress(ImportError):  # a machine that only runs Snakemake needs none
    import docutils.core  # noqa: F401
    import dvc.cli.parser
    import dvc.commands.repro
    import dvc.compare
    import dvc.data_cloud
    import dvc.dependency
    import dvc.lock
    import dvc.output
    import dvc.repo.commit
    import dvc.repo.reproduce
    import dvc.repo.status
    import dvc.rwlock
    import dvc.stage.loader  # noqa: F401
    import dvc_render  # noqa: F401
    import networkx  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import scmrepo.git  # noqa: F401
import jinja2  # noqa: F401
import nbformat  # noqa: F401
import optuna  # noqa: F401
import pandas as pd  # noqa: F401
import rasterio  # noqa: F401
import scipy.stats  # noqa: F401
import segmentation_models_pytorch as smp  # noqa: F401
import sklearn.ensemble
import sklearn.metrics
import sklearn.model_selection  # noqa: F401
import smart_open  # noqa: F401
import snakemake.cli
import snakemake.executors.dryrun
import snakemake.executors.local
import snakemake.notebook
import snakemake.report  # noqa: F401
import torch


def main() -> None:
    """Serve requests until the standard input ends."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cloudcover"]:
        del sys.modules[name]
    own = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path not in (own, *os.environ.get("PYTHONPATH", "").split(":"))]
    gc.freeze()  # forks need not look through what they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who served an order needs no funeral
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                serve(connection)
            connection.close()


def serve(connection: socket.socket) -> None:
    """Run the requested program in a separate process, and respond with its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while part := connection.recv(1 << 16):
        text += part
    child = os.fork()
    if not child:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        run(**json.loads(text))
    interrupt_without_client(connection, child)
    with suppress(BrokenPipeError):
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def interrupt_without_client(connection: socket.socket, child: int) -> None:
    """Wait for the end of a program; interrupt it, as by Ctrl-C, if its client is killed."""
    watched = select.poll()
    watched.register(connection, 0)  # a hang-up is always reported
    watched.register(ended := os.pidfd_open(child), select.POLLIN)
    while ended not in dict(watched.poll()):
        os.kill(child, signal.SIGINT)
        watched.unregister(connection)


def run(executable: str, command: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become the program of a command line."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.executable = executable
    module = command[1] if command[0] == "-m" else None
    sys.argv = command[1:] if module else command
    own = folder if module else str(Path(command[0]).resolve().parent)
    sys.path[:0] = [own, *environment.get("PYTHONPATH", "").split(":")]
    torch.set_num_threads(1)  # its variable is read when torch is imported
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
