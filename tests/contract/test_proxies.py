"""Every registered proxy passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.nets.proxies import REGISTRY
from hwnas.testing import ProxySuite, load_or_skip


class TestProxies(ProxySuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)
