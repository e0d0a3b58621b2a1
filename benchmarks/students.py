"""Compare recipes of students: the value of one round of pseudo-labels that is made, or learned from, in other ways.

    python benchmarks/proof.py --seeds 1 --trainings 1
    python benchmarks/students.py work/proof/seed0/training0
    python benchmarks/students.py work/proof/seed*/training0 --recipes as_is noise --round round2

Each recipe of `RECIPES` takes the labels of one round of finished chains, trains a model per fold, and is judged by the
mean of these models on the true masks of the test part. Two of them are no recipes but ceilings: the true masks of the
chips whose pseudo-labels were accepted, and those of all chips of the pool. Trained models are kept below `--work`, and
the same command resumes from there.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

from cloudcover.config.params import Params, load, validate
from cloudcover.config.runs import round_number
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.estimate import Estimate
from cloudcover.evaluate.metrics import jaccard
from cloudcover.evaluate.runs import JudgedRun, count, judged_chips
from cloudcover.labels.manifest import build_manifest
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks
from cloudcover.predict.oof import predict_oof
from cloudcover.pseudo_labels.label import pseudo_label
from cloudcover.runtime.files import write_json
from cloudcover.train.run import train
from cloudcover.train.split import select

NOISE = {"brightness_contrast": 0.5, "cutmix": 0.5}
RECIPES: dict[str, dict[str, Any]] = {
    "as_is": {},
    "without": {"labels": "human"},
    "true_accepted": {"labels": "accepted"},
    "true_pool": {"labels": "pool"},
    "noise": {"augmentation": {"pseudo": NOISE}},
    "noise_for_all": {"augmentation": NOISE},
    "soft": {"pseudo_labels": {"targets": "soft"}},
    "half_weight": {"training": {"pseudo_weight": 0.5}},
    "all_chips": {"pseudo_labels": {"chip_confidence": 0.0, "quota": False}},
    "strict": {"pseudo_labels": {"chip_confidence": 0.8}},
    "without_quota": {"pseudo_labels": {"quota": False}},
}
"""Changes of the parameters; `labels` says what is learned instead of pseudo-labels."""


def changed(params: Params, recipe: dict[str, Any]) -> Params:
    """Return the parameters with a recipe's changes."""
    values = params.model_dump(mode="json")
    for section, keys in recipe.items():
        if section != "labels":
            values[section] |= keys
    return validate(values)


