"""Users' files: whatever folder is named, the program replaces and removes only files that it has put there itself."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcover.cli import main
from cloudcover.config.params import validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import ownership
from cloudcover.data.layout import LayoutError, layout_files
from cloudcover.data.ownership import FolderError
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.predict import images as predict_images
from cloudcover.predict.outputs import Outputs, write_mask
from cloudcover.predict.unlabelled import predict_unlabelled
from cloudcover.rasters.find import Found
from cloudcover.rasters.layers import Request
from cloudcover.runtime.files import sha256
from cloudcover.sources.fetch import fetch
from cloudcover.synthetic.generate import generate
from helpers.layouts import BANDS, make_layout, write_tif
from helpers.paths import ROOT
from helpers.scenes import NORTH_UP

LINKS = ["copy", "hardlink", "symlink"]
SMALL = SyntheticParams(locations=2, scenes=2, chips=4)


def state(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder that a name leads to, hidden ones of the program left out."""
    return {
        p.relative_to(folder).as_posix(): sha256(p) if p.exists() else "a broken link"
        for p in sorted(folder.rglob("*"))
        if (p.is_file() or (p.is_symlink() and not p.is_dir())) and ".cloudcover" not in p.name
    }


def bring(source: Path, raw: Path, **changes: object) -> None:
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams(), 0, raw, raw.parent / f"{raw.name}-truth")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    make_layout(folder, chips=2, scenes=2, unlabelled=0)
    return folder


# --- the folder to read from ---------------------------------------------------------------------------------------


PLACES = st.lists(st.sampled_from(["a", "b", "train_features"]), max_size=3).map("/".join)


@settings(deadline=None, max_examples=40)
@given(source=PLACES, raw=PLACES, link=st.sampled_from(LINKS), tile=st.booleans(), by_link=st.booleans())
def test_a_source_inside_around_or_beside_the_target_is_never_changed(small, source, raw, link, tile, by_link):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "top")
        shutil.copytree(small, root / source)
        target = root / raw
        if by_link:
            target.mkdir(parents=True, exist_ok=True)
            Path(name, "link").symlink_to(target)
            target = Path(name, "link")
        before = state(root / source)
        apart = not (
            {root / source, *(root / source).parents} & {root / raw} or (root / source) in (root / raw).parents
        )
        if apart:
            bring(root / source, target, link=link, tile=tile, chip_size=32 if tile else 64)
        else:
            with pytest.raises(FolderError, match=r"data\.path: .* are the same folder or one is inside the other"):
                bring(root / source, target, link=link, tile=tile, chip_size=32 if tile else 64)
        assert {path: digest for path, digest in state(root / source).items() if path in before} == before


@pytest.mark.parametrize("link", LINKS)
def test_a_source_of_links_into_the_target_is_refused(small, tmp_path, link):
    raw, source = tmp_path / "raw", tmp_path / "source"
    bring(small, raw)
    shutil.copytree(small, source)
    (source / "train_labels/c000.tif").unlink()
    (source / "train_labels/c000.tif").symlink_to(raw / "train_labels/c000.tif")
    before = state(tmp_path)
    with pytest.raises(FolderError, match="is a link into"):
        bring(source, raw, link=link)
    assert state(tmp_path) == before


@pytest.mark.parametrize("link", LINKS)
def test_further_chips_inside_the_target_are_refused_before_anything_is_removed(small, tmp_path, link):
    raw = tmp_path / "raw"
    bring(small, raw)
    for band in BANDS:
        write_tif(raw / "unlabelled_features" / "mine" / f"{band}.tif", np.ones((64, 64), np.uint16))
    before = state(raw)
    with pytest.raises(FolderError, match=r"data\.unlabelled: "):
        bring(small, raw, link=link, unlabelled=str(raw / "unlabelled_features"))
    assert state(raw) == before


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_a_synthetic_set_does_not_write_through_links_of_a_local_one(tmp_path, link):
    source, raw = tmp_path / "source", tmp_path / "raw"
    generate(SMALL, DataParams(chip_size=64), 0, source, tmp_path / "source-truth")
    before = state(source)
    bring(source, raw, link=link)
    fetch(DataParams(chip_size=64), SMALL, 1, raw, tmp_path / "raw-truth")
    assert state(source) == before


