"""Every runtime of the kit passes the suite."""

from __future__ import annotations

import pytest

from hwnas.devices.runtimes import runtime_names
from hwnas.testing import RuntimeSuite
from tests.kit import interpreter

PROVIDERS = {
    "litert": "cpu",
    "onnxruntime": "CPUExecutionProvider",
    "openvino": "CPU",
    "torch": "cpu",
}


class TestRuntimes(RuntimeSuite):
    @pytest.fixture(params=runtime_names())
    def variant(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def provider(self, variant: str) -> str:
        return PROVIDERS.get(variant, "")

    @pytest.fixture
    def python(self, variant: str) -> str:
        if variant not in PROVIDERS:
            pytest.skip("it needs a GPU: see tests/gpu.py")
        return interpreter(variant)
