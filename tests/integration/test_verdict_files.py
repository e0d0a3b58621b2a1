"""Verdicts that people keep in files: ids that a spreadsheet has changed, links, and several writers."""

from __future__ import annotations

import logging
import os
import re

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudcover.cli import main
from cloudcover.config.sections import LabelsParams
from cloudcover.data import tables
from cloudcover.data.ids import changed_ids
from cloudcover.labels.importers import read_verdicts
from cloudcover.labels.known import UnknownChipsError
from cloudcover.labels.manifest import build_manifest
from cloudcover.review.verdicts import Verdicts
from helpers.users import NOBODY, error_as_nobody, folder_of_nobody

IDS = ["00120", "0007", "12e4", "abCd", "a1", "1_000"]


def verdicts(*chips: str) -> pd.DataFrame:
    frame = pd.DataFrame({"chip_id": chips}).assign(verdict="bad", reviewer="kim", reason="", time="")
    return tables.VERDICTS.check(frame, "test")


def manifest_of(audit: pd.DataFrame | None, given_verdicts: pd.DataFrame, store: pd.DataFrame, policy: str):
    folds = pd.DataFrame({"chip_id": store["chip_id"], "fold": 0, "scene": "s"})
    return build_manifest(audit, given_verdicts, store, folds, LabelsParams(policy=policy))


def index_of(*chips: str) -> pd.DataFrame:
    return pd.DataFrame({"chip_id": chips, "labelled": True})


def call(*arguments: object):
    return CliRunner().invoke(main, ["manifest", "import", *map(str, arguments)])


# --- ids -----------------------------------------------------------------------------------------------------------


@given(st.from_regex(r"[0-9]{1,9}", fullmatch=True) | st.from_regex(r"[a-d]{1,4}", fullmatch=True))
def test_an_id_without_its_zeros_or_case_is_traced_back(chip):
    for changed in {chip.lstrip("0"), chip.upper(), f"{chip}.0" if chip.isdigit() else chip} - {"", chip}:
        assert changed_ids([changed], [chip]) == {changed: chip}
    assert changed_ids([chip], [chip]) == {}
    assume(chip != "zz")
    assert changed_ids(["zz"], [chip]) == {}


@pytest.mark.parametrize(
    ("changed", "was"),
    [("120", "00120"), ("7", "0007"), ("120000", "12e4"), ("ABCD", "abCd"), ("00120.tif", "00120"), ("7.TIFF", "0007")],
)
def test_verdicts_on_changed_ids_are_refused_with_both(changed, was, tmp_path):
    given_verdicts, store = verdicts(changed, "a1"), index_of(*IDS)
    with pytest.raises(UnknownChipsError, match=rf"{changed} \(the store has {was}\).*as text"):
        manifest_of(None, given_verdicts, store, "human")
    audit = pd.DataFrame({"chip_id": IDS, "suspicion": 0.1, "reasons": ""})
    assert len(manifest_of(audit, given_verdicts, store, "auto")) == len(IDS)


def test_verdicts_of_another_set_are_refused_and_a_few_unknown_ones_warned_of(caplog):
    with pytest.raises(UnknownChipsError, match=r"none of the 2 verdicts names a chip of the store: x, y"):
        manifest_of(None, verdicts("x", "y"), index_of(*IDS), "human")
    with caplog.at_level(logging.WARNING):
        manifest_of(None, verdicts("x", "a1"), index_of(*IDS), "human")
    assert "1 verdicts name chips that are not in the store" in caplog.text