def test_hard_links_to_another_disk_are_refused_with_the_remedy(disk, small, tmp_path):
    with pytest.raises(OSError, match=r"another file system: set data\.link to symlink or copy: '.*B02\.tif' -> '"):
        bring(small, disk.path / "raw", link="hardlink")
    bring(small, disk.path / "raw", link="symlink")


def test_a_second_link_takes_the_place_of_the_first(small, tmp_path):
    for link in [*LINKS, *LINKS[::-1]]:
        bring(small, tmp_path / "raw", link=link)
        assert {k: v for k, v in state(tmp_path / "raw").items() if k != "files.csv"} == state(small)


# --- the folder to write to ----------------------------------------------------------------------------------------


def test_a_set_of_somebody_else_is_refused_by_every_source_and_by_synth(small, tmp_path):
    mine = tmp_path / "mine"
    make_layout(mine, chips=3, seed=1)
    before = state(mine)
    for data in ({"source": "local", "path": str(small)}, {"source": "http", "url": "http://127.0.0.1:9"}, {}):
        with pytest.raises(FolderError, match=r"mine contains test_features, .* choose an empty folder"):
            fetch(DataParams.model_validate(data | {"chip_size": 64}), SMALL, 0, mine, tmp_path / "truth")
    result = CliRunner().invoke(main, ["synth", str(mine), "--chips", "3"])
    assert result.exit_code == 1
    assert "choose an empty folder" in result.output
    arguments = ["download", "--source", "local", "--path", str(small), "--out", str(mine)]
    assert "choose an empty folder" in CliRunner().invoke(main, arguments).output
    assert state(mine) == before
    assert not list(mine.glob(".*"))


