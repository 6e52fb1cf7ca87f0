"""The suites that hwnas ships, one subclass with one fixture per variant."""

from __future__ import annotations

from types import ModuleType

import pytest
from hwnas_example import depth, niced, onnx_gz, thin

from hwnas.testing import ExporterSuite, ProxySuite, SpaceSuite, TransportSuite


class TestThin(SpaceSuite):
    @pytest.fixture
    def variant(self) -> ModuleType:
        return thin


class TestDepth(ProxySuite):
    @pytest.fixture
    def variant(self) -> ModuleType:
        return depth


class TestOnnxGz(ExporterSuite):
    @pytest.fixture
    def variant(self) -> ModuleType:
        return onnx_gz


class TestNiced(TransportSuite):
    @pytest.fixture
    def variant(self) -> ModuleType:
        return niced
