"""Accuracy predictors: they learn scores of archs from labels. One file per variant."""

from hwnas.core.registry import Registry
from hwnas.interfaces import PredictorModule

REGISTRY = Registry[PredictorModule](
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
    contract=PredictorModule,
)

__all__ = ["REGISTRY"]
