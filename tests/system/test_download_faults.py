"""Servers that fail, send wrong data, throttle or refuse; runs that are killed; disks that are full."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.layout import layout_files
from cloudcover.sources.remote import content, http, stores
from cloudcover.sources.remote import fetch as remote
from cloudcover.sources.remote.errors import AccessError, DownloadError, MissingError
from cloudcover.sources.remote.http import WebFolder
from cloudcover.sources.verify import verify
from harness.azurite import AZURITE_ACCOUNT
from helpers.layouts import make_layout
from helpers.servers import Trouble
from helpers.users import error_as_nobody, folder_of_nobody

BAND = "train_features/c000/B03.tif"


@pytest.fixture
def small(web) -> Path:
    make_layout(web.root, chips=4, scenes=2, size=32)
    return web.root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between retries; `Retry-After` is still honoured."""
    monkeypatch.setattr(http, "TIMEOUT_S", 5.0)
    monkeypatch.setattr(http, "RETRIES", http.RETRIES.new(total=3, backoff_factor=0.01, backoff_jitter=0.0))
    monkeypatch.setitem(stores.RETRIES, "max_retries", 4)
    monkeypatch.setitem(stores.RETRIES, "backoff", {"init_backoff": timedelta(seconds=0.01)})


@dataclass
class Source:
    """A source behind the server that can misbehave: its parameters, and what its paths begin with on that server."""

    params: dict[str, object]
    prefix: str = ""


@pytest.fixture
def plain(web, small) -> Source:
    return Source({"source": "http", "url": web.url})


@pytest.fixture
def azure(web, small, azurite, monkeypatch) -> Source:
    name = f"faults{uuid.uuid4().hex}"
    azurite.upload(name, small)
    web.upstream = f"http://127.0.0.1:{azurite.port}"
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", azurite.sas(name).replace(web.upstream, web.url))
    return Source({"source": "azure"}, f"{AZURITE_ACCOUNT}/{name}/")


@pytest.fixture(params=["plain", "azure"])
def source(request: pytest.FixtureRequest) -> Source:
    return request.getfixturevalue(request.param)


def bring(source: Source, raw: Path, **data: object) -> Path:
    remote.fetch(DataParams.model_validate({"chip_size": 64} | source.params | data), raw)
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
def test_a_refusal_that_passes_is_tried_again(web, small, source, tmp_path, status):
    web.trouble = lambda path, number: Trouble(status) if path.endswith(".tif") and number == 1 else None
    assert_whole(bring(source, tmp_path / "raw"), small)
    assert {number for path, number in web.seen.items() if path.endswith(".tif")} >= {2}


def seconds_between(web, path: str) -> float:
    """Time from the first to the second request for a file [s]."""
    first, second = [at for _, asked, _, _, at in web.requests if asked == path][:2]
    return second - first


def test_retry_after_is_honoured(web, small, plain, tmp_path):
    web.trouble = lambda path, number: Trouble(503, {"Retry-After": "2"}) if path == BAND and number == 1 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)
    assert 2.0 <= seconds_between(web, BAND) < 4


def test_a_pause_is_bounded(web, small, plain, tmp_path, monkeypatch):
    assert http.RETRIES.retry_after_max == 600
    monkeypatch.setattr(http, "RETRIES", http.RETRIES.new(retry_after_max=1))
    web.trouble = lambda path, number: Trouble(503, {"Retry-After": "3600"}) if path == BAND and number == 1 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)
    assert 1.0 <= seconds_between(web, BAND) < 4


def test_a_server_that_always_refuses_is_given_up(web, plain, tmp_path):
    web.trouble = lambda path, number: Trouble(503) if path == BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND}: the server answered 503"):
        bring(plain, tmp_path / "raw")
    assert web.seen[BAND] == 4


@pytest.mark.parametrize(("etags", "ranges"), [(True, True), (True, False), (False, False)])
def test_a_connection_cut_within_a_file_is_resumed_or_begun_again(web, small, plain, tmp_path, etags, ranges):
    web.etags, web.ranges = etags, ranges
    web.trouble = lambda path, number: Trouble(cut=1000) if path.endswith(".tif") and number == 1 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)
    again = [size for _, path, status, size, _ in web.requests if path == BAND and status in (200, 206)][1]
    length = (small / BAND).stat().st_size
    assert again == (length - 1000 if etags and ranges else length)


