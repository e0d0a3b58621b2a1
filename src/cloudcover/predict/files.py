"""File access of predictions: chips are read into batches and masks written, in separate processes if there is a GPU.

GDAL opens files under Python's lock, so threads that read or write are no faster than one. Processes are, and pass
chips on in shared memory, from which a GPU can copy directly. On a CPU the network is the bottleneck, so the threads
that request a batch read it themselves.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from math import prod
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from cloudcover.data.chips import LARGEST_MASK, ChipError, band_file, image_size, read_chip
from cloudcover.data.grid import Grid
from cloudcover.data.offsets import suspected_offset
from cloudcover.data.statistics import exact_percentiles
from cloudcover.predict.jobs import Job, write_jobs
from cloudcover.predict.outputs import Outputs
from cloudcover.runtime.prefetch import prefetch
from cloudcover.runtime.signals import uninterrupted
from cloudcover.runtime.workers import exit_with_parent

CHIPS_PER_PROCESS = 16
"""Number of chips that justify starting a process."""

TASK = 4
"""Number of chips that a process reads or writes at a time."""


class Spec(NamedTuple):
    """How to read chips.

    Attributes:
        bands: Names of the bands, in order.
        nodata: Value of pixels without data [DN].
        offset: Offset that was added to the DN of files without an offset tag [DN].
        percentiles: Whether the network's input needs percentiles.
    """

    bands: list[str]
    nodata: int
    offset: int
    percentiles: bool


class Note(NamedTuple):
    """Information about a chip, apart from its pixels.

    Attributes:
        crs: CRS as text, may be empty.
        transform: Six numbers of the affine transform.
        conversion: How the files' values became DN; empty if they are unchanged.
        near: Number of windows, for a chip 1, if all of them have a `suspected_offset`; otherwise 0.
        problem: Reason why the chip cannot be used; empty if it can.
    """

    crs: str = ""
    transform: tuple[float, ...] = ()
    conversion: str = ""
    near: int = 0
    problem: str = ""


class Shape(NamedTuple):
    """The shape of a batch: number of chips and bands, height and width of the chips [pixels]."""

    chips: int
    bands: int
    height: int
    width: int

    @property
    def numbers(self) -> tuple[int, int]:
        """Number of digital numbers and of mask pixels in the batch."""
        pixels = self.chips * self.height * self.width
        return pixels * self.bands, pixels

    @property
    def bytes(self) -> int:
        """Size of both [bytes]."""
        dn, mask = self.numbers
        return 2 * dn + mask

    def arrays(self, memory: Any, start: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Return digital numbers and masks as arrays in a piece of memory from byte `start` on."""
        dn, mask = self.numbers
        chips = np.frombuffer(memory, np.uint16, dn, start).reshape(self)
        masks = np.frombuffer(memory, np.uint8, mask, start + 2 * dn)
        return chips, masks.reshape(self.chips, self.height, self.width)


@dataclass
class FileBatch:
    """Chips of one size, read from files.

    Attributes:
        folders: Folders of the chips.
        shape: Number and size of the chips.
        dn: N x B x H x W uint16 [DN].
        masks: N x H x W uint8, to be filled.
        percentiles: N x B x 2 float32 [DN], zeros if they are not needed.
        notes: Information about each chip; a chip with a problem has no data.
        slot: Offset in the shared memory [bytes], or None if the batch is elsewhere.
        probabilities: N x H x W float32, or None if they are not requested.
    """

    folders: list[Path]
    shape: Shape
    dn: NDArray[np.uint16]
    masks: NDArray[np.uint8]
    percentiles: NDArray[np.float32]
    notes: list[Note]
    slot: int | None = None
    probabilities: NDArray[np.float32] | None = None

    def grid(self, row: int) -> Grid:
        """Return the georeferencing of a chip."""
        return Grid(self.shape.height, self.shape.width, self.notes[row].crs, self.notes[row].transform)


def chip_percentiles(chips: NDArray[np.uint16], nodata: int) -> NDArray[np.float32]:
    """Compute the 2nd and 98th percentile of each band without nodata: N x B x 2 float32 [DN]; 0 without data."""
    percentiles = np.zeros((*chips.shape[:2], 2), np.float32)
    for i, chip in enumerate(chips):
        for j, pixels in enumerate(chip):
            valid = pixels[pixels != nodata]
            if valid.size:
                percentiles[i, j] = exact_percentiles(valid, (2, 98))
    return percentiles


