"""Proxies: scores of archs without training; higher is better. One file per proxy."""

from hwnas.core.registry import Registry
from hwnas.interfaces import ProxyModule

__all__ = ["REGISTRY"]

REGISTRY = Registry[ProxyModule](kind="proxy", package="hwnas.nets.proxies", contract=ProxyModule)
