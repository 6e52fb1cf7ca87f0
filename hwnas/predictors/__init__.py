"""Accuracy predictors: they learn scores of archs from labels. One file per variant."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="predictor",
    package="hwnas.predictors",
    infrastructure=frozenset(
        {
            "blend",
            "descent",
            "ensemble",
            "evaluate",
            "graph",
            "labels",
            "open_records",
            "lookup",
            "process",
            "proxies",
            "readers",
            "recipe",
            "records",
            "tabular",
            "transfer",
        }
    ),
)

__all__ = ["REGISTRY"]
