"""The exported graph: what torch computes, in no more operators than it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.rng import rng
from hwnas.exporters.fold import folded
from hwnas.exporters.onnx import Config, build
from hwnas.exporters.parity import check_parity, compare
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import lower, resolution
from hwnas.spaces.ops import layers
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MOBILE_SPACES, STRANGE, some_archs

PX = 16


def trained(model: nn.Module) -> nn.Module:
    """`model` with BN statistics as after training, so that folding has something to fold."""
    draw = rng(0, "bn")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.num_features
            module.running_mean.copy_(torch.from_numpy(draw.normal(0, 0.5, shape)))
            module.running_var.copy_(torch.from_numpy(draw.uniform(0.5, 2, shape)))
            module.weight.data.copy_(torch.from_numpy(draw.uniform(0.5, 1.5, shape)))
            module.bias.data.copy_(torch.from_numpy(draw.normal(0, 0.5, shape)))
    return model.eval()


def inputs(n: int) -> NDArray[np.float32]:
    return rng(0, "inputs").standard_normal((n, 3, PX, PX)).astype(np.float32)


@pytest.fixture(scope="module")
def net(tiny_space: SearchSpace) -> nn.Module:
    return trained(build_subnet(tiny_space, tiny_space.largest()))


@pytest.fixture(scope="module")
def exported(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    (path,) = build(Config()).export(
        net, input_shape=(3, PX, PX), folder=folder, metadata={"arch_key": "abc"}
    )
    assert [path] == list(folder.iterdir()), "no external data, nothing left behind"
    return path


def test_folding_changes_no_output(net: nn.Module) -> None:
    x = torch.from_numpy(inputs(4)).double()
    with torch.no_grad():
        expected = net.double()(x)
        found = folded(net, x.shape[1:])(x)
    net.float()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()), "folds a copy"


def test_graph_holds_the_layers_of_the_arch_and_nothing_else(
    exported: Path, tiny_space: SearchSpace
) -> None:
    ops = lower(tiny_space, tiny_space.largest())
    weighted = [layer for op in ops for layer in layers(op)]
    expected = Counter(
        Conv=sum(layer.name != "linear" for layer in weighted),
        Relu=sum(layer.act == "relu" for layer in weighted),
        Add=sum(op.skip for op in ops),
        ReduceMean=1,
        Gemm=1,
    )
    model = onnx.load(exported)
    assert Counter(node.op_type for node in model.graph.node) == expected
    assert model.opset_import[0].version == Config().opset


def test_names_shapes_and_metadata(exported: Path) -> None:
    model = onnx.load(exported)
    (source,), (sink,) = model.graph.input, model.graph.output
    dims = source.type.tensor_type.shape.dim
    assert (source.name, sink.name) == ("input", "logits")
    assert dims[0].dim_param == "batch", "bench.py overrides the free dimension of this name"
    assert [dim.dim_value for dim in dims[1:]] == [3, PX, PX]
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties["arch_key"] == "abc" and "hwnas_version" in properties
    assert b"/hwnas/" not in exported.read_bytes(), "no source paths of this machine"


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_onnxruntime_agrees_with_torch(net: nn.Module, exported: Path, batch: int) -> None:
    x = inputs(batch)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"input": x})[0]
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_static_batch_and_another_opset_in_silence(
    tiny_space: SearchSpace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    net = trained(build_subnet(tiny_space, tiny_space.smallest()))
    exporter = build(Config(dynamic_batch=False, opset=20))
    (path,) = exporter.export(net, input_shape=(3, PX, PX), folder=tmp_path)
    assert capfd.readouterr() == ("", "")
    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert model.opset_import[0].version == 20
    report = check_parity(net, path, inputs(2), batches=(1, 8))
    assert report.passed and [b.batch for b in report.batches] == [1]


def test_network_with_gates_from_timm_itself(tmp_path: Path) -> None:
    """Squeeze-and-excitation and hard-swish, in a network that is not built by us."""
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    blocks = decode_arch_def([["ds_r1_k3_s2_c16_se0.25_nre"], ["ir_r1_k5_s1_e4_c16_se0.25"]])
    net = trained(
        MobileNetV3(blocks, num_classes=10, stem_size=8, num_features=32, act_layer=nn.Hardswish)
    )
    (path,) = build(Config()).export(net, input_shape=(3, PX, PX), folder=tmp_path)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert "BatchNormalization" not in kinds and kinds["HardSwish"] and kinds["Mul"] >= 2
    assert check_parity(net, path, inputs(8)).passed


def test_network_that_timm_cannot_say(tmp_path: Path) -> None:
    """Channel shuffle, pooled and projected shortcuts, a head behind the pooling with a bias."""
    arch = some_archs(STRANGE, 3)[-1]
    px = resolution(STRANGE, arch)
    net = trained(build_subnet(STRANGE, arch))
    (path,) = build(Config()).export(net, input_shape=(3, px, px), folder=tmp_path)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert "BatchNormalization" not in kinds
    assert kinds["Transpose"] and kinds["AveragePool"] and kinds["Reshape"]
    images = rng(0, "inputs").standard_normal((8, 3, px, px)).astype(np.float32)
    assert check_parity(net, path, images).passed


def test_no_more_nodes_than_timms_own_export(tmp_path: Path) -> None:
    """Of an equal net: squeeze-and-excitation, hard-swish, exported by `timm.utils.onnx_export`."""
    from timm.utils.onnx import onnx_export

    space = MOBILE_SPACES["mobilenet_v3"]
    arch = space.smallest()
    px = resolution(space, arch)
    net = trained(build_subnet(space, arch))
    assert type(net).__module__.startswith("timm.")
    (path,) = build(Config()).export(net, input_shape=(3, px, px), folder=tmp_path)
    theirs = tmp_path / "timm.onnx"
    example = torch.zeros(1, 3, px, px)
    onnx_export(net, str(theirs), example, check=False, use_dynamo=True, opset=18)
    ours, of_timm = (len(onnx.load(p).graph.node) for p in (path, theirs))
    assert ours <= of_timm


def kinds(space: SearchSpace, arch: Arch) -> set[tuple[object, ...]]:
    """The layers of an arch by what an exporter can get wrong; their sizes aside."""
    return {
        (op.kind, op.skip, part.name, part.kernel, part.stride, part.act, part.groups > 1)
        for op in lower(space, arch)
        for part in layers(op)
    }


def telling(space: SearchSpace, archs: Sequence[Arch], n: int) -> list[Arch]:
    """n archs, each the one with most kinds of layers that those before it lack."""
    found: list[Arch] = []
    seen: set[tuple[object, ...]] = set()
    for _ in range(n):
        found.append(max(archs, key=lambda arch: len(kinds(space, arch) - seen)))
        seen |= kinds(space, found[-1])
    return found


@pytest.mark.parametrize("name", MOBILE_SPACES)
@pytest.mark.parametrize("is_full", [False, pytest.param(True, marks=pytest.mark.full)])
def test_random_archs_of_every_space_export_and_agree(
    name: str, is_full: bool, tmp_path: Path
) -> None:
    """By default few of the shortest draws, with as many kinds of layers as can be.

    Exporting takes seconds that grow with the layers, of which a long arch has most kinds.
    """
    space = MOBILE_SPACES[name]
    n_drawn = 20 if is_full else 32
    drawn = [space.arch(code) for code in space.sample(n_drawn, rng=rng(n_drawn, "archs"))]
    if not is_full:
        short = sorted(drawn, key=lambda arch: len(lower(space, arch)))[:8]
        drawn = telling(space, short, 1 if len(lower(space, short[0])) > 10 else 3)
    for arch in drawn:
        px, channels = resolution(space, arch), space.macro.in_channels
        net = trained(build_subnet(space, arch))
        images = rng(0, "inputs").standard_normal((8, channels, px, px)).astype(np.float32)
        folder = tmp_path / arch.key
        (path,) = build(Config()).export(net, input_shape=(channels, px, px), folder=folder)
        report = check_parity(net, path, images)
        assert report.passed and [b.batch for b in report.batches] == [1, 2, 8], (arch, report)


def test_opset_outside_the_supported_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="opset"):
        Config(opset=9)


def test_parity_sees_another_network(
    exported: Path, net: nn.Module, tiny_space: SearchSpace
) -> None:
    assert check_parity(net, exported, inputs(8)).passed
    other = trained(build_subnet(tiny_space, tiny_space.largest(), seed=1))
    assert not check_parity(other, exported, inputs(8)).passed


def test_parity_numbers_by_hand() -> None:
    expected = np.array([[0.0, 4.0], [2.0, 1.0]], dtype=np.float32)
    found = np.array([[0.0, 4.0], [1.0, 1.5]], dtype=np.float32)
    result = compare(expected, found, batch=2)
    assert result.max_abs_difference == 1.0
    assert result.mean_abs_difference == pytest.approx(1.5 / 4)
    assert result.relative == pytest.approx(0.25)
    assert result.top1_agreement == 0.5
    with pytest.raises(CheckFailed, match="finite"):
        compare(expected, np.full_like(expected, np.nan))
    with pytest.raises(CheckFailed, match="shape"):
        compare(expected, found[:, :1])


def test_parity_refuses_a_file_that_is_no_model_and_no_images(
    net: nn.Module, exported: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.read_bytes()[:-500])
    with pytest.raises(UserError, match="rejects"):
        check_parity(net, broken, inputs(8))
    with pytest.raises(UserError, match="torch needs images"):
        check_parity(net, exported, inputs(8)[:0])
