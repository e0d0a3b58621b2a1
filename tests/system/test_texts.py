"""Free text by people on its way through the whole chain: preserved in tables and the report, and never executed."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from cloudcover.data import tables
from cloudcover.review.queue import Queue
from harness.project import ONE_ROUND, TINY, Project
from helpers.layouts import make_layout
from helpers.pages import Outline

PLACES = [
    "<script>alert(1)</script>",
    r'a "quoted" & $\alpha$ 100%_{x}',
    "地点 é",
    "=1+1",
    "{run}",
    "..",
    "very long " * 40 + "end",
    "nan",
    '</text><x-evil id="x" onload="y" style="font-family: z; fill: #040404">&lt;',
    "",
    "a, 'b'; --",
    "$x^$",
]
NOTES = {"c000": "<x-evil>1</x-evil> $y_{", "c001": "NULL", "c002": 'said "no", & left', "c003": "=2+2 {0}"}
REVIEWERS = {"c000": "</p><x-evil>Zoë", "c001": "nan", "c002": "{wildcards}", "c003": "audit"}
MEMBERS = {"fpn-2": {"architecture": "fpn"}, "null": {}}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Project:
    """A tiny run of the whole chain in which people have filled every free-text field."""
    root = tmp_path_factory.mktemp("hostile")
    source = root / "my chips, é's & $x"
    make_layout(source, chips=52, scenes=12, unlabelled=4)
    for split in ("train", "test"):
        table = tables.METADATA.read(source / f"{split}_metadata.csv")
        table["location"] = [PLACES[number % len(PLACES)] for number in range(len(table))]
        tables.METADATA.write(table, source / f"{split}_metadata.csv")
    values = {
        **TINY, **ONE_ROUND, "folds": {"number": 2, "test_share": 0},
        "data": {**TINY["data"], "source": "local", "path": str(source)},
        "final": {"labels": "round1", "members": MEMBERS},
        "prediction": {"tta": "none", "judge_tta": "none", "compare_tta": []},
    }  # fmt: skip
    project = Project(root / "project", values, forks=True)
    verdicts = pd.DataFrame(
        {"chip_id": list(NOTES), "verdict": "bad", "reviewer": REVIEWERS.values(), "reason": NOTES.values()}
    )
    tables.VERDICTS.write(verdicts.assign(time=""), project.folder / "config/verdicts.csv")
    project.snakemake()
    return project


def test_what_people_write_arrives_in_every_table_of_the_chain(hostile):
    index = tables.INDEX.read(hostile.folder / "data/store/index.parquet").set_index("chip_id")
    assert set(index["location"]) == set(PLACES)
    reports = hostile.folder / "reports"
    for path in (reports / "tables/locations.csv", reports / "tables/chips.csv"):
        assert set(tables.read_csv(path)["location"]) == set(PLACES)
    manifest = tables.MANIFEST.read(hostile.folder / "data/labels/manifest.csv").set_index("chip_id")
    for chip_id, note in NOTES.items():
        assert (manifest.loc[chip_id, "verdict"], manifest.loc[chip_id, "reason"]) == ("bad", note)
    assert manifest.loc[list(NOTES), "source"].tolist() == [*list(REVIEWERS.values())[:3], "human"]
    queue = Queue(index.assign(chip_id=index.index), tables.AUDIT.read(hostile.folder / "data/audit/baseline.csv"))
    assert {queue.describe(chip)["location"] for chip in queue.table.index} == set(PLACES)
    metrics = json.loads((reports / "metrics.json").read_text())
    assert {f"final/{member}" for member in MEMBERS} <= metrics.keys()
    bundle = json.loads((hostile.folder / "models/bundle/bundle.json").read_text())
    assert set(bundle["settings"]["weights"]) == {f"{member}-fold{fold}" for member in MEMBERS for fold in (0, 1)}


def test_the_report_shows_what_people_write_and_obeys_none_of_it(hostile):
    page = (hostile.folder / "reports/index.html").read_text()
    outline = Outline(page)
    assert not {"script", "x-evil"} & set(outline.seen)
    assert not [name for name in outline.attributes if name.startswith("on")]
    assert set(PLACES) <= set(outline.cells)
    text = "".join(outline.texts)
    assert all(note in text for note in NOTES.values())
    assert all(f"rejected by {name}" in text for name in [*list(REVIEWERS.values())[:3], "human"])
    for member in MEMBERS:
        assert f"final/{member}" in outline.cells
        assert member in outline.cells
