"""The HTTP routes of the page: content, and the two changes (judge, undo)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloudcover.data import tables
from cloudcover.review.pictures import Pictures
from cloudcover.review.queue import Queue
from cloudcover.review.security import Guard
from cloudcover.review.verdicts import ConflictError, Seen, Verdicts

HERE = Path(__file__).parent
NEIGHBOURS = 18
"""Number of other chips of the scene that are shown below a chip."""
PICTURES = ("true", "false", "masks")


class Review:
    """The handlers of all routes.

    Args:
        queue: Labels to judge.
        pictures: Pictures of the chips.
        verdicts: Storage of the verdicts.
    """

    def __init__(self, queue: Queue, pictures: Pictures, verdicts: Verdicts) -> None:
        self.queue, self.pictures, self.verdicts = queue, pictures, verdicts
        self.token, self.version = secrets.token_urlsafe(32), secrets.token_hex(4)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined
        )
        self._page = environment.get_template("page.html.j2").render(
            reviewer=verdicts.reviewer, verdicts=str(verdicts.path), audited=queue.audited,
            predicted=pictures.predictions is not None, false_colour=pictures.false_colour,
        )  # fmt: skip

    def page(self, request: Request) -> Response:
        """Return the page."""
        return Response(self._page, media_type="text/html")

    def session(self, request: Request) -> Response:
        """Return everything the page needs once: token, filter options, progress."""
        return JSONResponse(
            {
                "token": self.token,
                "reviewer": self.verdicts.reviewer,
                "verdicts": str(self.verdicts.path.resolve()),
                "version": self.version,  # part of the picture URLs, because another store has other pictures
                "false_colour": self.pictures.false_colour,
                "predicted": self.pictures.predictions is not None,
                "options": self.queue.options(),
                "progress": self._progress(),
            }
        )

    def chips(self, request: Request) -> Response:
        """Return the list: id, suspicion, verdict and its time for each chip, in order."""
        table = self.queue.select(self.verdicts.rows(), request.query_params)
        suspicion = [None if s != s else round(s, 3) for s in table["suspicion"].tolist()]
        rows = zip(table["chip_id"], suspicion, table["verdict"], table["time"], strict=True)
        return JSONResponse({"chips": list(rows), "progress": self._progress()})

    def chip(self, request: Request) -> Response:
        """Return all details of a chip."""
        chip_id = self._known(request.path_params["chip_id"])
        row = self.verdicts.rows().get(chip_id)
        return JSONResponse(
            {
                **self.queue.describe(chip_id),
                "prediction": self.pictures.agreement(chip_id),
                "verdict": row._asdict() if row else None,
                "neighbours": self.queue.neighbours(chip_id, NEIGHBOURS),
            }
        )

    def picture(self, request: Request) -> Response:
        """Return a picture of a chip; browsers may cache small ones, because their URL names the session's version."""
        chip_id, name = self._known(request.path_params["chip_id"]), request.path_params["name"]
        small = "small" in request.query_params
        if name not in PICTURES or (name == "false" and not self.pictures.false_colour):
            raise HTTPException(404, "no such picture")
        headers = {"Cache-Control": "private, max-age=86400, immutable"} if small else {}
        if name == "masks":
            return Response(self.pictures.masks(chip_id, small), media_type="application/octet-stream", headers=headers)
        body = self.pictures.colours(chip_id, name, small)
        return Response(body, media_type="image/jpeg" if small else "image/bmp", headers=headers)

    async def judge(self, request: Request) -> Response:
        """Give `chips` the `verdict` (empty: remove theirs) with a `reason`; `seen`: chip -> [verdict, time]."""
        body = await _body(request)
        chips, verdict, reason = body.get("chips"), body.get("verdict"), body.get("reason", "")
        if not (isinstance(chips, list) and chips and all(isinstance(c, str) for c in chips)):
            raise HTTPException(400, "chips must be a list of chip ids")
        if verdict not in ("", *tables.VERDICTS.options["verdict"]) or not isinstance(reason, str):
            raise HTTPException(400, "verdict must be bad, clean, unsure or empty, and reason must be text")
        for chip in chips:
            self._known(chip)
        seen = _seen(body.get("seen", {}))
        return await self._change(lambda: (self.verdicts.judge(chips, verdict, reason, seen), chips))

    async def undo(self, request: Request) -> Response:
        """Undo a change, given by its number `change`."""
        change = (await _body(request)).get("change")
        if not isinstance(change, int):
            raise HTTPException(400, "change must be a number")
        return await self._change(lambda: (None, self.verdicts.undo(change)))

    async def _change(self, make: Callable[[], tuple[int | None, list[str]]]) -> Response:
        """Make a change; respond with 409 and the current chips if another tab was first."""
        try:
            number, chips = await run_in_threadpool(make)
        except ConflictError as error:
            return JSONResponse({"error": str(error), "rows": self._rows(error.chip_ids)}, 409)
        except KeyError:
            raise HTTPException(410, "the server was restarted in the meantime: judge the chip again instead") from None
        except (tables.TableError, OSError) as error:
            raise HTTPException(500, f"not saved: {error}") from None
        return JSONResponse({"change": number, "rows": self._rows(chips), "progress": self._progress()})

    def _rows(self, chip_ids: Iterable[str]) -> dict[str, list[str]]:
        rows = self.verdicts.rows()
        return {c: [rows[c].verdict, rows[c].time] if c in rows else ["", ""] for c in chip_ids}

    def _progress(self) -> dict[str, Any]:
        return self.queue.progress(self.verdicts.rows(), self.verdicts.reviewer)

    def _known(self, chip_id: str) -> str:
        """Refuse anything but the id of a labelled chip; ids never become paths."""
        if chip_id not in self.queue.table.index:
            raise HTTPException(404, "this chip has no label")
        return chip_id


def make_app(review: Review, port: int, key: str) -> Guard:
    """Create the application with its guard; `key` is the reviewer's key."""
    files = {name: (HERE / name).read_bytes() for name in ("review.css", "review.js")}
    kinds = {"review.css": "text/css", "review.js": "text/javascript"}

    def file(request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return Response(files[name], media_type=kinds[name])

    routes = [
        Route("/", review.page),
        *[Route(f"/{name}", file) for name in files],
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/api/session", review.session),
        Route("/api/chips", review.chips),
        Route("/api/chips/{chip_id}", review.chip),
        Route("/api/chips/{chip_id}/{name}", review.picture),
        Route("/api/verdicts", review.judge, methods=["POST"]),
        Route("/api/undo", review.undo, methods=["POST"]),
    ]
    handlers = {HTTPException: _explain, ValueError: _broken, OSError: _broken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port, review.token, key)


def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # the only kind it is registered for
    return JSONResponse({"error": error.detail}, error.status_code)


def _broken(request: Request, error: Exception) -> Response:
    """Respond to an unusable file, such as a table edited in the meantime; the message names it."""
    return JSONResponse({"error": str(error)}, 500)


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be an object")
    return body


def _seen(value: Any) -> dict[str, Seen]:
    """Parse from JSON what the page knew; an empty verdict means none."""
    if not isinstance(value, dict):
        raise HTTPException(400, "seen must be an object")
    try:
        return {str(chip): (str(verdict), str(time)) if verdict else None for chip, (verdict, time) in value.items()}
    except (TypeError, ValueError):
        raise HTTPException(400, "seen must hold [verdict, time] per chip") from None