class ChipFiles:
    """A reader of batches and writer of their masks; safe to use from several threads.

    Args:
        names: Folder of each chip -> name of its mask.
        spec: How to read chips.
        outputs: Files to write.
        processes: Number of processes that read and write; 0: the calling threads do.
        pixels: Number of pixels in a batch of ordinary chips.
        batches: Maximum number of batches held at once.
        largest: Longest side of a chip [pixels].

    Attributes:
        larger: Chips with a longer side, which are in no batch; complete once the last batch was requested.
    """

    def __init__(
        self,
        names: Mapping[Path, str],
        spec: Spec,
        outputs: Outputs,
        processes: int,
        pixels: int,
        batches: int,
        largest: int,
    ) -> None:
        self._names = names
        self.spec = spec
        self.outputs = outputs
        self.larger: list[Path] = []
        self._largest = largest
        self._pixels = pixels
        self._memory: Any = None
        self._slot_bytes = pixels * (2 * len(spec.bands) + 1)
        self._free: SimpleQueue[int] = SimpleQueue()
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        self._processes = processes
        if processes:
            context = get_context("spawn")  # a fork would copy the locks of torch's threads
            self._memory = context.RawArray(ctypes.c_uint8, batches * self._slot_bytes)
            self._stack.enter_context(_Pinned(self._memory))
            for number in range(batches):
                self._free.put(number * self._slot_bytes)
            self._pool = ProcessPoolExecutor(processes, context, _start_worker, (self._memory,))
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
            with uninterrupted():
                for _ in range(processes):
                    self._pool.submit(int)  # a process is started for each task while none is idle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def batches(self, chips: Sequence[Path]) -> Iterator[tuple[tuple[int, int] | str, list[Path]]]:
        """Yield runs of chips of one size that fit into a batch (at least one), or runs with the same problem."""
        from cloudcover.models.border import STRIDE  # imports torch, which the processes of this module do not need

        for found, run in groupby(self._small(chips), lambda chip: chip[1]):
            folders = (folder for folder, _ in run)
            most = len(chips)
            if not isinstance(found, str):
                most = max(1, self._pixels // prod(max(side, STRIDE) for side in found))
            while batch := list(islice(folders, most)):
                yield found, batch

    def _small(self, chips: Sequence[Path]) -> Iterator[tuple[Path, tuple[int, int] | str]]:
        """Yield the same as `_sized` without chips that are too large, which are set aside."""
        for chip, found in self._sized(chips):
            if isinstance(found, str) or max(found) <= self._largest:
                yield chip, found
            else:
                self.larger.append(chip)

    def _sized(self, chips: Sequence[Path]) -> Iterator[tuple[Path, tuple[int, int] | str]]:
        """Yield each chip with its height and width, or its problem."""
        band = self.spec.bands[0]
        if self._pool is None:
            yield from ((chip, _size(chip, band)) for chip in chips)
            return
        tasks = [chips[start : start + 4 * TASK] for start in range(0, len(chips), 4 * TASK)]
        found = prefetch(self._pool, partial(_sizes, band), tasks, 2 * self._processes)
        for task, sizes in zip(tasks, found, strict=True):
            yield from zip(task, sizes, strict=True)

    def read(self, given: tuple[tuple[int, int] | str, list[Path]]) -> FileBatch:
        """Read a batch of `batches`; unreadable chips are recorded."""
        found, folders = given
        size = (1, 1) if isinstance(found, str) else found
        shape = Shape(len(folders), len(self.spec.bands), *size)
        percentiles = np.zeros((shape.chips, shape.bands, 2), np.float32)
        if isinstance(found, str):
            dn, masks = shape.arrays(np.empty(shape.bytes, np.uint8))
            return FileBatch(folders, shape, dn, masks, percentiles, [Note(problem=found)] * len(folders))
        if self._pool is None or shape.bytes > self._slot_bytes:
            dn, masks = shape.arrays(np.empty(shape.bytes, np.uint8))
            return FileBatch(
                folders, shape, dn, masks, percentiles, _read(folders, dn, percentiles, size, self.spec, self.outputs)
            )
        slot = self._free.get()
        dn, masks = shape.arrays(self._memory, slot)
        notes: list[Note] = []
        tasks = [
            self._pool.submit(_read_shared, slot, shape, start, folders[start : start + TASK], self.spec, self.outputs)
            for start in range(0, shape.chips, TASK)
        ]
        for task in tasks:
            more, found_percentiles = task.result()
            percentiles[len(notes) : len(notes) + len(more)] = found_percentiles
            notes += more
        return FileBatch(folders, shape, dn, masks, percentiles, notes, slot)

    def write(self, batch: FileBatch) -> FileBatch:
        """Finish the masks of the chips without a problem, in place, and write their files.

        Raises:
            OSError: A file cannot be written.
        """
        jobs = [
            Job(row, self._names[folder], batch.grid(row), note.conversion)
            for row, (folder, note) in enumerate(zip(batch.folders, batch.notes, strict=True))
            if not note.problem
        ]
        if batch.slot is None or self._pool is None or batch.probabilities is not None:
            write_jobs(batch.dn, batch.masks, batch.probabilities, jobs, self.spec.bands, self.outputs)
        else:
            tasks: list[Future[None]] = [
                self._pool.submit(
                    _write_shared, batch.slot, batch.shape, jobs[start : start + TASK], self.spec.bands, self.outputs
                )
                for start in range(0, len(jobs), TASK)
            ]
            for task in tasks:
                task.result()
        return batch

    def free(self, batch: FileBatch) -> None:
        """Release the memory of a batch for another one."""
        if batch.slot is not None:
            self._free.put(batch.slot)


def processes_for(chips: int) -> int:
    """Return the number of worthwhile processes beside a GPU; one core is reserved for the thread that feeds it."""
    cores = len(os.sched_getaffinity(0)) - 1
    number = min(cores, chips // CHIPS_PER_PROCESS)
    return number if number > 1 else 0


class _Pinned:
    """Memory registered with the GPU for direct copies; without a GPU, or if refused, it has no effect."""

    def __init__(self, memory: Any) -> None:
        self._address = ctypes.addressof(memory)
        self._size = ctypes.sizeof(memory)

    def __enter__(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.cudart().cudaHostRegister(self._address, self._size, 0)  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.cudart().cudaHostUnregister(self._address)  # type: ignore[no-untyped-call]


def _sizes(band: str, folders: Sequence[Path]) -> list[tuple[int, int] | str]:
    return [_size(folder, band) for folder in folders]


def _size(folder: Path, band: str) -> tuple[int, int] | str:
    try:
        height, width = image_size(band_file(folder, band), band)
    except ChipError as error:
        return str(error)
    if height * width > LARGEST_MASK:
        return f"{band}: is {height} x {width} pixels, more than {LARGEST_MASK:,}: cut it into parts"
    return height, width


def _read(
    folders: Sequence[Path],
    dn: NDArray[np.uint16],
    percentiles: NDArray[np.float32],
    size: tuple[int, int],
    spec: Spec,
    outputs: Outputs,
) -> list[Note]:
    """Read chips into N x B x H x W, and return information about them."""
    notes = []
    for i, folder in enumerate(folders):
        try:
            chip = read_chip(folder, None, spec.bands, size, nodata=spec.nodata, offset=spec.offset)
            outputs.check(chip.grid)
        except ValueError as error:
            dn[i] = spec.nodata
            notes.append(Note(problem=str(error)))
            continue
        dn[i] = chip.bands
        if spec.percentiles:
            percentiles[i] = chip_percentiles(chip.bands[np.newaxis], spec.nodata)[0]
        near = int(not chip.conversion and suspected_offset(chip.bands, spec.nodata))
        notes.append(Note(chip.grid.crs, chip.grid.transform, chip.conversion, near))
    return notes


_shared: list[Any] = []
"""Memory that a pool process shares with its parent."""


def _start_worker(memory: Any) -> None:
    exit_with_parent()
    _shared.append(memory)
    rasterio.Env().__enter__()  # one environment for all files, which ends with the process


def _read_shared(
    slot: int, shape: Shape, start: int, folders: list[Path], spec: Spec, outputs: Outputs
) -> tuple[list[Note], NDArray[np.float32]]:
    dn, _ = shape.arrays(_shared[0], slot)
    percentiles = np.zeros((len(folders), shape.bands, 2), np.float32)
    part = dn[start : start + len(folders)]
    return _read(folders, part, percentiles, (shape.height, shape.width), spec, outputs), percentiles


def _write_shared(slot: int, shape: Shape, jobs: list[Job], bands: list[str], outputs: Outputs) -> None:
    dn, masks = shape.arrays(_shared[0], slot)
    write_jobs(dn, masks, None, jobs, bands, outputs)
