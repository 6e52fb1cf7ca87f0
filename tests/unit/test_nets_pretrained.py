"""Pretrained start and channel sorting."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.pretrained import read_weights, start_from
from hwnas.nets.sorting import sort_channels
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.spaces import (
    attentive_nas,
    fbnet,
    mobilenet_tiny,
    mobilenet_v3,
    mobilenet_v4,
    nasbench_macro,
)
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace

TINY = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=10)
SPACES = pytest.mark.parametrize(
    "space",
    [
        TINY,
        *(
            module.build(module.Config(resolutions=(32,)), num_classes=10)
            for module in (mobilenet_v3, attentive_nas, nasbench_macro, fbnet)
        ),
        mobilenet_v4.build(mobilenet_v4.Config(resolutions=(32,), width_mult=0.25), num_classes=10),
    ],
    ids=lambda space: space.name,
)


def shaken(space: SearchSpace, seed: int = 1) -> Supernet:
    """A supernet with no special values, in double precision."""
    supernet = Supernet(space, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in supernet.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter += 0.1 * noise
    return supernet


def images(space: SearchSpace, arch: Arch) -> torch.Tensor:
    px = resolution(space, arch)
    return torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(0)).double()


# --- sorting --------------------------------------------------------------------------------------


@SPACES
@torch.no_grad()
def test_sorting_leaves_the_largest_as_it_is_and_changes_the_others(space: SearchSpace) -> None:
    supernet = shaken(space)
    largest, other = space.largest(), space.arch(space.sample(1, rng=rng(0, "other"))[0])
    before = [supernet(images(space, arch), arch) for arch in (largest, other)]
    sort_channels(supernet)
    after = [supernet(images(space, arch), arch) for arch in (largest, other)]
    scale = before[0].abs().max()
    torch.testing.assert_close(after[0] / scale, before[0] / scale, rtol=0, atol=1e-9)
    if space.name != "fbnet":  # a chance arch of it uses none of the largest's alternatives
        assert (after[1] - before[1]).abs().max() > 1e-3 * scale


@torch.no_grad()
def test_channels_are_in_the_order_of_the_weights_that_read_them() -> None:
    supernet = shaken(TINY)
    sort_channels(supernet)
    n_groups = 0
    for node in supernet.plan(TINY.largest()):
        for site in node.sites:
            is_se = node.op.se_channels > 0  # its hidden channels have a second reader
            if site.layer.name == "conv_pwl" and not is_se:
                norms = supernet.elastic(site.path).weight.abs().sum((0, 2, 3))
                assert (norms.diff() <= 1e-12).all(), site.path
                n_groups += 1
    assert n_groups >= 3
    norms = supernet.elastic("classifier.linear").weight.abs().sum(0)
    assert (norms.diff() <= 1e-12).all()


@torch.no_grad()
def test_a_narrow_subnet_keeps_the_channels_that_matter() -> None:
    """Where the least important half of all hidden channels does nothing, cutting it is free."""
    supernet = Supernet(TINY, seed=0).double()
    largest = TINY.largest()
    generator = torch.Generator().manual_seed(0)
    smallest_mid = {}
    for name in [c.name for c in TINY.choices if c.name.endswith("expand")]:
        smallest_mid[name] = (min(TINY.choices[[c.name for c in TINY.choices].index(name)].values),)
    narrow = TINY.restrict(smallest_mid).largest()
    for wide, thin in zip(supernet.plan(largest), supernet.plan(narrow), strict=True):
        for site, kept in zip(wide.sites, thin.sites, strict=True):
            if site.layer.name == "conv_pwl":
                n, n_kept = site.layer.in_channels, kept.layer.in_channels
                dead = torch.randperm(n, generator=generator)[n_kept:]
                supernet.elastic(site.path).weight[:, dead] = 0
    x = images(TINY, largest)
    expected = supernet(x, largest)
    assert (supernet(x, narrow) - expected).abs().max() > 0.1 * expected.abs().max()
    sort_channels(supernet)
    torch.testing.assert_close(supernet(x, narrow), expected, rtol=0, atol=1e-9)


# --- starting from a file -------------------------------------------------------------------------


@SPACES
@torch.no_grad()
def test_a_supernet_starts_as_the_trained_largest_subnet(
    space: SearchSpace, tmp_path: Path
) -> None:
    trained = build_subnet(space, space.largest(), seed=3).train()
    path = tmp_path / "largest.safetensors"
    save_file(trained.state_dict(), path)
    supernet = Supernet(space, seed=0)
    start_from(supernet, path)
    x = images(space, space.largest())
    expected = trained.double()(x)
    found = supernet.double()(x, space.largest())
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize("weak", [False, True])
def test_a_weak_supernet_starts_from_a_subnet_too(tmp_path: Path, *, weak: bool) -> None:
    trained = build_subnet(TINY, TINY.largest(), seed=3).train()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    supernet = Supernet(TINY, seed=0, weak=weak)
    start_from(supernet, tmp_path / "w.safetensors")
    x = images(TINY, TINY.largest()).float()
    found = extract(supernet, TINY.largest())(x)
    torch.testing.assert_close(found, trained(x), rtol=1e-4, atol=1e-5)


def test_a_supernet_starts_from_another_one_unsorted(tmp_path: Path) -> None:
    old = Supernet(TINY, seed=5)
    arrays = {name: value.numpy() for name, value in old.state_dict().items()}
    np.savez(tmp_path / "supernet.npz", **arrays)
    new = Supernet(TINY, seed=0)
    start_from(new, tmp_path / "supernet.npz")
    for name, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[name]), name


def test_weights_of_another_space_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    supernet = Supernet(TINY, seed=0)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    seven = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=7)
    for weights in (
        Supernet(seven, seed=1).state_dict(),
        build_subnet(seven, seven.largest()).state_dict(),
    ):
        save_file(weights, path)
        with pytest.raises(UserError, match=r"classifier[.\w]*weight(.|\n)*10(.|\n)*7"):
            start_from(supernet, path)
    small = build_subnet(TINY, TINY.smallest()).state_dict()
    save_file(small, path)
    with pytest.raises(UserError, match=r"another space: conv_stem\.weight"):
        start_from(supernet, path)
    save_file(before | {"more.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"more\.weight"):
        start_from(supernet, path)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors", "w.npz", "gone.npz"):
        if name != "gone.npz":
            (tmp_path / name).write_bytes(pickle.dumps({"w": 1}))
        with pytest.raises(UserError, match=name):
            read_weights(tmp_path / name)
    np.savez(tmp_path / "objects.npz", w=np.array([object()]))
    with pytest.raises(UserError, match=r"objects\.npz"):
        read_weights(tmp_path / "objects.npz")
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"w\.npz"):
        read_weights(tmp_path / "w.npz")
    np.save(tmp_path / "w.npy", np.zeros(2))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    with pytest.raises(UserError, match=r"w\.npz"):
        read_weights(tmp_path / "w.npz")
