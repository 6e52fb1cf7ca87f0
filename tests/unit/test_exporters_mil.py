"""ML programs of Core ML, interpreted in torch: every operator against torch itself."""

from __future__ import annotations

import io
import sys
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
from hwnas.exporters import coreml, mlpackage
from hwnas.exporters.mil import KNOWN, Interpreted
from hwnas.exporters.opened import CannotRunHere

X = torch.from_numpy(rng(0, "mil").standard_normal((1, 4, 7, 6)).astype(np.float32))
W = torch.from_numpy(rng(1, "mil").standard_normal((8, 2, 3, 3)).astype(np.float32))
L, V, V6 = X.flatten(2), torch.linspace(0.1, 0.7, 4), torch.linspace(0.1, 0.7, 6)
U = torch.from_numpy(rng(2, "mil").standard_normal((4, 3, 4, 4)).astype(np.float32))[..., :3, :3]
PADDED = {mode: functional.pad(X, [3, 1, 1, 2], mode=mode) for mode in ("reflect", "replicate")}


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
        ("crop", {"crop_height": [1, 2], "crop_width": [0, 1]}, X[:, :, 1:-2, :-1]),
        ("pad", {"pad": [0, 0, 0, 0, 1, 2, 3, 4]}, functional.pad(X, [3, 4, 1, 2])),
        ("pad", {"pad": [0, 0, 0, 0, 1, 2, 3, 1], "mode": "reflect"}, PADDED["reflect"]),
        ("pad", {"pad": [0, 0, 0, 0, 1, 2, 3, 1], "mode": "replicate"}, PADDED["replicate"]),
        (
            "conv",
            {"x": L, "weight": W[..., 0], "groups": 2, "strides": [2], "dilations": [2]}
            | {"pad_type": "custom", "pad": [1, 2]},
            functional.conv1d(functional.pad(L, [1, 2]), W[..., 0], stride=2, dilation=2, groups=2),
        ),
        (
            "max_pool",
            {"x": L, "kernel_sizes": [3], "strides": [2], "ceil_mode": True},
            functional.max_pool1d(L, 3, 2, ceil_mode=True),
        ),
        (
            "conv_transpose",
            {"weight": U, "strides": [2, 2], "groups": 2, "bias": torch.ones(6)}
            | {"pad_type": "custom", "pad": [1] * 4},
            functional.conv_transpose2d(X, U, torch.ones(6), 2, 1, groups=2),
        ),
        (
            "conv_transpose",
            {"weight": U, "strides": [2, 2], "groups": 2, "pad_type": "custom", "pad": [1] * 4}
            | {"output_shape": [1, 6, 14, 12]},
            functional.conv_transpose2d(X, U, None, 2, 1, 1, groups=2),
        ),
        (
            "batch_norm",
            {"mean": V, "variance": V + 1, "gamma": V + 2, "beta": V - 1, "epsilon": 1e-3},
            functional.batch_norm(X, V, V + 1, V + 2, V - 1, eps=1e-3),
        ),
        (
            "layer_norm",
            {"axes": [-1], "gamma": V6 + 2, "beta": V6, "epsilon": 1e-3},
            functional.layer_norm(X, (6,), V6 + 2, V6, 1e-3),
        ),
        ("layer_norm", {"axes": [2, 3]}, functional.layer_norm(X, (7, 6))),
        ("gelu", {"mode": "EXACT"}, functional.gelu(X)),
        ("gelu", {"mode": "TANH_APPROXIMATION"}, functional.gelu(X, approximate="tanh")),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, X * torch.sigmoid(1.702 * X)),
        ("elu", {"alpha": 0.5}, functional.elu(X, 0.5)),
        ("leaky_relu", {"alpha": 0.1}, functional.leaky_relu(X, 0.1)),
        ("prelu", {"alpha": V}, functional.prelu(X, V)),
        ("tanh", {}, X.tanh()),
        ("exp", {}, X.exp()),
        ("sqrt", {"x": X.abs()}, X.abs().sqrt()),
        ("rsqrt", {"x": X.abs(), "epsilon": 0.1}, (X.abs() + 0.1).rsqrt()),
        ("pow", {"y": 2.0}, X.square()),
        ("square", {}, X.square()),
        ("softmax", {"axis": 1}, X.softmax(1)),
        ("reduce_max", {"axes": [2, 3], "keep_dims": True}, X.amax((2, 3), keepdim=True)),
        ("reduce_sum", {"axes": [1]}, X.sum(1)),
        ("matmul", {"y": X, "transpose_y": True}, X @ X.mT),
        ("matmul", {"y": X, "transpose_x": True}, X.mT @ X),
        ("split", {"num_splits": 2, "axis": 1}, [X[:, :2], X[:, 2:]]),
        ("split", {"split_sizes": [1, 3], "axis": 1}, [X[:, :1], X[:, 1:]]),
        (
            "slice_by_index",
            {"begin": torch.tensor([0, 1, 2, 1]), "end": torch.tensor([0, 3, 0, 6])}
            | {"stride": [1, 1, 1, 2], "begin_mask": [True, False, False, False]}
            | {"end_mask": [True, False, True, False]},
            X[:, 1:3, 2:, 1:6:2],
        ),
        (
            "slice_by_index",
            {"begin": torch.tensor([0, 1, 0, 0]), "end": torch.tensor([1, 2, 7, 6])}
            | {"squeeze_mask": [False, True, False, False]},
            X[:, 1],
        ),
        ("pixel_shuffle", {"upscale_factor": 2}, functional.pixel_shuffle(X, 2)),
        (
            "upsample_nearest_neighbor",
            {"scale_factor_height": 2, "scale_factor_width": 3},
            functional.interpolate(X, scale_factor=[2, 3]),
        ),
        (
            "upsample_bilinear",
            {"scale_factor_height": 2.0, "scale_factor_width": 2.0, "align_corners": False},
            functional.interpolate(X, scale_factor=2, mode="bilinear"),
        ),
        ("cast", {"x": X > 0, "dtype": "fp32"}, (X > 0).float()),
        ("cast", {"dtype": "bool"}, X != 0),
        ("transpose", {"perm": [0, 2, 3, 1]}, X.permute(0, 2, 3, 1)),
        ("reshape", {"shape": [1, -1]}, X.reshape(1, -1)),
        ("expand_dims", {"axes": [0, 1]}, X[None, None]),
        ("squeeze", {"axes": [0]}, X[0]),
    ],
)
def test_an_operator_computes_what_torch_computes(
    name: str, inputs: dict[str, Any], expected: torch.Tensor | list[torch.Tensor]
) -> None:
    torch.testing.assert_close(KNOWN[name]({"x": X, **inputs}), expected)


