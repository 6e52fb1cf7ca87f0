"""Every space passes the suite: registered ones, those shipped as YAML, and a mixed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwnas.spaces import REGISTRY
from hwnas.spaces.space import SearchSpace
from hwnas.testing import SpaceSuite, load_or_skip
from tests.zoo import ALIAS, SPACES, space


class TestRegisteredSpaces(SpaceSuite):
    @pytest.fixture(params=[name for name in REGISTRY.names if name != ALIAS])
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)


class TestSpacesFromYaml(SpaceSuite):
    @pytest.fixture(params=[name for name in SPACES if name not in REGISTRY.names])
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def variant(self) -> Any:
        return REGISTRY.load("mobile")

    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return space(name)

    @pytest.fixture
    def small_space(self, name: str) -> SearchSpace:
        return space(name, small=True)

    @pytest.mark.full  # half a minute; the registered spaces cover the same code
    def test_the_exported_network_computes_the_same(
        self, with_networks: SearchSpace, tmp_path: Path
    ) -> None:
        super().test_the_exported_network_computes_the_same(with_networks, tmp_path)
