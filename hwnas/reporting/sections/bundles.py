"""The report section on bundles: what is deployed on each device."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bundle"]


@dataclass(frozen=True)
class Bundle:
    """The bundle of a device. href: its folder, from the report. models: files in it that run."""

    device: str
    href: str
    models: tuple[str, ...]
