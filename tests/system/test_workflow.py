"""The real workflow on tiny sets: every stage, the right reruns, DVC, and clear errors."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml

from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.predict.bundle import load_bundle
from cloudcover.runtime.files import sha256
from harness.project import ONE_ROUND, STAGE_RUNS, TINY, Project
from helpers.layouts import make_layout, write_tif
from helpers.paths import ROOT


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A tiny synthetic run of the whole chain."""
    project = Project(tmp_path_factory.mktemp("chain") / "project", TINY)
    project.init_dvc()
    project.printed = project.snakemake()
    return project


def test_the_chain_runs_every_stage_and_ends_with_figures(chain):
    metrics = json.loads((chain.folder / "reports/metrics.json").read_text())
    truth = json.loads((chain.folder / "reports/truth.json").read_text())
    assert {"baseline", "round1", "round2", "final", "gain_over_baseline", "tta"} <= metrics.keys()
    assert set(metrics["tta"]) == {"none", "vflip", "hflip", "flips", "d4"}
    calibration = json.loads((chain.folder / "models/calibration.json").read_text())
    assert [step["name"] for step in calibration["steps"]] == ["weights", "temperature", "threshold", "postprocess"]
    assert json.loads((chain.folder / "models/bundle/bundle.json").read_text())["settings"] == calibration["settings"]
    folds = tables.FOLDS.read(chain.folder / "data/folds.csv")
    assert metrics["test_chips"] == (folds["fold"] == TEST).sum() > 0
    times = pd.read_csv(chain.folder / "reports/tables/tta.csv").set_index("tta")["ms_per_chip"]
    assert times["none"] < times["vflip"] < times["flips"] < times["d4"]
    assert 0.3 < metrics["final"]["jaccard"] <= 1
    assert truth["known"]
    assert 0 < truth["labels"]["wrong"] < 0.3 * truth["labels"]["labels"]
    assert 0.3 < truth["final"]["jaccard"] <= 1
    for number in (1, 2):
        table = tables.ROUND.read(chain.folder / f"data/labels/round{number}/manifest.csv")
        masks = np.load(chain.folder / f"data/labels/round{number}/masks.npy")
        assert set(table["chip_id"]) == set(folds["chip_id"])  # of every chip what the next training learns from
        chosen = table[table["row"] >= 0]
        assert len(masks) == len(chosen) == metrics["rounds"][f"round{number}"]["candidates"]
        assert set(np.unique(masks)) <= {0, 1, 255}
        by_location = tables.PSEUDO_LOCATIONS.read(chain.folder / f"reports/tables/pseudo_labels_round{number}.csv")
        assert by_location[["candidate_chips", "accepted_chips"]].sum().tolist() == [
            len(chosen),
            (table["label"] == "pseudo").sum(),
        ]
    page = (chain.folder / "reports/index.html").read_text()
    assert f"{metrics['final']['jaccard']:.4f}" in page
    assert "http://" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|http://www\.w3\.org\S*|http://purl\.org\S*|http://creativecommons\.org\S*', "", page
    )


def test_the_metric_is_one_global_jaccard_of_what_the_bundle_predicts_on_the_test_part(chain):
    """Recomputed from the delivered bundle and the files, by the definition."""
    data = chain.folder / "data"
    index = tables.INDEX.read(data / "store/index.parquet").set_index("chip_id")
    manifest = tables.MANIFEST.read(data / "labels/manifest.csv")
    folds = tables.FOLDS.read(data / "folds.csv")
    bundle = load_bundle(chain.folder / "models/bundle")
    store = ChipStore(data / "store")
    test = set(folds.loc[folds["fold"] == TEST, "chip_id"])
    intersection = union = 0
    for chip_id in sorted(test & set(manifest.loc[manifest["verdict"] == "clean", "chip_id"])):
        place = index.loc[chip_id]
        label = np.load(data / f"store/labels-{place['shard']:05d}.npy")[place["row"]]
        predicted = bundle.masks(store.chips([chip_id]), store.percentiles([chip_id]))[0] == 1
        intersection += int((predicted & (label == 1)).sum())
        union += int((predicted | (label == 1)).sum())
    metrics = json.loads((chain.folder / "reports/metrics.json").read_text())
    assert metrics["final"]["jaccard"] == pytest.approx(intersection / union)


def test_no_scene_is_split_and_no_pseudo_label_is_judged_on(chain):
    folds = tables.FOLDS.read(chain.folder / "data/folds.csv")
    assert folds.groupby("scene")["fold"].nunique().max() == 1
    judged = tables.COUNTS.read(chain.folder / "reports/tables/chips.csv")["chip_id"].unique()
    assert set(judged) <= set(folds.loc[folds["fold"] == TEST, "chip_id"])


