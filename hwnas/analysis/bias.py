"""Values of choices that a score over- or under-rates relative to the truth (2010.08219)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from hwnas.analysis.ranks import check_codes, check_pair, pearson
from hwnas.core.records import STRICT
from hwnas.interfaces import FloatArray
from hwnas.spaces.choice import Choice, Value
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["BiasReport", "ChoiceBias", "bias_report"]


@dataclass(frozen=True)
class ChoiceBias:
    """Bias towards one value of one choice, in standard deviations of the standardised scores.

    shift: mean of z(score) - z(truth) over the `n` archs with the value; positive = over-rated.
    standard_error: standard error of `shift`.
    shift_beyond_noise: mean residual from the least-squares line of score on truth. Noise flattens
        this line. This alone gives good values a negative `shift`, and bad values a positive one.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    choice: str
    role: str
    value: Value
    n: int
    shift: float
    shift_beyond_noise: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """Whether both shifts have the same sign and exceed twice the standard error."""
        bound = 2 * self.standard_error
        weaker = min(self.shift, self.shift_beyond_noise, key=abs)
        return self.shift * self.shift_beyond_noise > 0 and abs(weaker) > bound


@dataclass(frozen=True)
class BiasReport:
    """Bias per value of a choice, strongest first, and correlation of the residual with costs.

    The correlations are Pearson's, with log MACs, log parameters and log latency by metric key
    (`latency_ms@phone`). Positive: larger or slower archs are over-rated.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    n: int
    choices: tuple[ChoiceBias, ...]
    residual_vs_macs: float
    residual_vs_params: float
    residual_vs_latency: dict[str, float] = field(default_factory=dict)


def bias_report(
    space: SearchSpace,
    codes: Codes,
    scores: FloatArray,
    truth: FloatArray,
    *,
    latencies: Mapping[str, FloatArray] | None = None,
) -> BiasReport:
    """Compares scores [n] with the truth [n] of archs [n, d], choice by choice.

    Shifts are marginal means, so archs should be sampled at random: if choices are correlated in
    the sample, their biases are mixed. Choices with a single value are skipped.

    latencies: latencies in ms [n] of these archs, by metric key.

    Raises:
        UserError: lengths differ, fewer than ten archs, or a value is not finite.
    """
    scores, truth = check_pair(scores, truth)
    check_codes(space, codes, len(scores))
    standard_scores, standard_truth = _standardise(scores), _standardise(truth)
    residual = standard_scores - standard_truth
    beyond_noise = standard_scores - pearson(scores, truth) * standard_truth
    active = space.active(codes)
    spread = float(residual.std())
    rows = []
    for column, choice in enumerate(space.choices):
        picked = codes[active[:, column], column]
        present = np.unique(picked)
        if len(present) < 2:
            continue
        for code in present.tolist():
            members = active[:, column] & (codes[:, column] == code)
            rows.append(_row(choice, code, residual[members], beyond_noise[members], spread))
    return BiasReport(
        n=len(scores),
        choices=tuple(sorted(rows, key=lambda row: -abs(row.shift))),
        residual_vs_macs=pearson(residual, np.log(cost(space, codes, "macs"))),
        residual_vs_params=pearson(residual, np.log(cost(space, codes, "params"))),
        residual_vs_latency={
            key: pearson(residual, np.log(values)) for key, values in (latencies or {}).items()
        },
    )


def _standardise(values: FloatArray) -> FloatArray:
    spread = float(values.std()) if np.ptp(values) > 0 else 0.0
    return (values - values.mean()) / spread if spread else np.zeros_like(values)


def _row(
    choice: Choice, code: int, residual: FloatArray, beyond_noise: FloatArray, spread: float
) -> ChoiceBias:
    """Bias of one value, from the residuals of the archs with this value."""
    return ChoiceBias(
        choice=choice.name,
        role=choice.role,
        value=choice.values[code],
        n=len(residual),
        shift=float(residual.mean()),
        shift_beyond_noise=float(beyond_noise.mean()),
        standard_error=spread / float(np.sqrt(len(residual))),
    )
