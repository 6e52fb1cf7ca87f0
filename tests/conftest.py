"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two spinning pools on two cores slow each other

import pytest
from hypothesis import HealthCheck, settings

from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace
from tests.pages import imitate_runtimes

settings.register_profile(  # without absolute times, which depend on the load of the machine
    "any load",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any load")

EXPENSIVE = (  # processor seconds: more than fifteen
    "test_pipeline",
    "test_distributed",
    "test_settings_matter",
    "test_artifacts",
    "test_labels",
    "test_training_qat",
    "test_pretrained_networks",
    "test_presets",
    "test_data_changes",
    "test_slips",
    "test_stands_alone",
    "test_pretrained_run",
    "test_remeasuring",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expensive files first: one that starts last keeps one core waiting for the other."""
    rank = {name: number for number, name in enumerate(EXPENSIVE)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(EXPENSIVE)))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images of tests never go to the user's cache; runtimes for browsers are empty."""
    folder = tmp_path_factory.mktemp("cache")
    imitate_runtimes(folder)
    os.environ["HWNAS_CACHE"] = str(folder)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """In this process nothing waits for the disk: a kill, which tests cause, loses no page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_torchlib() -> Iterator[None]:
    """torch's ONNX exporter parses its 500 functions once in this process, not at every export."""
    if "torch" not in sys.modules:  # no test of this session exports
        yield
        return
    import torch

    export = torch.onnx.export

    @functools.wraps(export)
    def with_kept_functions(*args: Any, **kwargs: Any) -> Any:
        from torch.onnx._internal.exporter import _registration

        registry = _registration.ONNXRegistry
        if not hasattr(registry.from_torchlib, "cache_info"):
            kept = functools.lru_cache(registry.from_torchlib)
            patch.setattr(registry, "from_torchlib", staticmethod(kept))
        return export(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", with_kept_functions)
        yield


@pytest.fixture(scope="session")
def tiny_space() -> SearchSpace:
    """mobilenet_tiny at two small resolutions, 10 classes."""
    return build(Config(resolutions=(16, 24)), num_classes=10)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data sets; the test is skipped where it is absent."""
    checkout = Path(__file__).resolve().parent.parent
    path = Path(os.environ.get("HWNAS_TEST_DATA", checkout.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set HWNAS_TEST_DATA)")
    return path
