"""The results of a run that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.calibrate.calibration import Calibration
from cloudcover.evaluate.runs import Masks
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.runtime.files import read_json

COMPARISONS = ("ensemble", "pairs", "coverage", "tta")


@dataclass(frozen=True)
class Results:
    """Tables and figures of a run.

    Attributes:
        store: The packed chips.
        quarantine: `tables.QUARANTINE`.
        manifest: `tables.MANIFEST`.
        audit: `tables.AUDIT`, or None if the policy does not use the audit.
        folds: Result of `fold_balance.balance`.
        pseudo: Pseudo-labels of the last round.
        final: Masks by the final model of the chips in `counts`.
        metrics: `reports/metrics.json`.
        truth: `reports/truth.json`.
        calibration: The choices for the final models.
        reliability: The reliability diagram before and after the temperature.
        counts: `tables.COUNTS`.
        locations: Figures by location, run and policy.
        comparisons: Tables by the names in `COMPARISONS`.
        curves: Learning curves, one row per run, fold and epoch.
    """

    store: ChipStore
    quarantine: pd.DataFrame
    manifest: pd.DataFrame
    audit: pd.DataFrame | None
    folds: pd.DataFrame
    pseudo: PseudoLabels
    final: Masks
    metrics: dict[str, Any]
    truth: dict[str, Any]
    calibration: Calibration
    reliability: pd.DataFrame
    counts: pd.DataFrame
    locations: pd.DataFrame
    comparisons: dict[str, pd.DataFrame]
    curves: pd.DataFrame


def read_results(paths: Mapping[str, str | Sequence[str]], final: Masks) -> Results:
    """Read a run's results.

    Args:
        paths: Files by name; `audit` is empty if the policy does not use the audit, and `rounds` is an ordered list.
        final: Masks by the final model of the chips it is evaluated on.

    Raises:
        TableError: A table violates its schema.
        FileNotFoundError: A file is missing.
    """
    path = {name: Path(file) for name, file in paths.items() if isinstance(file, str)}
    return Results(
        store=ChipStore(path["index"].parent),
        quarantine=tables.QUARANTINE.read(path["quarantine"]),
        manifest=tables.MANIFEST.read(path["manifest"]),
        audit=tables.AUDIT.read(path["audit"]) if "audit" in path else None,
        folds=pd.read_csv(path["folds"]),
        pseudo=PseudoLabels(Path(paths["rounds"][-1])),
        final=final,
        metrics=read_json(path["metrics"]),
        truth=read_json(path["truth"]),
        calibration=Calibration.model_validate(read_json(path["calibration"])),
        reliability=pd.read_csv(path["reliability"]),
        counts=tables.COUNTS.read(path["chips"]),
        locations=pd.read_csv(path["locations"], dtype={"location": str}, keep_default_na=False),
        # a member of the ensemble may be called `null`, so only an empty field is a missing value
        comparisons={n: pd.read_csv(path[n], keep_default_na=False, na_values=[""]) for n in COMPARISONS},
        curves=pd.read_csv(path["curves"]),
    )
