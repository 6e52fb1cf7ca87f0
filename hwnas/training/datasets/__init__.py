"""Data sets, one file each: see `interfaces.DatasetModule`."""

from hwnas.core.registry import Registry
from hwnas.interfaces import DatasetModule

__all__ = ["REGISTRY"]

REGISTRY = Registry[DatasetModule](
    kind="dataset", package="hwnas.training.datasets", contract=DatasetModule
)
