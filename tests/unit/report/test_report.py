"""The report page and the final table, on a miniature of a run whose pixels are random."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cloudcover.config.params import Params, validate
from cloudcover.data import tables
from cloudcover.data.fold_balance import balance
from cloudcover.data.folds import TEST, split
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.calibrate.calibrator import calibrate
from cloudcover.evaluate.calibrate.held_out import load_held_out
from cloudcover.evaluate.runs import judged_runs
from cloudcover.evaluate.summary import evaluate, write_comparisons, write_tables
from cloudcover.evaluate.truth import evaluate_truth
from cloudcover.masks.out_of_fold import BundleMasks, OutOfFold
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks
from cloudcover.predict.outputs import write_mask
from cloudcover.report import pictures, plots
from cloudcover.report.gallery import SHOWN, spread
from cloudcover.report.page import render_page
from cloudcover.report.results import read_results
from cloudcover.report.table import final_table
from cloudcover.runtime.files import read_json, write_json
from helpers.pages import Outline

SIZE = 64
GRID = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)


class Run:
    """Inputs of the report for a set of `chips` chips, as the stages before it write them.

    `text` ends everything that a person may write freely; the first label is then rejected by a person.
    """

    def __init__(
        self,
        root: Path,
        *,
        chips: int = 24,
        bands: tuple[str, ...] = ("B02", "B03", "B04", "B08"),
        wrong: int = 4,
        truth: bool = True,
        audit: bool = True,
        accept: bool = True,
        unlabelled: int = 2,
        rounds: int = 1,
        text: str = "",
        prefix: str = "chip",
        member: str = "unet",
    ) -> None:
        self.root, self.rounds, self.text, self.member = root, rounds, text, member
        self.rng = np.random.default_rng(0)
        self.params = self._params(bands)
        self.ids = [f"{prefix}{i:03d}" for i in range(chips)]
        self.bad, self.without = self.ids[:wrong], self.ids[wrong : wrong + unlabelled]
        fields = gaussian_filter(self.rng.standard_normal((chips, SIZE, SIZE)), (0, 6, 6))
        self.true = (fields > np.quantile(fields, 0.5)).astype(np.uint8)
        self.given = self.true.copy()
        self.given[:wrong] = 1 - self.given[:wrong]
        self._store(len(bands))
        self._labels(audit)
        self._pseudo(accept)
        self._truth(truth)
        self._evaluate(audit)

    def _params(self, bands: tuple[str, ...]) -> Params:
        count = len(bands)
        return validate(
            {
                "data": {"bands": list(bands), "chip_size": SIZE},
                "input": {"mean": [0.3] * count, "std": [0.2] * count},
                "folds": {"test_share": 0.5},
                "prediction": {"compare_tta": ["none", "d4"][: self.rounds]},
                "evaluation": {"resamples": 100},
                "calibration": {"trials": 1},
            }
        )

    def _store(self, bands: int) -> None:
        """One shard, written directly: packing has its own tests."""
        folder = self.root / "store"
        folder.mkdir(parents=True)
        noise = self.rng.integers(300, 1500, (len(self.ids), bands, SIZE, SIZE))
        np.save(folder / "chips-00000.npy", (noise + np.int64(5000) * self.true[:, None]).astype(np.uint16))
        labels = self.given.copy()
        labels[[self.ids.index(c) for c in self.without]] = 255
        labels[-1, :8] = 255
        np.save(folder / "labels-00000.npy", labels)
        location = [f"place {i % 4}{self.text}" for i in range(len(self.ids))]
        when = [f"2020-0{1 + i % 3}-01T10:00:00Z" for i in range(len(self.ids))]
        index = pd.DataFrame({"chip_id": self.ids, "location": location, "datetime": when})
        index["scene"] = index["location"] + "@" + index["datetime"]
        known = (labels != 255).mean(axis=(1, 2))
        index = index.assign(
            shard=0, row=range(len(index)), split="train", labelled=known > 0, label_known_share=known,
            label_coverage_share=(labels == 1).mean(axis=(1, 2)), nodata_share=0.0, flags="", crs="EPSG:32633",
            transform=" ".join(map(str, GRID)), source_sha256="0" * 64,
        )  # fmt: skip
        for band in self.params.data.bands:
            index[f"mean_{band}_dn"] = 3000.0
        tables.INDEX.write(index, folder / "index.parquet")
        self.index = index
        quarantine = pd.DataFrame({name: [f"{name}{self.text}"] for name in ("chip_id", "band", "reason")})
        tables.QUARANTINE.write(quarantine, self.root / "quarantine.csv")

    def _labels(self, audit: bool) -> None:
        verdict = ["bad" if c in self.bad else "unlabelled" if c in self.without else "clean" for c in self.ids]
        score = [0.95 if v == "bad" else np.nan if v == "unlabelled" else 0.05 for v in verdict]
        manifest = pd.DataFrame({"chip_id": self.ids, "verdict": verdict, "score": score if audit else np.nan})
        manifest = manifest.assign(source="audit" if audit else "none", reason="", time="")
        manifest.loc[manifest["verdict"] == "bad", "reason"] = "inverted"
        if self.text:
            manifest.loc[0, ["source", "reason"]] = [f"reviewer{self.text}", f"note{self.text}"]
        stratified = self.index[["chip_id", "location", "datetime"]].assign(coverage_share=0.5)
        self.folds = split(stratified, self.params.folds, 0)
        balance(self.folds, stratified, self.params.folds).to_csv(self.root / "folds.csv", index=False)
        learned = (manifest["verdict"] == "clean") & (self.folds["fold"] != TEST)
        self.manifest = manifest = manifest.assign(label=np.where(learned, "human", "none"))
        tables.MANIFEST.write(manifest, self.root / "manifest.csv")
        if audit:
            scored = manifest[manifest["verdict"] != "unlabelled"]
            table = pd.DataFrame({"chip_id": scored["chip_id"], "suspicion": scored["score"], "reasons": ""})
            tables.AUDIT.write(table, self.root / "audit.csv")

    def _pseudo(self, accept: bool) -> None:
        candidates = self.bad + self.without
        rows = [self.ids.index(c) for c in candidates]
        self.pseudo = []
        for number in range(1, self.rounds + 1):
            folder = self.root / f"pseudo/round{number}"
            folder.mkdir(parents=True)
            np.save(folder / "masks.npy", self.true[rows])
            accepted = [c for i, c in enumerate(candidates) if accept and (number > 1 or i % 2 == 0)]
            place = self.manifest["chip_id"].map({c: i for i, c in enumerate(candidates)}).fillna(-1).astype(int)
            chosen = self.manifest["chip_id"].isin(accepted)
            table = self.manifest.assign(
                row=place, confident_share=0.93, coverage_share=0.5, agreement_iou=np.nan, changed_pixels_share=np.nan,
                change=np.where(chosen, "added", "none"), label=self.manifest["label"].where(~chosen, "pseudo"),
            )  # fmt: skip
            tables.ROUND.write(table, folder / "manifest.csv")
            self.pseudo.append(folder / "manifest.csv")

    def _truth(self, known: bool) -> None:
        table = tables.TRUTH.empty()
        if known:
            for chip_id, mask in zip(self.ids, self.true, strict=True):
                write_mask(self.root / f"truth/{chip_id}.tif", mask, "EPSG:32633", GRID)
            error = ["inverted" if c in self.bad else "" for c in self.ids]
            table = pd.DataFrame(
                {"chip_id": self.ids, "path": [f"{c}.tif" for c in self.ids], "sha256": "", "error": error}
            )
            table["label_iou"] = 1.0
        tables.TRUTH.write(table, self.root / "truth/masks.csv")

    def _evaluate(self, audit: bool) -> None:
        runs = ["baseline", *(f"round{number}" for number in range(1, self.rounds + 1)), f"final/{self.member}"]
        folders, history = [], []
        for number, run in enumerate(runs):
            folder = self.root / "oof" / run
            folder.mkdir(parents=True)
            wrong = self.rng.random(self.true.shape) < 0.2 - 0.03 * number
            policies = self.params.prediction.final_tta
            seconds = pd.DataFrame({"tta": policies, "chips": len(self.ids), "seconds": 0.5})
            tables.SECONDS.write(seconds, folder / "seconds.csv")
            for policy in policies:
                np.save(folder / f"{policy}.npy", np.where(wrong, 1 - self.true, self.true) * np.uint8(255))
            table = self.folds[["chip_id", "fold"]].sort_values("chip_id", ignore_index=True)
            tables.OOF.write(table.assign(row=table.index), folder / "index.csv")
            folders.append(folder)
            epochs = pd.DataFrame({"epoch": range(4), "learning_rate": 1e-3, "train_loss": 0.5, "validation_loss": 0.4})
            for fold in range(3):
                history.append(
                    epochs.assign(validation_jaccard=0.5 + 0.1 * epochs["epoch"], seconds=1.0, run=run, fold=fold)
                )
        pd.concat(history).to_csv(self.root / "curves.csv", index=False)
        evaluation, prediction = self.params.evaluation, self.params.prediction
        bundle = self._bundle(folders[-1])
        loaded = judged_runs(runs, folders, bundle, prediction, evaluation.threshold)
        self.final = loaded[-1].masks
        held = load_held_out(
            ChipStore(self.root / "store"), tables.MANIFEST.read(self.root / "manifest.csv"),
            {self.member: folders[-1]}, prediction.tta, self.params.calibration, 0,
        )  # fmt: skip
        calibration, ensemble, reliability = calibrate(held, prediction.tta, evaluation, self.params.calibration, 0)
        write_json(self.root / "calibration.json", calibration.model_dump(mode="json"))
        ensemble.to_csv(self.root / "ensemble.csv", index=False)
        reliability.to_csv(self.root / "reliability.csv", index=False)
        store, judged = ChipStore(self.root / "store"), tables.MANIFEST.read(self.root / "manifest.csv")
        rounds = {path.parent.name: tables.ROUND.read(path) for path in self.pseudo}
        metrics, counts = evaluate(store, judged, self.folds, loaded, rounds, evaluation, 0)
        write_json(self.root / "metrics.json", metrics)
        write_tables(counts, *(self.root / f"{name}.csv" for name in ("chips", "locations", "scenes")))
        paths = {name: self.root / f"{name}.csv" for name in ("pairs", "coverage", "tta")}
        write_comparisons(counts, folders[-1:], prediction, evaluation, 0, paths)
        audited = self.root / "audit.csv" if audit else None
        figures, _ = evaluate_truth(
            TrueMasks(self.root / "truth/masks.csv"), store, judged, self.folds,
            tables.AUDIT.read(audited) if audited else None, loaded,
            {path.parent.name: (tables.ROUND.read(path), PseudoLabels(path)) for path in self.pseudo},
            {name: OutOfFold([folder]) for name, folder in zip(runs, folders, strict=True)}, prediction.tta, evaluation,
            0,
        )  # fmt: skip
        write_json(self.root / "truth.json", figures)
        names = {
            "quarantine": "csv",
            "manifest": "csv",
            "folds": "csv",
            "chips": "csv",
            "locations": "csv",
            "curves": "csv",
            **dict.fromkeys(("pairs", "coverage", "tta", "ensemble", "reliability"), "csv"),
        }
        names |= {"metrics": "json", "truth": "json", "calibration": "json"}
        self.inputs: dict[str, Any] = {name: str(self.root / f"{name}.{suffix}") for name, suffix in names.items()}
        self.inputs |= {
            "index": str(self.root / "store/index.parquet"),
            "audit": str(audited) if audited else [],
            "rounds": [str(path) for path in self.pseudo],
        }

    def _bundle(self, member: Path) -> BundleMasks:
        """Masks of the test part that differ from those of the only member in their first row of pixels."""
        folder = self.root / "test/final"
        folder.mkdir(parents=True)
        masks = np.load(member / "vflip.npy") // 255
        masks[:, 0] = 1 - masks[:, 0]
        np.save(folder / "masks.npy", masks)
        tables.OOF.write(tables.OOF.read(member / "index.csv"), folder / "index.csv")
        return BundleMasks(folder / "index.csv")

    def page(self) -> str:
        p = self.params
        sections = {name: getattr(p, name) for name in ("data", "labels", "prediction", "pseudo_labels", "evaluation")}
        return render_page(read_results(self.inputs, self.final), SimpleNamespace(**sections))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"), rounds=2)


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return run.page()


def test_the_page_is_well_formed_and_needs_no_other_file(page: str) -> None:
    outline = Outline(page)
    assert {"script", "link", "iframe"} & set(outline.seen) == set()
    assert all(address.startswith(("data:image/", "#")) for address in outline.addresses)
    assert "url(http" not in page
    assert "@import" not in page


def test_links_within_the_page_have_a_target_and_ids_are_unique(page: str) -> None:
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in Outline(page).addresses if a.startswith("#")} <= set(ids)


def test_the_headline_is_the_final_model_with_its_interval_and_gain(run: Run, page: str) -> None:
    metrics, truth = read_json(run.inputs["metrics"]), read_json(run.inputs["truth"])
    tiles = re.findall(r"<b>([^<]+)</b>", page)
    assert tiles == [
        f"{metrics['final']['jaccard']:.4f}", f"{metrics['gain_over_baseline']['jaccard']:+.4f}",
        f"{truth['final']['jaccard']:.4f}", f"{truth['gain_over_baseline']['jaccard']:+.4f}",
    ]  # fmt: skip
    assert f"{metrics['final']['jaccard_low']:.4f} to {metrics['final']['jaccard_high']:.4f}" in page.replace(
        "\xa0", " "
    )


def test_the_share_of_wrong_labels_is_shown_as_the_audit_estimates_it(run: Run, page: str, tmp_path: Path) -> None:
    audit = tables.AUDIT.read(run.inputs["audit"])
    assert f"labels: {100 * audit['suspicion'].mean():.1f} %." in page
    tables.AUDIT.write(audit.assign(suspicion=0.001), tmp_path / "audit.csv")
    undetermined = read_results(run.inputs | {"audit": str(tmp_path / "audit.csv")}, run.final)
    assert "labels: not determined." in render_page(undetermined, run.params)


def test_equal_inputs_give_equal_bytes(run: Run, page: str) -> None:
    assert run.page() == page


def test_every_text_of_a_person_is_shown_as_it_was_written_and_obeyed_nowhere(tmp_path: Path) -> None:
    text = """</td></text><x-evil id="x" onload="y" style="font-family: z">&lt; $x^$ {run} #040404 '%s' 地点"""
    run = Run(tmp_path / "run", chips=12, text=text, prefix="a-_.", member="null")
    outline = Outline(run.page())
    assert "x-evil" not in outline.seen
    assert "onload" not in outline.attributes
    shown = [f"{name}{text}" for name in ("place 0", "place 1", "place 2", "place 3", "chip_id", "band", "reason")]
    judged = pd.read_csv(run.inputs["locations"])["location"]
    assert set(judged) < set(shown)
    assert {*judged, *shown[4:], "null"} <= set(outline.cells)
    texts = "".join(outline.texts)
    for part in (f"rejected by reviewer{text}", f"note{text}", f"{judged[0]}@2020", "a-_.000"):
        assert part in texts


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=60)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
@example(["$x^$", r"$\alpha$", "$", ' id="x"', "font-family: a; b", "#040404 #010101", "]]><!--", "_", "x" * 500])
def test_plots_show_names_as_they_are(names: list[str]) -> None:
    figures = pd.Series(np.linspace(0, 1, len(names)), index=names)
    bounds = {"jaccard": 0.5, "jaccard_low": 0.4, "jaccard_high": 0.6}
    drawn = [plots.locations(figures, figures), plots.runs(dict.fromkeys(names, bounds), None)]
    if len(names) < 3:
        epochs = {"epoch": [0], "fold": [0], "validation_jaccard": [0.5], "train_loss": [1.0], "validation_loss": [1.0]}
        drawn.append(plots.curves(pd.concat([pd.DataFrame({"run": [name], **epochs}) for name in names])))
    for svg in drawn:
        texts = [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]
        for name in names:
            short = name if len(name) <= plots.LONGEST_NAME else name[: plots.LONGEST_NAME - 1] + "…"
            assert short in texts or not short.strip()


