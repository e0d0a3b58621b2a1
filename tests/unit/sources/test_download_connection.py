"""Web folders: requests, broken answers, redirects, proxies, cookies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from cloudcover.sources.remote import http
from cloudcover.sources.remote.errors import DownloadError
from cloudcover.sources.remote.http import WebFolder, refuse_downgrade
from cloudcover.sources.remote.stores import Listed

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


def fetched(folder: WebFolder, key: str, target: Path) -> bytes:
    """What is brought from an address."""
    folder.fetch(key, target / "part")
    return (target / "part").read_bytes()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RETRIES", http.RETRIES.new(total=1, backoff_factor=0.0, backoff_jitter=0.0))


def test_one_connection_serves_many_requests(serve, tmp_path):
    requests: list[bytes] = []
    folder = WebFolder("http://" + serve(answer(b"one"), chunked([b"tw", b"o" * 20]), answer(b""), requests=requests))
    assert [fetched(folder, f"{i} ä", tmp_path) for i in range(3)] == [b"one", b"tw" + b"o" * 20, b""]
    assert requests[1].startswith(b"GET /1%20%C3%A4 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Accept-Encoding: identity" in requests[1]


def test_length_and_version_of_a_file_are_asked_for_without_its_body(serve):
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: W/"v"\r\n\r\n'
    folder = WebFolder("http://" + serve(head, b"HTTP/1.1 200 OK\r\n\r\n"))
    assert [folder.find("x"), folder.find("y")] == [Listed("x", 9, 'W/"v"'), Listed("y")]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
def test_a_broken_answer_is_tried_again(serve, tmp_path, broken):
    folder = WebFolder("http://" + serve(broken, answer(b"whole"), close=True))
    assert fetched(folder, "x", tmp_path) == b"whole"


def test_a_proxy_of_the_environment_is_used(serve, monkeypatch, tmp_path):
    requests: list[bytes] = []
    monkeypatch.setenv("http_proxy", f"http://user:word@{serve(answer(b'x'), requests=requests)}")
    assert fetched(WebFolder("http://data.example"), "a", tmp_path) == b"x"
    assert requests[0].startswith(b"GET http://data.example/a HTTP/1.1\r\n")
    assert b"dXNlcjp3b3Jk" in requests[0]


def test_a_redirect_from_https_to_http_is_refused():
    response = requests.Response()
    response.status_code, response.url = 302, "https://host/a?token=secret"
    response.headers["Location"] = "http://elsewhere/"
    with pytest.raises(DownloadError, match=r"https://host/a.* from https to http; refused") as caught:
        refuse_downgrade(response)
    assert "secret" not in str(caught.value)
    response.headers["Location"] = "/b"
    refuse_downgrade(response)


def test_a_redirect_to_another_host_carries_no_password(serve, tmp_path):
    seen: list[bytes] = []
    other = serve(answer(b"x"), requests=seen).replace("127.0.0.1", "localhost")
    moved = f"HTTP/1.1 302 Found\r\nLocation: http://{other}/x\r\nContent-Length: 0\r\n\r\n".encode()
    folder = WebFolder("http://user:word@" + serve(moved, requests=seen))
    assert fetched(folder, "x", tmp_path) == b"x"
    assert [b"dXNlcjp3b3Jk" in request for request in seen] == [True, False]
    assert b"word" not in seen[1]