def index_file(folder, *chips):
    values = {"str": "", "int64": 0, "float64": 0.0, "bool": True}
    frame = pd.DataFrame({c: values[t] for c, t in tables.INDEX.columns.items()}, index=range(len(chips)))
    tables.INDEX.write(frame.assign(chip_id=chips, split="train"), folder / "index.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "00120.tif\ntrain_labels/0007.TIF\nC:\\chips\\a1.tiff\n"),
        ("list.TXT", "00120\n0007\na1\n"),
        ("list.yml", "overall: [./00120.tif, 0007.tif, a1]\n"),
        ("list.csv", "chip_id\n00120.tif\n0007\na1.tif\n"),
        ("mine.csv", "chip_id,verdict,reviewer,reason,time\n00120.tif,bad,,,\n0007,bad,,,\na1,bad,,,\n"),
        ("votes.csv:ana", "chip_id,ana\n00120.tif,1\n0007,TRUE\na1,true\nabCd,FALSE\n12e4,0\n"),
    ],
)
def test_names_of_files_count_as_their_chips(tmp_path, name, text):
    (tmp_path / name.partition(":")[0]).write_text(text)
    assert read_verdicts(f"{tmp_path}/{name}")["chip_id"].tolist() == ["00120", "0007", "a1"]


def test_an_import_compares_the_list_with_the_store(tmp_path):
    store, table = index_file(tmp_path, *IDS), tmp_path / "verdicts.csv"
    options = ["--verdicts", table, "--store", store]
    (tmp_path / "list.txt").write_text("120\na1\n")
    result = call(tmp_path / "list.txt", *options)
    assert result.exit_code == 1
    assert "120 (the store has 00120)" in result.output
    assert not table.exists()
    (tmp_path / "list.txt").write_text("00120.tif\na1\n")
    assert "2 verdicts added" in call(tmp_path / "list.txt", *options).output
    assert tables.VERDICTS.read(table)["chip_id"].tolist() == ["00120", "a1"]


@pytest.mark.parametrize("text", ["chip_id,ana\na,\n", "chip_id,ana\na,no\n", "chip_id,ana\na,1,1\n"])
def test_a_column_with_empty_cells_or_surplus_fields_is_refused(tmp_path, text):
    (tmp_path / "votes.csv").write_text(text)
    result = call(f"{tmp_path}/votes.csv:ana", "--verdicts", tmp_path / "v.csv", "--store", tmp_path)
    assert result.exit_code == 1
    assert not (tmp_path / "v.csv").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.yml", b"overall: [a, b"),
        ("list.yml", b"overall: {a: [}"),
        ("list.txt", b"\xff\xfe\x00a"),
        ("list.csv", b'chip_id\n"a\n'),
        ("list.csv", b""),
        ("mine.csv", b"chip_id,verdict,reviewer,reason,time\na,maybe,,,\n"),
        ("list.txt", b"../a b\n"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_message_and_changes_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    result = call(tmp_path / name, "--verdicts", tmp_path / "v.csv", "--store", tmp_path)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert not (tmp_path / "v.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chip_id,verdict\na,clean\nb,bad\n", "has a column verdict, but not reviewer, reason, time"),
        ("chip_id,cloudy,bad\na,0.3,0\nb,0.1,1\n", "the column bad seems to say which chips are bad: name it"),
        ("chip_id,bad\na,FALSE\n", "the column bad seems to say"),
        ("chip_id,bad\na,yes\nb,no\n", "the column bad seems to say"),
        ("chip_id,quality\na,Bad\nb,Good\n", "the column quality seems to say"),
        ("chip_id,reject\na,x\nb,\n", "the column reject seems to say"),
        ("chip_id,bad\na,1.0\nb,0.0\n", "the column bad seems to say"),
        ("chip_id;bad\na;1\n", "separate the columns by commas, not by ';'"),
        ("chip_id\tbad\na\t1\n", "separate the columns by commas"),
        ("chip_id,note\na,caf\xe9\n", "it is not UTF-8 text, save it as such"),
    ],
)
def test_a_table_of_which_only_some_chips_are_bad_is_not_taken_for_a_list_of_bad_ones(tmp_path, text, message):
    (tmp_path / "list.csv").write_bytes(text.encode("latin1"))
    result = call(tmp_path / "list.csv", "--verdicts", tmp_path / "v.csv", "--store", tmp_path)
    assert isinstance(result.exception, SystemExit)
    assert message in result.output
    assert not (tmp_path / "v.csv").exists()