def test_a_name_without_end_leaves_room_for_the_plot() -> None:
    figures = pd.Series([0.25, 0.75], index=["W" * 1000, "W" * 999 + "V"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "constrained_layout not applied because axes sizes collapsed to zero"
        assert "W" * (plots.LONGEST_NAME - 1) + "…" in plots.locations(figures, figures)


def test_plots_follow_the_colours_of_the_page(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(plots) == 7
    for plot in plots:
        assert "var(--ink)" in plot
        assert not re.search(r"(fill|stroke): #", plot)


@pytest.mark.parametrize(
    ("change", "absent", "present"),
    [
        (
            {"truth": False, "audit": False, "accept": False},
            ["true masks", "The audit", '"tag accepted"'],
            "not accepted",
        ),
        ({"wrong": 0, "accept": False, "bands": ("B02", "B03", "B04")}, ["given label of"], "No label was rejected."),
        ({"wrong": 0, "unlabelled": 0, "bands": ("red", "nir")}, ["given label of"], "red, nir"),
    ],
)
def test_the_page_works_for_runs_of_every_kind(
    tmp_path: Path, change: dict[str, Any], absent: list[str], present: str
) -> None:
    page = Run(tmp_path / "run", chips=12, **change).page()
    Outline(page)
    assert present in page
    for text in [*absent, ">nan<", ">None<"]:
        assert text not in page


def test_galleries_stay_small_however_many_chips_there_are(tmp_path: Path) -> None:
    page = Run(tmp_path / "run", chips=96, wrong=26).page()
    assert page.count('<div class="chip">') == 2 * SHOWN
    assert f"{SHOWN} of 26" in page


def test_a_spread_keeps_both_ends_of_a_ranking_and_its_order() -> None:
    ranking = [str(i) for i in range(100)]
    chosen = spread(ranking, 5)
    assert chosen == ["0", "25", "50", "74", "99"]
    assert spread(ranking[:3], 5) == ["0", "1", "2"]


def test_worst_chips_come_first(run: Run, page: str) -> None:
    counts = tables.COUNTS.read(run.inputs["chips"])
    counts = counts[(counts["run"] == "final") & (counts["tta"] == "vflip")]
    worst = counts.assign(wrong=counts["fp_pixels"] + counts["fn_pixels"]).sort_values("wrong")["chip_id"].iloc[-1]
    assert re.search(r"errors of (\w+)", page)[1] == worst


def test_true_colour_is_red_green_blue_of_sentinel_2_or_the_first_bands() -> None:
    dn = np.arange(4, dtype=np.uint16)[:, None, None] * 1500 * np.ones((1, 2, 2), np.uint16)
    named = pictures.true_colour(dn, ["B02", "B03", "B04", "B08"])[0, 0]
    assert named[0] > named[1] > named[2] == 0
    other = pictures.true_colour(dn[:3], ["a", "b", "c"])[0, 0]
    assert other.tolist() == named[::-1].tolist()
    grey = pictures.true_colour(dn[1:3], ["a", "b"])[0, 0]
    assert grey[0] == grey[1] == grey[2] == named[1]
    assert pictures.false_colour(dn[:3], ["B02", "B03", "B04"]) is None


def test_the_stretch_is_fixed_and_saturates() -> None:
    low, high, beyond = (np.full((1, 1, 1), value, np.uint16) for value in (0, 6000, 65535))
    assert [int(pictures.true_colour(dn, ["a"])[0, 0, 0]) for dn in (low, high, beyond)] == [0, 255, 255]


def test_errors_have_a_colour_each() -> None:
    predicted = np.array([[False, True, True, False, True]])
    label = np.array([[0, 1, 0, 1, 255]], np.uint8)
    expected = [
        pictures.CLEAR_COLOUR, pictures.CLOUD_COLOUR, pictures.FALSE_COLOUR, pictures.MISSED_COLOUR,
        pictures.UNKNOWN_COLOUR,
    ]  # fmt: skip
    assert [tuple(map(int, pixel)) for pixel in pictures.errors_picture(predicted, label)[0]] == expected


def test_outlines_lie_inside_the_cloud_and_not_along_the_border_of_the_chip() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:5, :5] = 1
    drawn = pictures.outlined(np.zeros((8, 8, 3), np.uint8), mask, (9, 9, 9))[..., 0] == 9
    expected = np.zeros((8, 8), bool)
    expected[4, :5] = expected[:5, 4] = True
    assert np.array_equal(drawn, expected)


def test_large_chips_are_shrunk() -> None:
    dn = np.zeros((3, 512, 256), np.uint16)
    assert pictures.true_colour(dn, ["a", "b", "c"]).shape == (192, 96, 3)
    assert pictures.mask_picture(np.zeros((512, 512), np.uint8)).shape == (192, 192, 3)


def test_the_final_table_lists_runs_rounds_and_the_gain(run: Run) -> None:
    table = final_table(Path(run.inputs["metrics"]), Path(run.inputs["truth"]))
    metrics, truth = read_json(run.inputs["metrics"]), read_json(run.inputs["truth"])
    firsts = [line.split()[0] for line in table.splitlines()[2:] if line]
    assert firsts == ["run", "baseline", "round1", "round2", "final", "gain", "labels", "round1", "round2",
                      "rejected", "inverted"]  # fmt: skip
    final = next(line for line in table.splitlines() if line.startswith("final"))
    assert final.split()[1] == f"{metrics['final']['jaccard']:.4f}"
    assert f"{truth['final']['jaccard']:.4f}" in final
    assert "precision 1.000, recall 1.000 of 2 wrong labels" in table


def test_the_final_table_tells_how_much_of_the_oracle_gain_is_reached(run: Run, tmp_path: Path) -> None:
    gap = {"gap": 0.02, "gap_low": 0.01, "gap_high": 0.03}
    gap |= {"closed_share": 0.812, "closed_share_low": -0.1, "closed_share_high": 1.4}
    write_json(tmp_path / "truth.json", {**read_json(run.inputs["truth"]), "closed_gap": gap})
    table = final_table(Path(run.inputs["metrics"]), tmp_path / "truth.json")
    assert re.search(r"^gap closed +81% \(-10% to 140%\)$", table, re.MULTILINE)


def test_the_final_table_works_without_truth(run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "truth.json", {"known": False})
    table = final_table(Path(run.inputs["metrics"]), tmp_path / "truth.json")
    assert "true masks" not in table
    assert "gain      +0." in table
