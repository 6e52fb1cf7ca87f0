"""Summarises rank and bias reports: which uses of a ranking are safe."""

from __future__ import annotations

from hwnas.analysis.bias import BiasReport
from hwnas.analysis.ranks import Prune, RankReport

__all__ = ["advice", "safe_to_prune"]

SAFE_RECALL = 0.95
"""Pruning is safe if at least this share of the true top 10 % remains."""

SAFE_PRECISION = 0.5
"""Selecting the top is safe if at least this share of the selected archs belongs to the top."""

COST_BIAS = 0.3
"""A correlation of the residual with a log cost of at least this counts as a bias."""

N_NAMED = 3


def advice(ranks: RankReport, bias: BiasReport | None = None) -> tuple[str, ...]:
    """A summary in sentences: safe pruning, safe selection, and biases.

    "Safe" means that the lower end of the 90 % interval meets the bound.
    """
    sentences = [_agreement(ranks), _prune(ranks), _pick(ranks)]
    if bias is not None:
        sentences += _beware(bias)
    return tuple(sentences)


def _agreement(ranks: RankReport) -> str:
    tau = ranks.correlations[0].kendall_tau
    top = ranks.correlations[-1].kendall_tau
    text = f"Kendall tau {tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f}) over {ranks.n} archs"
    return f"{text}, {top.value:.2f} within the true top 10 %."


def safe_to_prune(ranks: RankReport) -> Prune | None:
    """The largest share that pruning by the score can remove safely; None if there is none."""
    safe = [prune for prune in ranks.prunes if prune.recall_of_top.low >= SAFE_RECALL]
    return max(safe, key=lambda prune: prune.pruned_fraction) if safe else None


def _prune(ranks: RankReport) -> str:
    furthest = safe_to_prune(ranks)
    if furthest is None:
        least = ranks.prunes[0]
        kept = least.recall_of_top
        return (
            f"Not safe to prune: without the worst {least.pruned_fraction:.0%} of the archs, "
            f"{kept.low:.0%} to {kept.high:.0%} of the true top 10 % are left."
        )
    return (
        f"Safe to prune the worst {furthest.pruned_fraction:.0%}: "
        f"{furthest.recall_of_top.value:.0%} of the true top 10 % remain."
    )


def _pick(ranks: RankReport) -> str:
    safe = [pick for pick in ranks.picks if pick.precision.low >= SAFE_PRECISION]
    narrowest = ranks.picks[0]
    share = f"{narrowest.fraction:.0%}"
    first = (
        f"{narrowest.precision.value:.0%} of the predicted top {share} are in the true top {share};"
        f" the best of these {narrowest.k} has true rank {narrowest.best_true_rank}."
    )
    if not safe:
        return f"Not safe to pick the top {ranks.picks[-1].fraction:.0%} or less: {first}"
    pick = min(safe, key=lambda pick: pick.fraction)
    if pick is narrowest:
        return f"Safe to pick the top {pick.fraction:.0%}: {first}"
    return (
        f"Safe to pick the top {pick.fraction:.0%}, "
        f"not safe to pick the top {narrowest.fraction:.0%}: {first}"
    )


def _beware(bias: BiasReport) -> list[str]:
    sentences = []
    if abs(bias.residual_vs_macs) >= COST_BIAS:
        word = "over" if bias.residual_vs_macs > 0 else "under"
        sentences.append(
            f"Large archs are {word}-rated (residual and log MACs correlate at "
            f"{bias.residual_vs_macs:+.2f}): check before pruning."
        )
    for key, correlation in bias.residual_vs_latency.items():
        if abs(correlation) >= COST_BIAS:
            word = "over" if correlation > 0 else "under"
            sentences.append(
                f"Slow archs are {word}-rated (residual and log {key} correlate at "
                f"{correlation:+.2f})."
            )
    clear = [row for row in bias.choices if row.is_clear][:N_NAMED]
    if clear:
        named = ", ".join(f"{row.choice} = {row.value} ({row.shift:+.2f} sd)" for row in clear)
        sentences.append(f"Biased choices: {named}.")
    return sentences or ["No clear bias of any choice."]
