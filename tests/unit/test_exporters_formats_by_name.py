"""`export`: one call from a subnet to files that were compared with it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.formats import export, exporter, open_model
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import torch_logits
from hwnas.interfaces import Exporter, OpenModel
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_subnet, input_shape_of
from hwnas.nets.supernet import Supernet
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, some_archs

IMAGES = rng(0, "images").standard_normal((16, 3, 16, 16)).astype(np.float32)
INSTALLED = [name for name in REGISTRY.names if not REGISTRY.describe(name).missing]


@pytest.fixture(scope="module")
def subnet(tiny_space: SearchSpace) -> nn.Module:
    """Extracted and recalibrated, as a user has it."""
    net = extract(Supernet(tiny_space, seed=0), tiny_space.smallest())
    return recalibrate(net, [torch.from_numpy(IMAGES)])


@pytest.fixture(scope="module")
def with_onnx(subnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the graph that other formats start from."""
    return export(subnet, "onnx", tmp_path_factory.mktemp("onnx"))[0].parent


@pytest.mark.parametrize("name", INSTALLED)
def test_a_subnet_becomes_a_file_that_computes_the_same(
    name: str, subnet: nn.Module, with_onnx: Path
) -> None:
    files = export(subnet, name, str(with_onnx), images=IMAGES)
    assert all(file.is_file() for file in files)
    found = open_model(name, files[0]).logits(IMAGES)
    expected = torch_logits(subnet, IMAGES)
    described = exporter(name).describe(files)
    assert np.abs(found - expected).max() <= described.parity_tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", MOBILE_SPACES)
def test_a_subnet_knows_what_it_is_shown(name: str) -> None:
    space = MOBILE_SPACES[name]
    for arch in some_archs(space, 3):
        stem = lower(space, arch).ops[0]
        shape = input_shape_of(build_subnet(space, arch))
        assert shape == (stem.in_channels, stem.in_hw, stem.in_hw)


class _Wrong:
    """An exporter whose file computes something else: all logits times `factor`."""

    def __init__(self, right: Exporter, factor: float) -> None:
        self.right, self.factor = right, np.float32(factor)
        self.export, self.describe = self.right.export, self.right.describe

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        opened = self.right.open_model(path, threads=threads)
        return OpenModel(lambda x: opened.run(x) * self.factor, "test", opened.batch)


@pytest.fixture
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All formats are wrong by the factor that the test asks for."""
    right = PlannedFormat.exporter
    monkeypatch.setattr(PlannedFormat, "exporter", lambda one: _Wrong(right(one), request.param))


@pytest.mark.parametrize("wrong", [1.05], indirect=True)
@pytest.mark.usefixtures("wrong")
def test_a_file_that_computes_something_else_fails(subnet: nn.Module, with_onnx: Path) -> None:
    with pytest.raises(CheckFailed, match=r"5\.0e-02 of the largest logit"):
        export(subnet, "onnx", with_onnx)


@pytest.mark.parametrize("wrong", [1.05], indirect=True)
@pytest.mark.usefixtures("wrong")
def test_lower_precision_that_differs_is_a_warning(
    subnet: nn.Module, with_onnx: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert export(subnet, "fp16", with_onnx)
    assert "model.fp16.onnx differs from the torch network" in caplog.text


@pytest.mark.parametrize("wrong", [1.15], indirect=True)
@pytest.mark.usefixtures("wrong")
def test_lower_precision_that_differs_by_more_than_rounding_fails(
    subnet: nn.Module, with_onnx: Path
) -> None:
    with pytest.raises(CheckFailed, match=r"1\.5e-01 of the largest logit"):
        export(subnet, "fp16", with_onnx)


def test_settings_are_those_of_the_format(subnet: nn.Module, tmp_path: Path) -> None:
    (path,) = export(subnet, "onnx", tmp_path, dynamic_batch=False, images=IMAGES[:1])
    assert open_model("onnx", path).batch == 1
    with pytest.raises(UserError, match=r"dynamic_batches: unknown key; .*dynamic_batch"):
        export(subnet, "onnx", tmp_path, dynamic_batches=False)
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        export(subnet, "onx", tmp_path)


def test_what_cannot_be_exported_is_refused(
    subnet: nn.Module, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    fresh = extract(Supernet(tiny_space, seed=0), tiny_space.smallest())
    with pytest.raises(UserError, match="training mode"):
        export(fresh, "onnx", tmp_path)
    with pytest.raises(UserError, match="input shape of the network is not known"):
        export(nn.Flatten().eval(), "onnx", tmp_path)
    with pytest.raises(UserError, match="calibration images"):
        export(subnet, "int8", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_format_that_is_not_known_here_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CannotRunHere, match="does not know the format"):
        open_model("of_the_future", tmp_path / "model.x")
