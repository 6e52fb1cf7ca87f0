"""Every exporter: a default config, files in the folder it is given, parity with torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch import nn

from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import compare_batches, torch_logits
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.space import SearchSpace

SHAPE = (3, 16, 16)
IMAGES = rng(0, "images").standard_normal((16, *SHAPE)).astype(np.float32)
ELSEWHERE = {"tensorrt", "tensorrt_rtx"}  # formats that need a GPU to run


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace) -> nn.Module:
    return build_subnet(tiny_space, tiny_space.smallest())


@pytest.fixture(scope="module")
def with_onnx(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ONNX file, from which other formats start."""
    folder = tmp_path_factory.mktemp("onnx")
    module = REGISTRY.load("onnx")
    module.build(module.Config()).export(model, input_shape=SHAPE, folder=folder)
    return folder


def module_of(name: str) -> ModuleType:
    """The exporter, or a skipped test that says what is missing."""
    variant = REGISTRY.describe(name)
    if variant.missing:
        pytest.skip(f"{', '.join(variant.missing)} is not installed: {variant.install}")
    return REGISTRY.load(name)


def config_of(name: str, module: ModuleType) -> Any:
    """The default config; ahead of time where engines need a GPU or a named capability."""
    return module.Config(**({"capability": "8.9"} if name == "tensorrt_rtx" else {}))


@pytest.mark.parametrize("name", REGISTRY.names)
def test_exports_a_subnet_that_agrees_with_torch(
    name: str, model: nn.Module, with_onnx: Path, tmp_path: Path
) -> None:
    module = module_of(name)
    config = config_of(name, module)
    assert config.name == name
    folder = shutil.copytree(with_onnx, tmp_path / "out")
    if name == "onnx":
        (folder / "model.onnx").unlink()
    earlier = set(folder.iterdir())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    exporter = module.build(config)
    files = exporter.export(model, input_shape=SHAPE, folder=folder, images=IMAGES)
    assert files and set(files) == set(folder.iterdir()) - earlier, "its files and nothing else"
    assert model.training, "leaves the model as it was"
    for key, value in model.state_dict().items():
        assert value.equal(before[key]), key
    described = exporter.describe(files)
    assert described.format == name
    assert Path(described.path).name == files[0].name, "the model comes first"
    try:
        opened = exporter.open_model(files[0])
    except CannotRunHere:
        assert name in ELSEWHERE
        return
    report = compare_batches(
        torch_logits(model, IMAGES),
        opened,
        IMAGES,
        file=files[0].name,
        tolerance=described.parity_tolerance,
        min_agreement=1.0 if described.precision == "fp32" else 0.8,  # untrained: many near ties
    )
    assert [b.batch for b in report.batches] == (
        [described.batch] if described.batch else [1, 2, 8]
    )
    assert report.passed, report


@pytest.mark.parametrize("name", REGISTRY.names)
def test_validating_its_config_imports_no_torch(name: str) -> None:
    module_of(name)
    code = (
        "import sys; from hwnas.exporters import REGISTRY; "
        f"module = REGISTRY.load({name!r}); module.build(module.Config()); "
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", REGISTRY.names)
def test_an_unwritable_folder_is_an_error_that_says_so(
    name: str, model: nn.Module, with_onnx: Path, tmp_path: Path
) -> None:
    from hwnas.core.errors import UserError

    module = module_of(name)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    exporter = module.build(config_of(name, module))
    with pytest.raises(UserError):
        exporter.export(model, input_shape=SHAPE, folder=blocked / "below", images=IMAGES)
