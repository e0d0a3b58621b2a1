# One run at a time in a folder. Only a run that has jobs gets here: no dry run, and no process that runs one job for it.
# Snakemake's own lock would outlive a killed run; the profiles turn it off (`nolock`).
from pathlib import Path

from snakemake.exceptions import WorkflowError

from cloudcover.runtime.locks import FolderBusyError, hold, until_exit


onstart:
    try:
        until_exit.enter_context(
            hold(Path(".snakemake/run.lock"), f"another run works in {Path.cwd()}")
        )
    except FolderBusyError as error:
        raise WorkflowError(str(error)) from None
