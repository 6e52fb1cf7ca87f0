"""Data sets, one file each; `build(config, *, seed)` gives an `interfaces.DataModule`."""

from hwnas.core.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(kind="dataset", package="hwnas.training.datasets")
