"""Masks on disk: chips of a folder in, single-band GeoTIFFs out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from cloudcover.augment import tta
from cloudcover.data import ownership
from cloudcover.data.values import report
from cloudcover.predict.files import ChipFiles, FileBatch, Note, Spec, processes_for
from cloudcover.predict.predictor import NotFiniteError, Predictor
from cloudcover.runtime.prefetch import prefetch
from cloudcover.runtime.text import listed

READERS = 2
"""Threads that prepare a batch each."""


class UnusableChipsError(ValueError):
    """Some chips have no mask; the message names them and says why. The masks of all others are written."""


def find_chips(paths: Sequence[Path], bands: list[str]) -> list[Path]:
    """Chip folders among `paths`: a path is one itself, or a folder of chip folders at any depth.

    A folder is a chip if it holds any of the bands, in whatever format: what it lacks is found when it is read. Links
    to folders are followed, hidden folders are not.

    Raises:
        FileNotFoundError: a path does not exist or holds no chip.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(folder for folder, names in _folders(path) if any(Path(n).stem in bands for n in names))
        if not below:
            raise FileNotFoundError(f"{path} holds no chip: expected folders with {bands[0]}.tif and so on")
        # The folder that somebody stands in has a name too, which becomes that of its mask.
        found += [chip if chip.name not in ("", "..") else chip.resolve() for chip in below]
    return found


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and all below it with the names of their visible files; a loop of links is entered once."""
    seen = set()
    for root, folders, names in os.walk(top, followlinks=True):
        if (place := Path(root).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(root), [name for name in names if not name.startswith(".")]


def predict_chips(predictor: Predictor, chips: Sequence[Path], out: Path, offset: int = 0) -> list[Path]:
    """Write the mask of each chip folder as `out/<chip>.tif`.

    The next batches are read and the last masks written while the network computes. A batch holds chips of one size
    that follow each other, as many pixels as `predictor.batch` chips of the training's size. A chip that cannot be
    used does not keep the others from their masks.

    Args:
        predictor: the models; bands, scale and threshold are theirs.
        chips: folders with one GeoTIFF per band, any height and width.
        out: folder of the masks.
        offset: what was added to the DN of files without an offset of their own, such as 1000 [DN].

    Returns:
        The written paths.

    Raises:
        UnusableChipsError: some chips cannot be used; raised when all others are done.
        NotFiniteError: a model gives no numbers.
        DeviceMemoryError: the GPU's memory is too small for a batch.
        ValueError: two chips have the same name.
        FolderError: a mask would overwrite a file of `out` that is no earlier mask, such as a band or a label.
        OSError: a mask cannot be written.
    """
    names = [c.name for c in chips]
    if twice := sorted(name for name, number in Counter(names).items() if number > 1):
        raise ValueError(f"several chips are called {listed(twice)}: their masks would overwrite each other")
    card = predictor.card
    _reserve(chips, card.bands, out)
    notes: dict[str, Note] = {}
    gpu = predictor.device == "cuda"
    networks, writers = (2, 2) if gpu else (1, 1)  # two batches on a GPU: one is copied while the other is computed
    held = READERS + networks + writers + 3  # so many that no stage waits for room that a later one has
    spec = Spec(card.bands, card.nodata, offset, predictor.normalize.needs_percentiles)
    with ExitStack() as stack:

        def threads(number: int) -> ThreadPoolExecutor:
            return stack.enter_context(ThreadPoolExecutor(number))

        pixels = predictor.batch * card.chip_size**2
        files = stack.enter_context(ChipFiles(spec, out, _processes(len(chips), gpu), pixels, held))
        bar = stack.enter_context(tqdm(total=len(chips), desc="predict", unit="chip", disable=None))
        predictor.prepare(len(chips))
        read = prefetch(threads(READERS), files.read, files.batches(chips), READERS)
        seen = prefetch(threads(networks), lambda batch: _fill(predictor, batch), read, networks)
        for batch in prefetch(threads(writers), files.write, seen, writers):
            notes |= {folder.name: note for folder, note in zip(batch.folders, batch.notes, strict=True)}
            bar.update(len(batch.folders))
    report({name: note.conversion for name, note in notes.items()}, [n for n, note in notes.items() if note.suspected])
    if unusable := [f"{name}: {note.problem}" for name, note in notes.items() if note.problem]:
        raise UnusableChipsError(
            f"{len(unusable)} of {len(chips)} chips have no mask ({out} holds those of the others):\n  "
            + "\n  ".join(unusable)
        )
    return [out / f"{name}.tif" for name in names]


def _reserve(chips: Sequence[Path], bands: list[str], out: Path) -> None:
    """Records the masks as this program's, unless one of them would overwrite a file of somebody else or a band."""
    masks = {f"{chip.name}.tif" for chip in chips}
    read = {(chip / f"{band}.tif").resolve() for chip in chips for band in bands}
    if overwritten := sorted(mask for mask in masks if (out / mask).resolve() in read):
        raise ownership.FolderError(
            f"{out / overwritten[0]} is a band of a chip and would be overwritten: choose another --out"
        )
    ownership.reserve(out, masks)


def _processes(chips: int, gpu: bool) -> int:
    """Processes for the files of so many chips."""
    return processes_for(chips) if gpu else 0


def _fill(predictor: Predictor, batch: FileBatch) -> FileBatch:
    """Predict the masks of a batch; a policy that does not fit its size is noted as a problem of its chips.

    Raises:
        NotFiniteError: names model and chip.
    """
    if all(note.problem for note in batch.notes):
        return batch
    try:
        batch.masks[:] = predictor.masks(batch.dn, batch.percentiles)
    except NotFiniteError as error:
        raise NotFiniteError(error.row, f"chip {batch.folders[error.row].name}: {error}") from None
    except tta.PolicyError as error:
        batch.notes = [note if note.problem else note._replace(problem=str(error)) for note in batch.notes]
    return batch