def test_download_elsewhere_leaves_the_truth_beside_it(small, tmp_path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/masks.csv").write_text("mine")
    arguments = ["download", "--source", "local", "--path", str(small), "--out", str(tmp_path / "set")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (tmp_path / "truth/masks.csv").read_text() == "mine"


def test_files_beside_the_set_stay_and_are_not_taken_for_its_own(small, tmp_path):
    raw = tmp_path / "raw"
    fetch(DataParams(chip_size=64), SMALL, 0, raw, tmp_path / "truth")
    mine = ["train_features/mine/B02.tif", "train_labels/mine.tif", "unlabelled_features/mine/B02.tif", "notes.txt"]
    for path in mine:
        write_tif(raw / path, np.ones((64, 64), np.uint16))
    for _ in range(2):
        bring(small, raw)
        fetch(DataParams(chip_size=64), SMALL.model_copy(update={"chips": 2}), 0, raw, tmp_path / "truth")
    assert all((raw / path).exists() for path in mine)
    assert len([path for path in layout_files(raw) if path.as_posix() not in mine]) == 2 * 4 + 2 + 2


def test_masks_in_the_folder_of_a_set_stay(small, tmp_path):
    """They are the program's, too, but a set does not replace them."""
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    bring(small, raw)
    found = [Found("c9", "chip", str(small), "", Request(("B02",)))]
    for folder in (raw, truth, tmp_path / "masks"):
        predict_images._reserve(found, Outputs(folder, probabilities=True))
        for path in ("c9.tif", "probabilities/c9.tif"):
            write_mask(folder / path, np.ones((64, 64), np.uint8), "", NORTH_UP)
    bring(small, raw)
    fetch(DataParams(chip_size=64), SMALL, 0, raw, truth)
    bring(small, tmp_path / "masks")
    for folder in (raw, truth, tmp_path / "masks"):
        assert (folder / "c9.tif").exists()
        assert (folder / "probabilities/c9.tif").exists()
        assert "c9.tif" in ownership.owned(folder)
    assert sorted(path.parts[0] for path in layout_files(tmp_path / "masks"))[-1] == "train_metadata.csv"


def test_a_file_of_somebody_else_in_the_way_is_named(small, tmp_path):
    raw = tmp_path / "raw"
    fetch(DataParams(chip_size=64), SMALL, 0, raw, tmp_path / "truth")
    (raw / "train_labels/c001.tif").write_text("mine")
    with pytest.raises(FolderError, match=r"c001\.tif was not made by cloudcover and would be overwritten"):
        bring(small, raw)
    assert (raw / "train_labels/c001.tif").read_text() == "mine"


def test_a_datetime_that_is_none_is_refused_with_its_folder(tmp_path):
    source = tmp_path / "mine"
    make_layout(source, 1, unlabelled=0)
    table = source / "train_metadata.csv"
    table.write_text(re.sub(r"\d{4}-\d\d-\d\dT[^,]*", "yesterday", table.read_text()))
    with pytest.raises(LayoutError, match=r"mine/\*_metadata\.csv: 1 datetimes are not ISO 8601 \('yesterday'\)"):
        bring(source, tmp_path / "raw")


def test_parameters_that_are_named_but_not_there_are_not_replaced_by_defaults(small, tmp_path):
    words = ["download", "--params", "parms.yaml", "--source", "local", "--path", str(small), "--out"]
    result = CliRunner().invoke(main, [*words, str(tmp_path / "out")])
    assert "No such file or directory: 'parms.yaml'" in result.output
    assert not (tmp_path / "out").exists()


def test_a_linked_folder_inside_the_target_is_not_written_to(small, tmp_path):
    mine, raw = tmp_path / "mine", tmp_path / "raw"
    mine.mkdir()
    raw.mkdir()
    ownership.claim(raw)
    (raw / "train_labels").symlink_to(mine)
    with pytest.raises(FolderError, match="because a folder in its path is a link"):
        bring(small, raw)
    assert not list(mine.iterdir())


def test_a_killed_run_is_gone_on_with_though_its_manifest_is_missing(tmp_path):
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    program = (
        "import sys; from pathlib import Path; from cloudcover.sources.fetch import fetch\n"
        "from cloudcover.config.sections import DataParams, SyntheticParams\n"
        "import cloudcover.synthetic.generate as s, os, itertools\n"
        "count = itertools.count(); write = s.write_tiff\n"
        "def stop(*a):\n    write(*a)\n    if next(count) == 7: os._exit(9)\n"
        "s.write_tiff = stop\n"
        "fetch(DataParams(chip_size=64), SyntheticParams(locations=2, scenes=2, chips=12), 0,"
        " Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", program, raw, truth], check=False)
    assert done.returncode == 9
    assert list(raw.rglob("*.tif"))
    assert not (raw / "files.csv").exists()
    fetch(DataParams(chip_size=64), SMALL, 5, raw, truth)
    assert len(list(raw.glob("*_features/*"))) == 4
    for table in (raw / "files.csv", truth / "masks.csv"):
        table.unlink()  # as Snakemake does before it runs the rule again
    fetch(DataParams(chip_size=64), SMALL, 5, raw, truth)


NAMES = st.sets(st.sampled_from(["x.tif", "a/x.tif", "a/b/x.tif", "y.tif"]))


@given(own=NAMES, foreign=NAMES, keep=NAMES)
def test_pruning_removes_its_own_files_only(own, foreign, keep):
    with tempfile.TemporaryDirectory() as name:
        root, others = Path(name), foreign - own
        ownership.claim(root)
        ownership.reserve(root, own)
        for path in own | others:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        ownership.prune(root, keep)
        assert set(state(root)) == others | (own & keep)


def _reserve_each(root: Path, names: list[str]) -> None:
    for name in names:
        ownership.reserve(root, [name])


def test_runs_beside_each_other_record_all_files_of_one_folder(tmp_path):
    names = [[f"{run}-{number}.tif" for number in range(20)] for run in range(4)]
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_reserve_each, args=(tmp_path, mine)) for mine in names]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert ownership.owned(tmp_path) == {name for mine in names for name in mine}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_to_itself_is_named_and_all_others_are_done(small, tmp_path, link):
    source = shutil.copytree(small, tmp_path / "source")
    loop = source / "train_labels/c000.tif"
    loop.unlink()
    loop.symlink_to("c000.tif")
    with pytest.raises(LayoutError, match=r"c000\.tif is not a (readable )?file"):
        bring(source, tmp_path / "raw", link=link)
    assert (tmp_path / "raw/train_labels/c001.tif").exists()


