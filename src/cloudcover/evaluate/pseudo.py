"""The quality of pseudo-labels against true masks, over the pixels used for training and over all pixels.

Confident pixels are mostly right by selection, and chips full of cloud dominate sums of pixels. So there are also
figures over all pixels, figures by band of true cover, and figures of the run before, which had not learned the
pseudo-labels: pixels that it predicted in the same way teach nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.coverage import BANDS, band_of
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.runs import BATCH
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.overlap import confusion, jaccard_index, share
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks

KINDS = ("taught", "given", "made", "known")
"""Masks that are compared with the true masks: the pseudo-label where it is used for training, the given label, and,
over all pixels, the predictions of the round and of the run before."""


@dataclass(frozen=True)
class JudgedRound:
    """The pseudo-labels of a round, and everything that they are compared with.

    Attributes:
        pseudo: The pseudo-labels.
        own: Out-of-fold predictions of the round, from which they were made.
        before: Out-of-fold predictions of the run before, which had not learned them.
        tta: Policy of these predictions.
        truth: The true masks.
        store: The packed chips.
    """

    pseudo: PseudoLabels
    own: OutOfFold
    before: OutOfFold
    tta: Tta
    truth: TrueMasks
    store: ChipStore

    def figures(self, known: pd.DataFrame) -> dict[str, Any]:
        """Evaluate the pseudo-labels.

        Args:
            known: Chips with a known true mask: chip_id, error.

        Returns:
            - `candidates`, `accepted` and `accepted_share`.
            - Global Jaccard of the accepted ones: `jaccard` where they are used for training, `jaccard_given` of the
              labels given to these chips, `jaccard_all` over all pixels, `jaccard_partly` over all pixels of partly
              cloudy chips, and `jaccard_known` of the run before. All are missing if none is accepted.
            - `new_share`: share of the taught pixels that the run before predicted differently.
            - `replaced_share` of the wrong labels, and `mended_share` with fewer wrong pixels in the new mask.
            - `union_pixels`, for pooling `jaccard` over several sets.
            - `by_coverage`: candidates, accepted ones, and shares of wrong pixels in the accepted ones by this round
              and by the run before.
        """
        chips = self._count(known["chip_id"])
        accepted = chips[chips["accepted"]]
        wrong = known.loc[known["error"] != "", "chip_id"]
        mended = accepted.index[accepted["made_wrong"] < accepted["given_wrong"]]
        figures: dict[str, Any] = {
            "candidates": len(chips),
            "accepted": float(len(accepted)),
            "accepted_share": len(accepted) / max(1, len(chips)),
            "replaced_share": float(wrong.isin(accepted.index).mean()) if len(wrong) else 0.0,
            "mended_share": float(wrong.isin(mended).mean()) if len(wrong) else 0.0,
            "union_pixels": float(_sums(accepted, "taught")[:3].sum()),
            "by_coverage": {name: _band(chips[chips["band"] == name]) for name in BANDS},
        }
        if len(accepted):
            partly = accepted[accepted["band"] == "partly"]
            figures |= {
                "jaccard": float(jaccard_index(_sums(accepted, "taught"))),
                "jaccard_given": float(jaccard_index(_sums(accepted, "given"))),
                "jaccard_all": float(jaccard_index(_sums(accepted, "made"))),
                "jaccard_known": float(jaccard_index(_sums(accepted, "known"))),
                "new_share": float(share(accepted["new"].sum(), accepted["taught"].sum())),
            }
            if len(partly):
                figures["jaccard_partly"] = float(jaccard_index(_sums(partly, "made")))
        return figures

    def _count(self, chip_ids: pd.Series) -> pd.DataFrame:
        """Count pixels of the candidates among some chips."""
        candidates = self.pseudo.table.index[self.pseudo.table.index.isin(chip_ids)].tolist()
        rows: list[dict[str, Any]] = []
        for batch in self.store.batches(candidates, BATCH):
            true, labels, given = self.truth.masks(batch), self.pseudo.masks(batch), self.store.labels(batch)
            made, knew = (
                (run.probabilities(batch, self.tta) > 0.5).astype(np.uint8) for run in (self.own, self.before)
            )
            counts = {
                "taught": confusion(labels == 1, _where(labels, true)),
                "given": confusion(given == 1, _where(given, true)),
                "made": confusion(made, true),
                "known": confusion(knew, true),
            }
            for number, chip in enumerate(batch):
                taught = labels[number] != IGNORE_INDEX
                cover = float((true[number] == 1).sum() / max(1, (true[number] != IGNORE_INDEX).sum()))
                row: dict[str, Any] = {
                    "chip_id": chip,
                    "accepted": self.pseudo.table.at[chip, "label"] == "pseudo",
                    "band": band_of(cover),
                    "taught": int(taught.sum()),
                    "new": int((knew[number] != labels[number])[taught].sum()),
                    "pixels": int(counts["made"][number].sum()),
                }
                for kind in KINDS:
                    row |= {f"{kind}{place}": int(value) for place, value in enumerate(counts[kind][number])}
                    row[f"{kind}_wrong"] = int(counts[kind][number][1:3].sum())
                rows.append(row)
        columns = ["chip_id", "accepted", "band", "taught", "new", "pixels"]
        columns += [f"{kind}{end}" for kind in KINDS for end in ("0", "1", "2", "3", "_wrong")]
        return pd.DataFrame(rows, columns=columns).astype({"accepted": bool}).set_index("chip_id")


def _where(labels: NDArray[np.uint8], true: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the true masks where the labels are known, and unknown elsewhere."""
    return np.where(labels == IGNORE_INDEX, IGNORE_INDEX, true).astype(np.uint8)


def _sums(chips: pd.DataFrame, kind: str) -> NDArray[np.int64]:
    return np.asarray(chips[[f"{kind}{place}" for place in range(4)]].to_numpy(np.int64).sum(axis=0))


def _band(chips: pd.DataFrame) -> dict[str, float]:
    accepted = chips[chips["accepted"]]
    figures = {"candidates": float(len(chips)), "accepted": float(len(accepted))}
    if pixels := int(accepted["pixels"].sum()):
        figures["wrong_share"] = float(accepted["made_wrong"].sum() / pixels)
        figures["wrong_share_known"] = float(accepted["known_wrong"].sum() / pixels)
    return figures
