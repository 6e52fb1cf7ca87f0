from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.training.augment import Warper
from hwnas.training.images import normalise, resize

STILL = {"rotate_degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0}


def images(n=4, px=12, seed=0):
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("px", [8, 16, 19, 24])
def test_resize_equals_pillow(px):
    x = images(1, 24)
    ours = resize(x, px)[0].numpy()
    for channel, plane in zip(ours, x[0].numpy(), strict=True):
        theirs = Image.fromarray(plane, mode="F").resize((px, px), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(channel, np.asarray(theirs), atol=1e-5)


def test_resize_to_the_same_size_changes_no_value():
    x = images()
    assert torch.equal(resize(x, 12), x)


@pytest.mark.parametrize("px", [8, 12])
def test_resize_gives_channels_last(px):
    assert resize(images(), px).is_contiguous(memory_format=torch.channels_last)


def test_normalise():
    x = torch.stack([torch.full((2, 2), value) for value in (0.5, 0.25, 1.0)])[None]
    out = normalise(x, (0.5, 0.5, 0.5), (1.0, 0.5, 0.25))
    assert out[0, :, 0, 0].tolist() == [0.0, -0.5, 2.0]


def draws(n, **columns):
    names = ["rotate", "scale_x", "scale_y", "shear", "shift_x", "shift_y"]
    result = np.zeros((n, 6 + 32), dtype=np.float32)
    for name, value in columns.items():
        result[:, names.index(name)] = value
    return result


def test_no_distortion_is_the_identity():
    warper = Warper(**STILL)
    x = images()
    torch.testing.assert_close(warper(x, warper.draw(4, seed=0, epoch=0)), x, atol=1e-5, rtol=0)


def test_shift_by_whole_pixels_fills_with_black():
    warper = Warper(**{**STILL, "shift": 0.25})  # 3 of 12 px
    x = images()
    moved = warper(x, draws(4, shift_x=1.0))
    torch.testing.assert_close(moved[..., :9], x[..., 3:], atol=1e-5, rtol=0)
    assert moved[..., 9:].abs().max() < 1e-4


def test_quarter_turn():
    warper = Warper(**{**STILL, "rotate_degrees": 90.0})
    x = images()
    turned = warper(x, draws(4, rotate=1.0))
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)


def test_scale_by_two_shows_the_centre():
    warper = Warper(**{**STILL, "scale": 0.5})
    x = images(1, 16)
    grown = warper(x, draws(1, scale_x=-1.0, scale_y=-1.0))  # samples half the extent
    expected = torch.nn.functional.interpolate(x[:, :, 3:13, 3:13], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(grown, expected[:, :, 2:-2, 2:-2], atol=1e-4, rtol=0)


def test_elastic_moves_pixels_within_its_bound():
    """On a horizontal ramp, a value changes by the displacement times the ramp's slope."""
    px, elastic = 32, 0.03
    warper = Warper(**{**STILL, "elastic": elastic})
    ramp = torch.arange(px, dtype=torch.float32).expand(8, 1, px, px) / px
    out = warper(ramp, warper.draw(8, seed=3, epoch=0))
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    change = (out - ramp)[inner].abs()
    assert change.max() <= elastic * 1.6  # bicubic interpolation overshoots its control points
    assert change.mean() > elastic * 0.2


def test_draws_of_an_image_depend_on_seed_epoch_and_its_index():
    warper = Warper(15.0, 0.1, 0.1, 0.1, 0.05)
    first = warper.draw(10, seed=0, epoch=0)
    assert np.array_equal(first, warper.draw(10, seed=0, epoch=0))
    assert not np.array_equal(first, warper.draw(10, seed=0, epoch=1))
    assert not np.array_equal(first, warper.draw(10, seed=1, epoch=0))
    assert np.abs(first).max() <= 1
    x = images(10)
    alone = torch.cat([warper(x[i : i + 1], first[i : i + 1]) for i in range(10)])
    torch.testing.assert_close(alone, warper(x, first))
