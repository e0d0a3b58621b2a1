"""Balance of the folds, and duration of the split.

    python benchmarks/folds.py --quick
    python benchmarks/folds.py --metadata data/raw/train_metadata.csv --json folds.json

Prints, for the size of folds and each criterion, the share of chips that would have to change folds for it to be spread
evenly: for this project's split, for plain shuffles of groups and of chips, and for the original's way, next to a
bound that no split into whole groups can pass. Most of the challenge's locations have one scene, so folds of whole
scenes cannot spread the location; `least_share` shows it. Shuffled chips and the original's folds are even because they
split scenes.

Without `--metadata` the set is generated in the shape of the challenge's: 11,748 chips, 92 scenes, 81 locations. Where
there is no column `coverage_share`, coverage is drawn around a mean per scene.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from baselines import original_folds
from numpy.typing import NDArray

from cloudcover.config.sections import FoldsParams
from cloudcover.data import fold_balance, folds
from cloudcover.data.scenes import scene_of
from cloudcover.runtime.files import derive_seed, write_json

# The challenge's training set: scenes per location, and how often its months and hours (UTC) occur among scenes.
CHIPS = 11_748
LOCATIONS_BY_SCENES = {1: 71, 2: 9, 3: 1}
MONTHS = {1: 1, 2: 2, 3: 6, 4: 8, 5: 4, 6: 3, 7: 6, 8: 13, 9: 45, 10: 1, 11: 2, 12: 1}
HOURS = {0: 3, 1: 2, 2: 2, 3: 1, 7: 7, 8: 35, 9: 8, 10: 7, 11: 6, 12: 2, 13: 4, 14: 9, 15: 6}
YEARS = {2018: 3, 2019: 7, 2020: 82}


def generated(chips: int, seed: int) -> pd.DataFrame:
    """Generate metadata in the form of the challenge's: chip_id, location, datetime."""
    rng = np.random.default_rng(derive_seed(seed, "metadata"))
    scenes = np.repeat(list(LOCATIONS_BY_SCENES), list(LOCATIONS_BY_SCENES.values()))
    location = np.repeat([f"location-{i:02d}" for i in range(len(scenes))], scenes)

    def values(counts: dict[int, int]) -> NDArray[np.int64]:
        share = np.array(list(counts.values())) / sum(counts.values())
        return rng.choice(list(counts), len(location), p=share)

    taken = [
        f"{year}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:00Z"
        for year, month, day, hour, minute in zip(
            values(YEARS),
            values(MONTHS),
            rng.integers(1, 29, len(location)),
            values(HOURS),
            rng.integers(0, 60, len(location)),
            strict=True,
        )
    ]
    # The challenge's scenes have 2 to 261 chips, half of them 111 to 173.
    scene = np.sort(rng.choice(len(location), chips, p=rng.dirichlet(np.full(len(location), 4.0))))
    return pd.DataFrame(
        {
            "chip_id": [f"chip{i:05d}" for i in range(chips)],
            "location": location[scene],
            "datetime": np.array(taken)[scene],
        }
    )


def with_coverage(chips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Add a drawn `coverage_share`: chips of a scene share its weather."""
    rng = np.random.default_rng(derive_seed(seed, "coverage"))
    scene = scene_of(chips["location"], chips["datetime"]).factorize(sort=True)[0]
    mean = rng.beta(1.2, 0.7, scene.max() + 1)[scene]
    return chips.assign(coverage_share=np.clip(rng.normal(mean, 0.3), 0, 1))


def split_scenes(table: pd.DataFrame) -> int:
    """Count the scenes in more than one fold."""
    return int((table.groupby("scene")["fold"].nunique() > 1).sum())


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="generate a tenth of the chips")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the generated set, the split and the shuffles"
    )
    parser.add_argument("--metadata", type=Path, help="CSV with chip_id, location, datetime [, coverage_share]")
    parser.add_argument("--number", type=int, default=5, help="number of folds (default 5, the original's)")
    parser.add_argument(
        "--group", choices=["scene", "location", "none"], default="scene", help="unit that is never split"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    params = FoldsParams(test_share=0, number=args.number, group=args.group)
    if args.metadata:
        chips = pd.read_csv(args.metadata, dtype={"chip_id": str}).fillna({"location": "", "datetime": ""})
    else:
        chips = generated(CHIPS // 10 if args.quick else CHIPS, args.seed)
    if "coverage_share" not in chips:
        chips = with_coverage(chips, args.seed)

    start = time.perf_counter()
    table = folds.split(chips, params, args.seed)
    seconds = time.perf_counter() - start
    folds.check(table, chips, params)
    balance = fold_balance.balance(table, chips, params, args.seed)
    original_table = original_folds.split(chips, params.number, params.coverage_bins, args.seed)
    balance["original_share"] = fold_balance.balance(original_table, chips, params, args.seed)["spread_share"]

    scenes = table["scene"].nunique()
    print(f"{len(chips)} chips, {scenes} scenes, {chips['location'].nunique()} locations, {params.number} folds")
    print(f"kept whole: {params.group}; split in {seconds:.2f} s\n")
    print(balance.to_string(index=False, float_format="%.4f"))
    print(
        f"\nscenes in more than one fold: {split_scenes(table)} here, {split_scenes(original_table)} the original's way"
    )

    by_criterion = balance.set_index("criterion")
    figures: dict[str, float] = {"seconds": seconds, "split_scenes": split_scenes(table)}
    for name, row in by_criterion.iterrows():
        figures[f"spread_{name}"] = float(row["spread_share"])
        figures[f"spread_{name}_least"] = float(row["least_share"])
        figures[f"spread_{name}_shuffled"] = float(row["groups_shuffled_share"])
        figures[f"spread_{name}_chips_shuffled"] = float(row["chips_shuffled_share"])
        figures[f"spread_{name}_original"] = float(row["original_share"])
    figures["split_scenes_original"] = split_scenes(original_table)
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
