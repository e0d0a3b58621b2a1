"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from click.testing import CliRunner, Result
from rasterio.crs import CRS

from cloudcover.cli import main
from cloudcover.config.params import load, validate
from cloudcover.config.sections import ModelParams
from cloudcover.data.tables import FILES, TRUTH
from cloudcover.evaluate.score import compare
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, save_model
from cloudcover.predict.outputs import write_mask
from cloudcover.runtime.files import write_json
from helpers.layouts import BANDS
from helpers.paths import ROOT

COMMANDS = sorted(main.commands)
GRID = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="cloudcover")


def masks(folder: Path, **pixels: list[list[int]]) -> Path:
    for name, values in pixels.items():
        write_mask(folder / f"{name}.tif", np.array(values, np.uint8), "EPSG:32633", GRID)
    return folder


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    """Chip a: intersection 1, union 2. Chip b: intersection 1, union 1, with an unknown pixel and one without data."""
    predictions = masks(tmp_path / "predictions", a=[[1, 1], [0, 0]], b=[[1, 1], [255, 0]])
    return predictions, masks(tmp_path / "labels", a=[[1, 0], [0, 0]], b=[[1, 255], [0, 0]])


def test_help_loads_no_heavy_library() -> None:
    program = """
import sys
from cloudcover.cli import main
main(["--help"], standalone_mode=False)
print(sorted({"torch", "timm", "pandas", "rasterio", "matplotlib", "numpy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(f"\n  {name}" in result.stdout for name in COMMANDS)


def test_the_package_can_be_run_as_a_module() -> None:
    result = subprocess.run([sys.executable, "-m", "cloudcover", "--help"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage: cloudcover [OPTIONS] COMMAND")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"\n    cloudcover {command} " in result.output


def test_score_is_the_jaccard_of_sums_and_leaves_unknown_pixels_out(scored: tuple[Path, Path]) -> None:
    result = call("score", *scored)
    assert result.exit_code == 0
    assert result.output.splitlines()[0].split()[:3] == ["global", "Jaccard", "0.6667"]
    figures = json.loads(call("score", *scored, "--json").output)
    assert figures == {"jaccard": 2 / 3, "jaccard_chip_mean": 0.75, "precision": 2 / 3, "recall": 1.0, "chips": 2}


def test_score_ignores_masks_without_a_label(scored: tuple[Path, Path]) -> None:
    before = compare(*scored)
    masks(scored[0], extra=[[1, 1], [1, 1]])
    assert compare(*scored) == before


def test_score_of_clear_masks_and_clear_labels_is_one(tmp_path: Path) -> None:
    clear = {"a": [[0, 0]], "b": [[0, 0]]}
    figures = compare(masks(tmp_path / "p", **clear), masks(tmp_path / "l", **clear))
    assert figures["jaccard"] == 1


def test_score_names_missing_predictions(scored: tuple[Path, Path]) -> None:
    (scored[0] / "b.tif").unlink()
    result = call("score", *scored)
    assert result.exit_code == 1
    assert result.output == f"Error: 1 of 2 labels have no prediction in {scored[0]}: b.tif\n"


def test_score_names_masks_of_another_shape(scored: tuple[Path, Path]) -> None:
    masks(scored[0], b=[[1, 0, 0]])
    result = call("score", *scored)
    assert result.exit_code == 1
    assert f"{scored[0] / 'b.tif'} has the shape (1, 3), but {scored[1] / 'b.tif'} has (2, 2)" in result.output


def test_score_refuses_masks_of_0_and_255(tmp_path: Path, scored: tuple[Path, Path]) -> None:
    wrong = masks(tmp_path / "wrong", a=[[255, 0], [0, 0]], b=[[255, 0], [0, 0]])
    for pair in ((wrong, scored[1]), (scored[0], wrong)):
        result = call("score", *pair)
        assert result.exit_code == 1
        assert f"no mask in {wrong} contains a 1" in result.output


def test_score_refuses_other_values_with_their_histogram(scored: tuple[Path, Path]) -> None:
    masks(scored[0], a=[[7, 1], [0, 0]])
    result = call("score", *scored)
    assert result.exit_code == 1
    assert "a.tif: values must be 0 (clear), 1 (cloud) or 255 (unknown)" in result.output


def test_score_refuses_a_folder_without_labels(tmp_path: Path, scored: tuple[Path, Path]) -> None:
    (tmp_path / "empty").mkdir()
    assert "contains no labels: expected files CHIP.tif" in call("score", scored[0], tmp_path / "empty").output


def test_predict_tells_what_is_wrong_with_a_model_in_one_line(tmp_path: Path) -> None:
    result = call("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert (
        result.output
        == f"Error: {tmp_path} contains neither bundle.json nor model.json: it is not a bundle and not a model folder\n"
    )


def test_traceback_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    result = call("--traceback", "predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "out")
    assert type(result.exception).__name__ == "ModelFolderError"


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chips") / "set"
    result = call("synth", out, "--chips", 6, "--scenes", 3, "--locations", 2, "--chip-size", 64, "--label-errors", 0.5)
    assert result.output.endswith(
        f"6 chips in {out}, {len(FILES.read(out / 'files.csv'))} files; true masks in {out / 'truth'}\n"
    )
    return out


def test_synth_writes_the_layout_and_the_truth(chips: Path) -> None:
    truth = TRUTH.read(chips / "truth/masks.csv")
    assert len(truth) == 6
    assert len(list(chips.glob("*_features/*/B02.tif"))) == 6


def test_predict_writes_a_mask_for_each_chip_that_score_can_read(chips: Path, tmp_path: Path) -> None:
    params = ModelParams.model_validate({"encoder": "tu-mobilenetv3_small_050", "decoder_channels": [8] * 5})
    card = ModelCard.model_validate(
        {
            **params.model_dump(include={"architecture", "encoder", "decoder_channels", "border"}),
            "bands": BANDS, "nodata": 0, "input": validate({}).input, "chip_size": 64,
            "fingerprint": "", "run": "round1", "fold": 0, "seed": 0,
        }
    )  # fmt: skip
    save_model(tmp_path / "model", build_model(params, BANDS, pretrained=False), card)
    out = tmp_path / "masks"
    arguments = ["--model", tmp_path / "model", "--out", out, "--device", "cpu", "--tta", "flips"]
    if not torch.cuda.is_available():
        result = call("predict", chips / "train_features", *arguments[:-4], "--device", "cuda")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert result.output.startswith("Error: the device cuda was requested")
    result = call("predict", chips / "train_features", *arguments)
    assert result.exit_code == 0, result.output
    labels = {path.name for path in (chips / "train_labels").glob("*.tif")}
    assert labels <= {path.name for path in out.glob("*.tif")}
    assert 0 <= compare(out, chips / "train_labels")["jaccard"] <= 1


def test_synth_explains_options_that_cannot_be_used(tmp_path: Path) -> None:
    result = call("synth", tmp_path, "--label-errors", 2)
    assert result.exit_code == 1
    assert result.output.startswith("Error: these options cannot be used:\n  synthetic.label_errors: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--chips", 10**12],
            r"synthetic\.chips: 1000000000000 chips of 96 x 96 pixels need at least 82,944,000,000 MB in ",
        ),
        (["--chips", 10**12, "--scenes", 10**12], r"synthetic\.chips: 1000000000000 chips"),
        (["--chips", 10**400], r"synthetic\.chips: 10{400} chips"),
        (["--chips", 10**9, "--chip-size", 32], r"need at least 9,216,000 MB in .*, but only .* MB are free"),
        (["--scenes", 10**12], r"synthetic\.scenes: 1000000000000 scenes for 240 chips: .*to 240 or less"),
        (["--chip-size", 32 * 10**6], r"data\.chip_size: drawing 1 chips of 32000000 x 32000000 pixels"),
        (["--chips", 1, "--chip-size", 320_000], r"data\.chip_size: .* MB of memory, but this machine has"),
        (["--chips", 0], r"synthetic\.chips: Input should be greater than or equal to 1 \(got 0\)"),
        (["--chips", -5], r"synthetic\.chips: .*\(got -5\)"),
        (["--chip-size", -32], r"data\.chip_size: .*\(got -32\)"),
    ],
)
def test_synth_refuses_impossible_sizes_before_it_writes_anything(tmp_path: Path, options, message: str) -> None:
    result = call("synth", tmp_path / "set", *options)
    assert result.exit_code == 1
    assert re.search(message, result.output), result.output
    assert not list(tmp_path.iterdir())


def test_summary_prints_the_figures_and_where_the_report_is(tmp_path: Path) -> None:
    figures = {"jaccard": 0.8, "jaccard_low": 0.7, "jaccard_high": 0.9, "jaccard_location_mean": 0.75}
    metrics = {"baseline": figures, "final": figures, "labels": {"clean": 3}, "rounds": {}, "test_chips": 0}
    write_json(tmp_path / "metrics.json", {**metrics, "gain_over_baseline": {**figures, "jaccard": 0.0123}})
    write_json(tmp_path / "truth.json", {"known": False})
    result = call("summary", "--reports", tmp_path)
    assert result.exit_code == 0
    assert "+0.0123" in result.output
    assert result.output.endswith(f"report: {tmp_path / 'index.html'}\n")


def test_summary_names_a_missing_file(tmp_path: Path) -> None:
    result = call("summary", "--reports", tmp_path)
    assert result.exit_code == 1
    assert "metrics.json" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("content", ["{}", "[]", "null", "3", '"x"', '{"baseline": 3, "known": true, "test_chips": 1}'])
def test_summary_names_files_that_hold_no_figures(tmp_path: Path, content: str) -> None:
    for name in ("metrics.json", "truth.json"):
        (tmp_path / name).write_text(content)
    result = call("summary", "--reports", tmp_path)
    assert isinstance(result.exception, SystemExit)
    assert "metrics.json and " in result.output
    assert "do not hold the figures of one run" in result.output


def test_params_prints_a_file_complete_and_explains_mistakes(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("seed: 7")
    assert "\nseed: 7  # " in call("params", tmp_path / "p.yaml").output
    (tmp_path / "p.yaml").write_text("sed: 7")
    result = call("params", tmp_path / "p.yaml")
    assert result.exit_code == 1
    assert "did you mean seed?" in result.output


def test_params_prints_a_preset_complete_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed = call("params", "full").output
    assert "learning_rate: 4.0e-5  " in printed
    assert validate(yaml.safe_load(printed)) == load("config/presets/full.yaml")
    result = call("params", "ful")
    assert result.exit_code == 1
    assert "ful is neither a file nor a preset (presets in config/presets: ablation, box, full, " in result.output


def test_params_write_works_in_a_project_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "run this in the project's root" in call("params", "--write").output
    assert not list(tmp_path.iterdir())
    (tmp_path / "config/presets").mkdir(parents=True)
    assert "wrote params.yaml" in call("params", "--write").output
    assert call("params", "--write").output == "all files are up to date\n"


def test_params_write_leaves_a_link_to_the_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config/presets").mkdir(parents=True)
    (tmp_path / "shared.yaml").write_text("seed: 7\n")
    (tmp_path / "params.yaml").symlink_to("shared.yaml")
    assert "wrote params.yaml" in call("params", "--write").output
    assert (tmp_path / "params.yaml").is_symlink()
    assert load(tmp_path / "shared.yaml").seed == 7
    assert (tmp_path / "shared.yaml").read_text() != "seed: 7\n"


def moved(path: Path, **changes: object) -> None:
    with rasterio.open(path, "r+") as file:
        for name, value in changes.items():
            setattr(file, name, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform": Affine(10, 0, 600_000, 0, -10, 4_000_000)}, "transform"),
        ({"transform": Affine(10, 0, 500_000, 0, 10, 3_999_980)}, "transform"),
        ({"transform": Affine(20, 0, 500_000, 0, -20, 4_000_000)}, "transform"),
        ({"crs": "EPSG:32634"}, "crs EPSG:32633 against EPSG:32634"),
    ],
)
def test_score_refuses_masks_of_another_place_and_names_each(scored: tuple[Path, Path], changes, message) -> None:
    for name in ("a.tif", "b.tif"):
        moved(scored[1] / name, **changes)
    result = call("score", *scored)
    assert result.exit_code == 1
    assert "masks: 2 of 2 cannot be compared" in result.output
    assert result.output.count("covers a different place from") == 2
    assert message in result.output


def test_score_compares_transforms_within_rounding_and_crs_as_crs(scored: tuple[Path, Path]) -> None:
    before = compare(*scored)
    moved(scored[1] / "a.tif", transform=Affine(10.0000001, 0, 500_000.001, 0, -10, 4_000_000))
    moved(scored[1] / "b.tif", crs=CRS.from_epsg(32633).to_wkt(version="WKT2_2019"))
    assert compare(*scored) == before


def test_score_warns_of_masks_that_say_nothing_of_their_place(scored: tuple[Path, Path], caplog) -> None:
    before = compare(*scored)
    assert not caplog.records
    write_mask(scored[1] / "a.tif", np.array([[1, 0], [0, 0]], np.uint8), "", (1, 0, 0, 0, 1, 0))
    assert compare(*scored) == before
    assert "1 masks or labels have no georeferencing: a.tif" in caplog.text


def test_score_skips_hidden_files_and_knows_either_suffix(scored: tuple[Path, Path]) -> None:
    before = compare(*scored)
    for folder in scored:
        (folder / "._a.tif").write_bytes(b"resource fork of a Mac")
        (folder / "b.tif").rename(folder / ("b.TIF" if folder is scored[0] else "b.tiff"))
    assert compare(*scored) == before


@pytest.mark.parametrize("side", [0, 1])
def test_score_refuses_a_mixture_of_0_1_and_0_255_masks_with_the_counts(scored: tuple[Path, Path], side: int) -> None:
    for folder in scored:
        masks(folder, c=[[1, 0], [0, 0]])
    masks(scored[side], c=[[255, 0], [0, 0]])
    compare(*scored)  # the file says that 255 is no data, and others show it
    moved(scored[side] / "c.tif", nodata=None)
    result = call("score", *scored)
    assert result.exit_code == 1
    assert f"2 masks in {scored[side]} hold a 1, and 1 only 0 and 255, such as c.tif" in result.output


def test_score_names_every_file_that_cannot_be_read(scored: tuple[Path, Path]) -> None:
    (scored[0] / "a.tif").write_text("<html>")
    masks(scored[0], b=[[1, 0, 0]])
    result = call("score", *scored)
    assert "a.tif cannot be read" in result.output
    assert "b.tif has the shape (1, 3)" in result.output
