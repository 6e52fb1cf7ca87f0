"""Contract tests of proxies: `interfaces.Proxy`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.interfaces import Proxy, ProxyContext, ProxyModule
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.testing.samplers import prices
from hwnas.testing.suite import Suite

__all__ = ["ProxySuite"]

N_IMAGES = 16


class ProxySuite(Suite):
    """Contract of a proxy."""

    CONTRACT = ProxyModule

    @pytest.fixture
    def space(self) -> SearchSpace:
        """A space whose networks are built and run in milliseconds."""
        config = mobilenet_tiny.Config(resolutions=(8, 12), width_mult=0.25)
        return mobilenet_tiny.build(config, num_classes=4)

    @pytest.fixture
    def codes(self, space: SearchSpace) -> Codes:
        """Four archs."""
        return space.sample(4, rng=rng(0, "test"))

    def _build(
        self, variant: Any, config: Any, space: SearchSpace, images: Any = None, seed: int = 0
    ) -> Proxy:
        proxy: Proxy = variant.build(config, ProxyContext(space, seed, prices(space), images))
        return proxy

    def test_scores_are_finite_reproducible_and_of_each_arch_alone(
        self, variant: Any, quick_config: Any, space: SearchSpace, codes: Codes
    ) -> None:
        """Scores are float64, differ between archs, and do not depend on the order of archs."""
        scores = self._build(variant, quick_config, space)(codes)
        assert scores.shape == (4,) and scores.dtype == np.float64
        assert np.isfinite(scores).all()
        again = self._build(variant, quick_config, space)(codes[::-1])[::-1]
        assert np.array_equal(again, scores)
        assert len(set(scores)) > 1

    def test_no_archs_have_no_scores(
        self, variant: Any, quick_config: Any, space: SearchSpace, codes: Codes
    ) -> None:
        """Codes [0, d] give scores of shape [0]."""
        assert self._build(variant, quick_config, space)(codes[:0]).shape == (0,)

    def test_images_are_accepted_and_global_generators_left_alone(
        self, variant: Any, quick_config: Any, space: SearchSpace, codes: Codes
    ) -> None:
        """A proxy accepts training images, and leaves the states of numpy and torch unchanged."""
        import torch

        images = torch.randn(N_IMAGES, 3, 12, 12, generator=torch.Generator().manual_seed(0))

        def states() -> list[Any]:
            return [str(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()]

        before = states()
        assert np.isfinite(self._build(variant, quick_config, space, images)(codes[:2])).all()
        assert states() == before
