"""Every registered acquisition passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.acquisitions import REGISTRY
from hwnas.testing import AcquisitionSuite, load_or_skip


class TestAcquisitions(AcquisitionSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)
