"""Learning curves that can be watched during a training (`compute.logger`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cloudcover.config.sections import Logger

Row = Mapping[str, float]
"""A row of `tables.HISTORY`: figures by name, including `epoch`."""


class LoggerError(ValueError):
    """A logger whose library is not installed."""


@contextmanager
def live_curves(logger: Logger, folder: Path, history: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
    """Open a logger and yield a function that records an epoch; each epoch is on disk when it returns.

    Args:
        logger: `none`, `dvclive` (TSV files) or `tensorboard` (event files).
        folder: Folder for the curves of this training. It is emptied first, because an earlier training may have left
            its own.
        history: Epochs that are already finished, for a resumed training; they are recorded again.

    Raises:
        LoggerError: The library of the logger is not installed; the message names its extra.
    """
    if logger == "none":
        yield lambda row: None
        return
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        try:
            record = stack.enter_context(_tensorboard(folder) if logger == "tensorboard" else _dvclive(folder))
        except ModuleNotFoundError as error:
            raise LoggerError(
                f'compute.logger: {logger} needs {error.name}: pip install "cloudcover[{logger}]", or set it to none'
            ) from error
        for row in history:
            record(row)
        yield record


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[Row], None]]:
    from torch.utils.tensorboard import SummaryWriter

    def record(row: Row) -> None:
        for name in _figures(row):
            writer.add_scalar(name, row[name], int(row["epoch"]))
        writer.flush()

    with SummaryWriter(str(folder)) as writer:
        yield record


@contextmanager
def _dvclive(folder: Path) -> Iterator[Callable[[Row], None]]:
    from dvclive.live import Live

    def record(row: Row) -> None:
        live.step = int(row["epoch"])
        for name in _figures(row):
            live.log_metric(name, row[name])
        live.make_summary()

    # The workflow has its own dvc.yaml, and its jobs must neither commit nor create experiments.
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        yield record


def _figures(row: Row) -> list[str]:
    return [name for name in row if name != "epoch"]
