"""The download stage, when a set was there before."""

from __future__ import annotations

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import orphans, read_metadata
from cloudcover.sources.fetch import fetch


def test_a_smaller_synthetic_set_leaves_nothing_of_a_larger_one(tmp_path):
    raw = tmp_path / "raw"
    for chips, unlabelled in ((12, 0.0), (6, 0.5)):
        synthetic = SyntheticParams(locations=2, scenes=3, chips=chips, unlabelled=unlabelled)
        fetch(DataParams(chip_size=32), synthetic, 0, raw, tmp_path / "truth")
    chips = read_metadata(raw)
    assert len(chips) == 6
    assert orphans(raw, chips) == {"rows without chips": [], "chips without rows": []}
    labelled = chips.loc[chips["split"] == "train", "chip_id"]
    assert sorted(path.stem for path in (raw / "train_labels").iterdir()) == sorted(labelled)
    assert len(tables.FILES.read(raw / "files.csv")) == 6 * 4 + 3 + 2