def test_a_record_that_leads_out_of_its_folder_removes_nothing(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "mine.tif").write_text("mine")
    (tmp_path / "root/.cloudcover").write_text(f"../mine.tif\n{tmp_path}/mine.tif\n")
    ownership.prune(tmp_path / "root", [])
    assert (tmp_path / "mine.tif").exists()


# --- what commands write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["a\rmine.tif", "a\u2028mine.tif", "a\x0bmine.tif", os.fsdecode(b"mine\xff.tif")])
def test_odd_names_in_the_record_stand_for_no_other_file(tmp_path, odd):
    raw = tmp_path / "data/raw"
    ownership.reserve(raw, [odd, "own.tif"])
    for name in (odd, "own.tif", "mine.tif"):
        (raw / name).write_text("x")
    with pytest.raises(FolderError, match=r"mine.tif was not made by cloudcover"):
        ownership.reserve(raw, ["mine.tif"])
    with pytest.raises(FolderError, match=r"holds a line break: rename"):
        ownership.reserve(raw, ["b\nmine.tif"])
    subprocess.run([sys.executable, ROOT / "workflow/clean.py"], cwd=tmp_path, check=True)
    assert [path.name for path in raw.iterdir()] == ["mine.tif"]


def test_masks_overwrite_neither_bands_nor_labels_but_earlier_masks(tmp_path):
    chip = tmp_path / "chips" / "B02"
    write_tif(chip / "B02.tif", np.ones((64, 64), np.uint16))
    found = [Found("B02", "chip", str(chip), "", Request(("B02",)))]
    with pytest.raises(FolderError, match="is a band of a chip"):
        predict_images._reserve(found, Outputs(chip))
    labels = tmp_path / "labels"
    write_tif(labels / "B02.tif", np.ones((64, 64), np.uint8))
    with pytest.raises(FolderError, match="would be overwritten"):
        predict_images._reserve(found, Outputs(labels))
    for _ in range(2):
        predict_images._reserve(found, Outputs(tmp_path / "out"))
        write_mask(tmp_path / "out" / "B02.tif", np.ones((64, 64), np.uint8), "", NORTH_UP)


def test_masks_of_the_store_replace_earlier_ones_only(layout, tmp_path):
    raw, store, out = layout(chips=4), tmp_path / "store", tmp_path / "predictions"
    pack(raw, store, tmp_path / "q.csv", validate({"data": {"chip_size": 64}}).data)
    card = SimpleNamespace(bands=BANDS, weights_sha256="0123456789abcdef")
    clear = np.zeros((2, 64, 64), np.uint8)
    predictor = SimpleNamespace(
        batch=2, masks=lambda chips, _: clear[: len(chips)], policy="d4", threshold=0.4, card=card,
        folders=[Path("models/fold0")], engines=[SimpleNamespace(card=card)],
    )  # fmt: skip
    ownership.claim(out)
    ownership.reserve(out, ["old.tif"])
    for name in ("old.tif", "mine.tif"):
        write_mask(out / name, np.ones((64, 64), np.uint8), "", NORTH_UP)
    for _ in range(2):
        predict_unlabelled(ChipStore(store), predictor, out)
        assert {path.name for path in out.glob("*.tif")} == {"c002.tif", "c003.tif", "mine.tif"}
    with rasterio.open(out / "c002.tif") as mask:
        tags = mask.tags()
    assert (tags["CLOUDCOVER_MODEL"], tags["CLOUDCOVER_THRESHOLD"]) == ("fold0@0123456789ab", "0.4")
    with pytest.raises(FolderError, match="choose an empty folder"):
        predict_unlabelled(ChipStore(store), predictor, raw / "train_labels")
    assert (raw / "train_labels/c000.tif").exists()
    predictor.card.bands = BANDS[::-1]
    with pytest.raises(
        ValueError, match="has the bands B02, B03, B04, B08, but the model was made for B08, B04, B03, B02"
    ):
        predict_unlabelled(ChipStore(store), predictor, out)


