"""Accuracy predictors: models that learn the scores of archs from labels, one file each."""

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
            "lookup_layer",
            "losses",
            "process",
            "proxies",
            "readers",
            "recipe",
            "records",
            "tabular",
            "top",
            "transfer",
        }
    ),
    contract=PredictorModule,
)

__all__ = ["REGISTRY"]
