"""Access control: only the page itself may talk to the server.

Any user of this computer, and any web site open in its browser, can reach a port on loopback. The guard refuses

- requests without the reviewer's key: the opened URL contains it, and the page stores it in a cookie;
- requests with a `Host` other than loopback and this port: a site whose name was pointed at 127.0.0.1 (DNS rebinding);
- requests with another `Origin`, or from another site according to `Sec-Fetch-Site`: forged requests;
- changes without the token that only the page can read, without JSON, or longer than any selection of chips.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 4_000_000
"""Maximum length of a change [bytes], enough for 40,000 chips at once."""
TOKEN = "x-review-token"
KEY = "key"
"""Query parameter of the opened URL."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware that refuses foreign requests and adds `HEADERS` to every response.

    Args:
        app: The application.
        port: Port on which it listens.
        token: Token that changes must carry in the header `TOKEN`.
        key: Key that every request must carry, in its cookie or, for the page itself, in the URL.
    """

    def __init__(self, app: ASGIApp, port: int, token: str, key: str) -> None:
        self.app, self.token, self.key = app, token, key
        self.cookie = f"review-{port}"  # browsers do not separate cookies by port
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with 403 if `problem` finds one."""
        if scope["type"] != "http":
            return  # the page uses neither web sockets nor a lifespan

        request = HTTPConnection(scope)
        opened = scope["path"] == "/" and _equal(request.query_params.get(KEY, ""), self.key)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if opened and not problem:
                    headers["Set-Cookie"] = f"{self.cookie}={self.key}; Path=/; HttpOnly; SameSite=Strict"
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = self.problem(scope["method"], request.headers)
        if not problem and not opened and not _equal(request.cookies.get(self.cookie, ""), self.key):
            problem = "open the complete address printed by `cloudcover review`, including its key"
        app = JSONResponse({"error": problem}, 403) if problem else self.app
        await app(scope, receive, guarded)

    def problem(self, method: str, headers: Headers) -> str:
        """Explain why a request is refused; return an empty text if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return "this is not the address of the review page"
        if origin not in (None, f"http://{host}") or headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            return "another site may not use the review page"
        if method in ("GET", "HEAD"):
            return ""
        if origin is None or not _equal(headers.get(TOKEN, ""), self.token):
            return "the page's token is missing or out of date"
        if headers.get("content-type") != "application/json":
            return "a change must be JSON"
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            return f"a change must have a length of at most {LONGEST_BODY} bytes"
        return ""


def own_key(file: Path) -> str:
    """Return the reviewer's key, kept in a file that nobody else can read, so that an open page survives a restart."""
    with suppress(FileNotFoundError):
        stat = file.stat()
        if (
            stat.st_uid == os.geteuid()
            and not stat.st_mode & 0o077
            and (key := file.read_text(encoding="ascii").strip())
        ):
            return key
        file.unlink()
    key = secrets.token_urlsafe(32)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as output:
        output.write(key)
    return key


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())
