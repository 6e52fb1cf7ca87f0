"""Proxies: scores of archs that need no training, higher meaning better, one file each."""

from hwnas.core.registry import Registry
from hwnas.interfaces import ProxyModule

__all__ = ["REGISTRY"]

REGISTRY = Registry[ProxyModule](kind="proxy", package="hwnas.nets.proxies", contract=ProxyModule)
