"""Start of the page: files are read and locked first, then the port is opened, on loopback only."""

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
    """A page that cannot be started; the message says what to change."""


def default_reviewer() -> str:
    """Return git's `user.name`, or else the login name.

    Raises:
        ReviewError: Neither is known, as in a container whose user has no passwd entry.
    """
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
        if name := done.stdout.strip():
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ReviewError("the name of the reviewer is unknown: give it with --reviewer") from None


def load(store: Path, audit: Path | None, predictions: list[Path], verdicts: Verdicts) -> Review:
    """Read the content of the page.

    Args:
        store: Folder of the packed chips.
        audit: `tables.AUDIT`, or None.
        predictions: Out-of-fold folders of one run; may be empty.
        verdicts: Storage of the verdicts.

    Raises:
        ReviewError: No chip has a label.
        TableError: A table violates its schema.
        PredictionsError: The predictions do not match the store.
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
        store: Folder of the packed chips.
        audit: `tables.AUDIT`, or None.
        verdicts: CSV file of the verdicts.
        predictions: Folder to search for the newest out-of-fold predictions.
        reviewer: Name of the reviewer.
        port: Port on loopback; 0 picks a free one.
        ready: Function called with the page's URL, which contains the reviewer's key, once the port is open.

    Raises:
        ReviewError: The port is in use, or there is nothing to review.
        FolderBusyError: Another review holds the file of verdicts.
    """
    with Verdicts(verdicts, reviewer) as held, socket.socket() as listener:
        review = load(store, audit, newest(predictions), held)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise ReviewError(f"port {port} cannot be used ({error.strerror}): --port 0 picks a free one") from None
        listener.listen()  # from here on the browser gets a response, at the latest when uvicorn is up
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
