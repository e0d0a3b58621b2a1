"""Requests: bodies of known length, in chunks, until the end; broken answers; kept connections; redirects; proxies."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from cloudcover.sources.remote import connection
from cloudcover.sources.remote.errors import DownloadError
from cloudcover.sources.remote.http import Client

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that gives an answer per request, on one connection while it lasts; returns its netloc."""
    listeners: list[socket.socket] = []

    def start(*answers: bytes, close: bool = False, requests: list[bytes] | None = None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        left = list(answers)

        def run() -> None:
            while left:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    while left:
                        request = b""
                        while b"\r\n\r\n" not in request:
                            if not (more := peer.recv(4096)):
                                break
                            request += more
                        if not request:
                            break
                        if requests is not None:
                            requests.append(request)
                        peer.sendall(left.pop(0))
                        if close:
                            break

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def answer(content: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(content)}", *headers))
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + content


def chunked(parts: list[bytes]) -> bytes:
    chunks = b"".join(f"{len(part):X};x=1\r\n".encode() + part + b"\r\n" for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"


def fetched(client: Client, url: str, folder: Path) -> bytes:
    """What a client brings from an address."""
    client.run(client.download(url, folder / "part", "file", lambda part, received: None))
    return (folder / "part").read_bytes()


def test_one_connection_serves_many_requests(serve, tmp_path):
    requests: list[bytes] = []
    netloc = serve(answer(b"one"), chunked([b"tw", b"o" * 20]), answer(b""), requests=requests)
    with Client(attempts=1) as client:
        bodies = [fetched(client, f"http://{netloc}/{i}%20?sig=a%2Fb%3D", tmp_path) for i in range(3)]
    assert bodies == [b"one", b"tw" + b"o" * 20, b""]
    assert requests[1].startswith(b"GET /1%20?sig=a%2Fb%3D HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_body_without_length_ends_with_the_connection(serve, tmp_path):
    netloc = serve(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True)
    with Client(attempts=1) as client:
        assert fetched(client, f"http://{netloc}/", tmp_path) == b"all of it"


def test_the_length_of_a_file_is_asked_for_without_its_body(serve):
    netloc = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n")
    with Client(attempts=1) as client:
        assert client.run(client.length(f"http://{netloc}/", "file")) == 9
        assert client.run(client.length(f"http://{netloc}/", "file")) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(300)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
def test_a_broken_answer_is_tried_again(serve, tmp_path, broken):
    netloc = serve(broken, answer(b"whole"), close=True)
    with Client(attempts=2, backoff_s=0) as client:
        assert fetched(client, f"http://{netloc}/", tmp_path) == b"whole"


def test_a_kept_connection_that_the_server_closed_is_no_failure(serve, tmp_path):
    netloc = serve(answer(b"one"), answer(b"two"), close=True)
    with Client(attempts=2, backoff_s=0) as client:
        assert [fetched(client, f"http://{netloc}/", tmp_path) for _ in range(2)] == [b"one", b"two"]


def test_compressed_bodies_are_refused(serve, tmp_path):
    netloc = serve(answer(b"x", "Content-Encoding: gzip"))
    with Client() as client, pytest.raises(DownloadError, match="sends it as gzip"):
        fetched(client, f"http://{netloc}/", tmp_path)


def test_a_proxy_of_the_environment_is_used(serve, monkeypatch, tmp_path):
    requests: list[bytes] = []
    proxy = serve(answer(b"x"), requests=requests)
    monkeypatch.setattr(connection, "getproxies", lambda: {"http": f"user:word@{proxy}", "no": "elsewhere"})
    monkeypatch.setattr(connection, "proxy_bypass", lambda host: False)
    with Client(attempts=1) as client:
        assert fetched(client, "http://data.example/a?b=c", tmp_path) == b"x"
    assert requests[0].startswith(b"GET http://data.example/a?b=c HTTP/1.1\r\n")
    assert b"dXNlcjp3b3Jk" in requests[0]


def test_a_redirect_from_https_to_http_is_refused(monkeypatch, tmp_path):
    async def send(*request: object) -> Any:
        redirect = MagicMock(status=302, headers={"Location": "http://elsewhere/"})
        redirect.__aenter__.return_value = redirect
        return redirect

    with Client() as client:
        monkeypatch.setattr(client.connections, "_send", send)
        with pytest.raises(DownloadError, match="redirects from https to http; refused"):
            fetched(client, "https://host/a", tmp_path)


def test_no_level_of_logging_shows_an_address(serve, tmp_path, caplog):
    netloc = serve(answer(b"x"))
    with caplog.at_level(logging.DEBUG), Client() as client:
        fetched(client, f"http://{netloc}/a?sig=secret", tmp_path)
    assert "secret" not in caplog.text
