"""Base of the contract suites: the module, its settings, and its exemptions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from hwnas.core.config import build_model
from hwnas.core.plugins import faults
from hwnas.core.registry import Registry
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.space import SearchSpace

__all__ = ["Suite", "exemptions", "load_or_skip", "name_of", "quick", "run_python", "tiny_space"]

HEAVY = ("torch", "timm", "torchvision", "onnxruntime", "sklearn")


def load_or_skip(registry: Registry[Any], name: str) -> Any:
    """The module of the variant; skips the test if a required package is missing."""
    variant = registry.describe(name)
    if variant.missing:
        pytest.skip(f"{name} needs {', '.join(variant.missing)}: {variant.install}")
    return registry.load(name)


def name_of(variant: ModuleType) -> str:
    """The name of the variant in configurations."""
    return str(variant.Config.model_fields["name"].default)


def exemptions(variant: Any) -> Mapping[str, str]:
    """The module's `EXEMPT`: maps each promise that it does not keep to the reason."""
    found: Mapping[str, str] = getattr(variant, "EXEMPT", {})
    return found


def quick(variant: Any, config: BaseModel | None = None) -> BaseModel:
    """`config` (default: the default configuration) with the `QUICK` settings of the module."""
    plain = {} if config is None else config.model_dump(mode="json")
    settings = _merged(plain, getattr(variant, "QUICK", {}))
    model: type[BaseModel] = variant.Config
    return build_model(model, settings, where=f"QUICK of {variant.__name__}")


def _merged(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if nested else value
    return found


@lru_cache(maxsize=1)
def tiny_space() -> SearchSpace:
    """The space in tests of other variants: mobilenet_tiny at 16 and 24 px, 10 classes."""
    config = mobilenet_tiny.Config(resolutions=(16, 24))
    return mobilenet_tiny.build(config, num_classes=10)


def run_python(code: str) -> None:
    """Runs `code` in a new interpreter; fails with its output unless it exits with 0."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Suite:
    """Base of the suites. A subclass defines the fixture `variant`: the module under test."""

    CONTRACT: ClassVar[type[Any]]
    """The Protocol of `hwnas.interfaces` to which the module must conform."""

    PROMISES: ClassVar[frozenset[str]] = frozenset()
    """Promises from which a variant may be exempt, by an entry of its `EXEMPT`."""

    @pytest.fixture
    def variant(self) -> Any:
        """The module under test."""
        pytest.fail("give the suite's subclass a fixture `variant` that returns the module")

    @pytest.fixture
    def config(self, variant: Any) -> Any:
        """Default settings; those of `QUICK` if there are required settings."""
        try:
            return variant.Config()
        except ValidationError:
            return quick(variant)

    @pytest.fixture
    def quick_config(self, variant: Any, config: Any) -> Any:
        """`config` with the `QUICK` settings of the module."""
        return quick(variant, config)

    @staticmethod
    def promised(variant: Any, promise: str) -> None:
        """Skips the rest of the test if the variant is exempt from `promise`."""
        if reason := exemptions(variant).get(promise):
            pytest.skip(f"{variant.__name__} is exempt from `{promise}`: {reason}")

    def test_the_module_is_what_its_kind_asks_for(self, variant: Any) -> None:
        """The module has a summary, all members of the Protocol, and a strict, named `Config`."""
        assert (variant.__doc__ or "").strip()
        assert faults(variant, self.CONTRACT, name_of(variant)) == []

    def test_exemptions_are_of_promises_and_say_why(self, variant: Any) -> None:
        """Every exemption has a reason and names a promise; a misspelt one would have no effect."""
        assert set(exemptions(variant)) <= self.PROMISES
        assert all(exemptions(variant).values())

    def test_importing_it_and_its_settings_needs_no_torch(self, variant: Any) -> None:
        """Validating a configuration does not import torch, so it is fast and works without it."""
        run_python(
            f"import sys, importlib; module = importlib.import_module({variant.__name__!r})\n"
            "try:\n    module.Config()\nexcept ValueError:\n    pass\n"
            f"heavy = sorted({set(HEAVY)!r} & set(sys.modules))\n"
            "sys.exit(f'imported {heavy}' if heavy else 0)"
        )
