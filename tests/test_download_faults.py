"""Servers that fail, lie, ask for patience or refuse; runs that are killed; disks that are full."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import make_layout
from servers import Trouble

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.layout import layout_files
from cloudcover.sources.remote import fetch as remote
from cloudcover.sources.remote import http
from cloudcover.sources.remote.errors import AccessError, ContentError, DownloadError, MissingError
from cloudcover.sources.remote.http import Client
from cloudcover.sources.verify import verify

pytest_plugins = ("servers",)

BAND = "train_features/c000/B03.tif"


@pytest.fixture
def small(web) -> Path:
    make_layout(web.root, chips=4, scenes=2, size=32)
    return web.root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits; what the server asks for is still honoured."""
    monkeypatch.setattr(remote, "Client", lambda: Client(attempts=4, timeout_s=5, backoff_s=0.01, longest_wait_s=5))


def bring(web, raw: Path, **data: object) -> Path:
    remote.fetch(DataParams.model_validate({"chip_size": 64, "source": "http", "url": web.url} | data), raw)
    return raw


def assert_whole(raw: Path, source: Path) -> None:
    assert set(tables.FILES.read(raw / "files.csv")["path"]) == {p.as_posix() for p in layout_files(source)}
    assert verify(raw).empty
    assert all((raw / path).read_bytes() == (source / path).read_bytes() for path in layout_files(source))
    assert leftovers(raw) == []


def leftovers(raw: Path) -> list[Path]:
    return [path for path in raw.rglob("*") if ".part" in path.name]


# --- what passes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_is_tried_again(web, small, tmp_path, status):
    web.trouble = lambda path, number: Trouble(status) if path.endswith(".tif") and number == 1 else None
    assert_whole(bring(web, tmp_path / "raw"), small)


def test_retry_after_is_honoured_by_all_threads(web, small, tmp_path):
    web.trouble = lambda path, number: Trouble(503, {"Retry-After": "2"}) if path == BAND and number == 1 else None
    assert_whole(bring(web, tmp_path / "raw"), small)
    refused = next(at for _, path, status, _, at in web.requests if path == BAND and status == 503)
    again = next(at for _, path, status, _, at in web.requests if path == BAND and status == 200)
    assert 2.0 <= again - refused < 4
    assert not [path for _, path, _, _, at in web.requests if refused + 0.5 < at < refused + 1.9]


def test_retry_after_may_be_a_date(web, small, tmp_path):
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    start = time.time()
    web.trouble = lambda path, number: Trouble(429, {"Retry-After": moment}) if path == BAND and number == 1 else None
    bring(web, tmp_path / "raw")
    assert time.time() - start > 1.5


def test_a_pause_that_is_too_long_ends_the_run_with_its_length(web, small, tmp_path):
    web.trouble = lambda path, number: Trouble(503, {"Retry-After": "3600"}) if path == BAND else None
    with pytest.raises(DownloadError, match=r"503 .* asks to come back in 3600 s: run again then"):
        bring(web, tmp_path / "raw")


@pytest.mark.parametrize(("etags", "ranges"), [(True, True), (True, False), (False, False)])
def test_a_connection_cut_within_a_file_is_resumed_or_begun_again(web, small, tmp_path, etags, ranges):
    web.etags, web.ranges = etags, ranges
    web.trouble = lambda path, number: Trouble(cut=1000) if path.endswith(".tif") and number == 1 else None
    assert_whole(bring(web, tmp_path / "raw"), small)
    again = [size for _, path, status, size, _ in web.requests if path == BAND and status in (200, 206)][1]
    length = (small / BAND).stat().st_size
    assert again == (length - 1000 if etags and ranges else length)


def test_a_file_that_advances_with_each_cut_is_not_given_up(web, small, tmp_path):
    web.trouble = lambda path, number: Trouble(cut=100) if path == BAND and number <= 12 else None
    assert_whole(bring(web, tmp_path / "raw"), small)
    assert web.seen[BAND] == 13


def test_a_file_that_is_always_cut_at_its_beginning_is_given_up(web, small, tmp_path):
    web.ranges = False
    web.trouble = lambda path, number: Trouble(cut=100) if path == BAND else None
    with pytest.raises(
        DownloadError, match=r"B03\.tif: gave up after 4 attempts, the last: the connection was cut after 100 of"
    ):
        bring(web, tmp_path / "raw")


