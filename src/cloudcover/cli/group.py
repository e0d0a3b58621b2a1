"""The command group, which turns expected errors into one message instead of a traceback."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import Any

import click

EXTRAS = {"download": "download", "export": "openvino", "review": "review", "verify": "download"}
"""Command -> extra of the package that installs its libraries; all other commands need `workflow`."""


class CleanErrors(click.Group):
    """A group whose commands end with `Error: …` and exit status 1 if their input is to blame.

    The library raises `ValueError` and its subclasses (`ChipError`, `ParamsError`, `TableError`, `ModelFolderError` …)
    for unusable input, and the operating system raises `OSError` and `MemoryError`. For a missing library the message
    names the extra that installs it. Any other exception is a bug and keeps its traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with `--traceback` errors are not caught."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if ctx.params["traceback"] or isinstance(error, BrokenPipeError):
                raise
            shown = str(error).encode(errors="backslashreplace").decode()  # a name of a file need not be text
            raise click.ClickException(shown) from error
        except MemoryError as error:
            if ctx.params["traceback"]:
                raise
            raise click.ClickException(f"there is not enough memory: {error or 'close other programs'}") from error
        except BrokenExecutor as error:
            if ctx.params["traceback"]:
                raise
            raise click.ClickException("a worker process was killed, perhaps for lack of memory: run again") from error
        except RuntimeError as error:
            if ctx.params["traceback"] or not str(error).startswith("Symlink loop"):  # `Path.resolve`
                raise
            raise click.ClickException(f"{error}: the link leads to itself; replace it") from error
        except ImportError as error:
            missing = _missing_library(error)
            if ctx.params["traceback"] or not missing:
                raise
            command = str(ctx.invoked_subcommand)
            raise click.ClickException(
                f"`cloudcover {command}` needs {missing}, which is not installed: "
                f'pip install "cloudcover[{EXTRAS.get(command, "workflow")}]"'
            ) from error


def _missing_library(error: BaseException | None) -> str:
    """Return the name of the library that is not installed, or an empty text for any other error.

    pandas wraps this error in its own.
    """
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    name = (error.name or "").partition(".")[0] if error else ""
    return "" if name == "cloudcover" else name
