"""Processor time that the jobs of the workflow and the command line spend on imports.

    python benchmarks/imports.py
    python benchmarks/imports.py --quick --json imports.json

Each script of workflow/scripts is started in a process that executes its imports, those inside functions too, and
nothing else. `cpu_s_train` is the training's, `cpu_s_stage` the most of any script that loads no torch, `cpu_s_help`
what `cloudcover --help` takes; each the least of several runs, the start of Python included.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

from cloudcover.runtime.files import write_json

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"


def imports_of(script: Path) -> str:
    """Return a program that performs the imports of a script and reports whether they loaded torch."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    lines = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join([*lines, "import sys", "print('torch' in sys.modules)"])


def measure(command: list[str], runs: int) -> tuple[float, str]:
    """Return the least processor time of a command [s], and its output."""
    best, printed = float("inf"), ""
    for _ in range(runs):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        best = min(best, usage.ru_utime + usage.ru_stime)
    return best, printed


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 runs of each instead of 5")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    runs = 2 if options.quick else 5
    figures, stages = {}, {}
    for script in sorted(SCRIPTS.glob("*.py")):
        seconds, printed = measure([sys.executable, "-c", imports_of(script)], runs)
        torch = printed.strip().endswith("True")
        print(f"{script.stem:20} {seconds:6.2f} s {'with torch' if torch else ''}", flush=True)
        if script.stem == "train":
            figures["cpu_s_train"] = seconds
        if not torch:
            stages[script.stem] = seconds
    figures["cpu_s_stage"] = max(stages.values())
    figures["cpu_s_help"], _ = measure([sys.executable, "-m", "cloudcover", "--help"], runs)
    for name, seconds in figures.items():
        print(f"{name:20} {seconds:6.2f} s")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
