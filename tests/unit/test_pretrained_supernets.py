"""Published supernets compute what their authors' code computes, in every spelling of the names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.nets.extract import extract
from hwnas.nets.pretrained import start_from
from hwnas.nets.pretrained_import import import_weights
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from tests.published_layouts import (
    DEPTHS,
    FIRST_BLOCK,
    GATED,
    STRIDES,
    attentive_shapes,
    attentive_weights,
    covering,
    ofa_network,
)

N_SUBNETS = 20
NAMES = ["mobilenet_v3 1.0", "mobilenet_v3 1.2", "ofa_proxyless 1.3"]
N_PARAMS = {NAMES[0]: 7_678_880, NAMES[1]: 10_715_752, NAMES[2]: 7_956_882}


def space_called(name: str, px: int) -> SearchSpace:
    space, _, width = name.partition(" ")
    settings = {"width_mult": float(width)} if width else {}
    return build_space(space, {**settings, "resolutions": [px]}, num_classes=1000)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# --- Once-for-all ---------------------------------------------------------------------------------


def activate(network: torch.nn.Module, space: SearchSpace, arch: Arch) -> None:
    """Choose `arch` in a supernet of pip `ofa`, whose blocks of an absent depth may be anything."""
    view = space.view(arch)
    depths = [int(view[f"stage{s}.depth"]) for s in range(1, len(space.macro.stages))]
    blocks = [
        f"stage{s}.block{b}"
        for s, stage in enumerate(space.macro.stages)
        for b in range(max(stage.depths))
    ]
    network.set_active_subnet(
        ks=[int(view.get(f"{block}.kernel", 3)) for block in blocks[1:]],
        e=[int(view.get(f"{block}.expand", 3)) for block in blocks[1:]],
        d=depths,
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_subnets_of_ofa_have_the_logits_of_its_code(name: str, tmp_path: Path) -> None:
    theirs = ofa_network(name)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "ofa_w1.0")
    space = space_called(name, 64)
    ours = Supernet(space, seed=1)
    start_from(ours, tmp_path / "ofa_w1.0")
    assert sum(p.numel() for p in ours.parameters()) == N_PARAMS[name]
    theirs, ours = theirs.double(), ours.double()
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    for arch in covering(space, N_SUBNETS):
        activate(theirs, space, arch)
        assert difference(ours(x, arch), theirs(x)) < 1e-5, space.view(arch)
    static = extract(ours, arch).train()  # what is trained, calibrated and exported
    assert difference(static(x), theirs(x)) < 1e-5


def spelled(state: Mapping[str, Tensor], spelling: str) -> dict[str, Tensor]:
    """Names as files of other years have them."""
    found = {}
    for name, tensor in state.items():
        if "mobile" in spelling:
            name = re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", name)
        if "single" in spelling:
            name = name.replace(".conv.conv.", ".conv.").replace(".bn.bn.", ".bn.")
        if "module" in spelling:
            name = f"module.{name}"
        found[name] = tensor
    return found


def ofa_names(space: SearchSpace) -> dict[str, Tensor]:
    """Random weights under the names of pip `ofa`, written from the table of its layout."""
    state = Supernet(space, seed=5).state_dict()
    blocks = [
        f"stage{s}.block{b}"
        for s, stage in enumerate(space.macro.stages)
        for b in range(max(stage.depths))
    ]
    parts = {
        "conv_pw": "inverted_bottleneck",
        "conv_dw": "depth_conv",
        "conv_pwl": "point_linear",
    }
    head = "final_expand_layer" if "feature.conv.weight" in state else "feature_mix_layer"
    found = {}
    for name, tensor in state.items():
        words = name.split(".")
        slot, layer, kind = ".".join(words[:2]), words[-2], words[-1]
        twice = "" if slot == "stage0.block0" else "{0}.{0}"
        if slot in blocks:
            at = f"blocks.{blocks.index(slot)}.conv"
            if layer in ("conv_reduce", "conv_expand"):
                theirs = f"{at}.depth_conv.se.fc.{layer[5:]}.{kind}"
            elif layer == "transforms":
                theirs = f"{at}.depth_conv.conv.{kind}_matrix"
            else:
                word = "bn" if layer.endswith("_bn") else "conv"
                theirs = f"{at}.{parts[layer.removesuffix('_bn')]}.{(twice or '{0}').format(word)}"
                theirs += f".{kind}"
        else:
            outer = {"stem": "first_conv", "head": head, "feature": "feature_mix_layer"}
            theirs = {"conv": "conv", "conv_bn": "bn"}.get(layer, "linear")
            theirs = f"{outer.get(words[0], words[0])}.{theirs}.{kind}"
        found[theirs] = tensor
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names_from_the_table_are_those_of_pip_ofa(name: str) -> None:
    theirs = {
        name: value.shape
        for name, value in ofa_network(name).state_dict().items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    ours = {name: value.shape for name, value in ofa_names(space_called(name, 64)).items()}
    assert ours == theirs


@pytest.mark.parametrize(
    "spelling", ["plain", "mobile", "mobile single", "single", "module mobile"]
)
@pytest.mark.parametrize("name", ["mobilenet_v3 1.0", "ofa_proxyless 1.3"])
def test_every_spelling_of_the_names_is_read(name: str, spelling: str, tmp_path: Path) -> None:
    space = space_called(name, 64)
    path = tmp_path / "weights.pth.tar"
    torch.save({"state_dict": spelled(ofa_names(space), spelling), "epoch": 3}, path)
    supernet = Supernet(space, seed=0)
    start_from(supernet, path)
    origin = supernet.origin
    expected = Supernet(space, seed=5).state_dict()
    assert all(torch.equal(value, expected[n]) for n, value in supernet.state_dict().items())
    assert origin is not None and origin.licence == "MIT" and origin.network.startswith("OFA")


def test_the_first_stage_has_no_transforms_and_its_small_kernels_are_centres(
    tmp_path: Path,
) -> None:
    space = space_called("mobilenet_v3 1.0", 64)
    weights = {n: t for n, t in ofa_names(space).items() if "matrix" not in n}
    torch.save({"state_dict": spelled(weights, "mobile single")}, tmp_path / "ofa_D4_E6_K7")
    supernet = Supernet(space, seed=0)
    with torch.no_grad():
        for name, value in supernet.named_parameters():
            if ".transforms." in name:
                value.fill_(0.5)
    start_from(supernet, tmp_path / "ofa_D4_E6_K7")
    arch = space.smallest()
    sites = [
        site for node in supernet.plan(arch) for site in node.sites if site.layer.name == "conv_dw"
    ]
    weight, _ = supernet.elastic(sites[-1].path).sliced(sites[-1].layer)
    whole = supernet.elastic(sites[-1].path).weight
    assert weight.shape[-1] == 3 and whole.shape[-1] == 7
    assert torch.equal(weight, whole[: len(weight), :, 2:5, 2:5])


# --- AttentiveNAS and AlphaNet --------------------------------------------------------------------


def test_the_layout_in_these_tests_is_the_published_one() -> None:
    assert content_hash([[name, list(shape)] for name, shape in attentive_shapes()]) == (
        "a44584d4b9ccacb6"  # of the list that an instance of facebookresearch/AttentiveNAS gave
    )


def attentive_forward(t: Mapping[str, Tensor], x: Tensor, view: Mapping[str, int]) -> Tensor:
    """Logits by plain functions, from the facts of the layout alone."""

    def bn(x: Tensor, name: str) -> Tensor:
        n = x.shape[1]
        weight, bias = t[f"{name}.bn.bn.weight"][:n], t[f"{name}.bn.bn.bias"][:n]
        return F.batch_norm(x, None, None, weight, bias, training=True)

    def one_by_one(x: Tensor, name: str, n: int) -> Tensor:
        return F.conv2d(x, t[f"{name}.weight"][:n, : x.shape[1]])

    def rounded(value: float) -> int:
        up = max(8, int(value + 4) // 8 * 8)
        return up if up >= 0.9 * value else up + 8

    def block(x: Tensor, number: int, width: int, kernel: int, mid: int, stride: int) -> Tensor:
        name, out = f"blocks.{number}.mobile_inverted_conv", x
        if f"{name}.inverted_bottleneck.conv.conv.weight" in t:
            out = one_by_one(out, f"{name}.inverted_bottleneck.conv.conv", mid)
            out = F.silu(bn(out, f"{name}.inverted_bottleneck"))
        edge = (5 - kernel) // 2
        weight = t[f"{name}.depth_conv.conv.conv.weight"][:mid]
        weight = weight[:, :, edge : 5 - edge, edge : 5 - edge]
        out = F.conv2d(out, weight, None, stride, kernel // 2, groups=mid)
        out = F.silu(bn(out, f"{name}.depth_conv"))
        if f"{name}.depth_conv.se.fc.reduce.weight" in t:
            n, gate = rounded(mid // 4), f"{name}.depth_conv.se.fc"
            mean = out.mean((2, 3), keepdim=True)
            less = one_by_one(mean, f"{gate}.reduce", n) + t[f"{gate}.reduce.bias"][:n, None, None]
            more = one_by_one(less.relu(), f"{gate}.expand", mid)
            more = more + t[f"{gate}.expand.bias"][:mid, None, None]
            out = out * ((more + 3).clamp(0, 6) / 6)
        out = bn(one_by_one(out, f"{name}.point_linear.conv.conv", width), f"{name}.point_linear")
        if stride == 2:
            x = F.avg_pool2d(x, 2)
        if x.shape[1] != width:
            x = one_by_one(x, f"blocks.{number}.shortcut.conv.conv", width)
        return out + x

    x = F.conv2d(x, t["first_conv.conv.conv.weight"][: view["stem.width"]], None, 2, 1)
    x = F.silu(bn(x, "first_conv"))
    for stage in range(len(DEPTHS)):
        for b in range(view[f"stage{stage}.depth"]):
            width, kernel = view[f"stage{stage}.width"], view[f"stage{stage}.kernel"]
            mid = rounded(x.shape[1] * view[f"stage{stage}.expand"])
            stride = STRIDES[stage] if b == 0 else 1
            x = block(x, FIRST_BLOCK[stage] + b, width, kernel, mid, stride)
    name = "last_conv.final_expand_layer"
    x = F.silu(bn(one_by_one(x, f"{name}.conv.conv", 6 * x.shape[1]), name))
    x = one_by_one(
        x.mean((2, 3), keepdim=True), "last_conv.feature_mix_layer.conv.conv", view["feature.width"]
    )
    x = F.silu(x).flatten(1)
    weight, bias = t["classifier.linear.linear.weight"], t["classifier.linear.linear.bias"]
    return F.linear(x, weight[:, : x.shape[1]], bias)


@pytest.mark.parametrize("kernel_transform", [True, False])
@torch.no_grad()
def test_subnets_of_attentive_nas_have_the_logits_of_plain_convolutions(
    tmp_path: Path, *, kernel_transform: bool
) -> None:
    weights = attentive_weights()
    assert (
        tuple(
            stage
            for stage, n in enumerate(FIRST_BLOCK[:-1])
            if f"blocks.{n}.mobile_inverted_conv.depth_conv.se.fc.reduce.weight" in weights
        )
        == GATED
    )
    path = tmp_path / "attentive_nas_pretrained.pth.tar"
    torch.save({"state_dict": {f"module.{n}": t for n, t in weights.items()}, "epoch": 1}, path)
    space = build_space("attentive_nas", {"resolutions": [32, 64]}, num_classes=1000)
    supernet = Supernet(space, seed=3, kernel_transform=kernel_transform)
    start_from(supernet, path)
    origin = supernet.origin
    assert origin is not None and origin.licence == "CC-BY-NC-4.0" and not origin.is_free
    supernet = supernet.double()
    doubled = {name: value.double() for name, value in weights.items()}
    ends = [space.largest(), space.smallest()]
    for arch in covering(space, N_SUBNETS) if kernel_transform else ends:
        px = resolution(space, arch)
        x = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(px)).double()
        view = {name: int(value) for name, value in space.view(arch).items()}
        assert difference(supernet(x, arch), attentive_forward(doubled, x, view)) < 1e-4, view


# --- import ---------------------------------------------------------------------------------------


def test_an_imported_file_is_a_start_of_its_own_space(tmp_path: Path) -> None:
    space = space_called("ofa_proxyless 1.3", 64)
    torch.save(ofa_names(space), tmp_path / "p.pth")
    supernet = import_weights(tmp_path / "p.pth")
    origin = supernet.origin
    assert origin is not None
    assert supernet.space.macro.stages == space.macro.stages
    assert origin.network == "OFA ProxylessNAS w1.3" and origin.file == "p.pth"
    save_file(supernet.state_dict(), tmp_path / "w.safetensors")
    ours = Supernet(space, seed=0)
    start_from(ours, tmp_path / "w.safetensors")
    arch = space.arch(space.sample(1, rng=rng(0, "x"))[0])
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x, arch), Supernet(space, seed=5)(x, arch))
