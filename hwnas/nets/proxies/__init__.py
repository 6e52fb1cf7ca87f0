"""Proxies: scores of archs that need no training, higher meaning better, one file each."""

from hwnas.core.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(kind="proxy", package="hwnas.nets.proxies")
