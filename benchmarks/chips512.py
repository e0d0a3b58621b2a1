"""A synthetic set of 512-pixel chips for the speed benchmarks, as TIFFs and packed; generated once and kept."""

from __future__ import annotations

from pathlib import Path

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.synthetic.generate import generate

SIZE = 512


def make(root: Path, chips: int, seed: int, size: int = SIZE) -> tuple[Path, Path]:
    """Return the folders of the raw files and of the store, both below `root`; they are kept for the next run."""
    folder = root / f"chips{size}-{chips}-seed{seed}"
    raw, store, data = folder / "raw", folder / "store", DataParams(chip_size=size)  # type: ignore[call-arg]
    if not (store / "index.parquet").exists():
        scenes = SyntheticParams(chips=chips, scenes=max(2, chips // 8), locations=2, unlabelled=0)  # type: ignore[call-arg]
        generate(scenes, data, seed, raw, folder / "truth", workers=2)
        write_file_table(raw, "synthetic")
        pack(raw, store, folder / "quarantine.csv", data)
    return raw, store
