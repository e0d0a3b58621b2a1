"""Free text by people: either refused on input, with the allowed form, or preserved exactly."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudcover.cli import main
from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import ownership, tables
from cloudcover.data.layout import read_metadata, write_file_table
from cloudcover.data.tables import CONTROL, TableError
from cloudcover.labels.importers import read_verdicts
from cloudcover.review.queue import Queue
from cloudcover.review.verdicts import Verdicts
from cloudcover.sources.fetch import fetch
from helpers.layouts import make_layout, write_tif
from helpers.stores import run

HOSTILE = [
    "",
    " ",
    "nan",
    "NULL",
    "True",
    "0012",
    "=1+1",
    "a,b",
    'a"b',
    "a;b",
    "{x}",
    "$x^$",
    "../x",
    "<b>",
    "ä\u202eö",
    "🛰",
    "'",
    "%s",
    "a@b",
]
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


@settings(deadline=None, max_examples=25)
@given(locations=st.lists(TEXTS, min_size=6, max_size=6))
@example(locations=HOSTILE[:6])
@example(locations=HOSTILE[6:12])
@example(locations=HOSTILE[12:18])
def test_locations_arrive_in_the_store_and_on_the_review_page_as_they_were_written(locations):
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name, "raw")
        make_layout(raw, chips=6, unlabelled=0)
        table = read_metadata(raw).drop(columns=["split", "scene"]).assign(location=locations, datetime="")
        tables.METADATA.write(table, raw / "train_metadata.csv")
        write_file_table(raw, "test")
        store, _ = run(raw)
        assert store.index["location"].tolist() == locations
        queue = Queue(store.index, None)
        shown = json.loads(json.dumps([queue.describe(chip)["location"] for chip in store.index.index]))
        assert shown == locations
        names = {option["name"] for option in queue.options()["location"]}
        assert names == set(locations)


@given(TEXTS, st.sampled_from("\n\r\t\0\x1b\x7f"), TEXTS)
def test_texts_that_are_not_on_one_line_are_refused_with_their_row(before, odd, after):
    frame = pd.DataFrame({"chip_id": ["a", "b"], "location": ["here", before + odd + after]})
    frame = frame.assign(datetime="", cloudpath="")
    with pytest.raises(TableError, match=r"location holds control characters, such as line breaks, in rows (2, )?3"):
        tables.METADATA.check(frame, "test")


def test_a_line_break_in_a_cell_of_a_spreadsheet_is_refused(tmp_path):
    path = tmp_path / "train_metadata.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(tables.METADATA.columns), ["a", "Oslo\nNorth", "", ""]])
    with pytest.raises(TableError, match="on one line"):
        read_metadata(tmp_path)


@settings(deadline=None)
@given(note=st.text(max_size=20), reviewer=st.text(max_size=20))
def test_notes_and_names_of_reviewers_are_kept_on_one_line(note, reviewer):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "verdicts.csv")
        with Verdicts(path, reviewer) as verdicts:
            verdicts.judge(["c0"], "bad", note, {})
        row = tables.VERDICTS.read(path).iloc[0]
        for given_text, kept in ((note, row["reason"]), (reviewer, row["reviewer"])):
            assert not CONTROL.search(kept)
            assert kept == " ".join("".join(c if c.isprintable() else " " for c in given_text).split())


@given(st.text(max_size=20))
def test_a_list_names_its_reviewer_on_one_line(reviewer):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "list.txt")
        path.write_text("c0\n")
        assert not CONTROL.search(read_verdicts(path, reviewer)["reviewer"][0])


@pytest.mark.parametrize("band", ["../B02", "a/b", "", " ", "label", "B02.tif", ".B02", "*", "{x}", "B02\n"])
def test_bands_are_names_of_files(band):
    with pytest.raises(ParamsError, match="cannot be file names"):
        validate({"data": {"bands": ["B03", band]}})


@pytest.mark.parametrize("key", ["path", "unlabelled", "sas_file", "checksums"])
def test_a_path_with_braces_is_refused_and_a_tilde_expanded(key, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = (
        {"source": "archive", "path": "x", "checksums": "y"} if key == "checksums" else {"source": "local", "path": "x"}
    )
    with pytest.raises(ParamsError, match=rf"data\.{key}: .*must not contain braces"):
        validate({"data": values | {key: "my {chips}"}, "evaluation": {"references": []}})
    data = validate({"data": values | {key: "~/my chips"}, "evaluation": {"references": []}}).data
    assert getattr(data, key) == str(tmp_path / "my chips")


def test_a_set_below_the_home_is_found_by_its_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_layout(tmp_path / "my chips, ä", chips=4)
    for band in ("B02", "B03", "B04", "B08"):
        write_tif(tmp_path / "more's" / "m1" / f"{band}.tif", np.full((64, 64), 900, np.uint16))
    values = {"source": "local", "path": "~/my chips, ä", "unlabelled": "~/more's", "chip_size": 64, "link": "symlink"}
    fetch(DataParams.model_validate(values), SyntheticParams(), 0, tmp_path / "raw", tmp_path / "truth")
    assert len(run(tmp_path / "raw")[0]) == 5
    out = tmp_path / "out"
    arguments = ["download", "--source", "local", "--path", "~/my chips, ä", "--out", str(out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (out / "files.csv").exists()


@given(st.text(st.characters(blacklist_characters="/\n\r\0", blacklist_categories=("Cs",)), min_size=1, max_size=12))
@example("a\u2028b.tif")
@example("a\x85b.tif")
def test_the_record_of_a_folder_keeps_every_name(name):
    if name in (".", ".."):
        name = "dots"
    with tempfile.TemporaryDirectory() as folder:
        ownership.claim(Path(folder))
        ownership.reserve(Path(folder), [name])
        assert ownership.owned(Path(folder)) == {name}
