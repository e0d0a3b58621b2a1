# One run at a time in a folder. Only runs with jobs get here, not dry runs or the processes of single jobs. Snakemake's
# own lock would survive a killed run; the profiles turn it off (`nolock`).
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
