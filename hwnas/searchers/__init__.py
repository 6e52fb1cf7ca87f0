"""Search strategies: ask/tell over codes, one file each; they know nothing of scores or prices."""

from hwnas.core.registry import Registry

REGISTRY = Registry(kind="searcher", package="hwnas.searchers")

__all__ = ["REGISTRY"]
