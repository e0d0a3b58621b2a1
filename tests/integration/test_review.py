"""The review page's server: its responses, what it refuses, and who may use it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudcover.data import tables
from cloudcover.review.security import own_key
from cloudcover.review.server import ReviewError, default_reviewer
from harness.review_site import Site
from helpers.review_set import make_set


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    make_set(root)
    with Site(root) as running:
        yield running


def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    for path in ("/", "/review.css", "/review.js"):
        answer = site.ask(path)
        assert answer.status == 200
        assert not re.search(rb"https?://|@import|url\(", answer.body)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_json_tells_what_is_known_of_a_chip(site: Site) -> None:
    known = site.ask("/api/chips/c001").json()
    assert known["scene"] == "place1@2020-02-10T10:00:00Z"
    assert known["reasons"][0] == {
        "name": "missed_cloud",
        "title": "missed cloud",
        "text": "Pixels are labelled clear where the model is sure that they are cloud.",
        "figures": "50% of the chip",
    }
    assert known["neighbours"] == ["c007", "c013", "c019"]
    assert known["verdict"] is None
    assert 0 <= known["prediction"]["iou"] < 1


def test_a_verdict_carries_reviewer_note_and_time(site: Site) -> None:
    answer = site.ask("/api/verdicts", {"chips": ["c020"], "verdict": "bad", "reason": "stripes", "seen": {}})
    assert answer.status == 200
    row = site.rows().loc["c020"]
    assert (row["verdict"], row["reviewer"], row["reason"]) == ("bad", "Ada Lovelace", "stripes")
    assert site.ask("/api/chips/c020").json()["verdict"]["time"] == row["time"]
    assert site.ask("/api/undo", {"change": answer.json()["change"]}).json()["rows"] == {"c020": ["", ""]}
    assert site.ask("/api/undo", {"change": answer.json()["change"]}).status == 410
    assert "c020" not in site.rows().index


def test_a_page_behind_the_times_gets_the_chip_as_it_is(site: Site) -> None:
    first = site.ask("/api/verdicts", {"chips": ["c021"], "verdict": "bad", "seen": {}}).json()
    late = site.ask("/api/verdicts", {"chips": ["c021"], "verdict": "clean", "seen": {"c021": ["", ""]}})
    assert late.status == 409
    assert late.json()["rows"] == first["rows"]
    again = site.ask("/api/verdicts", {"chips": ["c021"], "verdict": "clean", "seen": late.json()["rows"]})
    assert again.status == 200
    assert site.rows().at["c021", "verdict"] == "clean"


@pytest.mark.parametrize("path", ["/", "/review.js", "/api/session", "/api/chips", "/api/chips/c000/true"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_another_sites_requests_are_refused(site: Site, path: str, headers: dict[str, str]) -> None:
    answer = site.ask(path, headers={k: v.format(port=site.port) for k, v in headers.items()})
    assert answer.status == 403
    assert set(answer.json()) == {"error"}
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Review-Token": None},
        {"X-Review-Token": "guess"},
        {"X-Review-Token": "ä"},
        {"Origin": None},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Length": "99999999"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/verdicts", "/api/undo"])
def test_forged_changes_are_refused(site: Site, path: str, headers: dict[str, str | None]) -> None:
    before = site.ask("/api/chips").body
    answer = site.ask(path, {"chips": ["c000"], "verdict": "bad", "seen": {}, "change": 0}, headers)
    assert answer.status == 403
    assert site.ask("/api/chips").body == before


@pytest.mark.parametrize(
    "path",
    [
        "/api/chips/../../../../etc/passwd",
        "/api/chips/..%2f..%2f..%2fetc%2fpasswd/true",
        "/api/chips/%2e%2e/true",
        "/api/chips/c000%00/true",
        "/api/chips/store%2findex.parquet",
        "/../review.js",
        "/..%2fserver.py",
        "/server.py",
        "/api/chips/c000/../true",
        "/api/chips/c000/labels",
        "/api/chips/c023",
        "//etc/passwd",
    ],
)
def test_a_path_outside_the_index_is_refused(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 404
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        {"chips": ["../c000"], "verdict": "bad"},
        {"chips": ["c022"], "verdict": "bad"},
        {"chips": [], "verdict": "bad"},
        {"chips": "c000", "verdict": "bad"},
        {"chips": [["c000"]], "verdict": "bad"},
        {"chips": ["c000"], "verdict": "maybe"},
        {"chips": ["c000"], "verdict": None},
        {"chips": ["c000"], "verdict": "bad", "reason": 3},
        {"chips": ["c000"], "verdict": "bad", "seen": {"c000": "b"}},
        {"chips": ["c000"], "verdict": "bad", "seen": []},
        ["c000"],
        "c000",
    ],
    ids=str,
)
def test_wrong_bodies_are_refused(site: Site, body: object) -> None:
    before = site.ask("/api/chips").body
    assert site.ask("/api/verdicts", body).status in (400, 404)
    assert site.ask("/api/chips").body == before


def test_other_methods_are_refused(site: Site) -> None:
    assert site.ask("/", {}).status == 405
    assert site.ask("/api/verdicts").status == 405


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_listens_on_loopback_only(site: Site) -> None:
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{site.process.pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{site.port:04X}")
    ]
    assert listening == [f"0100007F:{site.port:04X}"]


def test_a_second_server_is_refused_with_one_line(site: Site) -> None:
    second = Site(site.root)
    done = subprocess.run(second.command(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: another review is open on ")
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_named(site: Site, tmp_path: Path) -> None:
    make_set(tmp_path)
    second = Site(tmp_path)
    second.port = site.port
    done = subprocess.run(second.command(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"port {site.port} cannot be used" in done.stderr
    assert "--port 0" in done.stderr


def test_ctrl_c_ends_the_server_cleanly(tmp_path: Path) -> None:
    make_set(tmp_path)
    with Site(tmp_path) as running:
        assert running.ask("/api/session").status == 200
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=15) == 0
        assert running.process.stdout is not None
        assert "Traceback" not in running.process.stdout.read()


def test_the_page_works_without_audit_and_predictions(tmp_path: Path) -> None:
    make_set(tmp_path)
    tables.AUDIT.write(tables.AUDIT.empty(), tmp_path / "audit.csv")
    (tmp_path / "oof").rename(tmp_path / "gone")
    (tmp_path / "oof").mkdir()
    with Site(tmp_path) as running:
        known = running.ask("/api/chips/c000").json()
        assert (known["suspicion"], known["reasons"], known["prediction"]) == (None, [], None)
        assert running.ask("/api/session").json()["predicted"] is False
        assert running.ask("/api/chips/c000/masks").status == 200


# --- who may use it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/?key=", "/?key=guess", "/review.js", "/api/session", "/api/chips", "/nowhere"])
@pytest.mark.parametrize("cookie", [None, "review-{port}=", "review-{port}=guess", "review-1={key}", "key={key}", "ä"])
def test_nobody_without_the_key_of_the_opened_address_reads_anything(site: Site, path: str, cookie: str | None) -> None:
    answer = site.ask(path, headers={"Cookie": cookie and cookie.format(port=site.port, key=site.key)})
    assert answer.status == 403
    assert "cloudcover review" in answer.json()["error"]
    assert b"Ada" not in answer.body
    assert "set-cookie" not in answer.headers


def test_nobody_without_the_key_judges(site: Site) -> None:
    before = site.ask("/api/chips").body
    answer = site.ask("/api/verdicts", {"chips": ["c000"], "verdict": "bad", "seen": {}}, {"Cookie": None})
    assert answer.status == 403
    assert site.ask("/api/chips").body == before


def test_the_opened_address_gives_the_key_to_its_browser_alone(site: Site) -> None:
    answer = site.ask(f"/?key={site.key}", headers={"Cookie": None})
    assert answer.status == 200
    assert answer.headers["set-cookie"] == f"review-{site.port}={site.key}; Path=/; HttpOnly; SameSite=Strict"
    assert site.ask("/?key=guess").status == 200  # the cookie is right
    assert site.key.encode() not in site.ask("/").body + site.ask("/api/session").body


def test_the_key_is_kept_where_nobody_else_reads_it(tmp_path: Path) -> None:
    file = tmp_path / ".v.csv.key"
    key = own_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert own_key(file) == key
    file.chmod(0o644)
    assert own_key(file) != key, "somebody may have read it"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("")
    assert len(own_key(file)) > 40


@pytest.mark.parametrize("path", ["/api/chips", "/api/chips/c000", "/api/session"])
def test_a_broken_table_is_named_in_every_answer(tmp_path: Path, path: str) -> None:
    make_set(tmp_path)
    with Site(tmp_path) as running:
        running.verdicts.write_text("chip_id,verdict\nc000\n")
        answer = running.ask(path)
        assert answer.status == 500
        assert "verdicts.csv" in answer.json()["error"]
        assert "line 2 has 1 fields" in answer.json()["error"]


def test_without_a_name_anywhere_the_reviewer_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir("/")
    monkeypatch.setattr("os.getuid", lambda: 4_242_424)  # an id without an entry
    with pytest.raises(ReviewError, match="--reviewer"):
        default_reviewer()
