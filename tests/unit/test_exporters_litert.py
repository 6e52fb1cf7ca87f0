"""Export to LiteRT: files of a network, what they say of themselves, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.builders import tflite_precision
from hwnas.builders.onnx import context
from hwnas.builders.tflite import timed
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import apart
from hwnas.exporters.formats import export, exporter, open_model
from hwnas.exporters.parity import torch_logits
from hwnas.nets.bn import recalibrate
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from tests.bundles import kit_module
from tests.mobile_spaces import MIXED, MOBILE_SPACES, some_archs

pytest.importorskip("ai_edge_litert", reason="pip install 'hwnas[litert]'")
from hwnas.exporters.interpreter import Interpreted, litert_model, metadata

IMAGES = rng(0, "litert").standard_normal((40, 1, 18, 18)).astype(np.float32)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests can change the converter; `test_formats` tests the process of its own."""
    monkeypatch.setattr(apart, "_is_apart", lambda format: False)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """SE, hard-swish, swish and ReLU6 on gray images of 18 px."""
    return recalibrate(build_subnet(MIXED, MIXED.smallest()), [torch.from_numpy(IMAGES)])


@pytest.fixture(scope="module")
def folder(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the ONNX file that the others start from."""
    return export(net, "onnx", tmp_path_factory.mktemp("litert"), images=IMAGES)[0].parent


@pytest.mark.full
@pytest.mark.parametrize("name", MOBILE_SPACES)
def test_random_networks_of_every_space_compute_what_torch_computes(
    name: str, tmp_path: Path
) -> None:
    """BN recalibrated; in batches of 1 and 4, of an open file and of one of batch 1."""
    space = MOBILE_SPACES[name]
    for number, arch in enumerate(some_archs(space, 4)[2:]):
        px, channels = resolution(space, arch), space.macro.in_channels
        images = rng(number, "parity").standard_normal((16, channels, px, px)).astype(np.float32)
        net = recalibrate(build_subnet(space, arch, seed=number), [torch.from_numpy(images)])
        folder = tmp_path / str(number)
        expected = torch_logits(net, images)
        export(net, "onnx", folder, images=images)
        for dynamic in (True, False):
            (path,) = export(net, "litert", folder, images=images, dynamic_batch=dynamic)
            opened = open_model("litert", path)
            for batch in (1, 4):
                difference = np.abs(opened.logits(images, batch) - expected).max()
                assert difference <= 1e-4 * np.abs(expected).max(), (arch, batch)
            assert facts(path)["not_delegated"] == []


def facts(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata(path.read_bytes(), where=path)["litert"])
    return found


@pytest.mark.parametrize(
    ("precision", "name", "tolerance"),
    [
        ("fp32", "model.tflite", 1e-5),
        ("fp16", "model.fp16.tflite", 3e-3),
        ("int8", "model.int8.tflite", 0.15),
    ],
)
def test_every_precision_is_a_file_of_its_own(
    precision: str, name: str, tolerance: float, net: nn.Module, folder: Path
) -> None:
    settings = {"precision": precision, "target_agreement": 0.01}
    (path,) = export(net, "litert", folder, images=IMAGES, metadata={"card": "x"}, **settings)
    described = exporter("litert", precision=precision).describe([path])
    assert path.name == described.path == name
    assert (described.format, described.precision, described.layout) == (
        "litert",
        precision,
        "NHWC",
    )
    assert described.batch is None
    expected = torch_logits(net, IMAGES)
    opened = open_model("litert", path)
    assert opened.runtime.startswith("litert 2.") and opened.batch is None
    for batch in (1, 4, 7):
        difference = np.abs(opened.logits(IMAGES, batch) - expected).max()
        assert difference <= tolerance * np.abs(expected).max()
    assert Interpreted(path.read_bytes(), where=path).fell_out() == []
    assert facts(path)["not_delegated"] == [] and facts(path)["precision"] == precision
    assert metadata(path.read_bytes(), where=path)["card"] == "x"


def test_8_bits_say_how_they_were_found(net: nn.Module, folder: Path, tmp_path: Path) -> None:
    def made(**settings: Any) -> bytes:
        settings = {"precision": "int8", "n_calibration": 8, "target_agreement": 0.01, **settings}
        source = (folder / "model.onnx").read_bytes()
        (tmp_path / "model.onnx").write_bytes(source)
        (path,) = exporter("litert", **settings).export(
            net, input_shape=IMAGES.shape[1:], folder=tmp_path, images=IMAGES
        )
        return path.read_bytes()

    first = made()
    found = facts(tmp_path / "model.int8.tflite")["int8"]
    assert found["method"] == "minmax" and found["n_calibration"] == 8
    assert found["float_layers"] == [] and found["float_operators"] == ["HARD_SWISH"]
    assert 0 < found["agreement"] == found["agreement_all_int8"] <= 1
    assert made() == first, "equal seeds, equal files"
    assert made(seed=1) != first, "other images, other ranges"


def test_layers_that_suffer_stay_float(
    net: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer whose weights have three steps spoils the classes; it alone becomes float."""
    weight = tflite_precision._Quantizer._weight
    spoiled: list[str] = []

    def coarse(self: Any, op: Any, name: str) -> str:
        made = weight(self, op, name)
        spoiled[:] = spoiled or [op.output]
        if op.output == spoiled[0]:
            tensor = self.made.tensors[made]
            tensor.data[...] = 0
        return made

    monkeypatch.setattr(tflite_precision._Quantizer, "_weight", coarse)
    settings = {"precision": "int8", "target_agreement": 0.9, "weights": "nearest"}
    (path,) = export(net, "litert", folder, images=IMAGES, **settings)
    found = facts(path)["int8"]
    assert found["agreement_all_int8"] < 0.9 <= found["agreement"]
    assert found["float_layers"] == spoiled


def test_the_program_in_the_how_to_runs(net: nn.Module, folder: Path, tmp_path: Path) -> None:
    settings = {"precision": "int8", "target_agreement": 0.01}
    (path,) = export(net, "litert", folder, images=IMAGES, **settings)
    deploy = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"
    blocks = re.findall(r"^```python\n(.*?)^```", deploy.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "ai_edge_litert" in block)
    values = {"x": np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))}
    exec(code.replace("model.int8.tflite", str(path)), values)
    expected = open_model("litert", path).logits(IMAGES)
    np.testing.assert_allclose(values["logits"], expected, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_one(net: nn.Module, tmp_path: Path) -> None:
    (path,) = export(net, "litert", tmp_path, images=IMAGES, dynamic_batch=False)
    assert litert_model(path).batch == 1
    assert exporter("litert", dynamic_batch=False).describe([path]).batch == 1


def test_8_bits_need_images_of_the_networks_size(net: nn.Module, folder: Path) -> None:
    with pytest.raises(UserError, match="calibration images"):
        export(net, "litert", folder, precision="int8")
    with pytest.raises(UserError, match=r"(?s)input size.*\[n, 1, 18, 18\].*\[40, 1, 17, 18\]"):
        exporter("litert", precision="int8").export(
            net, input_shape=IMAGES.shape[1:], folder=folder, images=IMAGES[:, :, 1:]
        )


def test_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(1024, 2)).eval()
    with pytest.raises(
        UserError, match=r"(?s)LiteRT or hwnas does not.*another format: onnx, ort and pt2"
    ) as error:
        export(net, "litert", tmp_path, images=IMAGES)
    assert "Add, AveragePool, " in str(error.value.expected) and error.value.found
    assert not list(tmp_path.glob("*.tflite"))