def test_8_bit_weights_have_a_scale_per_channel() -> None:
    data, scale = torch.arange(-6, 6).reshape(3, 4), torch.tensor([0.5, 1.0, 2.0])
    values = {"quantized_data": data, "zero_point": 1, "scale": scale, "axis": 0}
    found = KNOWN["constexpr_affine_dequantize"](values)
    torch.testing.assert_close(found, (data.float() - 1) * scale[:, None])


def variable(name: str, value: Any = None, dtype: str = "fp32") -> Any:
    return SimpleNamespace(name=name, val=value, dtype=dtype)


def test_an_operator_of_several_outputs() -> None:
    inputs = {"x": variable("input"), "axis": variable("one", 1), "num_splits": variable("n", 2)}
    split = SimpleNamespace(op_type="split", inputs=inputs, outputs=[variable("a"), variable("b")])
    parts = {"x": variable("b"), "y": variable("a")}
    sub = SimpleNamespace(op_type="sub", inputs=parts, outputs=[variable("y")])
    found = SimpleNamespace(inputs={"input": 0}, outputs=sub.outputs, operations=[split, sub])
    x = np.array([[1.0, 2.0, 5.0, 7.0]], dtype=np.float32)
    np.testing.assert_array_equal(Interpreted(found, where="test")(x), [[4.0, 5.0]])


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
        (OWN_WEIGHTS, zipfile.ZIP_DEFLATED, "model.mlmodel is compressed"),
    ],
)
def test_a_package_of_other_files_or_of_unknown_size_is_not_loaded(
    weights: str, compression: int, found: str, tmp_path: Path, loaded: list[bytes]
) -> None:
    path = package(tmp_path / "m.zip", weights, compression)
    with pytest.raises(UserError, match="not a zipped Core ML package") as caught:
        mlpackage.coreml_model(path)
    assert found in str(caught.value.found) and not loaded


def test_the_lines_of_the_readme_find_the_package_in_its_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several precisions stand in one folder."""
    opened = []

    def model(path: str) -> Any:
        opened.append((Path(path) / "Manifest.json").read_text())
        return SimpleNamespace(predict=lambda given: {"logits": given["input"]})

    fake = SimpleNamespace(models=SimpleNamespace(MLModel=model))
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.chdir(tmp_path)
    for file in coreml.FILES.values():
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{mlpackage.ROOT}/Manifest.json", file)
        exec(coreml.USAGE.replace("{file}", file), {"x": 0})
    assert opened == [*coreml.FILES.values()]
