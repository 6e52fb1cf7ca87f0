"""Data sets, one file each: `build(config, *, seed, n_workers)` gives an `interfaces.DataModule`.

`ends(config)` gives (image channels, classes), which fix a network's first and last layer; it is
cheap and torch-free, so that plans, prices and tables need not load images.
"""

from hwnas.core.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(kind="dataset", package="hwnas.training.datasets")
