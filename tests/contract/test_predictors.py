"""Every registered predictor passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.predictors import REGISTRY
from hwnas.testing import PredictorSuite, load_or_skip


class TestPredictors(PredictorSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)

    @pytest.fixture
    def config(self, variant: Any) -> Any:
        """Default settings; fewer archs where a predictor learns from archs that it draws."""
        fewer = {"n_archs": 2048} if "n_archs" in variant.Config.model_fields else {}
        return variant.Config(**fewer)
