"""Verdicts on disk: what is kept, and what is never overwritten."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcover.data import tables
from cloudcover.review.verdicts import ConflictError, Verdict, Verdicts, utc_now
from cloudcover.runtime.locks import FolderBusyError

NOON = "2026-01-01T12:00:00Z"


def on_disk(path: Path) -> dict[str, tuple[str, ...]]:
    return {row[0]: row for row in tables.VERDICTS.read(path).itertuples(index=False, name=None)}


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