class Chain:
    """A finished run of the chain, whose labels of one round are learned from once more.

    Args:
        folder: The folder of the chain.
        name: The round.
        work: Where models and labels are kept.
        device: Auto, cpu or cuda.
    """

    def __init__(self, folder: Path, name: str, work: Path, device: str) -> None:
        self.folder, self.name = folder, name
        self.work = work / folder.parent.name / folder.name / name
        values = load(folder / "params.yaml").model_dump(mode="json")
        values["compute"]["device"] = device
        self.params = validate(values)
        self.store = ChipStore(folder / "data/store")
        self.folds = tables.FOLDS.read(folder / "data/folds.csv")
        self.truth = TrueMasks(folder / "data/truth/masks.csv")

    def figures(self, name: str, seed: int) -> dict[str, Any]:
        """Learn by a recipe, and judge it on the test part."""
        recipe = RECIPES[name]
        params = changed(self.params, {**recipe, "training": {**recipe.get("training", {}), "seed": seed}})
        labels, masks = self._labels(name, params)
        weight = params.training.weight_of_round(round_number(self.name))
        folders = {}
        for fold in sorted(set(self.folds["fold"]) - {TEST}):
            out = folders[fold] = self.work / name / f"seed{seed}" / f"fold{fold}"
            if not (out / "model.json").exists():
                split = select(labels, self.folds, fold, weight, doubt_weight=params.training.doubt_weight)
                config = TrainingConfig.of(params)
                train(config, self.store, split, out, self.work / "train", run=name, fold=fold, masks=masks)
        test = self.folds[self.folds["fold"] == TEST]
        predicted = self.work / name / f"seed{seed}" / "test"
        tta = params.prediction.tta
        predict_oof(self.store, test, {TEST: list(folders.values())}, [tta], params.compute, predicted)
        found = OutOfFold([predicted])
        run = JudgedRun(name, tta, lambda chips: found.probabilities(chips, tta) > params.evaluation.threshold)
        chips = judged_chips(labels, self.store.index, self.folds)
        return {
            "jaccard": jaccard(count([run], chips, self.truth.masks)),
            "learned": int((labels["label"] != "none").sum()),
            "pseudo": int((labels["label"] == "pseudo").sum()),
        }

    def _labels(self, name: str, params: Params) -> tuple[pd.DataFrame, PseudoLabels | TrueMasks | None]:
        """Return the labels of the round, remade if the recipe has another rule, and their masks."""
        recipe = RECIPES[name]
        out = self.folder / "data/labels" / self.name
        if "pseudo_labels" in recipe:
            out = self.work / name / "labels"
            self._pseudo_label(params, out)
        table = tables.MANIFEST.read(out / "manifest.csv")
        if (kind := recipe.get("labels")) is None:
            return table, PseudoLabels(out / "manifest.csv")
        if kind == "human":
            return table[table["label"] != "pseudo"], None
        outside = table["chip_id"].map(self.folds.set_index("chip_id")["fold"]) != TEST
        wanted = (table["label"] == "pseudo") if kind == "accepted" else (table["label"] != "human") & outside
        return table.assign(label=table["label"].mask(wanted, "true")), self.truth

    def _pseudo_label(self, params: Params, out: Path) -> None:
        audit = tables.AUDIT.read(self.folder / f"data/audit/{self.name}.csv")
        verdicts = tables.VERDICTS.read(self.folder / "config/verdicts.csv")
        pseudo_label(
            self.store,
            build_manifest(audit, verdicts, self.store.index, self.folds, params.labels),
            self.folds,
            OutOfFold([self.folder / "data/oof" / self.name]),
            params.prediction.judge_tta,
            params.pseudo_labels,
            params.data.nodata,
            out,
        )


def table_of(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    """Compute each recipe's mean over chains and trainings, and its paired gain over the first with a t interval."""
    wide = rows.pivot(index=["chain", "seed"], columns="recipe", values="jaccard")
    table = rows.groupby("recipe", sort=False)[["jaccard", "learned", "pseudo"]].mean()
    for recipe in table.index:
        gains = (wide[recipe] - wide[first]).groupby("chain").mean().dropna()
        number = len(gains)
        variance = float(gains.var() / number) if number > 1 else float("nan")
        estimate = Estimate.of_variance(float(gains.mean()), variance, number - 1)
        table.loc[recipe, ["gain", "gain_low", "gain_high"]] = estimate.value, estimate.low, estimate.high
    return table


def main() -> None:
    """Train the recipes, and print their table after each chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chains", nargs="+", type=Path, help="folders of finished chains, such as proof.py makes")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: all")
    parser.add_argument("--round", default="round1", help="whose labels are learned from (%(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the trainings")
    parser.add_argument("--work", type=Path, default=Path("work/students"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the gains here")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    table = pd.DataFrame()
    for folder in options.chains:
        chain = Chain(folder, options.round, options.work, options.device)
        for recipe in options.recipes:
            for seed in options.seeds:
                rows.append({"chain": str(folder), "seed": seed, "recipe": recipe, **chain.figures(recipe, seed)})
                print(rows[-1], flush=True)
        table = table_of(pd.DataFrame(rows), options.recipes[0])
        print(table.round(4).to_string(), flush=True)
    if options.json:
        write_json(options.json, {f"gain_{name}": float(gain) for name, gain in table["gain"].items()})


if __name__ == "__main__":
    main()
