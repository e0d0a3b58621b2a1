"""Export of trained models to OpenVINO graphs for fast prediction on CPUs.

int8 is post-training quantisation by NNCF: the value range of every layer is measured on chips of a store. On other
chips of the store, the export counts the pixels whose mask changes.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.jit._trace import TracerWarning

from cloudcover.data import ownership
from cloudcover.data.store import ChipStore
from cloudcover.models.folder import CARD as MODEL_CARD
from cloudcover.models.folder import ModelCard, ModelFolderError, load_model
from cloudcover.models.normalize import Normalize
from cloudcover.predict.bundle import BUNDLE, read_bundle
from cloudcover.predict.openvino.card import CARD, GRAPH, WEIGHTS, Export, ExportError, Precision, load_library
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import sha256, write_json, write_text

log = logging.getLogger(__name__)

CHIPS = 32
"""Number of chips to calibrate on, and of other chips to compare with torch on."""


FILES = (MODEL_CARD, GRAPH, WEIGHTS, CARD)
"""Files in the folder of an exported model."""


def export(
    source: Path, out: Path, precision: Precision, store: ChipStore | None = None, seed: int = 0, chips: int = CHIPS
) -> list[Export]:
    """Export a model folder, or all models of a bundle, to a folder for `Predictor` and `load_bundle`.

    Args:
        source: Bundle or model folder.
        out: Folder for `model.json`, `model.xml`, `model.bin` and `export.json`, with one subfolder per model for a
            bundle. The file that marks the folder as complete is written last.
        precision: `fp32`, `bf16` or `int8`.
        store: Chips to calibrate on, required for int8; in any precision, the export is compared with torch on other
            chips of the store.
        seed: Random seed for choosing chips.
        chips: Number of chips to calibrate on, and to compare on; fewer if the store has fewer.

    Returns:
        The cards of the exports.

    Raises:
        ExportError: int8 is requested without chips, the chips have other bands, or OpenVINO or NNCF is not installed.
        ModelFolderError: The source is neither a bundle nor a model folder, or is damaged.
        FolderError: `out` overlaps with the source, or contains files other than those of an earlier export.
    """
    if precision == "int8" and (store is None or len(store) < 2):
        raise ExportError("int8 needs at least two chips, for calibration and comparison: give a store")
    ownership.refuse_overlap(source, out, "the model")
    ownership.claim(out)
    if not (source / BUNDLE).exists():
        ownership.reserve(out, FILES)
        return [_export_model(source, out, precision, store, (seed, chips))]
    bundle = read_bundle(source)
    ownership.reserve(out, [BUNDLE, "README.md", *(f"{name}/{file}" for name in bundle.models for file in FILES)])
    (out / BUNDLE).unlink(missing_ok=True)
    exports = [_export_model(source / name, out / name, precision, store, (seed, chips)) for name in bundle.models]
    write_text(out / "README.md", (source / "README.md").read_text(encoding="utf-8"))
    write_json(out / BUNDLE, bundle.model_dump(mode="json"))
    return exports


def _export_model(
    source: Path, out: Path, precision: Precision, store: ChipStore | None, sample: tuple[int, int]
) -> Export:
    if (source / CARD).exists():
        raise ModelFolderError(f"{source} is already an export: give the model that it was made from")
    network, card = load_model(source)
    calibration, others = _choose(store, card, *sample)
    graph = _graph(network, card)
    if precision == "int8":
        graph = _quantised(graph, _inputs(cast(ChipStore, store), calibration, card))
    _save(graph, source / MODEL_CARD, out)
    made = Export(
        precision=precision,
        source_sha256=card.weights_sha256,
        files_sha256={name: sha256(out / name) for name in (GRAPH, WEIGHTS)},
        calibration_chips=calibration if precision == "int8" else [],
        checked_chips=others,
        versions={name: version(name) for name in ("openvino", "nncf", "torch")},
    )
    write_json(out / CARD, made.model_dump(mode="json"))
    if store is None:
        return made
    checked = made.model_copy(update={"disagreement_share": _disagreement(source, out, store, others)})
    write_json(out / CARD, checked.model_dump(mode="json"))
    return checked


def _save(graph: Any, card: Path, out: Path) -> None:
    """Write graph, weights and the model's card; an older export stays until all of them are complete.

    Raises:
        ExportError: The disk is full, which OpenVINO does not report itself.
    """
    part, openvino = out / ".part", load_library("openvino")
    shutil.rmtree(part, ignore_errors=True)  # left by a killed run
    part.mkdir(parents=True)
    try:
        try:
            openvino.save_model(graph, part / GRAPH, compress_to_fp16=False)
            openvino.Core().read_model(part / GRAPH)
        except RuntimeError as error:
            raise ExportError(f"{out} cannot be written, the disk may be full: {error}") from None
        shutil.copyfile(card, part / MODEL_CARD)
        (out / CARD).unlink(missing_ok=True)
        for name in (GRAPH, WEIGHTS, MODEL_CARD):
            (part / name).replace(out / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _choose(store: ChipStore | None, card: ModelCard, seed: int, most: int) -> tuple[list[str], list[str]]:
    """Choose chips to calibrate on and other chips to compare on."""
    if store is None:
        return [], []
    if store.bands() != card.bands:
        raise ExportError(f"the store has the bands {store.bands()}, the model was made for {card.bands}")
    chips = np.random.default_rng(seed).permutation(store.index["chip_id"].to_numpy()).tolist()
    number = min(most, len(chips) // 2)
    return sorted(chips[:number]), sorted(chips[number : 2 * number])


def _graph(network: torch.nn.Module, card: ModelCard) -> Any:
    """Convert the network to an OpenVINO model for any number of chips of any height and width."""
    example = torch.zeros(1, len(card.bands), card.chip_size, card.chip_size)
    openvino = load_library("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)  # shape checks that hold for every multiple of 32
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO traces with torch.jit
        return openvino.convert_model(network, example_input=example, input=[-1, len(card.bands), -1, -1])


def _quantised(graph: Any, inputs: Sequence[np.ndarray[Any, np.dtype[np.float32]]]) -> Any:
    nncf = load_library("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(graph, nncf.Dataset(inputs), subset_size=len(inputs))


def _inputs(store: ChipStore, chips: list[str], card: ModelCard) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield scaled chips, 1 x B x H x W each."""
    normalize = Normalize(card.input, card.data_params())
    return [normalize(store.chips([chip]), store.percentiles([chip])).numpy() for chip in chips]


def _disagreement(source: Path, out: Path, store: ChipStore, chips: list[str]) -> float:
    """Compute the share of pixels whose mask differs between the export and torch in fp32 [0-1]."""
    torch_way, exported = Predictor([source], device="cpu", precision="fp32"), Predictor([out])
    differing = []
    for chip in chips:
        one = store.chips([chip]), store.percentiles([chip])
        masks = [p.probabilities(*one) > p.threshold for p in (torch_way, exported)]
        differing.append(float(np.mean(masks[0] != masks[1])))
    return float(np.mean(differing))
