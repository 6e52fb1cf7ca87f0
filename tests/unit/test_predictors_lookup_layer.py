"""The lookup of the first layer equals its product with one-hot choices."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.predictors import lookup_layer
from hwnas.predictors.lookup_layer import LookupLayer
from hwnas.spaces import REGISTRY

SPACES = ("mobilenet_tiny", "mobilenet_v3", "nats_topology", "darts", "resnet_pgonas")


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("max_rows", [1, 5, 256])
def test_equals_the_product_with_one_hot_choices(name, max_rows, monkeypatch):
    monkeypatch.setattr(lookup_layer, "MAX_ROWS", max_rows)
    module = REGISTRY.load(name)
    space = module.build(module.Config(), num_classes=10)
    codes = space.sample(200, rng=rng(0, "test/lookup"))
    encoded, stream = space.encode(codes), rng(1, "test/lookup")
    weight = stream.normal(size=(encoded.shape[1], 7)).astype(np.float32)
    bias = stream.normal(size=7).astype(np.float32)
    found = LookupLayer(space, weight, bias)(codes)
    np.testing.assert_allclose(found, encoded @ weight + bias, rtol=1e-4, atol=1e-4)


def test_groups_keep_to_the_limit_unless_one_choice_exceeds_it(monkeypatch):
    monkeypatch.setattr(lookup_layer, "MAX_ROWS", 12)
    assert lookup_layer._groups([3, 4, 2, 20, 1, 6, 2]) == [[0, 1], [2], [3], [4, 5, 6]]


def test_no_archs_give_no_rows():
    module = REGISTRY.load("mobilenet_tiny")
    space = module.build(module.Config(), num_classes=10)
    width = space.encode(space.codes([])).shape[1]
    layer = LookupLayer(space, np.zeros((width, 3), np.float32), np.zeros(3, np.float32))
    assert layer(space.codes([])).shape == (0, 3)
