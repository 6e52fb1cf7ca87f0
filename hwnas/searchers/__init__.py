"""Search strategies: ask/tell over codes, one file each, independent of scores and costs."""

from hwnas.core.registry import Registry
from hwnas.interfaces import SearcherModule

REGISTRY = Registry[SearcherModule](
    kind="searcher", package="hwnas.searchers", contract=SearcherModule
)

__all__ = ["REGISTRY"]