def test_the_layer_that_litert_lacks_is_named(tmp_path: Path) -> None:
    layers = [
        ("stem", nn.Conv2d(1, 4, 3)),
        ("norm", nn.LayerNorm([4, 16, 16])),
        ("flat", nn.Flatten()),
        ("head", nn.Linear(1024, 2)),
    ]
    net = nn.Sequential(OrderedDict(layers))
    with pytest.raises(UserError, match="LayerNormalization") as error:
        export(net.eval(), "litert", tmp_path, images=IMAGES)
    assert error.value.where == "aten.layer_norm in norm (LayerNorm)"
    assert "norm.weight" in str(error.value.found)


def test_every_module_with_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 1), nn.ELU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.erf(self.body(x)).mean((2, 3))
            return found

    with pytest.raises(UserError, match="Erf") as error:
        export(Both().eval(), "litert", tmp_path, images=IMAGES)
    assert str(error.value.where).split("; ") == [
        "aten.gelu in body.1 (GELU)",
        "aten.elu in body.3 (ELU)",
        "aten.erf in forward() of Both",
    ]


def test_what_is_not_delegated_is_reported(
    net: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator that XNNPACK does not run in 8 bits, put there against the rule."""
    rule = (*tflite_precision.IN_8_BITS, "HARD_SWISH")
    monkeypatch.setattr(tflite_precision, "IN_8_BITS", rule)
    settings = {"precision": "int8", "target_agreement": 0.01}
    with caplog.at_level(logging.WARNING):
        (path,) = export(net, "litert", folder, images=IMAGES, **settings)
    assert "XNNPACK does not run HARD_SWISH" in caplog.text
    assert set(facts(path)["not_delegated"]) == {"HARD_SWISH"}


def test_a_file_of_another_network_is_refused(
    net: nn.Module, tiny_space: SearchSpace, folder: Path, tmp_path: Path
) -> None:
    (path,) = export(build_subnet(tiny_space, tiny_space.smallest()).eval(), "litert", tmp_path)
    with pytest.raises(UserError, match="another network"):
        open_model("litert", path).logits(IMAGES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"rejects the file|not a \.tflite"):
        open_model("litert", path)


def test_a_missing_file_or_a_folder_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tflite", tmp_path):
        with pytest.raises(UserError, match="read the model"):
            litert_model(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 64])
def test_metadata_of_what_is_no_model(content: bytes) -> None:
    with pytest.raises(UserError, match=r"not a \.tflite file"):
        metadata(content, where="test")


# --- what the kit reads of the files --------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_kit_reads_the_precision_from_the_file(
    precision: str, net: nn.Module, folder: Path, tmp_path: Path
) -> None:
    settings = {"precision": precision, "target_agreement": 0.01}
    (path,) = export(net, "litert", folder, images=IMAGES, **settings)
    renamed = path.rename(tmp_path / "other.tflite")
    assert kit_module("bundle_precision").precision_of(renamed) == precision


def test_the_kit_survives_damaged_files(tmp_path: Path) -> None:
    """Any byte of a small model may be wrong: a precision or `unreadable`, never a traceback."""
    content = timed(context(8, 4))
    kit, path = kit_module("bundle_precision"), tmp_path / "m.tflite"
    random = rng(0, "damage")
    for _ in range(300):
        data = bytearray(content[: random.integers(1, len(content) + 1)])
        for position in random.integers(0, len(data), 8):
            data[position] = random.integers(256)
        path.write_bytes(bytes(data))
        assert kit.precision_of(path) in ("fp32", "fp16", "int8", "unreadable")
    path.write_bytes(b"")
    assert kit.precision_of(path) == "unreadable"


def test_a_root_without_dev_runs_it_too(
    net: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the notices of LiteRT need /dev/null."""
    (path,) = export(net, "litert", folder)
    monkeypatch.setattr(os, "devnull", "/not/there")
    assert Interpreted(path.read_bytes(), where=path)(IMAGES)[0].shape[0] == len(IMAGES)
    assert kit_module("run_litert").open_interpreter(path, 1).get_output_details()
