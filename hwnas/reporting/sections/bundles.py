"""The report section on bundles: what is deployed on each device."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bundle"]


@dataclass(frozen=True)
class Bundle:
    """The bundle of a device. href: link to its folder. models: paths in it of the model files."""

    device: str
    href: str
    models: tuple[str, ...]
