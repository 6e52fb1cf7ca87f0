"""Names of formats that do not exist, in runs (command line and Python) and for a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.exporters.by_name import planned
from hwnas.exporters.formats import open_model
from hwnas.exporters.last_words import last_words
from hwnas.exporters.names import require_format
from hwnas.exporters.parity import torch_logits
from hwnas.nets.subnet import build_subnet
from hwnas.testing.suite import tiny_space

WRONG = [
    (
        "coreml:fp8",
        "the format coreml has no precision 'fp8'",
        "one of coreml:fp32, coreml:fp16, coreml:int8",
        "did you mean 'coreml:int8'?",
    ),
    (
        "executorch:fp16",
        "the format executorch has no precision 'fp16'",
        "one of executorch:fp32, executorch:int8",
        "write one of these; executorch alone is executorch:fp32",
    ),
    (
        "timm:fp16",
        "the format timm has no precision to choose",
        "'timm' without a precision",
        "write timm, or another format: see `hwnas list exporters`",
    ),
    (
        "onnx:int4",
        "the format onnx has no precision 'int4'",
        "one of onnx:fp32, onnx:fp16, onnx:int8",
        "write one of these; onnx alone is onnx:fp32",
    ),
    (
        "onnx:INT8",
        "the format onnx has no precision 'INT8'",
        "one of onnx:fp32, onnx:fp16, onnx:int8",
        "did you mean 'onnx:int8'?",
    ),
    ("LiteRT:INT8", "unknown exporter 'LiteRT'", "one of coreml, ", "did you mean 'litert:int8'?"),
]


@pytest.mark.parametrize(("name", "problem", "expected", "fix"), WRONG)
def test_a_wrong_name_states_what_the_format_has(
    name: str, problem: str, expected: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as of_run:
        hwnas.export(tmp_path / "run", formats=["onnx", name])
    with pytest.raises(UserError) as of_network:
        hwnas.export(nn.Flatten().eval(), name, tmp_path)
    for error, where in ((of_run.value, f"formats: {name}"), (of_network.value, "format")):
        assert str(error).splitlines()[0] == problem
        assert str(error.expected).removeprefix("all, or ").startswith(expected)
        is_unknown = problem.startswith("unknown")
        assert str(error.expected).startswith("all, ") == (is_unknown and where != "format")
        assert str(error.found).strip("'") in name and error.found
        assert (error.where, error.fix) == (where, fix)
    shown = CliRunner().invoke(
        app, ["export", str(tmp_path / "run"), "--formats", f"onnx,{name}", "--dry-run"]
    )
    assert shown.exit_code == 1 and str(of_run.value) in str(shown.exception)


@pytest.mark.parametrize(
    ("formats", "problem", "fix"),
    [
        (["ALL"], "unknown exporter 'ALL'", "did you mean 'all'?"),
        (
            ["all:int8"],
            "'all' already includes the precisions of every format",
            "write all alone, or name the formats with this precision",
        ),
        (
            ["onnx;coreml:int8"],
            "names of formats are not separated by commas",
            "--formats onnx,coreml:int8; in Python, formats=['onnx', 'coreml:int8']",
        ),
        (
            "onnx,litert",
            "names of formats are not separated by commas",
            "--formats onnx,litert; in Python, formats=['onnx', 'litert']",
        ),
        (
            ["all", "onnx"],
            "'all' already means every format that can be written here",
            "give only 'all', or remove it from the list",
        ),
        (
            ["onnx:int8", "all"],
            "'all' already means every format that can be written here",
            "give only 'all', or remove it from the list",
        ),
    ],
)
def test_formats_of_a_run_are_names_or_all(
    formats: list[str] | str, problem: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        hwnas.export(tmp_path / "run", formats=formats)
    assert str(error.value).splitlines()[0] == problem
    assert error.value.fix == fix and error.value.expected and error.value.found
    assert str(error.value.where).startswith("formats")


@pytest.mark.parametrize("formats", [["onnx", "litert"], ("onnx",), "onnx,litert", "onnx; coreml"])
def test_a_network_is_exported_to_one_format_per_call(formats: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one format per call") as error:
        hwnas.export(nn.Flatten().eval(), formats, tmp_path)  # type: ignore[call-overload]
    assert "once for each format" in str(error.value.fix)
    with pytest.raises(UserError, match="one format per call"):
        hwnas.export(nn.Flatten().eval(), formats=formats)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["all", "ALL "])
def test_all_formats_need_a_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="formats of a run folder") as error:
        hwnas.export(nn.Flatten().eval(), name, tmp_path)
    assert "hwnas.export(RUN, formats=['all'])" in str(error.value.fix)


def test_the_precision_is_also_a_setting() -> None:
    assert planned("onnx", {"precision": "int8"}) == planned("onnx:int8", {})
    assert planned("litert", {"precision": "int8"}) == planned("litert:int8", {})
    assert planned("onnx", {"precision": "fp32"}).name == "onnx"
    with pytest.raises(UserError, match="timm has no precision to choose"):
        planned("timm", {"precision": "int8"})


@pytest.fixture(scope="module")
def own() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 5)).eval()


@pytest.fixture(scope="module")
def tiny_net() -> nn.Module:
    return build_subnet(tiny_space(), tiny_space().smallest()).eval()


def test_images_are_arrays_or_tensors_of_floats(own: nn.Module, tmp_path: Path) -> None:
    x = torch.rand(8, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    expected = torch_logits(own, x.detach().float().numpy())
    strided = x.float().contiguous(memory_format=torch.channels_last)
    given: list[Any] = [x, strided, x.detach().numpy()]
    for number, images in enumerate(given):
        folder, held_out = tmp_path / str(number), images if number else x.bfloat16()
        (path,) = hwnas.export(own, "onnx", folder, images=images, held_out=held_out)
        found = open_model("onnx", path).logits(x.detach().float().numpy())
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.tensor, np.asarray])
def test_pixels_are_refused(kind: Any, own: nn.Module, tmp_path: Path) -> None:
    pixels = kind(np.zeros((8, 3, 16, 16), np.uint8))
    for name in ("images", "held_out"):
        images = {"images": torch.rand(8, 3, 16, 16), name: pixels}
        with pytest.raises(UserError, match="images are not floating-point numbers") as error:
            hwnas.export(own, "onnx", tmp_path, **images)
        assert error.value.found == "uint8 [8, 3, 16, 16]" and error.value.where == name
        assert "float32" in str(error.value.expected)
        assert "(images / 255 - mean) / std" in str(error.value.fix)


def test_floats_of_another_shape_are_refused(own: nn.Module, tiny_net: nn.Module) -> None:
    with pytest.raises(UserError, match="do not have the input shape") as error:
        hwnas.export(tiny_net, "onnx", "out", images=torch.rand(8, 3, 5, 7, dtype=torch.float64))
    assert error.value.found == "float32 [8, 3, 5, 7]"


@pytest.mark.parametrize("kind", [list, tuple, dict.fromkeys])
def test_several_networks_are_exported_one_by_one(kind: Any, own: nn.Module) -> None:
    with pytest.raises(UserError, match="nothing to export") as error:
        hwnas.export(kind([own, own]), "onnx", "out")
    assert error.value.where == "the first argument of hwnas.export"
    assert "once for each network" in str(error.value.fix)
    assert str(error.value.found).startswith(kind([own]).__class__.__name__)
    with pytest.raises(UserError, match=r"(?s)found: int: 3.*path of a run folder"):
        hwnas.export(3, "onnx", "out")  # type: ignore[call-overload]


def test_images_that_the_network_does_not_take_are_refused(own: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not run on a batch of images") as error:
        hwnas.export(own, "onnx", tmp_path, images=torch.rand(8, 1, 16, 16))
    assert "float32 [1, 1, 16, 16]" in str(error.value.found)
    assert "channels" in str(error.value.found) and not list(tmp_path.iterdir())


def test_mnn_is_a_documented_conversion() -> None:
    with pytest.raises(UserError, match="unknown exporter 'mnn'") as error:
        require_format("mnn", where="formats")
    assert error.value.fix == 'convert model.onnx yourself, see "MNN" in docs/deploy.md'
    assert "\n## MNN\n" in Path("docs/deploy.md").read_text()


def test_the_last_words_are_those_of_the_crash() -> None:
    said = (
        "/x/tracer.py:12: TracerWarning: Converting a tensor\n  if x.shape[0]:\n"
        + "".join(f"line {n}\n" for n in range(100))
        + "terminate called after throwing an instance\n  what():  no kernel\n"
    )
    found = last_words(said)
    assert found.endswith("instance\n  what():  no kernel") and len(found) <= 400
    assert found.startswith("line ") and last_words("/a.py:1: UserWarning: x\n  y()\n") == ""
