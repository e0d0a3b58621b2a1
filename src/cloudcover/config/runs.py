"""Names of training runs: `baseline`, `oracle`, `round<number>`, and `final/<member>` for each final model."""

from __future__ import annotations

import re

BASELINE, ORACLE, FINAL = "baseline", "oracle", "final"
ROUND = r"round\d+"
MEMBER = r"[A-Za-z0-9][A-Za-z0-9_-]*"
RUN = rf"{BASELINE}|{ORACLE}|{ROUND}|{FINAL}/{MEMBER}"
"""Patterns of names, for parameters and for wildcards of rules."""

MANIFEST = "manifest.csv"
"""The labels that the first round learns from; later runs name the round whose labels they use."""


def chain(rounds: int) -> dict[str, str]:
    """Name consecutive rounds, each learning from the labels after the previous one, as in `Params.rounds`."""
    return {f"round{number}": f"round{number - 1}" if number > 1 else MANIFEST for number in range(1, rounds + 1)}


def final_run(member: str) -> str:
    """Name the run of a member of the final ensemble."""
    return f"{FINAL}/{member}"


def member_of(run: str) -> str | None:
    """Return the member that a final run trains; None for other runs."""
    return run.removeprefix(f"{FINAL}/") if run.startswith(f"{FINAL}/") else None


def is_round(run: str) -> bool:
    """Return whether a run is a round of training and pseudo-labelling."""
    return re.fullmatch(ROUND, run) is not None


def round_number(name: str) -> int:
    """Return the number of a round, from 1; raise `ValueError` for other names."""
    if not is_round(name):
        raise ValueError(f"{name!r} is not the name of a round, such as round1")
    return int(name.removeprefix("round"))
