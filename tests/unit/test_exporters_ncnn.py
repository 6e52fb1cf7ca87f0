"""ncnn: what it lacks is named, and maps keep their shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hwnas
from hwnas.core.errors import UserError
from hwnas.exporters.formats import open_model
from hwnas.exporters.parity import torch_logits

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


class Where(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, x.sin()).mean((2, 3))


def test_operators_that_ncnn_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ncnn cannot express the network") as error:
        hwnas.export(Where().eval(), "ncnn", tmp_path, images=IMAGES)
    assert error.value.found == "torch.gt, torch.where"
    assert error.value.fix and not [*tmp_path.iterdir()]


def test_maps_keep_their_shape(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3, padding=1).eval()
    path, _ = hwnas.export(net, "ncnn", tmp_path, images=IMAGES)
    found, expected = open_model("ncnn", path).logits(IMAGES), torch_logits(net, IMAGES)
    assert found.shape == (4, 4, 8, 8)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
