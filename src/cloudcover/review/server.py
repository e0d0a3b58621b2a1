"""Starting the page: files are read and locked first, then the port is opened, on loopback only."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import uvicorn

from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.review.app import Review, make_app
from cloudcover.review.pictures import Pictures
from cloudcover.review.predictions import Predictions, newest
from cloudcover.review.queue import Queue
from cloudcover.review.security import KEY, own_key
from cloudcover.review.verdicts import Verdicts

LOOPBACK = "127.0.0.1"


class ReviewError(ValueError):
    """The page cannot be started; the message says what to change."""


def default_reviewer() -> str:
    """Git's `user.name`, or the login name.

    Raises:
        ReviewError: neither is known, as in a container whose user has no entry.
    """
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
        if name := done.stdout.strip():
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ReviewError("nothing says who judges: give your name with --reviewer") from None


def load(store: Path, audit: Path | None, predictions: list[Path], verdicts: Verdicts) -> Review:
    """Read what the page shows.

    Args:
        store: folder of the packed chips.
        audit: `tables.AUDIT`, or None.
        predictions: out-of-fold folders of one run, or none.
        verdicts: where verdicts go.

    Raises:
        ReviewError: no chip has a label.
        TableError: a table breaks its schema.
        PredictionsError: the predictions do not fit the store.
    """
    chips = ChipStore(store)
    queue = Queue(chips.index, tables.AUDIT.read(audit) if audit else None)
    if queue.table.empty:
        raise ReviewError(f"no chip of {store} has a label: there is nothing to review")
    size = chips.labels([queue.table.index[0]]).shape[-1]
    masks = Predictions(predictions, size) if predictions else None
    return Review(queue, Pictures(chips, masks), verdicts)


def serve(
    store: Path, audit: Path | None, verdicts: Path, predictions: Path, reviewer: str, port: int,
    ready: Callable[[str, Review], None],
) -> None:  # fmt: skip
    """Serve the page until it is interrupted.

    Args:
        store: folder of the packed chips.
        audit: `tables.AUDIT`, or None.
        verdicts: the file of verdicts.
        predictions: folder below which the newest out-of-fold predictions are looked for.
        reviewer: who judges.
        port: on loopback; 0 takes a free one.
        ready: called with the page's address, which holds the reviewer's key, once the port is open.

    Raises:
        ReviewError: the port is taken, or there is nothing to review.
        FolderBusyError: another review holds the file of verdicts.
    """
    with Verdicts(verdicts, reviewer) as held, socket.socket() as listener:
        review = load(store, audit, newest(predictions), held)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise ReviewError(f"port {port} cannot be used ({error.strerror}): --port 0 takes a free one") from None
        listener.listen()  # from here on the browser is answered, at the latest when uvicorn is up
        port = listener.getsockname()[1]
        file = verdicts.resolve()
        key = own_key(file.with_name(f".{file.name}.key"))
        ready(f"http://{LOOPBACK}:{port}/?{KEY}={key}", review)
        config = uvicorn.Config(
            make_app(review, port, key), log_level="warning", access_log=False, server_header=False, lifespan="off",
            ws="none", timeout_graceful_shutdown=2,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
