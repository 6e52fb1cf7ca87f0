"""ML programs of Core ML, interpreted in torch: every operator against torch itself."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import mlpackage
from hwnas.exporters.mil import KNOWN, Interpreted
from hwnas.exporters.opened import CannotRunHere

X = torch.from_numpy(rng(0, "mil").standard_normal((1, 4, 7, 6)).astype(np.float32))
W = torch.from_numpy(rng(1, "mil").standard_normal((8, 2, 3, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        (
            "conv",
            {"weight": W, "groups": 2, "strides": [2, 2], "pad_type": "custom", "pad": [1] * 4},
            functional.conv2d(X, W, stride=2, padding=1, groups=2),
        ),
        (
            "conv",
            {"weight": W, "groups": 2, "strides": [2, 2], "pad_type": "same"},
            functional.conv2d(functional.pad(X, [0, 1, 1, 1]), W, stride=2, groups=2),
        ),
        (
            "conv",
            {"weight": W, "groups": 2, "strides": [2, 2], "pad_type": "same_lower"},
            functional.conv2d(functional.pad(X, [1, 0, 1, 1]), W, stride=2, groups=2),
        ),
        (
            "conv",
            {"weight": W, "groups": 2, "dilations": [2, 2], "bias": torch.ones(8)},
            functional.conv2d(X, W, torch.ones(8), groups=2, dilation=2),
        ),
        (
            "avg_pool",
            {"kernel_sizes": [2, 2], "strides": [2, 2], "ceil_mode": True},
            functional.avg_pool2d(X, 2, 2, ceil_mode=True),
        ),
        (
            "avg_pool",
            {
                "kernel_sizes": [3, 3],
                "pad_type": "custom",
                "pad": [1] * 4,
                "exclude_padding_from_average": True,
            },
            functional.avg_pool2d(X, 3, 1, padding=1, count_include_pad=False),
        ),
        (
            "max_pool",
            {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": [1] * 4},
            functional.max_pool2d(X, 3, 2, padding=1),
        ),
        ("sigmoid_hard", {"alpha": 1 / 6, "beta": 0.5}, functional.hardsigmoid(X)),
        ("thresholded_relu", {"alpha": 0.3}, functional.threshold(X, 0.3, 0.0)),
        ("silu", {}, functional.silu(X)),
        ("relu6", {}, functional.relu6(X)),
        ("clip", {"alpha": -0.5, "beta": 0.5}, functional.hardtanh(X, -0.5, 0.5)),
        ("reduce_mean", {"axes": [2, 3], "keep_dims": False}, X.mean((2, 3))),
        ("reduce_mean", {"axes": [-1, -2], "keep_dims": True}, X.mean((2, 3), keepdim=True)),
        ("pad", {"pad": [0, 0, 0, 0, 1, 2, 3, 4]}, functional.pad(X, [3, 4, 1, 2])),
        ("transpose", {"perm": [0, 2, 3, 1]}, X.permute(0, 2, 3, 1)),
        ("reshape", {"shape": [1, -1]}, X.reshape(1, -1)),
        ("expand_dims", {"axes": [0, 1]}, X[None, None]),
        ("squeeze", {"axes": [0]}, X[0]),
    ],
)
def test_an_operator_computes_what_torch_computes(
    name: str, inputs: dict[str, Any], expected: torch.Tensor
) -> None:
    torch.testing.assert_close(KNOWN[name]({"x": X, **inputs}), expected)


def test_8_bit_weights_have_a_scale_per_channel() -> None:
    data, scale = torch.arange(-6, 6).reshape(3, 4), torch.tensor([0.5, 1.0, 2.0])
    values = {"quantized_data": data, "zero_point": 1, "scale": scale, "axis": 0}
    found = KNOWN["constexpr_affine_dequantize"](values)
    torch.testing.assert_close(found, (data.float() - 1) * scale[:, None])


def variable(name: str, value: Any = None, dtype: str = "fp32") -> Any:
    return SimpleNamespace(name=name, val=value, dtype=dtype)


def program(kind: str, dtype: str) -> Any:
    """`y = kind(x, 1/3)`."""
    inputs = {"x": variable("input"), "y": variable("third", np.float32(1 / 3))}
    step = SimpleNamespace(op_type=kind, inputs=inputs, outputs=[variable("y", dtype=dtype)])
    outputs = [variable("y", dtype=dtype)]
    return SimpleNamespace(inputs={"input": None}, outputs=outputs, operations=[step])


def test_values_are_rounded_to_the_type_that_the_program_declares() -> None:
    x = np.array([[1.0, 2.0]], dtype=np.float32)
    whole = Interpreted(program("mul", "<fp32>"), where="test")(x)
    half = Interpreted(program("mul", "<fp16>"), where="test")(x)
    np.testing.assert_array_equal(whole, x * np.float32(1 / 3))
    np.testing.assert_array_equal(half, (x * np.float32(1 / 3)).astype(np.float16))


def test_an_operator_that_the_interpreter_lacks_is_named() -> None:
    with pytest.raises(CannotRunHere, match="lacks the operators lstm"):
        Interpreted(program("lstm", "fp32"), where="test")


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="pip install 'hwnas[coreml]'")
    from hwnas.exporters.mlpackage import coreml_model

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.mlpackage/Manifest.json", "{}")
    for content in (b"", b"no zip", stream.getvalue()):
        (tmp_path / "m.zip").write_bytes(content)
        with pytest.raises(UserError, match="not a zipped Core ML package"):
            coreml_model(tmp_path / "m.zip")


OWN_WEIGHTS = "@model_path/weights/weight.bin"


class Specification:
    """Of one operator, whose weights are in the file that the content names."""

    specificationVersion = 8

    def ParseFromString(self, content: bytes) -> None:
        value = SimpleNamespace(blobFileValue=SimpleNamespace(fileName=content.decode()))
        block = SimpleNamespace(operations=[SimpleNamespace(attributes={"val": value})])
        function = SimpleNamespace(block_specializations={"CoreML8": block})
        self.mlProgram = SimpleNamespace(functions={"main": function})


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Imitates coremltools; collects the weights of the programs that it loads."""
    weights = []

    def load(spec: Any, version: int, *, file_weights_dir: str) -> Any:
        assert version == spec.specificationVersion
        weights.append(Path(file_weights_dir, "weight.bin").read_bytes())
        return SimpleNamespace(functions={"main": program("mul", "<fp32>")})

    proto = SimpleNamespace(Model_pb2=SimpleNamespace(Model=Specification))
    packages = {
        "coremltools": SimpleNamespace(proto=proto, __version__="9.0"),
        "coremltools.converters.mil.frontend.milproto.load": SimpleNamespace(load=load),
    }
    monkeypatch.setattr(mlpackage, "require", lambda name, extra: packages[name])
    return weights


