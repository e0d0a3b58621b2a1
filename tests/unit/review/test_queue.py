"""The queue of labels: which comes next, and what is said of it."""

from __future__ import annotations

from pathlib import Path

from cloudcover.data import tables
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.store import ChipStore
from cloudcover.labels.reasons import REASONS, explain
from cloudcover.review.queue import Queue, rate
from cloudcover.review.verdicts import Verdict

NOON = "2026-01-01T12:00:00Z"


def test_the_most_suspicious_label_comes_first_and_filters_combine(reviewed: Path) -> None:
    queue = Queue(ChipStore(reviewed / "store").index, tables.AUDIT.read(reviewed / "audit.csv"))
    verdicts = {"c003": Verdict("c003", "bad", "Ada", "", NOON), "c009": Verdict("c009", "clean", "Ada", "", NOON)}
    assert list(queue.select({}, {})["chip_id"])[:3] == ["c000", "c001", "c002"]
    assert list(queue.select({}, {"order": "least"})["chip_id"])[:2] == ["c021", "c020"]
    place0 = queue.select(verdicts, {"location": "place0", "reason": "false_cloud"})
    assert list(place0["chip_id"]) == ["c000", "c003", "c006", "c009", "c012", "c015", "c018", "c021"]
    assert list(queue.select(verdicts, {"location": "place0", "verdict": "bad"})["chip_id"]) == ["c003"]
    assert len(queue.select(verdicts, {"verdict": "none"})) == 20
    assert queue.select(verdicts, {"scene": "place1@2020-02-10T10:00:00Z"})["chip_id"].iloc[0] == "c001"
    assert queue.select(verdicts, {"scene": "nowhere"}).empty


def test_labels_come_scene_by_scene_without_an_audit(reviewed: Path) -> None:
    queue = Queue(ChipStore(reviewed / "store").index, None)
    scenes = list(queue.select({}, {})["scene"])
    assert scenes == sorted(scenes)
    assert len(scenes) == 22  # the two without a label are left out
    assert queue.describe("c000")["suspicion"] is None


def test_neighbours_are_of_the_same_scene(reviewed: Path) -> None:
    queue = Queue(ChipStore(reviewed / "store").index, None)
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
