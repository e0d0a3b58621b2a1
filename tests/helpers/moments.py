"""Runs a command of the product, and stops it or fills its disk before one of its file operations.

    python moments.py COMMAND GIVEN URL VARIANT OUT ACT MOMENT

`GIVEN` contains `sets/N`, `models/N` and `bundles/N` for `VARIANT` N, and `URL` is the address of the sets. The program
prints the number of operations below `OUT`, and the error. With `ACT` `kill` the process kills itself before operation
`MOMENT`, with `fill` it fills the disk of `OUT`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

BANDS = ["B02", "B03", "B04", "B08"]
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate"}
"""Events of Python's audit hooks that are counted; they come before the operation."""


def bring(out: Path, **source: str) -> None:
    from cloudcover.config.sections import DataParams, SyntheticParams
    from cloudcover.sources.fetch import fetch

    data = DataParams.model_validate({"chip_size": 64, **source})
    fetch(data, SyntheticParams(), 0, out / "raw", out / "truth")


def copy(given: Path, url: str, variant: str, out: Path) -> None:
    bring(out, source="local", path=f"{given}/sets/{variant}")


def hardlink(given: Path, url: str, variant: str, out: Path) -> None:
    bring(out, source="local", path=f"{given}/sets/{variant}", link="hardlink")


def symlink(given: Path, url: str, variant: str, out: Path) -> None:
    bring(out, source="local", path=f"{given}/sets/{variant}", link="symlink")


def download(given: Path, url: str, variant: str, out: Path) -> None:
    bring(out, source="http", url=f"{url}/{variant}")


def pack(given: Path, url: str, variant: str, out: Path) -> None:
    from cloudcover.config.sections import DataParams
    from cloudcover.data.pack import pack

    data = DataParams.model_validate({"chip_size": 64, "chips_per_shard": 2})
    pack(given / "sets" / variant, out / "store", out / "quarantine.csv", data)


def predict(given: Path, url: str, variant: str, out: Path) -> None:
    from cloudcover.predict.images import predict_images
    from cloudcover.predict.outputs import Outputs
    from cloudcover.predict.predictor import Predictor
    from cloudcover.rasters.find import find_images

    predictor = Predictor([given / "models" / variant / "unet/fold0"], device="cpu")
    predict_images(predictor, find_images([given / "sets/0"], BANDS), Outputs(out, preview=True))


def export(given: Path, url: str, variant: str, out: Path) -> None:
    from cloudcover.predict.openvino.export import export

    export(given / "bundles" / variant, out, "fp32")


def bundle(given: Path, url: str, variant: str, out: Path) -> None:
    from cloudcover.masks.decision import InferenceSettings
    from cloudcover.predict.bundle import write_bundle

    folders = [given / "models" / variant / "unet" / f"fold{fold}" for fold in range(2)]
    settings = InferenceSettings(weights={"unet-fold0": 0.5, "unet-fold1": 0.5}, threshold=0.4 + 0.1 * int(variant))
    write_bundle(folders, "none", settings, out)


COMMANDS = {command.__name__: command for command in (copy, hardlink, symlink, download, pack, predict, export, bundle)}


def kill(out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill(out: Path) -> None:
    """Fill the small disk that contains `out`."""
    with (out.parent / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def main() -> None:
    name, given, url, variant, place, act, moment = sys.argv[1:]
    out, acts = Path(place), {"kill": kill, "fill": fill}
    happen: Callable[[Path], None] = acts[act]
    seen, problem = 0, ""

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS and str(arguments[0]).startswith(place):
            seen += 1
            if seen == int(moment):
                happen(out)

    sys.addaudithook(count)
    try:
        COMMANDS[name](Path(given), url, variant, out)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    print(json.dumps([seen, problem]))


if __name__ == "__main__":
    main()
