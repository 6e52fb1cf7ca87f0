"""Every registered searcher passes the suite."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.searchers import REGISTRY
from hwnas.testing import SearcherSuite, load_or_skip


class TestSearchers(SearcherSuite):
    @pytest.fixture(params=REGISTRY.names)
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)