def test_packing_removes_shards_only(layout, tmp_path):
    raw, out = layout(chips=4), tmp_path / "store"
    out.mkdir()
    for name in ("notes-00009.tif", "my-notes.txt", "chips-00009.npy"):
        (out / name).write_text("mine")
    pack(raw, out, tmp_path / "q.csv", validate({"data": {"chip_size": 64}}).data)
    assert (out / "notes-00009.tif").exists()
    assert (out / "my-notes.txt").exists()
    assert not (out / "chips-00009.npy").exists()


# --- make clean ----------------------------------------------------------------------------------------------------


def outputs() -> list[str]:
    """A path for each output that the rules declare."""
    text = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    declared = set()
    for block in re.findall(r"\n    output:\n(.*?)\n    \w+:", text, re.DOTALL):
        declared |= set(re.findall(r'"((?:data|models|reports)/[^"]+)"', block))
    return sorted(
        p.replace("{{", "{")
        .replace("}}", "}")
        .format(run=run, fold=0, round="round1", policy="d4", PSEUDO_ARRAY="masks.npy")
        for p in declared
        for run in ("baseline", "round2", "final/unet")
        if not (p.startswith("data/audit/") and run == "final/unet")  # no final model judges labels
    )


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_clean_removes_what_runs_made_and_nothing_else(tmp_path):
    made = [
        *outputs(), "models/bundle/unet-fold0/model.json", "data/store/chips-00000.npy", "data/oof/round1/d4.npy",
        "data/labels/round1/masks.npy", "logs/train/round1/fold0.log", ".snakemake/x", "work/train/abc/epoch-0.ckpt",
        "work/proof/seed0/training0/reports/truth.json", "data/raw/.download/journal.jsonl", "reports/proof/proof.png",
        "work/curves/round1/fold0/metrics.json", "work/tune/curves/tune/fold0/x", "work/inductor/x",
        "work/tune/inductor/x",
    ]  # fmt: skip
    mine = [
        "data/my-chips/train_metadata.csv", "data/raw/train_labels/mine.tif", "data/predictions/mine.tif",
        "data/store/notes.txt", "models/my-weights/model.safetensors", "models/fast/model.json", "reports/mine.html",
        "reports/tables/mine.csv", "work/mine.txt", "data/README.md", "models/README.md", "reports/README.md",
    ]  # fmt: skip
    for path in (*made, *mine):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    for folder in ("data/raw", "data/truth"):
        shutil.rmtree(tmp_path / folder)
    fetch(DataParams(chip_size=64), SMALL, 0, tmp_path / "data/raw", tmp_path / "data/truth")
    (tmp_path / "data/raw/train_labels/mine.tif").write_text("x")
    (tmp_path / "data/predictions/.cloudcover").write_text("s000c0000.tif\n")
    (tmp_path / "data/predictions/s000c0000.tif").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "history.csv").write_text("x")
    (tmp_path / "models/baseline").mkdir(parents=True, exist_ok=True)
    (tmp_path / "models/baseline/fold9").symlink_to(outside)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "workflow").mkdir()
    shutil.copy(ROOT / "workflow/clean.py", tmp_path / "workflow")
    environment = os.environ | {"MAKEFLAGS": ""}
    subprocess.run(["make", "clean", f"PYTHON={sys.executable}"], cwd=tmp_path, env=environment, check=True)
    left = {path for path in state(tmp_path) if path not in ("Makefile", "workflow/clean.py", "outside/history.csv")}
    assert left == set(mine)
    assert (outside / "history.csv").exists()
