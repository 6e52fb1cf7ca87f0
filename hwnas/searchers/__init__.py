"""Search strategies: ask/tell over codes, one file each; they know nothing of scores or prices."""

from hwnas.core.registry import Registry
from hwnas.interfaces import SearcherModule

REGISTRY = Registry[SearcherModule](
    kind="searcher", package="hwnas.searchers", contract=SearcherModule
)

__all__ = ["REGISTRY"]
