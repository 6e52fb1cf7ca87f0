"""Every registered exporter passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.exporters import REGISTRY
from hwnas.testing import ExporterSuite, load_or_skip


class TestExporters(ExporterSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)