def test_a_connection_to_azure_that_is_cut_within_a_file_is_resumed(web, small, azure, tmp_path):
    web.trouble = lambda path, number: Trouble(cut=1000) if path.endswith(".tif") and number == 1 else None
    assert_whole(bring(azure, tmp_path / "raw"), small)
    sizes = [size for _, path, _, size, _ in web.requests if path == azure.prefix + BAND]
    assert sizes == [1000, (small / BAND).stat().st_size - 1000]


def test_a_file_that_advances_with_each_cut_is_not_given_up(web, small, plain, tmp_path):
    web.trouble = lambda path, number: Trouble(cut=100) if path == BAND and number <= 12 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)
    assert web.seen[BAND] == 13


def test_a_file_that_is_always_cut_at_its_beginning_is_given_up(web, plain, tmp_path):
    web.ranges = False
    web.trouble = lambda path, number: Trouble(cut=100) if path == BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND}: gave up"):
        bring(plain, tmp_path / "raw")
    assert web.seen[BAND] == 4


def test_a_file_of_azure_that_is_always_cut_is_given_up_and_gone_on_with_later(web, small, azure, tmp_path):
    web.trouble = lambda path, number: Trouble(cut=100) if path == azure.prefix + BAND else None
    with pytest.raises(DownloadError, match=rf"1 of \d+ files failed(.|\n)*{BAND}: gave up"):
        bring(azure, tmp_path / "raw")
    assert leftovers(tmp_path / "raw") == []
    web.trouble = lambda path, number: None
    web.requests.clear()
    assert_whole(bring(azure, tmp_path / "raw"), small)
    assert web.images_sent() == [azure.prefix + BAND]


def test_a_file_that_changes_while_it_is_resumed_is_not_glued_together(web, small, source, azurite, tmp_path):
    new = (small / BAND).read_bytes()[:-2] + b"\1\1"

    def trouble(path: str, number: int) -> Trouble | None:
        if path != source.prefix + BAND:
            return None
        if number == 1:
            return Trouble(cut=1000)
        if source.prefix:
            container = source.prefix.split("/")[1]
            azurite.service().get_blob_client(container, BAND).upload_blob(new, overwrite=True)
        (small / BAND).write_bytes(new)
        return None

    web.trouble = trouble
    raw = tmp_path / "raw"
    if source.prefix:  # obstore ends where the version is gone
        with pytest.raises(DownloadError, match=rf"{BAND}: gave up"):
            bring(source, raw)
        assert not (raw / BAND).exists()
    bring(source, raw)
    assert (raw / BAND).read_bytes() == new


def test_silence_counts_as_a_dead_connection(web, small, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT_S", 0.5)
    web.trouble = lambda path, number: Trouble(delay=1.5) if path == BAND and number == 1 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)


def test_redirects_are_followed(web, small, source, tmp_path):
    target = f"{web.url}/{source.prefix}{BAND.replace('c000', 'c001')}"
    target += "?" + os.environ["CLOUDCOVER_SAS_URL"].partition("?")[2] if source.prefix else ""
    web.trouble = lambda path, number: Trouble(302, {"Location": target}) if path == source.prefix + BAND else None
    raw = bring(source, tmp_path / "raw")
    assert (raw / BAND).read_bytes() == (small / BAND.replace("c000", "c001")).read_bytes()


# --- what does not pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><html><title>Sign in</title></html>", b'<?xml version="1.0"?><Error><Code>X</Code></Error>'],
)
def test_an_error_page_sent_as_a_file_never_gets_its_name(web, small, source, tmp_path, page):
    headers = {"ETag": '"page"', "Last-Modified": "Fri, 27 Nov 2026 10:00:00 GMT"}
    web.trouble = lambda path, number: Trouble(headers=headers, body=page) if path == source.prefix + BAND else None
    with pytest.raises(DownloadError, match=rf"1 of \d+ files failed(.|\n)*{BAND} "):
        bring(source, tmp_path / "raw")
    assert not (tmp_path / "raw" / BAND).exists()
    assert leftovers(tmp_path / "raw") == []
    assert (tmp_path / "raw" / "train_features" / "c000" / "B02.tif").exists()
    web.trouble = lambda path, number: None
    web.requests.clear()
    assert_whole(bring(source, tmp_path / "raw"), small)
    assert web.images_sent() == [source.prefix + BAND]