def test_a_column_of_remarks_leaves_a_list_of_bad_chips_as_it_is(tmp_path):
    (tmp_path / "list.csv").write_text("chip_id,sure,note,more\na,1,0 clouds,\nb,1,,\n")
    assert "2 verdicts added" in call(tmp_path / "list.csv", "--verdicts", tmp_path / "v.csv").output


def test_a_list_given_twice_in_one_file_is_refused_with_both_lines(tmp_path):
    (tmp_path / "list.yml").write_text("overall: [a]\noverall: [b]\n")
    result = call(tmp_path / "list.yml", "--verdicts", tmp_path / "v.csv")
    assert result.exit_code == 1
    assert "overall: appears twice, on lines 1 and 2" in result.output
    assert not (tmp_path / "v.csv").exists()


def test_a_link_to_itself_and_endless_yaml_are_one_message(tmp_path):
    (tmp_path / "list.txt").write_text("a\n")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "deep.yml").write_text("overall: " + "[" * 3000)
    loop = call(tmp_path / "list.txt", "--verdicts", tmp_path / "loop.csv")
    deep = call(tmp_path / "deep.yml", "--verdicts", tmp_path / "v.csv")
    for result, message in ((loop, "loop.csv"), (deep, "deep.yml is not valid YAML")):
        assert isinstance(result.exception, SystemExit)
        assert message in result.output


def test_chips_to_compare_on_need_their_column(tmp_path):
    (tmp_path / "list.txt").write_text("a\n")
    (tmp_path / "chips.csv").write_text("id\na\n")
    words = ["manifest", "compare", *[str(tmp_path / "list.txt")] * 2, "--chips", str(tmp_path / "chips.csv")]
    result = CliRunner().invoke(main, words)
    assert "chips.csv has the columns ['id'], but not chip_id" in result.output


# --- writers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path):
    """A file of verdicts, linked from another folder."""
    (tmp_path / "shared").mkdir()
    tables.VERDICTS.write(verdicts("a1"), tmp_path / "shared/mine.csv")
    link = tmp_path / "verdicts.csv"
    link.symlink_to("shared/mine.csv")
    (tmp_path / "list.txt").write_text("0007\n")
    return link


def test_a_link_to_the_file_stays_a_link_whoever_writes(linked, tmp_path):
    assert call(tmp_path / "list.txt", "--verdicts", linked, "--store", tmp_path).exit_code == 0
    with Verdicts(linked, "Ada") as held:
        held.judge(["00120"], "bad", "", {})
    assert linked.is_symlink()
    assert tables.VERDICTS.read(tmp_path / "shared/mine.csv")["chip_id"].tolist() == ["0007", "00120", "a1"]


def test_a_link_to_a_file_that_is_not_there_yet_is_followed(tmp_path):
    link = tmp_path / "verdicts.csv"
    link.symlink_to("later.csv")
    with Verdicts(link, "Ada") as held:
        held.judge(["a"], "bad", "", {})
    assert link.is_symlink()
    assert (tmp_path / "later.csv").exists()


def test_a_file_that_is_read_only_is_not_replaced():
    with folder_of_nobody(0o700) as folder:
        path = folder / "verdicts.csv"
        tables.VERDICTS.write(verdicts("a1"), path)
        path.chmod(0o444)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        told = error_as_nobody(lambda: Verdicts(path, "Ada").judge(["b2"], "bad", "", {}))
        assert re.match(r"PermissionError: .*it is read-only: `chmod u\+w` .*verdicts\.csv", told)
        assert tables.VERDICTS.read(path)["chip_id"].tolist() == ["a1"]


@pytest.mark.parametrize("by_link", [False, True])
def test_an_import_does_not_write_while_a_review_is_open(linked, tmp_path, by_link):
    other = linked if by_link else tmp_path / "shared/mine.csv"
    with Verdicts(linked, "Ada") as held:
        result = call(tmp_path / "list.txt", "--verdicts", other, "--store", tmp_path)
        assert result.exit_code == 1
        assert "another review is open on" in result.output
        held.judge(["00120"], "bad", "", {})
    assert call(tmp_path / "list.txt", "--verdicts", other, "--store", tmp_path).exit_code == 0
    assert len(tables.VERDICTS.read(linked)) == 3
