"""Check the requirements of `make` before anything is downloaded, and create `.venv`, again if it is broken.

It runs in any Python 3, which need not be one that the project supports, and imports nothing else.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
"""Supported versions of Python."""
VENV = Path(".venv")
ODD = re.compile(r"[\s:#$%'\"\\*?\[\]{}()&;|<>!`~]")
"""Characters in a path that make, the scripts of pip, Snakemake or the shell misinterpret."""
FEWEST_FILES = 128
"""Number of files that a process must be able to open."""


class SetupError(Exception):
    """Something is missing; the message says what to do."""


def main() -> None:
    """Check, then make the environment if there is none that works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chosen", action="store_true", help="the user has named this Python")
    parser.add_argument("goals", nargs="*", help="of make")
    given = parser.parse_args()
    try:
        check(set(given.goals))
        make_environment(given.chosen)
    except SetupError as error:
        sys.exit(f"make: {error}")


def check(goals: set) -> None:  # type: ignore[type-arg]  # older Pythons read this file, too
    """Refuse what would fail later, and half understood.

    Args:
        goals: Targets that make was asked for.

    Raises:
        SetupError: See the messages.
    """
    odd = ODD.search(str(Path.cwd()))
    if odd:
        raise SetupError(f"the path {Path.cwd()} holds {odd.group()!r}: move the project to a path without it")
    if "test" in goals and not shutil.which("git"):
        raise SetupError("the tests run DVC, which needs git: install git, or run `make check`, which does without")
    if goals & {"repro", "pull"} and not (shutil.which("git") and Path(".git").exists()):
        raise SetupError("DVC needs git and a clone of the project: install git, clone it, or run `make demo`")
    Path(os.environ["HOME"]).mkdir(parents=True, exist_ok=True)
    try:
        import resource
    except ImportError:
        return
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FEWEST_FILES:
        raise SetupError(f"only {resource.getrlimit(resource.RLIMIT_NOFILE)[1]} files may be open: `ulimit -n 1024`")


def make_environment(chosen: bool) -> None:
    """Create `.venv` if there is none, if it does not work, or if another Python was chosen.

    Raises:
        SetupError: This Python is not supported or cannot create environments, or `.venv` is something else.
    """
    found = version_of(VENV / "bin" / "python")
    if found and (found == sys.version_info[:2] or not chosen):
        return
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        names = " to ".join("{}.{}".format(*version) for version in (OLDEST, NEWEST))
        raise SetupError(
            f"{sys.executable} is Python {sys.version.split()[0]}, but Python {names} is needed: "
            "name one, such as `make demo PYTHON=python3.12`"
        )
    if VENV.is_symlink() or (VENV.exists() and not (VENV / "pyvenv.cfg").is_file() and any(VENV.iterdir())):
        raise SetupError(f"{VENV.resolve()} was not created by make: move it")
    print("creating .venv" if not VENV.exists() else "creating .venv again: it was broken, or of another Python")
    shutil.rmtree(str(VENV), ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or not version_of(VENV / "bin" / "python"):
        shutil.rmtree(str(VENV), ignore_errors=True)
        reason = done.stdout.decode(errors="replace").strip()
        raise SetupError(
            f"{sys.executable} cannot create an environment (Debian: `apt install python3-venv`): {reason}"
        )


def version_of(python: Path) -> tuple:  # type: ignore[type-arg]
    """Return the version of an environment's Python, major and minor; empty if it does not run or has no pip."""
    program = "import sys, pip; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-I", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ()
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


if __name__ == "__main__":
    main()
