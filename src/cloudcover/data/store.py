"""Reading of the store."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.data import tables
from cloudcover.data.shards import array_path
from cloudcover.runtime.arrays import open_array
from cloudcover.runtime.limits import open_file_limit

MAPS = 256
"""Maximum number of shard arrays that are mapped at the same time."""


class ChipStore:
    """The packed chips of a folder, memory-mapped, so that memory use does not grow with their number.

    Attributes:
        root: Folder with `index.parquet` and the shards.
        index: `tables.INDEX` with further columns of band statistics, indexed by chip_id and sorted by it.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.index = tables.INDEX.read(self.root / "index.parquet").set_index("chip_id", drop=False)
        self._places = self.index[["shard", "row"]].to_numpy()
        self._sizes = self.index["shard"].value_counts().to_dict()
        self._row = {chip_id: row for row, chip_id in enumerate(self.index["chip_id"])}
        self._map = lru_cache(maxsize=min(MAPS, open_file_limit() // 4))(self._open)  # every map keeps its file open

    def __len__(self) -> int:
        return len(self.index)

    def _open(self, kind: str, shard: int) -> NDArray[np.generic]:
        return open_array(array_path(self.root, kind, shard), self._sizes[shard])

    def _rows(self, chip_ids: Sequence[str]) -> NDArray[np.intp]:
        """Look up rows of the index; pandas' `loc` would take as long as copying a chip."""
        try:
            return np.array([self._row[chip_id] for chip_id in chip_ids], np.intp)
        except KeyError as error:
            raise KeyError(f"the store has no chip {error.args[0]}") from None

    def bands(self) -> list[str]:
        """Name of the bands, in their order in the arrays."""
        columns = map(str, self.index.columns)
        return [c.removeprefix("mean_").removesuffix("_dn") for c in columns if c.startswith("mean_")]

    def require_bands(self, bands: Sequence[str], whose: str) -> None:
        """Refuse a network that was made for other bands, or for these in another order (`ValueError`)."""
        if list(bands) != self.bands():
            raise ValueError(
                f"{self.root} has the bands {', '.join(self.bands())}, but {whose} was made for {', '.join(bands)}: "
                "pack the chips with its data.bands, or train it again"
            )

    def chips(self, chip_ids: Sequence[str], out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
        """Gather chips.

        Args:
            chip_ids: N ids; a `KeyError` names one that is not in the store.
            out: Buffer of at least N chips to fill, or None for a new array. Reusing a buffer avoids page faults, which
                dominate for large batches.

        Returns:
            N x B x H x W uint16 [DN].
        """
        gathered = self._gather("chips", chip_ids, out)
        return gathered.astype(np.uint16, copy=False)

    def mapped(self, chip_ids: Sequence[str]) -> list[NDArray[np.uint16]]:
        """Return the chips without copying: N read-only views of the memory maps, B x H x W uint16 [DN].

        Their pages are in memory when this returns, so that waiting for the disk happens here and not where they are
        used.
        """
        chips = []
        for shard, row in self._places[self._rows(chip_ids)]:
            chip = cast("NDArray[np.uint16]", self._map("chips", shard)[row])
            chip.reshape(-1)[:: mmap.PAGESIZE // chip.itemsize].max()
            chips.append(chip)
        return chips

    def labels(self, chip_ids: Sequence[str], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Gather the given labels: N x H x W uint8 of {0, 1, 255}; all 255 for chips without a label."""
        gathered = self._gather("labels", chip_ids, out)
        return gathered.astype(np.uint8, copy=False)

    def _gather(self, kind: str, chip_ids: Sequence[str], out: NDArray[np.generic] | None) -> NDArray[np.generic]:
        places = self._places[self._rows(chip_ids)]
        if out is None:
            sample = self._map(kind, (places if len(places) else self._places)[0, 0])
            out = np.empty((len(places), *sample.shape[1:]), sample.dtype)
        for i, (shard, row) in enumerate(places):
            out[i] = self._map(kind, shard)[row]
        return out[: len(places)]

    def places(self, chip_ids: Sequence[str]) -> list[tuple[str, list[float]]]:
        """Return the CRS as text (may be empty) and the six numbers of the transform for each chip."""
        rows = self._grids.iloc[self._rows(chip_ids)]
        return [(crs, [float(v) for v in numbers.split()]) for crs, numbers in rows.itertuples(index=False, name=None)]

    @cached_property
    def _grids(self) -> pd.DataFrame:
        return self.index[["crs", "transform"]]

    def percentiles(self, chip_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the 2nd and 98th percentile of each band: N x B x 2 float32 [DN]."""
        return self._all_percentiles[self._rows(chip_ids)]

    @cached_property
    def _all_percentiles(self) -> NDArray[np.float32]:
        columns = [f"{p}_{band}_dn" for band in self.bands() for p in ("p02", "p98")]
        return self.index[columns].to_numpy(np.float32).reshape(len(self), -1, 2)

    @staticmethod
    def batches(chip_ids: Iterable[str], size: int) -> Iterable[list[str]]:
        """Divide ids into batches of at most `size`, so that a pass over the store needs bounded memory."""
        ids = list(chip_ids)
        return (ids[i : i + size] for i in range(0, len(ids), size))

    def describe(self) -> pd.Series:
        """Return the numbers of chips, scenes, locations and labels for reports."""
        index = self.index
        return pd.Series(
            {
                "chips": len(index),
                "locations": index["location"].nunique(),
                "scenes": index["scene"].nunique(),
                "labelled": int(index["labelled"].sum()),
            }
        )