def package(path: Path, weights: str, compression: int) -> Path:
    folder = "model.mlpackage/Data/com.apple.CoreML"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/model.mlmodel", weights)
        archive.writestr(f"{folder}/weights/weight.bin", b"weights")
    return path


def test_a_package_runs_one_image_at_a_time(tmp_path: Path, loaded: list[bytes]) -> None:
    path = package(tmp_path / "m.zip", OWN_WEIGHTS, zipfile.ZIP_STORED)
    opened = mlpackage.coreml_model(path)
    assert loaded == [b"weights"]
    assert opened.batch == 1 and "interpreted in torch" in opened.untimed
    x = np.array([[3.0, 6.0]], dtype=np.float32)
    np.testing.assert_array_equal(opened.run(x), x * np.float32(1 / 3))


@pytest.mark.parametrize(
    ("weights", "compression", "found"),
    [
        ("@model_path/../secret", zipfile.ZIP_STORED, "weights in '@model_path/../secret'"),
        (OWN_WEIGHTS, zipfile.ZIP_DEFLATED, "model.mlmodel: compressed, or too large"),
    ],
)
def test_a_package_of_other_files_or_of_unknown_size_is_not_loaded(
    weights: str, compression: int, found: str, tmp_path: Path, loaded: list[bytes]
) -> None:
    path = package(tmp_path / "m.zip", weights, compression)
    with pytest.raises(UserError, match="not a zipped Core ML package") as caught:
        mlpackage.coreml_model(path)
    assert found in str(caught.value.found) and not loaded
