"""No test reaches the network: not in its own process, nor in one that it starts; loopback stays open."""

from __future__ import annotations

import _socket
import asyncio
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from rasterio.errors import RasterioIOError

from harness.forked import programs
from harness.project import Project
from helpers.paths import ROOT

ELSEWHERE = "192.0.2.1"
"""An address of the range for documentation (RFC 5737), which nobody has."""
TRY = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), timeout=5)"
REFUSAL = "a test wanted to connect to"


def tcp() -> socket.socket:
    connection = socket.socket()
    connection.settimeout(5)
    return connection


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect": lambda: tcp().connect((ELSEWHERE, 80)),
    "connect_ex": lambda: tcp().connect_ex((ELSEWHERE, 80)),
    "create_connection": lambda: socket.create_connection((ELSEWHERE, 80), timeout=5),
    "the class below": lambda: _socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((ELSEWHERE, 80)),
    "datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (ELSEWHERE, 9)),
    "datagram of parts": lambda: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, (ELSEWHERE, 9)),
    "IPv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "name": lambda: socket.getaddrinfo("example.org", 80),
    "name in bytes": lambda: socket.getaddrinfo(b"example.org", 80),
    "old lookup": lambda: socket.gethostbyname("example.org"),
    "page": lambda: urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{ELSEWHERE}", timeout=5),
    "asyncio": lambda: asyncio.run(asyncio.wait_for(asyncio.open_connection(ELSEWHERE, 80), 5)),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_the_process_of_the_tests_is_kept_off_the_network(attempt: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match=REFUSAL):
        attempt()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_stays_open(host: str) -> None:
    with socket.create_server(("", 0)) as server, socket.create_connection((host, server.getsockname()[1]), 5):
        server.accept()[0].close()


def test_sockets_of_the_machine_stay_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))


def refused(command: list[str], environment: dict[str, str]) -> bool:
    """Whether a program that tries to reach the network ends with the guard's message."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return bool(done.returncode) and f"AssertionError: {REFUSAL} {ELSEWHERE}" in done.stderr


def test_programs_that_tests_start_are_kept_off_the_network(tmp_path: Path) -> None:
    again = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {TRY!r}]))"
    for program in (TRY, again):
        assert refused([sys.executable, "-c", program], dict(os.environ))
    assert refused([sys.executable, "-c", TRY], Project.at(tmp_path).environment())


def test_programs_in_forks_are_kept_off_the_network(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TRY)
    environment = Project.at(tmp_path, forks=True).environment(forks=True)
    assert refused([str(programs() / "python"), str(tmp_path / "program.py")], environment)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_are_kept_off_the_network(method: str, tmp_path: Path) -> None:
    # By a file, because a fork server that an earlier test has started writes to the standard error of that test.
    told = tmp_path / "told"
    words = f"try:\n  {TRY}\nexcept AssertionError as error:\n  open({str(told)!r}, 'w').write(str(error))"
    process = multiprocessing.get_context(method).Process(target=exec, args=(words,))
    process.start()
    process.join(60)
    assert told.read_text() == f"{REFUSAL} {ELSEWHERE}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("command", [["git", "ls-remote"], ["curl", "--silent", "--show-error"]], ids=["git", "curl"])
def test_programs_that_are_not_python_find_only_a_proxy_where_nobody_listens(command: list[str], scheme: str) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [*command, f"{scheme}://{ELSEWHERE}/x"], capture_output=True, text=True, timeout=60, check=False
    )
    assert re.search(r"127\.0\.0\.1( port 9)? after \d+ ms", done.stderr), done.stderr


def test_browsers_find_only_a_proxy_where_nobody_listens() -> None:
    if not (chromium := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    command = [chromium, "--headless", "--no-sandbox", "--dump-dom", f"http://{ELSEWHERE}/"]
    assert "ERR_PROXY_CONNECTION_FAILED" in subprocess.run(command, capture_output=True, text=True, timeout=120).stderr


def test_gdal_finds_only_a_proxy_where_nobody_listens() -> None:
    for scheme in ("http", "https"):
        with pytest.raises(RasterioIOError, match=r"via 127\.0\.0\.1|127\.0\.0\.1 port 9"):
            rasterio.open(f"/vsicurl/{scheme}://{ELSEWHERE}/a.tif")


def test_object_stores_find_only_a_proxy_where_nobody_listens() -> None:
    obstore = pytest.importorskip("obstore")
    store = obstore.store.HTTPStore.from_url(
        f"http://{ELSEWHERE}", client_options={"allow_http": True, "timeout": "5s"}, retry_config={"max_retries": 0}
    )
    with pytest.raises(obstore.exceptions.GenericError, match=r"127\.0\.0\.1:9\b"):
        obstore.get(store, "x")


def test_every_search_path_that_a_test_sets_keeps_the_guard() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r'"PYTHONPATH"(: |, [^"])', line):
                assert "python_path(" in line, f"{path.name}: {line.strip()}"
