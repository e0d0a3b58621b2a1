"""The report: a self-contained HTML page with every figure of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from cloudcover.data import colours
from cloudcover.evaluate.calibrate.calibration import Step
from cloudcover.labels.score import error_share_text
from cloudcover.report import gallery, pictures, plots
from cloudcover.report.results import Results
from cloudcover.report.table import interval, rounds_of, runs_of

HERE = Path(__file__).parent
LISTED = 50
"""Maximum number of rows of a list that grows with the set, such as the quarantine."""


def render_page(results: Results, params: Any) -> str:
    """Render the page as HTML.

    Args:
        results: Content of the page.
        params: Sections `data`, `labels`, `prediction`, `pseudo_labels` and `evaluation`.
    """
    metrics, truth = results.metrics, results.truth
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"interval": interval, "share": _share, "signed": _signed, "chosen": _chosen}
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment.get_template("page.html.j2").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        params=params,
        store=results.store.describe(),
        metrics=metrics,
        truth=truth if truth["known"] else None,
        run_names=runs_of(metrics),
        **_figures(metrics, truth),
        **_calibration(results),
        **_labels(results, params),
        **_places(results, params),
        **_galleries(results, params),
        folds=results.folds.to_dict("records"),
        curves=_svg(plots.curves, results.curves),
        quarantine=results.quarantine.to_dict("records"),
        listed=LISTED,
        colours={
            name.removesuffix("_COLOUR").lower(): "#{:02x}{:02x}{:02x}".format(*colour)
            for name, colour in {**vars(colours), **vars(pictures)}.items()
            if name.endswith("_COLOUR")
        },
        stretch=colours.STRETCH,
    )


def _figures(metrics: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
    names = runs_of(metrics)
    true = {name: truth[name] for name in names} if truth["known"] else None
    return {"runs_plot": _svg(plots.runs, {name: metrics[name] for name in names}, true)}


def _calibration(results: Results) -> dict[str, Any]:
    """Render the choices for the final models, and the tables that compare models."""
    return {
        "calibration": results.calibration,
        "tables": {name: table.to_dict("records") for name, table in results.comparisons.items()},
        "reliability_plot": _svg(plots.reliability, results.reliability),
    }


def _labels(results: Results, params: Any) -> dict[str, Any]:
    """Render the fate of the given labels, and the pseudo-labels of the rounds."""
    manifest, metrics, truth = results.manifest, results.metrics, results.truth
    names = rounds_of(metrics)
    rounds = [{"name": name, **metrics["rounds"][name]} for name in names]
    for row in rounds:
        row["truth"] = truth.get("rounds", {}).get(row["name"], {})
    found: dict[str, Any] = {
        "used": int((manifest["label"] == "human").sum()),
        "test": int(metrics["test_chips"]),
        "given": int((manifest["verdict"] != "unlabelled").sum()),
        "rejected": int((manifest["verdict"] == "bad").sum()),
        "unlabelled": int((manifest["verdict"] == "unlabelled").sum()),
        "by_people": int((~manifest["source"].isin(["audit", "none"])).sum()),
        "rounds": rounds,
        "rounds_plot": _svg(plots.rounds, names, pd.DataFrame(rounds)),
        "error_share": None,
        "suspicion_plot": None,
        "recall_plot": None,
    }
    if results.audit is not None:
        audit = results.audit.merge(manifest[["chip_id", "verdict"]], on="chip_id")
        scores, bad = audit["suspicion"].to_numpy(), (audit["verdict"] == "bad").to_numpy()
        threshold = params.labels.max_suspicion if params.labels.policy != "human" else None
        found["error_share"] = error_share_text(results.audit)
        found["suspicion_plot"] = _svg(plots.suspicion, scores[~bad], scores[bad], threshold)
    if truth["known"] and truth["labels"]["recall_by_error"]:
        found["recall_plot"] = _svg(plots.recall_by_error, truth["labels"]["recall_by_error"])
    return found


def _places(results: Results, params: Any) -> dict[str, Any]:
    """Render the figures by location, worst first."""
    table = results.locations
    table = table[table["tta"] == params.prediction.tta].sort_values(["jaccard", "location"])
    table.index = pd.Index(table["location"], name=None)
    final, baseline = table[table["run"] == "final"], table[table["run"] == "baseline"]["jaccard"]
    rows = final.assign(baseline=baseline).to_dict("records")
    return {"locations": rows, "locations_plot": _svg(plots.locations, final["jaccard"], baseline)}


def _galleries(results: Results, params: Any) -> dict[str, Any]:
    counts = results.counts[results.counts["run"] == "final"]
    return {
        "worst": gallery.worst_chips(results.store, counts, results.final),
        "rejected_cards": gallery.rejected_labels(results.store, results.manifest, results.pseudo),
    }


def _svg(plot: Callable[..., str], *args: Any) -> Markup:
    return Markup(plot(*args))


def _chosen(step: Step) -> str:
    """Describe the value of a step in words."""
    if not isinstance(step.chosen, dict):
        return f"{step.chosen:.3g}"
    parts = []
    for name, value in step.chosen.items():
        shown = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, list) else value
        shown = f"{value:.3g}" if isinstance(value, float) else shown
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return "; ".join(parts)


def _signed(value: float) -> str:
    """Format a difference with its sign and four digits; a dash for a missing value."""
    return "–" if pd.isna(value) else f"{value:+.4f}"


def _share(value: float) -> str:
    """Format a share in 0-1 with four digits; a dash for a missing value."""
    return "–" if pd.isna(value) else f"{value:.4f}"
