"""Networks run by OpenVINO on a CPU: fused, in bf16 or int8, with one chip per request and core.

Requests of one chip on as many streams as there are threads are as fast as larger batches, and need no compilation for
an incomplete last batch or another chip size.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloudcover.models.folder import ModelFolderError, load_card
from cloudcover.predict.openvino.card import CARD, GRAPH, ExportError, load_export, load_library

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""OpenVINO's name for the precision of layers that are not quantised; a CPU without bf16 falls back to f32."""


class OpenvinoBackend:
    """An exported folder, safe to use from several threads, which take turns; see `backends.Backend`.

    Args:
        folder: Folder written by `cloudcover.predict.openvino.export`.
        device: Device; must be `cpu`.
        precision: `auto`, or the precision of the export.

    Raises:
        ModelFolderError: A part is missing, corrupt, or belongs to another model.
        ExportError: The device or precision is unsupported, or OpenVINO is not installed.
    """

    def __init__(self, folder: Path, device: str = "cpu", precision: str = "auto") -> None:
        export = load_export(folder)
        self.card = load_card(folder)
        if self.card.weights_sha256 != export.source_sha256:
            raise ModelFolderError(f"{folder}: {CARD} and model.json belong to different models")
        if device != "cpu":
            raise ExportError(f"{folder} was exported for the CPU: use --device cpu or the model that it was made from")
        if precision not in ("auto", export.precision):
            raise ExportError(f"{folder} was exported in {export.precision} and cannot run in {precision}")
        openvino = load_library("openvino")
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": HINTS[export.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        network = openvino.Core().compile_model(folder / GRAPH, "CPU", options)
        self._queue = openvino.AsyncInferQueue(network)
        self._turn = Lock()  # the queue has a single callback, so two callers would write into each other's logits

    def prepare(self, shape: torch.Size) -> None:
        """Do nothing: the network was compiled when it was loaded."""

    def logits(self, inputs: Tensor) -> Tensor:
        chips = inputs.contiguous().numpy()
        logits = np.empty((len(chips), *chips.shape[2:]), np.float32)

        def keep(request: Any, number: int) -> None:
            logits[number] = request.get_output_tensor().data[0, 0]

        with self._turn:
            self._queue.set_callback(keep)
            for number in range(len(chips)):
                self._queue.start_async({0: chips[number : number + 1]}, number)
            self._queue.wait_all()
        return torch.from_numpy(logits)
