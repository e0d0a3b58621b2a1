"""The review page's server: verdicts on disk, the queue, pictures, and what is refused."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cloudcover.data import tables
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.store import ChipStore
from cloudcover.labels.reasons import REASONS, explain
from cloudcover.review.pictures import LABEL, PREDICTION, UNKNOWN_LABEL, Pictures
from cloudcover.review.predictions import Predictions, PredictionsError, newest
from cloudcover.review.queue import Queue, rate
from cloudcover.review.security import own_key
from cloudcover.review.server import ReviewError, default_reviewer, load
from cloudcover.review.verdicts import ConflictError, Verdict, Verdicts, utc_now
from cloudcover.runtime.locks import FolderBusyError
from harness.review_site import Site
from helpers.review_set import SIZE, make_set

NOON = "2026-01-01T12:00:00Z"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    make_set(root)
    with Site(root) as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    make_set(folder)
    return folder


def on_disk(path: Path) -> dict[str, tuple[str, ...]]:
    return {row[0]: row for row in tables.VERDICTS.read(path).itertuples(index=False, name=None)}


# ------------------------------------------------------------------------------------------------------- verdicts


def test_a_verdict_is_on_disk_when_judge_returns(tmp_path: Path) -> None:
    path = tmp_path / "config" / "verdicts.csv"
    with Verdicts(path, "Ada", now=lambda: NOON) as verdicts:
        verdicts.judge(["b", "a"], "bad", " stripes,\n twice ", seen={})
        assert path.read_text() == (
            "chip_id,verdict,reviewer,reason,time\n"
            f'a,bad,Ada,"stripes, twice",{NOON}\n'
            f'b,bad,Ada,"stripes, twice",{NOON}\n'
        )


def test_the_file_is_written_as_the_table_would_write_it(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "v.csv", 'A "B", C', now=lambda: NOON) as verdicts:
        verdicts.judge(["a"], "unsure", "Größe; 1,5", seen={})
    tables.VERDICTS.write(tables.VERDICTS.read(tmp_path / "v.csv"), tmp_path / "w.csv")
    assert (tmp_path / "v.csv").read_bytes() == (tmp_path / "w.csv").read_bytes()


def test_rows_of_others_stay_also_those_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    header = "chip_id,verdict,reviewer,reason,time\n"
    path.write_text(header + "x,clean,Bob,,2020\nnot-in-store,bad,Bob,,2020\n")
    with Verdicts(path, "Ada") as verdicts:
        verdicts.judge(["a"], "bad", "", seen={})
        path.write_text(path.read_text() + "z,unsure,Eve,,2021\n")
        verdicts.judge(["b"], "bad", "", seen={})
    assert sorted(on_disk(path)) == ["a", "b", "not-in-store", "x", "z"]
    assert on_disk(path)["x"] == ("x", "clean", "Bob", "", "2020")


def test_undo_restores_the_former_row_or_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("chip_id,verdict,reviewer,reason,time\nx,clean,Bob,why,2020\n")
    with Verdicts(path, "Ada") as verdicts:
        change = verdicts.judge(["x", "y"], "bad", "", seen={"x": ("clean", "2020")})
        assert verdicts.undo(change) == ["x", "y"]
        assert on_disk(path) == {"x": ("x", "clean", "Bob", "why", "2020")}
        with pytest.raises(KeyError):
            verdicts.undo(change)


def test_undo_leaves_alone_what_was_judged_again(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "v.csv", "Ada", now=lambda: NOON) as verdicts:
        change = verdicts.judge(["x"], "bad", "", seen={})
        verdicts.judge(["x"], "clean", "", seen={"x": ("bad", NOON)})
        with pytest.raises(ConflictError, match="x"):
            verdicts.undo(change)
        assert verdicts.rows()["x"].verdict == "clean"


def test_a_page_that_does_not_know_a_verdict_cannot_overwrite_it(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "v.csv", "Ada", now=lambda: NOON) as verdicts:
        verdicts.judge(["x"], "bad", "", seen={})
        with pytest.raises(ConflictError, match="judged elsewhere in the meantime: x") as error:
            verdicts.judge(["w", "x"], "clean", "", seen={})
        assert error.value.chip_ids == ["x"]
        assert verdicts.rows() == {"x": Verdict("x", "bad", "Ada", "", NOON)}


def test_a_repeated_request_is_no_conflict(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "v.csv", "Ada") as verdicts:
        for _ in range(2):
            verdicts.judge(["x"], "bad", "", seen={})
        assert list(verdicts.rows()) == ["x"]


def test_a_second_review_of_the_same_file_is_refused(tmp_path: Path) -> None:
    with (
        Verdicts(tmp_path / "v.csv", "Ada"),
        pytest.raises(FolderBusyError, match=r"another review is open on .*v\.csv: process \d+ on "),
    ):
        Verdicts(tmp_path / "v.csv", "Bob")
    Verdicts(tmp_path / "v.csv", "Bob").close()


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.csv"
    with Verdicts(path, "Ada", now=lambda: NOON) as verdicts:
        verdicts.judge(["x"], "bad", "", seen={})
        before = path.read_bytes()

        def full(*arguments: object) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(OSError, match="no space left"):
                verdicts.judge(["y"], "bad", "", seen={})
        assert path.read_bytes() == before
        assert list(verdicts.rows()) == ["x"]
        assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == ["v.csv"]


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    with Verdicts(path, "Ada") as verdicts:
        path.write_text("chip_id,verdict\nx,maybe\n")
        with pytest.raises(tables.TableError, match="missing columns"):
            verdicts.judge(["y"], "bad", "", seen={})
    assert path.read_text() == "chip_id,verdict\nx,maybe\n"


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["bad", "clean", "unsure", "", "undo"])), max_size=12
    )
)
def test_the_file_always_holds_what_a_list_of_states_would(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("states") / "v.csv"
    states: list[dict[str, str]] = [{}]
    changes: list[int] = []
    with Verdicts(path, "Ada", now=lambda: NOON) as verdicts:
        for chip, verdict in steps:
            if verdict == "undo":
                if changes:
                    verdicts.undo(changes.pop())
                    states.pop()
                continue
            seen = {c: (v, NOON) for c, v in states[-1].items()}
            changes.append(verdicts.judge([chip], verdict, "", seen))
            states.append({c: v for c, v in (states[-1] | {chip: verdict}).items() if v})
        expected = states[-1]
        assert {c: row.verdict for c, row in verdicts.rows().items()} == expected
    if path.exists():
        assert {c: row[1] for c, row in on_disk(path).items()} == expected


def test_times_are_utc_to_the_second() -> None:
    assert pd.Timestamp(utc_now()).tzinfo is not None
    assert len(utc_now()) == len(NOON)


# ----------------------------------------------------------------------------------------------------------- queue


def test_the_most_suspicious_label_comes_first_and_filters_combine(root: Path) -> None:
    queue = Queue(ChipStore(root / "store").index, tables.AUDIT.read(root / "audit.csv"))
    verdicts = {"c003": Verdict("c003", "bad", "Ada", "", NOON), "c009": Verdict("c009", "clean", "Ada", "", NOON)}
    assert list(queue.select({}, {})["chip_id"])[:3] == ["c000", "c001", "c002"]
    assert list(queue.select({}, {"order": "least"})["chip_id"])[:2] == ["c021", "c020"]
    place0 = queue.select(verdicts, {"location": "place0", "reason": "false_cloud"})
    assert list(place0["chip_id"]) == ["c000", "c003", "c006", "c009", "c012", "c015", "c018", "c021"]
    assert list(queue.select(verdicts, {"location": "place0", "verdict": "bad"})["chip_id"]) == ["c003"]
    assert len(queue.select(verdicts, {"verdict": "none"})) == 20
    assert queue.select(verdicts, {"scene": "place1@2020-02-10T10:00:00Z"})["chip_id"].iloc[0] == "c001"
    assert queue.select(verdicts, {"scene": "nowhere"}).empty


def test_labels_come_scene_by_scene_without_an_audit(root: Path) -> None:
    queue = Queue(ChipStore(root / "store").index, None)
    scenes = list(queue.select({}, {})["scene"])
    assert scenes == sorted(scenes)
    assert len(scenes) == 22  # the two without a label are left out
    assert queue.describe("c000")["suspicion"] is None


def test_neighbours_are_of_the_same_scene(root: Path) -> None:
    queue = Queue(ChipStore(root / "store").index, None)
    assert queue.neighbours("c006", 2) == ["c000", "c012"]
    assert queue.neighbours("c000", 9) == ["c006", "c012", "c018"]


def test_the_rate_leaves_pauses_out() -> None:
    times = [f"2026-01-01T12:00:{second:02d}Z" for second in (0, 10, 20, 30)]
    assert rate(times) == 6.0
    assert rate(["2026-01-01T10:00:00Z", *times]) == 2.7  # two hours count as a minute
    assert rate([*times, "yesterday"]) == 6.0
    assert rate(times[:2]) is None


def test_every_reason_of_the_audit_has_words() -> None:
    assert set(LABEL_ERRORS) <= set(REASONS)


def test_figures_are_left_out_where_the_audit_lacks_them() -> None:
    assert explain("false_cloud", {"false_share": 0.25, "other": "x"})["figures"] == "25% of the chip"
    assert explain("false_cloud", {"false_share": float("nan")})["figures"] == ""
    assert explain("new_kind", {}) == {"name": "new_kind", "title": "new kind", "text": "", "figures": ""}


# -------------------------------------------------------------------------------------------------------- pictures


def test_chips_of_a_scene_share_one_stretch_and_clouds_are_white(root: Path) -> None:
    pictures = Pictures(ChipStore(root / "store"), None)
    image = np.asarray(Image.open(io.BytesIO(pictures.colours("c000", "true"))))
    cloud = pictures.store.labels(["c000"])[0] == 1
    assert image.shape == (SIZE, SIZE, 3)
    assert image[cloud].mean() > 220
    assert image[~cloud].mean() < 80
    same, other = pictures.colours("c006", "true"), pictures.colours("c001", "true")
    assert pictures._tables.cache_info().misses == 2
    assert same != other


def test_masks_hold_label_unknown_and_prediction(root: Path) -> None:
    store = ChipStore(root / "store")
    pictures = Pictures(store, Predictions(newest(root / "oof"), SIZE))
    codes = np.frombuffer(pictures.masks("c000"), np.uint8).reshape(SIZE, SIZE)
    label = store.labels(["c000"])[0]
    assert np.array_equal(codes & LABEL != 0, label == 1)
    assert np.array_equal(codes & UNKNOWN_LABEL != 0, label == 255)
    truth = np.load(root / "oof/round1/none.npy")[0] > 0
    assert np.array_equal(codes & PREDICTION != 0, truth[:, ::-1])  # round 2 is newer
    assert not np.frombuffer(Pictures(store, None).masks("c000"), np.uint8).max() & PREDICTION


def test_agreement_leaves_unknown_pixels_out(root: Path) -> None:
    store = ChipStore(root / "store")
    pictures = Pictures(store, Predictions([root / "oof/round1"], SIZE))
    predicted = np.load(root / "oof/round1/none.npy")[0] > 0
    assert (predicted & (store.labels(["c000"])[0] == 255)).any()  # or the test would show nothing
    assert pictures.agreement("c000") == {"iou": 1.0, "predicted_share": round(float(predicted.mean()), 4)}


def test_thumbnails_are_small(tmp_path: Path) -> None:
    make_set(tmp_path, chips=4, size=544)
    pictures = Pictures(ChipStore(tmp_path / "store"), None)
    image = Image.open(io.BytesIO(pictures.colours("c000", "true", small=True)))
    assert max(image.size) <= 256
    assert abs(len(pictures.masks("c000", small=True)) ** 0.5 - image.width) <= 1


def test_the_newest_round_is_shown_then_the_final_members_then_what_there_is(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") == []
    for run, expected in (
        ("baseline", ["baseline"]),
        ("final/a", ["final/a"]),
        ("final/b", ["final/a", "final/b"]),
        ("round2", ["round2"]),
        ("round10", ["round10"]),
    ):
        tables.OOF.write(tables.OOF.empty(), tmp_path / run / "index.csv")
        assert newest(tmp_path) == [tmp_path / name for name in expected]
    assert newest(tmp_path / "baseline") == [tmp_path / "baseline"]


def test_predictions_of_another_size_are_refused(root: Path) -> None:
    with pytest.raises(PredictionsError, match=r"round2 is of 64 x 64 pixels, but the store's are 512"):
        Predictions(newest(root / "oof"), 512)


def test_a_store_without_labels_cannot_be_reviewed(tmp_path: Path) -> None:
    make_set(tmp_path, chips=3, unlabelled=3)
    with Verdicts(tmp_path / "v.csv", "Ada") as verdicts, pytest.raises(ReviewError, match="nothing to review"):
        load(tmp_path / "store", None, [], verdicts)


def test_the_reviewer_is_gits_user_name_or_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, "Grace Hopper\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    assert default_reviewer() == "Grace Hopper"
    done.stdout = ""
    monkeypatch.setenv("LOGNAME", "grace")
    assert default_reviewer() == "grace"


# ---------------------------------------------------------------------------------------------------------- server


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


# ------------------------------------------------------------------------------------------------------ who may use it


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
