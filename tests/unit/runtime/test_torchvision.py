"""The package makes torchvision importable beside a torch without CUDA, and costs nothing until then."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_the_package_loads_no_heavy_library():
    heavy = "{'torch', 'torchvision', 'rasterio', 'numpy', 'pandas', 'pydantic'}"
    done = python(f"import sys, cloudcover; print({heavy} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_libraries_that_need_torchvision_import_after_the_package_and_transforms_work():
    done = python(
        "import cloudcover, torchvision, segmentation_models_pytorch, timm\n"
        "import torch; print(torch.ops.torchvision.nms)\n"
        "from torchvision.transforms.v2 import functional as F\n"
        "print(F.horizontal_flip(torch.arange(3)[None, None]).flatten().tolist())"
    )
    assert done.returncode == 0, done.stderr
    operator, flipped = done.stdout.splitlines()
    assert "torchvision" in operator
    assert flipped == "[2, 1, 0]"


def test_looking_for_torchvision_does_not_import_torch():
    done = python(
        "import sys, importlib.util, cloudcover\nimportlib.util.find_spec('torchvision'); print('torch' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def test_installing_twice_adds_one_finder():
    from cloudcover.runtime import torchvision_ops as _torchvision

    before = list(sys.meta_path)
    _torchvision.install()
    assert sys.meta_path == before


def test_finder_leaves_other_modules_alone():
    spec = importlib.util.find_spec("json")
    assert spec is not None
    assert type(spec.loader).__module__ != "cloudcover.runtime.torchvision_ops"


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    import cloudcover

    assert cloudcover.__version__ == version("cloudcover")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cloudcover.nothing
