"""Prediction of many chip folders: reading, prediction and writing run in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cloudcover.augment import tta
from cloudcover.masks.decision import mask_of
from cloudcover.predict.files import ChipFiles, FileBatch, Note, Spec, processes_for
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import NotFiniteError, Predictor
from cloudcover.predict.scenes import WINDOW
from cloudcover.predict.summary import Summary
from cloudcover.runtime.prefetch import prefetch

READERS = 2
"""Number of threads that each prepare a batch."""


class Done(NamedTuple):
    """The results for some chips.

    Attributes:
        notes: Information about each chip, by name.
        larger: Chips that do not fit into a window, which are not predicted here.
    """

    notes: dict[str, Note]
    larger: list[Path]


def predict_chips(
    predictor: Predictor, chips: Mapping[Path, str], spec: Spec, outputs: Outputs, summary: Summary | None = None
) -> Done:
    """Predict chips and write their files; names must be unique and files reserved.

    The next batches are read and the last masks written while the network computes. A batch holds consecutive chips of
    one size, with as many pixels as `predictor.batch` chips of the training size. An unusable chip does not affect the
    others.

    Args:
        predictor: The models.
        chips: Folder with one GeoTIFF per band, of any height and width -> name of its mask.
        spec: How to read the chips.
        outputs: Files to write.
        summary: Table to add the shares of each mask to.

    Raises:
        NotFiniteError: A model returns values that are not finite.
        DeviceMemoryError: The GPU's memory is too small for a batch.
        OSError: A file cannot be written.
    """
    notes: dict[str, Note] = {}
    gpu = predictor.device == "cuda"
    networks, writers = (2, 2) if gpu else (1, 1)  # two batches on a GPU: one is copied while the other is computed
    held = READERS + networks + writers + 3  # enough that no stage waits for memory held by a later one
    with ExitStack() as stack:

        def threads(number: int) -> ThreadPoolExecutor:
            return stack.enter_context(ThreadPoolExecutor(number))

        pixels = predictor.batch * predictor.card.chip_size**2
        files = stack.enter_context(ChipFiles(chips, spec, outputs, _processes(len(chips), gpu), pixels, held, WINDOW))
        bar = stack.enter_context(tqdm(total=len(chips), desc="predict", unit="chip", disable=None))
        predictor.prepare(len(chips))
        read = prefetch(threads(READERS), files.read, files.batches(list(chips)), READERS)
        seen = prefetch(threads(networks), lambda batch: _fill(predictor, batch, outputs), read, networks)
        for batch in prefetch(threads(writers), files.write, seen, writers):
            for row, (folder, note) in enumerate(zip(batch.folders, batch.notes, strict=True)):
                notes[chips[folder]] = note
                if summary and not note.problem:
                    summary.add(chips[folder], batch.grid(row), batch.masks[row])
            files.free(batch)
            bar.update(len(batch.folders))
    return Done(notes, files.larger)


def _processes(chips: int, gpu: bool) -> int:
    """Return the number of processes for the files of so many chips."""
    return processes_for(chips) if gpu else 0


def _fill(predictor: Predictor, batch: FileBatch, outputs: Outputs) -> FileBatch:
    """Predict the masks of a batch; a policy that does not fit its size is recorded as a problem of its chips.

    Raises:
        NotFiniteError: The message names model and chip.
    """
    if all(note.problem for note in batch.notes):
        return batch
    try:
        if outputs.probabilities:
            batch.probabilities = predictor.probabilities(batch.dn, batch.percentiles)
            batch.masks[:] = mask_of(
                batch.probabilities, batch.dn, predictor.threshold, predictor.card.nodata, predictor.postprocess
            )
        else:
            batch.masks[:] = predictor.masks(batch.dn, batch.percentiles)
    except NotFiniteError as error:
        raise NotFiniteError(error.row, f"chip {batch.folders[error.row].name}: {error}") from None
    except tta.PolicyError as error:
        batch.notes = [note if note.problem else note._replace(problem=str(error)) for note in batch.notes]
    return batch