def test_nothing_before_the_evaluation_depends_on_a_label_of_the_test_part(chain, tmp_path):
    """All of its labels are inverted in the store: every stage that learns or chooses makes the same again."""
    copy = Project.at(tmp_path / "project", forks=True)
    shutil.copytree(chain.folder, copy.folder, symlinks=True)
    data = copy.folder / "data"
    index = tables.INDEX.read(data / "store/index.parquet").set_index("chip_id")
    folds = tables.FOLDS.read(data / "folds.csv")
    test = folds.loc[folds["fold"] == TEST, "chip_id"]
    changed = 0
    for shard, rows in index.loc[test].groupby("shard")["row"]:
        path = data / f"store/labels-{shard:05d}.npy"
        labels = np.load(path)
        inverted = labels[rows.to_numpy()]
        known = inverted < 2
        inverted[known] = 1 - inverted[known]
        labels[rows.to_numpy()] = inverted
        path.chmod(0o644)
        np.save(path, labels)
        changed += int(known.sum())
    assert changed > 0
    made = [
        *data.glob("audit/*.csv"), *data.glob("labels/**/*.csv"), *data.glob("labels/**/*.npy"),
        *copy.folder.glob("models/**/*.safetensors"), copy.folder / "models/calibration.json",
    ]  # fmt: skip
    before = {path: sha256(path) for path in made}
    figures = json.loads((copy.folder / "reports/metrics.json").read_text())
    copy.snakemake("--forcerun", "evidence", "train", "predict", "audit", "manifest", "pseudo_label", "calibrate")
    assert {path: sha256(path) for path in made} == before
    assert json.loads((copy.folder / "reports/metrics.json").read_text())["final"] != figures["final"]


def test_unlabelled_chips_get_masks_on_their_grid(chain):
    table = tables.PREDICTIONS.read(chain.folder / "data/predictions/masks.csv")
    raw = tables.METADATA.read(chain.folder / "data/raw/test_metadata.csv")
    assert set(table["chip_id"]) == set(raw["chip_id"])
    chip_id = table["chip_id"][0]
    with (
        rasterio.open(chain.folder / f"data/predictions/{chip_id}.tif") as mask,
        rasterio.open(chain.folder / f"data/raw/test_features/{chip_id}/B02.tif") as band,
    ):
        assert (mask.count, mask.dtypes[0], mask.nodata) == (1, "uint8", 255)
        assert (mask.transform, mask.crs, mask.shape) == (band.transform, band.crs, band.shape)
        assert set(np.unique(mask.read(1))) <= {0, 1, 255}


def test_a_new_verdict_reruns_the_manifest_and_what_follows_and_nothing_before(chain, tmp_path):
    copy = Project.at(tmp_path / "project", forks=True)
    shutil.copytree(chain.folder, copy.folder, symlinks=True)
    manifest = tables.MANIFEST.read(copy.folder / "data/labels/manifest.csv")
    chip_id = manifest.loc[manifest["verdict"] == "bad", "chip_id"].iloc[0]
    with (copy.folder / "config/verdicts.csv").open("a") as file:
        file.write(f"{chip_id},clean,ana,,2026-01-01T00:00:00Z\n")
    stages = copy.pending_stages()
    assert {"manifest", "train_round@round1", "pseudo_label@round1", "train_final@unet", "evaluate"} <= stages
    before = {"download", "pack", "folds", "evidence", "train_baseline", "predict_baseline", "audit_baseline"}
    assert not stages & before
    copy.snakemake("data/labels/manifest.csv")
    row = tables.MANIFEST.read(copy.folder / "data/labels/manifest.csv").set_index("chip_id").loc[chip_id]
    assert (row["verdict"], row["source"]) == ("clean", "ana")
    assert not copy.pending_stages() & {*before, "manifest"}


def test_with_verdicts_by_people_no_audit_stands_before_the_rounds(tmp_path):
    project = Project(tmp_path / "project", {**TINY, "labels": {"policy": "human"}}, forks=True)
    assert not project.pending() & {"audit", "evidence"}
    first = project.pending("models/round1/fold0/model.safetensors")
    assert first == {"download", "pack", "folds", "manifest", "train"}
    assert "baseline" not in project.dry("snakemake", "--dry-run", "models/round1/fold0/model.safetensors")


def test_dvc_and_snakemake_agree_and_only_stale_stages_rerun(chain):
    assert chain.pending() == set()
    chain = Project.at(chain.folder, forks=True)
    chain.run("python", "workflow/dvc_stage.py", "commit")
    assert "up to date" in chain.run("dvc", "status")
    assert "jaccard" in chain.run("dvc", "metrics", "show")
    before = {p: sha256(p) for p in (chain.folder / "models").rglob("fold*/model.safetensors")}
    chain.change("pseudo_labels", "pixel_confidence", 0.7)
    assert chain.pending() >= {"pseudo_label", "train"}
    printed = chain.run("dvc", "repro")
    ran = set(re.findall(STAGE_RUNS, printed, re.MULTILINE))
    skipped = set(re.findall(r"^Stage '([\w@-]+)' didn't change, skipping", printed, re.MULTILINE))
    assert {"pseudo_label@round1", "report_page"} <= ran
    early = {"download", "pack", "folds", "evidence", "train_baseline", "audit_baseline", "manifest"}
    assert {*early, "train_round@round1"} <= skipped
    after = {p: sha256(p) for p in before}
    assert all(after[p] == before[p] for p in before if "round1" in p.parts or "baseline" in p.parts)
    assert "up to date" in chain.run("dvc", "status")
    assert chain.pending() == set()


