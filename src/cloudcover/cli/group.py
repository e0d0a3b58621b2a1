"""The group of commands: expected errors become one message instead of a traceback."""

from __future__ import annotations

from typing import Any

import click

EXTRAS = {"download": "download", "export": "openvino", "review": "review", "verify": "download"}
"""Command -> extra of the package with the libraries that it needs; all others need `workflow`."""


class CleanErrors(click.Group):
    """A group whose commands end with `Error: …` and exit status 1 where the input is to blame.

    The library raises `ValueError` and its subclasses (`ChipError`, `ParamsError`, `TableError`, `ModelFolderError` …)
    for input that cannot be used, and the system raises `OSError`. A library that is not installed is named with the
    extra that installs it. Everything else is a defect of the program and keeps its traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; with `--traceback` errors are left as they are."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if ctx.params["traceback"] or isinstance(error, BrokenPipeError):
                raise
            raise click.ClickException(str(error)) from error
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
    """Name of the library that is not installed, or empty if that is not the error; pandas wraps it in its own."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    name = (error.name or "").partition(".")[0] if error else ""
    return "" if name == "cloudcover" else name
