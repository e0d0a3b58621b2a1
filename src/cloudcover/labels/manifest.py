"""The label-cleaning manifest: a verdict per chip, its source, and the label that the next training learns from."""

from __future__ import annotations

import math

import pandas as pd

from cloudcover.config.sections import LabelsParams
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.labels.known import refuse_changed
from cloudcover.labels.score import is_determined
from cloudcover.runtime.text import listed

AUDIT = "audit"
NOBODY = "none"
"""Source of a verdict given neither by the audit nor by a person: the label is kept, or there is none."""
PERSON = "human"
"""Source of a verdict by a person with no name, or with one of the two names above."""


class ManifestError(ValueError):
    """An audit that the manifest cannot be built from; the message says what to run again."""


def build_manifest(
    audit: pd.DataFrame | None,
    verdicts: pd.DataFrame,
    index: pd.DataFrame,
    folds: pd.DataFrame,
    params: LabelsParams,
) -> pd.DataFrame:
    """Decide for every chip whether its label is used.

    The policy determines the source of verdicts. `auto`: only the audit (see `suspects`). `human`: only reviewers;
    labels without a verdict are kept. `human_first`: reviewers and, for labels without a verdict or with `unsure`, the
    audit. A reviewer's `unsure` rejects nothing by itself. In the test part, which the audit does not judge, only
    reviewers reject labels; nothing learns from either kind.

    Args:
        audit: `tables.AUDIT`; may be None if the policy is `human`.
        verdicts: `tables.VERDICTS`, possibly empty; its times are copied.
        index: `tables.INDEX`.
        folds: `tables.FOLDS`.
        params: Policy and threshold.

    Returns:
        `tables.MANIFEST`, sorted by chip: `label` is `human` where training learns from the given label, otherwise
        `none`; `source` is `audit`, the reviewer's name (`human` if it is empty, `audit` or `none`) or `none`; `score`
        is the suspicion (NaN where the chip was not audited); `time` is that of the human verdict, otherwise empty.

    Raises:
        ManifestError: The policy needs the audit, but it is missing or lacks labelled chips.
        UnknownChipsError: The policy needs the verdicts, but a spreadsheet has altered their ids, or none is known.
        TableError: A table violates its schema.
    """
    verdicts = tables.VERDICTS.check(verdicts, "verdicts").set_index("chip_id")
    if params.policy != "auto":
        refuse_changed(verdicts.index, index["chip_id"], "verdicts (labels.policy: auto does not need them)")
    chips = index.reset_index(drop=True).sort_values("chip_id")
    manifest = pd.DataFrame(
        {
            "chip_id": chips["chip_id"].to_numpy(),
            "verdict": chips["labelled"].map({True: "clean", False: "unlabelled"}).to_numpy(),
            "label": "none",
            "source": NOBODY,
            "reason": "",
            "score": float("nan"),
            "time": "",
        }
    ).set_index("chip_id", drop=False)
    labelled = manifest.index[manifest["verdict"] == "clean"]
    test = folds.loc[folds["fold"] == TEST, "chip_id"]
    judged = labelled.difference(pd.Index(test), sort=False)
    if audit is not None:
        audited = tables.AUDIT.check(audit, "audit").set_index("chip_id").reindex(manifest.index)
        manifest["score"] = audited["suspicion"]
    if params.policy != "human":
        if audit is None:
            raise ManifestError(f"labels.policy {params.policy} needs the audit: run it, or set labels.policy to human")
        missing = judged[manifest.loc[judged, "score"].isna()]
        if len(missing):
            raise ManifestError(
                f"the audit lacks {len(missing)} labelled chips ({listed(missing)}): run the audit again"
            )
        bad = suspects(manifest.loc[judged, "score"], params.max_suspicion)
        manifest.loc[judged, "source"] = AUDIT
        manifest.loc[bad, "verdict"] = "bad"
        manifest.loc[bad, "reason"] = audited.loc[bad, "reasons"]
    if params.policy != "auto":
        decided = verdicts[verdicts["verdict"] != "unsure"]
        decided = decided.loc[decided.index.intersection(labelled)]
        manifest.loc[decided.index, ["verdict", "reason", "time"]] = decided[["verdict", "reason", "time"]]
        manifest.loc[decided.index, "source"] = decided["reviewer"].mask(
            decided["reviewer"].isin(["", AUDIT, NOBODY]), PERSON
        )
    used = judged[manifest.loc[judged, "verdict"] == "clean"]
    manifest.loc[used, "label"] = "human"
    return tables.MANIFEST.check(manifest, "manifest")


def suspects(suspicion: pd.Series, limit: float | None) -> pd.Index:
    """List the labels that the audit rejects.

    Args:
        suspicion: Probability that each label is wrong [0-1], indexed by chip.
        limit: Suspicion above which labels are rejected. None: as many of the most suspicious as the audit estimates to
            be wrong (the sum of the probabilities), so that false rejections balance missed errors. Labels that are
            more likely right than wrong are never rejected, and none are if the estimate is not determined
            (`is_determined`).

    Returns:
        The chips, most suspicious first; ties are sorted by name.
    """
    ranked = suspicion.sort_index().sort_values(ascending=False, kind="stable")
    if limit is not None:
        return ranked.index[ranked > limit]
    number = math.fsum(suspicion)
    most = ranked.iloc[: round(number) if is_determined(number / max(len(ranked), 1)) else 0]
    return most.index[most > 0.5]
