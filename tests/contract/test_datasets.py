"""Every registered data set passes the suite, on a small instance of its own."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.testing import DatasetSuite, load_or_skip
from hwnas.training.datasets import REGISTRY
from tests.photos import small_config


class TestDatasets(DatasetSuite):
    @pytest.fixture(scope="class", params=REGISTRY.names)
    @classmethod
    def variant(cls, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, variant: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
        name = variant.Config.model_fields["name"].default
        return small_config(name, tmp_path_factory.mktemp("data"))
