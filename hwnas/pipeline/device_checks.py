"""Checks of a winner's measured latency against its estimate and limits."""

from __future__ import annotations

from hwnas.measure.drift import can_judge, noise_text, pace_text, verdict
from hwnas.measure.limits import VerifyConfig
from hwnas.pipeline.outcomes import Check, NetworkResult

__all__ = ["device_checks", "judged_excess"]


def judged_excess(excess: float, row: NetworkResult, config: VerifyConfig) -> bool | None:
    """Whether a measured latency with a relative excess over its bound passes; None: unknown."""
    noise = config.repeat_noise_factor * row.repeat_noise
    return verdict(excess, row.pace, noise=noise, most=config.max_forecast_error)


def device_checks(winner: NetworkResult, config: VerifyConfig) -> list[Check]:
    """Checks the winner's latency, divided by the pace, against its estimate and limits.

    There are no checks if the winner was not timed.
    """
    accepted, error = config.max_forecast_error, winner.estimate_error
    if error is None:
        return []
    pace = "the machine's pace is unknown" if winner.pace is None else pace_text(winner.pace)

    def check(name: str, excess: float, detail: str) -> Check:
        state = judged_excess(excess, winner, config)
        is_noisy = state is None and can_judge(winner.pace)
        return Check(
            name, state, f"{detail}; {noise_text(winner.repeat_noise) if is_noisy else pace}"
        )

    checks = [
        check(
            f"estimate on {winner.device}",
            abs(error) - accepted,
            f"estimate {winner.forecast_ms:.4f} ms, measured {winner.measured_ms:.4f} ms at pace 1"
            f" (error {error:+.1%}; accepted {accepted:.1%}, repeat noise"
            f" {winner.repeat_noise:.1%})",
        )
    ]
    for limit in winner.timed_limits:
        which = "constraint" if limit.metric == "latency_ms" else "p95 constraint"
        checks.append(check(f"{which} on {winner.device}", limit.excess, str(limit)))
    return checks