def test_a_truncated_file_with_a_matching_length_is_refused(web, small, plain, tmp_path):
    cut = (small / BAND).read_bytes()[:1500]
    web.trouble = lambda path, number: Trouble(body=cut) if path == BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND} is not the expected file: it is cut off"):
        bring(plain, tmp_path / "raw")


def test_a_file_that_is_shorter_than_the_listing_says_is_refused(web, small, azure, tmp_path):
    headers = {"ETag": '"short"', "Last-Modified": "Fri, 27 Nov 2026 10:00:00 GMT"}
    cut = Trouble(headers=headers, body=(small / BAND).read_bytes()[:-1])
    web.trouble = lambda path, number: cut if path == azure.prefix + BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND} is not .*: it has \d+ bytes, but the listing says"):
        bring(azure, tmp_path / "raw")


def test_a_compressed_body_is_refused(web, small, plain, tmp_path):
    packed = Trouble(headers={"Content-Encoding": "gzip"}, body=gzip.compress((small / BAND).read_bytes()))
    web.trouble = lambda path, number: packed if path == BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND} is not the expected file"):
        bring(plain, tmp_path / "raw")


def test_a_hash_that_the_server_reports_is_compared(web, small, plain, tmp_path):
    wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    web.trouble = lambda path, number: Trouble(headers=wrong) if path == BAND and number < 3 else None
    assert_whole(bring(plain, tmp_path / "raw"), small)
    assert web.seen[BAND] == 3
    shutil.rmtree(tmp_path / "raw")
    web.trouble = lambda path, number: Trouble(headers=wrong) if path == BAND else None
    with pytest.raises(DownloadError, match=rf"{BAND}: .* MD5 .* AAAA"):
        bring(plain, tmp_path / "raw")
    assert leftovers(tmp_path / "raw") == []


def test_403_is_not_tried_again_and_says_to_renew_the_sas(web, source, tmp_path):
    body = b"<Error><Code>AuthenticationFailed</Code><Detail>sig=abc is wrong</Detail></Error>"
    web.trouble = lambda path, number: Trouble(403, body=body) if path.endswith(".tif") else None
    with pytest.raises(AccessError, match=r"403 Forbidden.* renew it") as caught:
        bring(source, tmp_path / "raw")
    assert "abc" not in str(caught.value)
    assert max(number for path, number in web.seen.items() if path.endswith(".tif")) == 1
    assert sum(path.endswith(".tif") for path in web.seen) <= 20


def test_many_missing_bands_end_the_run(web, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_TOLERATED", 3)
    web.trouble = lambda path, number: Trouble(404) if path.startswith("train_features") else None
    with pytest.raises(MissingError, match="404 Not Found"):
        bring(plain, tmp_path / "raw")


def test_a_server_that_is_gone_is_given_up_in_the_end(tmp_path, monkeypatch):
    gone = Source({"source": "http", "url": "http://127.0.0.1:9"})
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/train_metadata\.csv: "):
        bring(gone, tmp_path / "raw")
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", "http://127.0.0.1:9/account/container?sig=0123456789")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/account/container: gave up") as caught:
        bring(Source({"source": "azure"}), tmp_path / "raw")
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "no address"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(DownloadError, match=re.escape(url)):
        WebFolder(url).fetch("x", tmp_path / "x")


# --- disks and kills -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that is too small for the set."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_free_space_is_checked_before_the_first_image(web, plain, full):
    with pytest.raises(DownloadError, match=r"raw needs .* GB .* free"):
        bring(plain, full / "raw")
    assert not any(path.endswith(".tif") for path in web.seen)


def test_a_disk_that_fills_up_leaves_nothing_half_written(full, small, source, monkeypatch):
    monkeypatch.setattr(content, "check_space", lambda folder, need: None)  # another program takes what was free
    with pytest.raises(OSError, match="No space left on device"):
        bring(source, full / "raw")
    assert leftovers(full / "raw") == []
    for path in (full / "raw").rglob("*.tif"):
        assert path.read_bytes() == (small / path.relative_to(full / "raw")).read_bytes()


def test_a_read_only_folder_is_told_before_anything_is_fetched(web, plain):
    with folder_of_nobody(0o500) as raw:
        assert re.match(r"PermissionError: .*Permission denied: .*out", error_as_nobody(lambda: bring(plain, raw)))
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
        "fetch(DataParams(source='http', url=sys.argv[1], chip_size=64), Path(sys.argv[2]))"
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
    assert_whole(bring(Source({"source": "http", "url": web.url}), raw), web.root)
    assert there.isdisjoint(web.images_sent())
