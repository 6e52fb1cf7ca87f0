"""The search problem of `front`, `speed` and `steer`: OFA's accuracies against a latency table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.core.rng import rng
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.formula import Formula
from hwnas.latency.table import LatencyTable
from hwnas.predictors import REGISTRY
from hwnas.predictors.open_records import open_records
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes, SearchSpace
from search_parts.cells import Settings

__all__ = ["Problem", "load_problem"]

SPACE, RESOLUTIONS = "mobilenet_v3", {"resolutions": [128, 160, 192, 224]}


@dataclass(frozen=True)
class Problem:
    """Minimise minus the predicted accuracy (percent) and the latency, a share of the largest's."""

    space: SearchSpace
    predictor: AccuracyPredictor
    device: str
    per_op_ms: FloatArray
    offset_ms: float

    def latency_ms(self, codes: Codes) -> FloatArray:
        """[n]."""
        return self.offset_ms + op_sum(self.space, codes, self.per_op_ms)

    def objectives(self, codes: Codes) -> FloatArray:
        """[n, 2]."""
        (largest,) = self.latency_ms(self.space.codes([self.space.largest()]))
        mean, _ = self.predictor.predict(codes)
        return np.stack([-100 * mean, self.latency_ms(codes) / largest], axis=1)

    @property
    def reference(self) -> tuple[float, float]:
        """The worst of both that matters: the smallest arch's accuracy, the largest's latency."""
        return float(self.objectives(self.space.codes([self.space.smallest()]))[0, 0]), 1.0


def load_problem(settings: Settings, predictor: str) -> Problem:
    """224 px, the named predictor (`ridge`: linear) on OFA's records, and a latency table.

    Without `--table` the latencies are made up from MACs, and the device is simulated-macs.
    """
    space = build_space(SPACE, RESOLUTIONS, num_classes=1000).restrict({"resolution": (224,)})
    path = settings.data / "ofa_mbv3_imagenet" / "records.json"
    records = open_records(path, settings=RESOLUTIONS).records()
    module = REGISTRY.load(predictor)
    config = module.Config(has_costs=False) if predictor == "ridge" else module.Config()
    fitted: AccuracyPredictor = module.build(config, PredictorContext(space, 0))
    fitted.fit(records.codes, records.scores)
    return Problem(space, fitted, *_latency(settings.table, space))


def _latency(table: Path | None, space: SearchSpace) -> tuple[str, FloatArray, float]:
    """Device, price per operator, and what every arch pays: corrections are lines."""
    ops = enumerate_ops(space)
    if table is None:
        noise = rng(0, "benchmark/latency").uniform(0.6, 1.4, size=len(ops))
        macs = np.array([op_macs(op) for op in ops]) / 1e7
        return "simulated-macs", noise * (macs + 0.02), 0.0
    estimator = TableEstimator(LatencyTable.load(table), space)
    formula = Formula(estimator.correction.coefficients, estimator.correction.spill)
    prices = formula.prices(estimator.table.rows, ops)
    assert prices.spill is None or not prices.spill.params_cached, "prices that do not add up"
    return estimator.device.name, prices.full, formula.coefficients.get("overhead_ms", 0.0)
