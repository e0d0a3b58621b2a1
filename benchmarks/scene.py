"""A mask of a whole scene: memory in addition to the model, time, and the effect of windows.

    python benchmarks/scene.py
    python benchmarks/scene.py --quick
    python benchmarks/scene.py --model models/bundle --seams

The scene is generated into a temporary folder: four tiled GeoTIFFs of 10,980 x 10,980 pixels, without gaps. Its pixels
are a chip of the synthetic set, mirrored again and again. The model is the packaged one unless `--model` names a bundle
or model folder. A separate process writes the mask, probabilities, a preview and a summary. `peak_gb` is the largest
RssAnon (memory that the process holds for itself) during that, less what it was when the model was loaded; `network_gb`
is the part of it that one forward pass takes. `--seams` compares probabilities of an image of `SEAM_SIDE` pixels in
windows with those of the same image in one piece, away from its border, where one piece is worse.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

SIDE, QUICK_SIDE, SEAM_SIDE = 10_980, 2_196, 2_000
"""Height and width of the scene, of that of a quick run, and of the image of the comparison [pixels]."""
TILE = 1_024
"""Height and width of the generated chip and of the tiles of the files [pixels]."""
GIB = 1024


def generate(folder: Path, side: int, seed: int) -> Path:
    """Write a scene as `B02.tif` and so on, tile by tile."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    from cloudcover.config.sections import DataParams, SyntheticParams
    from cloudcover.synthetic.generate import generate as generate_set

    params = SyntheticParams(chips=2, scenes=2, locations=2, unlabelled=0)  # type: ignore[call-arg]
    generate_set(params, DataParams(chip_size=TILE), seed, folder / "set", folder / "truth", workers=1)  # type: ignore[call-arg]
    chip = sorted((folder / "set/train_features").iterdir())[0]
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": 1, "dtype": "uint16", "height": side, "width": side, "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1,
        "crs": "EPSG:32633", "transform": from_origin(399_960, 5_000_040, 10, 10),
    }  # fmt: skip
    scene = folder / "scenes/generated"
    scene.mkdir(parents=True)
    for source in sorted(chip.glob("B*.tif")):
        with rasterio.open(source) as file:
            pixels = file.read(1)
        with rasterio.open(scene / source.name, "w", **profile) as output:
            for row in range(0, side, TILE):
                for column in range(0, side, TILE):
                    window = Window(column, row, min(TILE, side - column), min(TILE, side - row))
                    turned = pixels[:: -1 if row // TILE % 2 else 1, :: -1 if column // TILE % 2 else 1]
                    output.write(np.ascontiguousarray(turned[: window.height, : window.width]), 1, window=window)
    return scene


def run(scene: Path, model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Predict the scene: seconds, and memory beside the model [GiB]."""
    import numpy as np
    import torch
    from memory import Peak

    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.images import predict_images
    from cloudcover.predict.outputs import Outputs
    from cloudcover.predict.scenes import CPU_WINDOWS, WINDOW
    from cloudcover.predict.summary import Summary
    from cloudcover.rasters.find import find_images

    def held() -> float:
        time.sleep(0.1)  # Peak looks every 20 ms
        return peak.figures["RssAnon"] / GIB

    out = scene.parent.parent / "masks"
    predictor = load_bundle(model, options.device)
    peak = Peak()
    loaded = held()
    windows = CPU_WINDOWS if predictor.device == "cpu" else 1
    dn = np.ones((windows, len(predictor.card.bands), WINDOW, WINDOW), np.uint16)
    predictor.probabilities(dn, np.zeros((*dn.shape[:2], 2), np.float32))
    network = held()
    start = time.perf_counter()
    predict_images(
        predictor,
        find_images([scene], predictor.card.bands),
        Outputs(out, probabilities=True, preview=True),
        summary=Summary(out / "summary.csv"),
    )
    if predictor.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    most = peak.stop()["RssAnon"] / GIB
    return {"seconds": seconds, "peak_gb": most - loaded, "network_gb": network - loaded, "model_gb": loaded}


def seams(scene: Path, model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure the effect of windows, with and without overlap, against a prediction in one piece."""
    import numpy as np

    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.scenes import OVERLAP, WINDOW, predict_scene
    from cloudcover.rasters.find import find_images

    predictor = load_bundle(model, options.device)
    (found,) = find_images([scene], predictor.card.bands)
    figures = {}
    inside = (slice(OVERLAP, -OVERLAP),) * 2
    with found.open() as image:
        whole = predict_scene(image, predictor, window=image.grid.width).values[inside]
        for name, window, overlap in (("blended", WINDOW, OVERLAP), ("cut", WINDOW, 2)):
            parts = predict_scene(image, predictor, window=window, overlap=overlap).values[inside]
            change = np.abs(parts - whole)
            differ = (parts > predictor.threshold) != (whole > predictor.threshold)
            figures |= {
                f"seam_mean_{name}": float(change.mean()),
                f"seam_p999_{name}": float(np.quantile(change, 0.999)),
                f"seam_disagreement_{name}": float(differ.mean()),
            }
    return figures


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"a scene of {QUICK_SIDE:,} pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, help="a bundle or model folder; default: the packaged one")
    parser.add_argument("--seams", action="store_true", help="compare windows with a prediction in one piece instead")
    parser.add_argument("--folders", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folders:
        print(json.dumps((seams if options.seams else run)(*options.folders, options)))
        return

    from cloudcover.models.packaged import packaged_bundle
    from cloudcover.runtime.files import write_json

    model = options.model or packaged_bundle()

    side = SEAM_SIDE if options.seams else QUICK_SIDE if options.quick else SIDE
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scene = generate(root, side, options.seed)
        command = [sys.executable, __file__, *sys.argv[1:], "--folders", str(scene), str(model)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if "seconds" in figures:
        figures["mpixels_per_second"] = side**2 / figures["seconds"] / 1e6
    print(f"{side:,} x {side:,} pixels, {options.model or 'packaged model'}, {options.device}")
    for name, value in figures.items():
        print(f"{name:26} {value:.5f}" if name.startswith("seam") else f"{name:26} {value:.2f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
