"""Real servers on loopback: Azurite, moto, and a web server that can misbehave."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from harness.azurite import Azurite, free_port, run_azurite


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Skips where there is no node, and fails where CI is set."""
    if not shutil.which("node") or not shutil.which("npm"):
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("node and npm are not installed: they run Azurite, the Azure emulator")
    with run_azurite() as server:
        yield server


@dataclass
class Moto:
    """A running S3 of moto."""

    url: str

    def upload(self, bucket: str, folder: Path, prefix: str = "", public: bool = True) -> None:
        """Upload the files below a folder to a new bucket."""
        import boto3
        import obstore
        from obstore.store import S3Store

        access = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **access)
        client.create_bucket(Bucket=bucket, ACL="public-read" if public else "private")
        store = S3Store(bucket, endpoint=self.url, region="us-east-1", client_options={"allow_http": True}, **access)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            obstore.put(store, prefix + path.relative_to(folder).as_posix(), path)


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Moto(f"http://{host}:{port}")
    server.stop()


@dataclass
class Trouble:
    """What the web server does instead of serving a file.

    Attributes:
        status: Status of the response.
        headers: Additional headers.
        body: Content sent instead of the file's bytes.
        cut: Number of bytes of the body after which the connection is dropped.
        delay: Wait before the response [s].
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    delay: float = 0.0


@dataclass
class Web:
    """A running web server of a folder.

    Attributes:
        trouble: Function of the path and the number of its requests so far (from 1); None serves the file.
        requests: (method, path, status, bytes sent, time [s]).
        etags, ranges: Whether it sends ETags, and parts of files.
        upstream: URL of another server that responds in place of the folder, such as `http://127.0.0.1:10000`.
    """

    url: str
    root: Path
    trouble: Callable[[str, int], Trouble | None] = lambda path, number: None
    requests: list[tuple[str, str, int, int, float]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    etags: bool = True
    ranges: bool = True
    upstream: str = ""

    def images_sent(self) -> list[str]:
        sent = [path for method, path, status, size, _ in self.requests if method == "GET" and status < 300 and size]
        return [path for path in sent if path.endswith(".tif")]


@contextmanager
def run_web(root: Path) -> Iterator[Web]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].lstrip("/")
            with lock:
                web.seen[path] += 1
                number = web.seen[path]
            trouble = web.trouble(path, number) or Trouble()
            time.sleep(trouble.delay)
            status, headers, body = trouble.status, dict(trouble.headers), trouble.body
            file = web.root / path
            if status == 200 and body is None and web.upstream:
                status, body = self.forwarded(headers)
            elif status == 200 and body is None:
                status, body = (200, file.read_bytes()) if file.is_file() else (404, b"<html>not found</html>")
                if status == 200:
                    status, body = self.conditional(body, headers)
            body = body or b""
            length = len(body) if trouble.cut is None else trouble.cut
            sent = b"" if self.command == "HEAD" else body[:length]
            with lock:
                web.requests.append((self.command, path, status, len(sent), time.monotonic()))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)
            if trouble.cut is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def forwarded(self, headers: dict[str, str]) -> tuple[int, bytes]:
            answer = requests.request(self.command, web.upstream + self.path, headers=dict(self.headers))
            for name in ("ETag", "Last-Modified", "Content-Range", "Content-Type", "Content-MD5"):
                if name in answer.headers:
                    headers.setdefault(name, answer.headers[name])
            return answer.status_code, answer.content

        def conditional(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            etag = f'"{hashlib.sha1(body).hexdigest()}x"'
            if web.etags:
                headers.setdefault("ETag", etag)
                if self.headers.get("If-None-Match") == etag:
                    return 304, b""
            wanted = self.headers.get("Range", "")
            if not web.ranges or not wanted or self.headers.get("If-Range", etag) != etag:
                return 200, body
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(body)) + 1, len(body))
            if start >= len(body):
                headers["Content-Range"] = f"bytes */{len(body)}"
                return 416, b""
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            return 206, body[start:end]

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # connections that arrive at once; beyond it they would wait for a second

        def handle_error(self, *arguments) -> None:
            pass  # clients that were killed

    server = Server(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_port}", root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with run_web(tmp_path / "remote") as server:
        yield server
