"""The supernet against the static networks cut from it, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.bn import recalibrate
from hwnas.nets.elastic import ElasticConv2d, global_mean
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_from_definition, placed_slots, subnet_definition, timm_names
from hwnas.nets.supernet import Supernet
from hwnas.spaces import fbnet, mobilenet_tiny, nasbench_macro
from hwnas.spaces.arch import Arch
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.lowering import resolution
from hwnas.spaces.ops import Layer
from hwnas.spaces.padding import padding_of
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import MIXED, able

TINY = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)
OPS = (
    BlockOp("skip", "skip"),
    BlockOp("k3_e1.5", "mbconv", 3, 1.5),
    BlockOp("k5_e2_g2", "mbconv", 5, 2, 2),
    BlockOp("k3_d", "dsconv", 3),
)
ODD = SearchSpace(  # alternatives, groups, projected shortcuts, a head behind the pooling
    "odd",
    MobileMacro(
        in_channels=3,
        num_classes=5,
        resolutions=(13, 16),
        stem_widths=(8,),
        stem_kernel=3,
        stem_stride=1,
        stem_act="swish",
        stages=(
            Stage((8, 16), (1, 2), 2, "relu6", ops=OPS, skip_act="relu", out_act="relu"),
            Stage(
                widths=(16, 24),
                depths=(1, 2),
                stride=2,
                act="relu",
                kernels=(3, 5),
                expands=(1, 2),
                per_stage=True,
                se_ratio=0.25,
                out_act="hard_swish",
                project_shortcut=True,
            ),
        ),
        head_width=0,
        head_expand=2,
        head_act="swish",
        feature_widths=(32, 48),
    ),
)
SPACES = pytest.mark.parametrize("space", [TINY, MIXED, ODD], ids=lambda space: space.name)
SHIPPED = [
    *able("supernet").values(),
    fbnet.build(fbnet.Config(layout="imagenet", resolutions=(64,)), num_classes=10),
]


def archs(space: SearchSpace, n: int) -> list[Arch]:
    return [
        space.largest(),
        space.smallest(),
        *map(space.arch, space.sample(n - 2, rng=rng(0, "archs"))),
    ]


def images(space: SearchSpace, arch: Arch, n: int = 6, seed: int = 0) -> Tensor:
    px = resolution(space, arch)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, space.macro.in_channels, px, px, generator=generator)


def shaken(
    space: SearchSpace,
    *,
    kernel_transform: bool = True,
    share_ops: bool = False,
    weak: bool = False,
    branches: int = 1,
) -> Supernet:
    """A supernet in which no parameter has a special value (BN scale 1, transform identity)."""
    supernet = Supernet(
        space,
        seed=0,
        kernel_transform=kernel_transform,
        share_ops=share_ops,
        weak=weak,
        branches=branches,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return supernet


# --- extraction -----------------------------------------------------------------------------------


@SPACES
@pytest.mark.parametrize(
    "options",
    [{}, {"kernel_transform": False}, {"share_ops": True}, {"weak": True}, {"branches": 3}],
    ids=lambda options: " ".join(options) or "plain",
)
def test_extracted_subnets_compute_what_the_supernet_computes(
    space: SearchSpace, options: dict[str, Any]
) -> None:
    single, double = shaken(space, **options), shaken(space, **options).double()
    for arch in archs(space, 8):
        x = images(space, arch)
        torch.testing.assert_close(
            double(x.double(), arch), extract(double, arch)(x.double()), rtol=0, atol=1e-10
        )
        expected = single(x, arch)
        scale = expected.abs().max().clamp(min=1)
        found = extract(single, arch)(x)
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("space", SHIPPED, ids=lambda space: space.id)
@torch.no_grad()
def test_subnets_of_every_space_compute_what_the_supernet_computes(
    space: SearchSpace,
) -> None:
    supernet = shaken(space).double()  # of four images each, statistics magnify rounding
    for arch in archs(space, 4):
        x = images(space, arch, n=4).double()
        expected = supernet(x, arch)
        assert expected.std() > 0.1
        torch.testing.assert_close(extract(supernet, arch)(x), expected, rtol=0, atol=1e-9)


def test_an_extracted_subnet_owns_its_weights() -> None:
    supernet = Supernet(TINY, seed=0)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    model = extract(supernet, TINY.largest())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@SPACES
def test_gradients_are_those_of_timms_own_network_and_reach_the_active_slices_only(
    space: SearchSpace,
) -> None:
    supernet = shaken(space, kernel_transform=False).double()
    for arch in archs(space, 6):
        x = images(space, arch).double()
        y = torch.arange(len(x)) % space.macro.num_classes
        supernet.zero_grad()
        F.cross_entropy(supernet(x, arch), y).backward()
        plain = build_from_definition(subnet_definition(space, arch)).double()
        plain.load_state_dict(extract(supernet, arch).state_dict())
        F.cross_entropy(plain(x), y).backward()
        expected = {name: torch.zeros_like(p) for name, p in supernet.named_parameters()}
        places = {slot: place for slot, place, _ in placed_slots(space, arch)}
        for node in supernet.plan(arch):
            for site in node.all_sites:
                own_names = timm_names(places[node.slot], node.op, site.layer)
                for shared, own in zip((site.path, site.bn_path), own_names, strict=True):
                    for kind in ("weight", "bias"):
                        if own and f"{shared}.{kind}" in expected:
                            whole = expected[f"{shared}.{kind}"]
                            part = plain.get_parameter(f"{own}.{kind}").grad
                            assert part is not None
                            assert part.abs().sum() > 0
                            active(whole, part.shape).copy_(part)
        for name, parameter in supernet.named_parameters():
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, expected[name], rtol=1e-7, atol=1e-9, msg=name)


def active(whole: Tensor, shape: torch.Size) -> Tensor:
    """The view of first channels and centred kernel."""
    if whole.ndim == 4:
        edge = (whole.shape[-1] - shape[-1]) // 2
        centre = slice(edge, edge + shape[-1])
        return whole[: shape[0], : shape[1], centre, centre]
    return whole[tuple(slice(n) for n in shape)]


def test_kernels_are_centres_passed_through_the_learned_matrices() -> None:
    def layer(kernel: int) -> Layer:
        return Layer("conv_dw", 4, 4, 8, 8, kernel, 1, kernel // 2, 4)

    conv = ElasticConv2d([layer(k) for k in (3, 5, 7)], kernel_transform=True)
    conv.reset_parameters(torch.Generator().manual_seed(0))
    centre = conv.weight[:, :, 2:5, 2:5]
    torch.testing.assert_close(conv.sliced(layer(3))[0], centre)  # the identity at first
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for transform in conv.transforms.values():
            transform.normal_(generator=generator)
    five, three = torch.zeros(4, 1, 5, 5), torch.zeros(4, 1, 3, 3)
    for i in range(25):  # 1908.09791 section 3.2, spelled out
        for j in range(25):
            value = conv.transforms["7to5"][i, j] * conv.weight[:, :, 1 + j // 5, 1 + j % 5]
            five[:, :, i // 5, i % 5] += value.detach()
    for i in range(9):
        for j in range(9):
            value = conv.transforms["5to3"][i, j] * five[:, :, 1 + j // 3, 1 + j % 3]
            three[:, :, i // 3, i % 3] += value.detach()
    torch.testing.assert_close(conv.sliced(layer(7))[0], conv.weight)
    torch.testing.assert_close(conv.sliced(layer(5))[0], five)
    torch.testing.assert_close(conv.sliced(layer(3))[0], three)


def test_an_even_kernel_is_the_part_of_a_larger_one_that_reads_the_same_pixels() -> None:
    """2x2 windows are padded at the bottom and on the right, 3x3 windows on all sides."""

    def layer(kernel: int) -> Layer:
        padding, more = padding_of("symmetric", 8, kernel, 1)
        sizes = (4, 4, 8, 8, kernel, 1, padding)
        return Layer("conv_dw", *sizes, groups=4, pad_more=more)

    conv = ElasticConv2d([layer(k) for k in (2, 3, 5)], kernel_transform=True)
    conv.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        conv.weight[:, :, :2] = conv.weight[:, :, 4:] = 0  # taps that a 2x2 window has not
        conv.weight[..., :2] = conv.weight[..., 4:] = 0
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for kernel in (2, 3):
            torch.testing.assert_close(conv(x, layer(kernel)), conv(x, layer(5)))


def test_branches_are_a_scaled_sum_of_kernels_that_starts_as_the_first_one() -> None:
    layer = Layer("conv_dw", 3, 3, 8, 8, 5, 1, 2, 3)
    conv = ElasticConv2d(
        [replace(layer, in_channels=4, out_channels=4, groups=4), layer],
        kernel_transform=True,
        branches=3,
    )
    assert conv.branches is not None and conv.scales is not None
    conv.reset_parameters(torch.Generator().manual_seed(0))
    torch.testing.assert_close(conv.sliced(layer)[0], conv.weight[:3])
    conv.sliced(layer)[0].square().sum().backward()
    assert conv.scales.grad is not None and conv.scales.grad[:, :3].all()  # it can leave 0
    with torch.no_grad():
        conv.scales.normal_(generator=torch.Generator().manual_seed(1))
        expected = conv.weight[:3].clone()
        for channel in range(3):
            for branch in range(2):
                expected[channel] += conv.scales[branch, channel] * conv.branches[branch, channel]
    torch.testing.assert_close(conv.sliced(layer)[0], expected)
    assert conv.sliced(layer, merged=False)[0].data_ptr() == conv.weight.data_ptr()
    wide = ElasticConv2d([Layer("conv_pw", 3, 3, 8, 8)], kernel_transform=True, branches=3)
    assert wide.branches is None  # of depthwise convolutions alone
    seeds = [Supernet(TINY, seed=0, branches=n) for n in (1, 3)]
    x = images(TINY, TINY.largest())
    assert torch.equal(*(supernet(x, TINY.largest()) for supernet in seeds))


def test_a_trained_supernet_evaluates_after_extraction_and_recalibration() -> None:
    supernet = Supernet(TINY, seed=0)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05, momentum=0.9)
    arch = TINY.smallest()
    x = images(TINY, arch, 40)
    y = torch.arange(40) % 10
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = F.cross_entropy(supernet(x, arch), y)
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        in_training = supernet(x, arch)
        stale = extract(supernet, arch).eval()(x)
        evaluated = recalibrate(extract(supernet, arch), [x])(x)
    torch.testing.assert_close(evaluated, in_training, rtol=1e-4, atol=1e-4)
    assert (stale - in_training).abs().max() > 0.1


# --- state ----------------------------------------------------------------------------------------


def test_the_output_depends_on_the_arguments_alone() -> None:
    supernet = Supernet(TINY, seed=0)
    state = torch.random.get_rng_state()
    buffers = list(supernet.buffers())
    first, other, *_ = archs(TINY, 3)
    before = supernet(images(TINY, first), first)
    supernet(images(TINY, other), other)
    assert torch.equal(supernet(images(TINY, first), first), before)
    assert buffers == []
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_come_from_the_seed_and_survive_a_restriction_of_the_space() -> None:
    state = torch.random.get_rng_state()
    supernet = Supernet(TINY, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    narrow = TINY.restrict({"stage1.width": (32,), "stage2.block1.kernel": (3,)})
    assert narrow.largest() != TINY.largest()
    for again in (Supernet(TINY, seed=3), Supernet(narrow, seed=3)):
        for name, value in supernet.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    other = Supernet(TINY, seed=4).state_dict()["head.conv.weight"]
    assert not torch.equal(other, supernet.state_dict()["head.conv.weight"])


def test_initial_weights_have_timms_scale() -> None:
    supernet = Supernet(TINY, seed=0)
    timms = build_from_definition(subnet_definition(TINY, TINY.largest()))
    ours = extract(supernet, TINY.largest())
    for (name, parameter), (own, mine) in zip(
        timms.named_parameters(), ours.named_parameters(), strict=True
    ):
        assert own == name
        assert mine.shape == parameter.shape
        if parameter.numel() >= 1000:
            assert mine.std().item() == pytest.approx(parameter.std().item(), rel=0.1), name
        elif parameter.ndim == 1:
            assert torch.equal(mine, parameter), name


def test_state_survives_safetensors(tmp_path: Path) -> None:
    supernet = shaken(MIXED)
    save_file(supernet.state_dict(), tmp_path / "supernet.safetensors")
    again = Supernet(MIXED, seed=9)
    again.load_state_dict(load_file(tmp_path / "supernet.safetensors"))
    arch = archs(MIXED, 3)[-1]
    x = images(MIXED, arch)
    assert torch.equal(again(x, arch), supernet(x, arch))


# --- noise ----------------------------------------------------------------------------------------


def test_noise_comes_from_the_generator_that_is_passed() -> None:
    supernet = Supernet(TINY, seed=0)
    arch = TINY.largest()
    x = images(TINY, arch)
    state = torch.random.get_rng_state()

    def logits(seed: int, dropout: float = 0.0, drop_path: float = 0.0) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return supernet(x, arch, rng, dropout=dropout, drop_path=drop_path)

    quiet = supernet(x, arch)
    assert torch.equal(logits(0), quiet)
    for rates in ((0.5, 0.0), (0.0, 0.5)):
        assert torch.equal(logits(0, *rates), logits(0, *rates))
        assert not torch.equal(logits(0, *rates), logits(1, *rates))
        assert not torch.equal(logits(0, *rates), quiet)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_keeps_the_mean_and_drop_path_spares_blocks_without_a_shortcut() -> None:
    supernet = Supernet(TINY, seed=0)
    arch = TINY.smallest()  # one block per stage, all with stride 2
    x = images(TINY, arch, 1).expand(4096, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        quiet = supernet(x, arch)
        noisy = supernet(x, arch, generator, dropout=0.5)
        deviation = (noisy.mean(0) - quiet[0]).abs() / (noisy.std(0) / len(x) ** 0.5)
        assert noisy.std(0).min() > 0.01
        assert deviation.max() < 4  # the classifier is linear in what is dropped
        assert torch.equal(supernet(x[:8], arch, generator, drop_path=0.9), supernet(x[:8], arch))


# --- refusals -------------------------------------------------------------------------------------


def test_refusals_say_what_to_do() -> None:
    supernet = Supernet(TINY, seed=0)
    arch = TINY.largest()
    x = images(TINY, arch)
    with pytest.raises(UserError, match=r"recalibrate\(extract"):
        supernet.eval()(x, arch)
    supernet.train()
    wrong = rf"\[B, 3, 20, 20\](.|\n)*\[6, 3, 16, 16\](.|\n)*resolution of arch {arch.key}"
    with pytest.raises(UserError, match=wrong):
        supernet(x[..., :16, :16], arch)
    with pytest.raises(UserError, match="resolution"):
        supernet(x[:, :1], arch)
    with pytest.raises(UserError, match="another space"):
        supernet(x, MIXED.largest())
    with pytest.raises(UserError, match="Generator"):
        supernet(x, arch, dropout=0.2)
    with pytest.raises(UserError, match=r"\[0, 1\)"):
        supernet(x, arch, torch.Generator(), drop_path=1.0)
    with pytest.raises(UserError, match="another space"):
        extract(supernet, MIXED.largest())


def test_the_gradient_of_a_pooled_activation_is_channels_last() -> None:
    x = torch.randn(2, 8, 3, 3, requires_grad=True)
    features = x.contiguous(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    features.register_hook(seen.append)
    active = F.hardswish(features)
    pooled = global_mean(active)
    pooled.square().sum().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    expected = torch.autograd.grad(F.hardswish(x), x, (2 * pooled / 9).expand_as(x).detach())
    torch.testing.assert_close(x.grad, expected[0])


@pytest.mark.parametrize("px", [3, 40])
def test_pointwise_convolutions_are_the_librarys_at_every_size(px: int) -> None:
    shape = Layer("conv_pw", 12, 20, px, px)
    conv = ElasticConv2d([shape], kernel_transform=False)
    conv.reset_parameters(torch.Generator().manual_seed(0))
    for layer in (shape, Layer("conv_pw", 8, 16, px, px)):
        x = torch.randn(2, layer.in_channels, px, px)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = conv.weight[: layer.out_channels, : layer.in_channels]
        found = conv(x, layer)
        torch.testing.assert_close(found, F.conv2d(x, weight))
        assert found.is_contiguous(memory_format=torch.channels_last)


# --- weak sharing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [TINY, MIXED, ODD, *SHIPPED], ids=lambda space: space.id)
@torch.no_grad()
def test_weak_sharing_starts_as_plain_sharing(space: SearchSpace) -> None:
    weak, plain = Supernet(space, seed=0, weak=True), Supernet(space, seed=0)
    for arch in archs(space, 3):
        x = images(space, arch)
        torch.testing.assert_close(weak(x, arch), plain(x, arch), rtol=0, atol=1e-6)


@SPACES
def test_training_reaches_the_hypernetwork_and_extraction_follows(space: SearchSpace) -> None:
    supernet = Supernet(space, seed=0, weak=True)
    hypernet = dict(supernet.hypernet.named_parameters())
    before = {name: value.detach().clone() for name, value in hypernet.items()}
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05)
    for arch in archs(space, 4) * 2:
        x = images(space, arch)
        optimiser.zero_grad()
        F.cross_entropy(
            supernet(x, arch), torch.arange(len(x)) % space.macro.num_classes
        ).backward()
        optimiser.step()
    for name, value in hypernet.items():
        assert not torch.equal(value, before[name]), name
    modulations = [supernet.hypernet(arch) for arch in archs(space, 2)]
    assert any(not torch.equal(modulations[0][p][0], modulations[1][p][0]) for p in modulations[0])
    supernet.double()
    for arch in archs(space, 6):
        x = images(space, arch).double()
        expected = supernet(x, arch)
        torch.testing.assert_close(extract(supernet, arch)(x), expected, rtol=0, atol=1e-9)


def test_modulation_scales_and_shifts_what_the_arch_uses() -> None:
    supernet = shaken(ODD, weak=True)
    arch = ODD.largest()
    for node in supernet.plan(arch):
        for site in node.all_sites:
            path = site.bn_path or site.path
            scale, shift = supernet.hypernet(arch)[path]
            weight, bias = supernet.elastic(path).sliced(site.layer, (scale, shift))
            plain_weight, plain_bias = supernet.elastic(path).sliced(site.layer)
            n = site.layer.out_channels
            expected = torch.einsum("o...,o->o...", plain_weight, 1 + scale[:n])
            torch.testing.assert_close(weight, expected)
            if plain_bias is not None:
                torch.testing.assert_close(bias, plain_bias + shift[:n])


# --- alternatives ---------------------------------------------------------------------------------


def test_alternatives_have_weights_of_their_own_unless_told_to_share() -> None:
    space = nasbench_macro.build(nasbench_macro.Config(resolutions=(8,)), num_classes=10)
    small, large = (
        space.restrict({"stage0.block1.op": (op,), "stage0.block0.op": ("identity",)}).smallest()
        for op in ("k3_e3", "k5_e6")
    )
    for share_ops in (False, True):
        supernet = Supernet(space, seed=0, share_ops=share_ops)
        touched = []
        for arch in (small, large):
            supernet.zero_grad()
            supernet(images(space, arch), arch).sum().backward()
            names = {n for n, p in supernet.named_parameters() if p.grad is not None}
            touched.append({name for name in names if name.startswith("stage0.block1")})
        assert touched[0]
        assert bool(touched[0] & touched[1]) == share_ops
