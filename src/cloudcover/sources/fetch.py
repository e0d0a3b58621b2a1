"""The download stage: fetch the configured source to `data/raw`, and list its files with their hashes."""

from __future__ import annotations

from pathlib import Path

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import ownership, tables
from cloudcover.data.layout import layout_files, write_file_table
from cloudcover.sources import local, unlabelled


def fetch(
    data: DataParams,
    synthetic: SyntheticParams,
    seed: int,
    raw: Path,
    truth: Path | None,
    workers: int = 1,
    recheck: bool = False,
) -> None:
    """Fill `raw` in the challenge's layout with its manifest, and `truth` with the true masks, if there are any.

    Args:
        data: Section that names the source.
        synthetic: Content of a synthetic set.
        seed: Random seed of the synthetic source.
        raw: Output folder for the chips and `files.csv` (`tables.FILES`).
        truth: Output folder for `masks.csv` (`tables.TRUTH`), which has no rows unless the source is synthetic; None:
            no table, not allowed for the synthetic source.
        workers: Number of processes of the synthetic source.
        recheck: For network sources, read existing files and compare hashes instead of trusting modification times.

    Raises:
        FolderError: A folder to read from overlaps with `raw` or `truth`, or these contain other files.
    """
    _refuse_overlaps(data, raw, truth)
    if data.source == "synthetic":
        from cloudcover.synthetic.generate import generate

        if truth is None:
            raise ValueError("the synthetic source needs a folder for the true masks")
        write_file_table(raw, "synthetic", paths=generate(synthetic, data, seed, raw, truth, workers))
        return
    for folder in filter(None, (raw, truth)):
        ownership.claim(folder)
    if data.source == "local":
        write_file_table(raw, "local", paths=local.fetch(data, raw))
    else:
        from cloudcover.sources.remote import fetch as remote  # obstore, requests and tifffile are an extra

        remote.fetch(data, raw, recheck)
    if data.unlabelled:
        unlabelled.add(data, raw)
    if truth:
        tables.TRUTH.write(tables.TRUTH.empty(), truth / "masks.csv")


def _refuse_overlaps(data: DataParams, raw: Path, truth: Path | None) -> None:
    """Refuse to read from folders that are written to, or that contain links into `raw`."""
    path = data.path if data.source in ("local", "archive") else None
    for key, folder in (("data.path", path), ("data.unlabelled", data.unlabelled)):
        if folder:
            source = Path(folder)
            images = (source / file for file in layout_files(source)) if key == "data.path" else source.glob("*/*")
            ownership.refuse_overlap(source, raw, key, images)
            if truth:
                ownership.refuse_overlap(source, truth, key)