def test_a_file_that_changes_while_it_is_resumed_is_not_glued_together(web, small, tmp_path):
    new = (small / BAND).read_bytes()[:-2] + b"\1\1"

    def trouble(path: str, number: int) -> Trouble | None:
        if path != BAND:
            return None
        if number == 1:
            return Trouble(cut=1000)
        (small / BAND).write_bytes(new)
        return None

    web.trouble = trouble
    raw = bring(web, tmp_path / "raw")
    assert (raw / BAND).read_bytes() == new


def test_silence_counts_as_a_dead_connection(web, small, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "Client", lambda: Client(attempts=3, timeout_s=0.5, backoff_s=0.01))
    web.trouble = lambda path, number: Trouble(delay=1.5) if path == BAND and number == 1 else None
    assert_whole(bring(web, tmp_path / "raw"), small)


def test_redirects_are_followed(web, small, tmp_path):
    (small / "moved.tif").write_bytes((small / BAND).read_bytes())
    target = f"{web.url}/moved.tif"
    web.trouble = lambda path, number: Trouble(302, {"Location": target}) if path == BAND else None
    raw = bring(web, tmp_path / "raw")
    assert (raw / BAND).read_bytes() == (small / BAND).read_bytes()


# --- what does not pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><html><title>Sign in</title></html>", b'<?xml version="1.0"?><Error><Code>X</Code></Error>'],
)
def test_an_error_page_sent_as_a_file_never_gets_its_name(web, small, tmp_path, page):
    web.trouble = lambda path, number: Trouble(body=page) if path == BAND else None
    with pytest.raises(DownloadError, match=r"1 of 20 files failed(.|\n)*B03\.tif is not what it should be: .*XML"):
        bring(web, tmp_path / "raw")
    assert not (tmp_path / "raw" / BAND).exists()
    assert leftovers(tmp_path / "raw") == []
    assert (tmp_path / "raw" / "train_features" / "c000" / "B02.tif").exists()
    web.trouble = lambda path, number: None
    web.requests.clear()
    assert_whole(bring(web, tmp_path / "raw"), small)
    assert web.files_sent() == [BAND]


def test_a_truncated_file_with_a_matching_length_is_refused(web, small, tmp_path):
    cut = (small / BAND).read_bytes()[:1500]
    web.trouble = lambda path, number: Trouble(body=cut) if path == BAND else None
    with pytest.raises(DownloadError, match=r"B03\.tif is not what it should be: it is cut off"):
        bring(web, tmp_path / "raw")


def test_a_hash_that_the_server_tells_is_compared(web, small, tmp_path):
    wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    web.trouble = lambda path, number: Trouble(headers=wrong) if path == BAND and number < 3 else None
    assert_whole(bring(web, tmp_path / "raw"), small)
    shutil.rmtree(tmp_path / "raw")
    web.trouble = lambda path, number: Trouble(headers=wrong) if path == BAND else None
    with pytest.raises(DownloadError, match=r"B03\.tif arrived with MD5 [0-9a-f]{32}, but the server says 0{32}"):
        bring(web, tmp_path / "raw")


def test_403_is_not_tried_again_and_says_to_renew_the_sas(web, small, tmp_path):
    body = b"<Error><Code>AuthenticationFailed</Code><Detail>sig=abc is wrong</Detail></Error>"
    web.trouble = lambda path, number: Trouble(403, body=body) if path.endswith(".tif") else None
    with pytest.raises(AccessError, match=r"403 Forbidden \(AuthenticationFailed\).* renew it") as caught:
        bring(web, tmp_path / "raw")
    assert "abc" not in str(caught.value)
    assert max(number for path, number in web.seen.items() if path.endswith(".tif")) == 1
    assert sum(path.endswith(".tif") for path in web.seen) <= remote.CONNECTIONS


