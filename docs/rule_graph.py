"""Draw the rule graph for the README: `python docs/rule_graph.py` in the project's folder (needs Graphviz).

It is `snakemake --rulegraph` without the rule `all`, without edges that follow from others, and without those by which
a round only counts what has changed.
"""

import re
import subprocess
from pathlib import Path

COUNTS = {("pseudo_label", "pseudo_label"), ("manifest", "pseudo_label"), ("audit", "audit")}
"""Edges from the labels or the judgement of an earlier round, with which a round compares its own."""


def main() -> None:
    """Write `docs/images/rules.svg`."""
    graph = subprocess.run(["snakemake", "--rulegraph"], check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', graph))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", graph)} - COUNTS
    lines = [f"{a} -> {b};" for a, b in sorted(edges) if b != "all"]
    style = 'rankdir=LR; node[shape=box, style=rounded, fontname="sans-serif", fontsize=11, height=0.3];'
    style += " edge[color=gray50, arrowsize=0.6]; ranksep=0.25; nodesep=0.15;"
    dot = f"digraph rules {{ {style} {' '.join(lines)} }}"
    reduced = subprocess.run(["tred"], input=dot, check=True, capture_output=True, text=True).stdout
    subprocess.run(["dot", "-Tsvg", "-o", Path("docs/images/rules.svg")], input=reduced, check=True, text=True)


if __name__ == "__main__":
    main()
