"""The download stage: brings the configured source to `data/raw` and lists its files with their hashes."""

from __future__ import annotations

from pathlib import Path

from cloudcover import tables
from cloudcover.params import DataParams, SyntheticParams
from cloudcover.sources import unlabelled
from cloudcover.sources.layout import remove_unlisted, write_manifest


def fetch(
    data: DataParams,
    synthetic: SyntheticParams,
    seed: int,
    raw: Path,
    truth: Path,
    workers: int = 1,
    recheck: bool = False,
) -> None:
    """Fills `raw` in the challenge's layout with its manifest, and `truth` with the true masks, if there are any.

    Args:
        data: says which source.
        synthetic: what the synthetic source makes.
        seed: of the synthetic source.
        raw: gets the chips and `manifest.csv` (`tables.RAW_MANIFEST`).
        truth: gets `manifest.csv` (`tables.TRUTH`), without rows for sources whose truth nobody knows.
        workers: processes of the synthetic source; what comes over the network has its own number of connections.
        recheck: network sources: read what is there and compare hashes, instead of trusting modification times.
    """
    unlabelled.clear(raw)
    if data.source == "synthetic":
        from cloudcover.sources.synthetic import generate

        generate(synthetic, data, seed, raw, truth, workers)
        remove_unlisted(raw)
        write_manifest(raw, "synthetic")
        return
    if data.source == "local":
        from cloudcover.sources.local import fetch as fetch_local

        fetch_local(data, raw)
        write_manifest(raw, "local")
    elif data.source == "archive":
        from cloudcover.sources.archive import fetch as fetch_archives

        fetch_archives(data, raw, recheck)
    else:
        from cloudcover.sources.remote import fetch as fetch_remote

        fetch_remote(data, raw, recheck=recheck)
    if data.unlabelled:
        unlabelled.add(data, raw)
    tables.TRUTH.write(tables.TRUTH.empty(), truth / "manifest.csv")