def test_many_missing_bands_end_the_run(web, small, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_TOLERATED", 3)
    web.trouble = lambda path, number: Trouble(404) if path.startswith("train_features") else None
    with pytest.raises(MissingError, match="404 Not Found"):
        bring(web, tmp_path / "raw")


def test_a_server_that_is_gone_is_given_up_in_the_end(tmp_path):
    with Client(attempts=2, backoff_s=0.01) as client, pytest.raises(DownloadError, match="gave up after 2 attempts"):
        client.run(client.download("http://127.0.0.1:9/x", tmp_path / "x", "x", lambda part, received: None))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "no address"])
def test_only_http_is_fetched(tmp_path, url):
    with Client() as client, pytest.raises(DownloadError, match="is not an http or https address"):
        client.run(client.download(url, tmp_path / "x", "x", lambda part, received: None))


def test_an_error_that_concerns_all_ends_their_waits_at_once():
    waiting = []

    async def do(item: int) -> None:
        if item:
            raise AccessError("refused")
        waiting.append(item)
        await asyncio.sleep(60)

    start = time.monotonic()
    with pytest.raises(AccessError, match="refused"):
        asyncio.run(remote.gather_bounded([0, 1], do, 2))
    assert waiting == [0]
    assert time.monotonic() - start < 5


# --- disks and kills -----------------------------------------------------------------------------------------------


def test_free_space_is_checked_before_the_first_image(web, small, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(http.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(
        DownloadError, match=r"raw needs 0\.00 GB .* only 0\.00 GB are free: make room, or start with a part"
    ):
        bring(web, tmp_path / "raw")
    assert not any(path.endswith(".tif") for path in web.seen)


def test_a_disk_that_fills_up_leaves_nothing_half_written(web, small, tmp_path, monkeypatch):
    def full(self: object, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(http._Transfer, "_count", full)
    with pytest.raises(OSError, match="No space left on device"):
        bring(web, tmp_path / "raw")
    assert leftovers(tmp_path / "raw") == []


def as_nobody(work: Callable[[], object], answer: Connection) -> None:
    """Sends the error of a function, run without the rights of root."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        work()
        answer.send("no error")
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")


def test_a_read_only_folder_is_told_before_anything_is_fetched(web, small):
    with tempfile.TemporaryDirectory() as name:  # not below the folder of pytest, which is root's alone
        raw = Path(name, "raw")
        raw.mkdir(mode=0o500)
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(raw, 65534, 65534)
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")  # nobody may not even read root's libraries
        context.Process(target=as_nobody, args=(lambda: bring(web, raw), there)).start()
        assert here.poll(60)
        assert re.match(r"PermissionError: .*Permission denied: .*raw", here.recv())
        assert list(raw.iterdir()) == []
    assert web.requests == []


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_run_that_is_killed_leaves_no_half_file_and_the_next_fetches_only_the_rest(web, tmp_path, children):
    make_layout(web.root, chips=40, scenes=4, size=32, unlabelled=0)
    web.trouble = lambda path, number: Trouble(delay=0.03) if path.endswith(".tif") else None
    code = (
        "import sys; from pathlib import Path; from cloudcover.config.sections import DataParams;"
        "from cloudcover.sources.remote.fetch import fetch;"
        "fetch(DataParams(source='http', url=sys.argv[1], chip_size=64), Path(sys.argv[2]), 4)"
    )
    raw = tmp_path / "raw"
    for goal in (20, 60, 100):
        process = subprocess.Popen([sys.executable, "-c", code, web.url, str(raw)])
        children.append(process)
        while len(list(raw.rglob("B*.tif"))) < goal and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for path in raw.rglob("*.tif"):
            if not path.name.startswith("."):  # pathlib finds hidden files, too
                assert path.read_bytes() == (web.root / path.relative_to(raw)).read_bytes()
    there = {path.relative_to(raw).as_posix() for path in raw.rglob("*.tif")}
    assert len(there) >= 100
    web.requests.clear()
    web.trouble = lambda path, number: None
    assert_whole(bring(web, raw), web.root)
    assert there.isdisjoint(web.files_sent())


def test_content_that_never_fits_is_asked_for_three_times(web, small, tmp_path):
    def check(part: Path, received: object) -> None:
        raise ContentError("never")

    with Client(backoff_s=0.01) as client, pytest.raises(ContentError, match="never"):
        client.run(client.download(f"{web.url}/{BAND}", tmp_path / "x", "x", check))
    assert web.seen[BAND] == 3
    assert not (tmp_path / "x").exists()