def test_the_chain_runs_on_real_chips(real_chips, tmp_path):
    """128 px tiles of five labelled chips, two models, a round, no test part; three unlabelled chips are predicted."""
    values = {
        "data": {"source": "local", "path": str(real_chips), "chip_size": 128, "tile": True},
        "folds": {"number": 2, "group": "none", "test_share": 0},
        "labels": {"policy": "human"},
        "training": {"steps": 8},
        **ONE_ROUND,
        "prediction": {"tta": "none", "judge_tta": "none", "compare_tta": []},
        "evaluation": {"resamples": 100, "references": []},
    }
    project = Project(tmp_path / "project", values, forks=True)
    project.snakemake()
    predictions = tables.PREDICTIONS.read(project.folder / "data/predictions/masks.csv")
    assert len(predictions) == 3 * 16
    assert {c.split("_")[0] for c in predictions["chip_id"]} == {"adwp", "adwu", "akny"}
    assert not json.loads((project.folder / "reports/truth.json").read_text())["known"]
    assert not (project.folder / "models/oracle").exists()
    with (
        rasterio.open(project.folder / "data/predictions/adwp_128_256.tif") as mask,
        rasterio.open(real_chips / "test_features/adwp/B02.tif") as band,
    ):
        assert mask.transform * (0, 0) == band.transform * (256, 128)


def test_a_misspelt_parameter_fails_before_the_dag_with_the_nearest_name(tmp_path):
    project = Project(tmp_path / "project", TINY, forks=True)
    path = project.folder / "params.yaml"
    path.write_text(path.read_text().replace("learning_rate:", "learning_rat:", 1))
    printed = project.snakemake("--dry-run", check=False)
    assert "training.learning_rat: unknown key; did you mean learning_rate?" in printed
    assert "Traceback" not in printed
    assert "Building DAG" not in printed


def test_a_parameter_that_appears_twice_fails_before_the_dag_with_both_lines(tmp_path):
    project = Project(tmp_path / "project", TINY, forks=True)
    (project.folder / "params.yaml").write_text("seed: 1\nseed: 2\n")
    printed = project.snakemake("--dry-run", check=False)
    assert "seed: appears twice, on lines 1 and 2; remove one of them" in printed
    assert "Building DAG" not in printed


@pytest.mark.parametrize("cluster", ["slurm", "kubernetes"])
def test_on_a_cluster_the_same_is_stale_as_on_one_machine(cluster):
    """A profile for a cluster stands in for the default one."""
    default, other = (yaml.safe_load((ROOT / folder / "config.yaml").read_text())
                      for folder in ("profiles/default", f"workflow/profiles/{cluster}"))  # fmt: skip
    for key in ("max-checksum-file-size", "rerun-triggers", "rerun-incomplete", "show-failed-logs"):
        assert other[key] == default[key], key


def local_project(tmp_path, **options):
    make_layout(tmp_path / "source", chips=12, scenes=6, **options)
    values = {**TINY, "data": {**TINY["data"], "source": "local", "path": str(tmp_path / "source")}}
    return Project(tmp_path / "project", values, forks=True), tmp_path / "source"


def test_unusable_chips_stop_the_run_with_chip_band_and_reason(tmp_path):
    project, source = local_project(tmp_path)
    features = source / "train_features"
    (features / "c001" / "B08.tif").unlink()
    truncated = features / "c002" / "B03.tif"
    truncated.write_bytes(truncated.read_bytes()[:300])
    write_tif(features / "c003" / "B04.tif", np.ones((32, 32), np.uint16))
    write_tif(source / "train_labels" / "c004.tif", np.zeros((32, 64), np.uint8))
    printed = project.snakemake("data/store/index.parquet", check=False)
    assert "4 of 12 chips cannot be used, 33.3%" in printed
    for line in ("c001 B08: .*is missing", "c002 B03: .*truncated", "c003 B04: is 32 x 32 pixels, expected 64 x 64",
                 "c004 label: differs from the bands: height 32 against 64"):  # fmt: skip
        assert re.search(line, printed), line
    assert not (project.folder / "data/store/index.parquet").exists()
    project.change("data", "max_quarantined", 0.4)
    project.snakemake("data/store/index.parquet")
    quarantine = tables.QUARANTINE.read(project.folder / "data/quarantine.csv")
    assert sorted(quarantine["chip_id"]) == ["c001", "c002", "c003", "c004"]
    assert len(pd.read_parquet(project.folder / "data/store/index.parquet")) == 8
