"""Every registered sampler passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.testing import SamplerSuite, load_or_skip
from hwnas.training.samplers import REGISTRY


class TestSamplers(SamplerSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)
