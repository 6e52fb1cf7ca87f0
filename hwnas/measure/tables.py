"""Compares and summarises latency tables, and checks them against bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import Z90, spearman
from hwnas.latency.coverage import shown_settings, working_settings
from hwnas.latency.table import LatencyTable
from hwnas.spaces import REGISTRY

N_MOST_CHANGED = 3
N_SAMPLED = 1000  # archs whose intervals are computed

__all__ = ["compare_tables", "missed_bounds", "provenance", "served_spaces", "table_summary"]


def provenance(table: LatencyTable) -> str:
    """How the numbers of a table were obtained, in words.

    A table that ships with hwnas names its source, so it never counts as measured here, also if
    this machine has the same processor.
    """
    facts = table.facts
    is_own = str(facts.get("source", "")).startswith("own timings")
    if table.source == "measured":
        cpu = facts.get("cpu")
        is_local = table.device.transport == "local" and "source" not in facts
        is_here = is_local and cpu == host_facts()["cpu"]
        return "measured here" if is_here else f"measured on {cpu or 'an unknown processor'}"
    if table.source == "converted":
        return "own timings" if is_own else "published"
    if table.source == "fitted":
        return f"fitted to {'own timings' if is_own else 'published networks'}"
    if table.source == "transferred":
        return f"transferred from {facts.get('transferred_from', 'other tables')}"
    return "simulated"


def table_summary(table: LatencyTable) -> list[dict[str, Any]]:
    """Rows with the errors of the estimates and of their baselines, for each corrected space."""
    rows = []
    for space, correction in sorted(table.corrections.items()):
        validation = correction.validation
        fits = {
            "corrected sum": validation.forecast,
            "raw sum": validation.raw_sum,
            "line on MACs": validation.macs_line,
            "forest on op counts": validation.forest,
        }
        for name, fit in fits.items():
            if fit is None:  # a table written by an older version
                continue
            within_5, within_10 = fit.within_5, fit.within_10
            if fit is validation.forecast:
                within_5, within_10 = validation.within
            rows.append(
                {
                    "space": space,
                    "estimate": name,
                    "mape": fit.mape,
                    "within_5": within_5,
                    "within_10": within_10,
                    "p95": fit.p95,
                    "max": fit.max,
                    "spearman": fit.spearman,
                    "kendall_tau": fit.kendall_tau,
                }
            )
        rows.append(
            {
                "space": space,
                "estimate": "repeat noise",
                "mape": validation.repeat_mape,
                "kendall_tau": validation.repeat_tau,
            }
        )
        rows.append(
            {
                "space": space,
                "estimate": "90 % interval, half its width",
                "mape": float(np.hypot(correction.interval_fraction, Z90 * table.pace_error)),
            }
        )
    return rows


def served_spaces(table: LatencyTable) -> list[dict[str, Any]]:
    """A row for every registered space that the table covers. YAML spaces are not tried.

    `settings`: the defaults of the space, or the defaults with the resolutions of the table.
    `correction`: key of the correction that estimates use.
    `interval`: smallest and largest half-width of the 90 % interval over random archs, as fractions
    of the estimate; inf if the table was never validated on whole networks.
    """
    classes = sorted({op.out_channels for op in table.rows if op.kind == "linear"}) or [1000]
    rows = []
    for name in REGISTRY.names:
        found = working_settings(table, name, num_classes=classes[-1])
        if found is None:
            continue
        settings, space = found
        priced = table.estimate(space, space.sample(N_SAMPLED, rng=rng(0, "tables/served")))
        half = priced.high / priced.ms - 1
        rows.append(
            {
                "space": name,
                "settings": shown_settings(settings),
                "num_classes": classes[-1],
                "correction": priced.correction,
                "interval": [float(half.min()), float(half.max())],
            }
        )
    return rows


def missed_bounds(
    table: LatencyTable, *, max_mape: float, max_p95: float | None, min_tau: float | None
) -> dict[str, str]:
    """Maps each space whose estimates miss a bound to a text such as `mape 6.1% > 5.0%`.

    The errors are those of held-out networks.

    Raises:
        UserError: the table was never validated on whole networks.
    """
    if not table.corrections:
        raise UserError(
            "the table was never validated on whole networks",
            where=table.device.name,
            fix=command_line("profile", table.device.name, "--space", "NAME")
            + ", or use the sums of rows with caution",
        )
    missed = {}
    for space, correction in sorted(table.corrections.items()):
        fit = correction.validation.forecast
        words = [f"mape {fit.mape:.1%} > {max_mape:.1%}"] if fit.mape > max_mape else []
        if max_p95 is not None and fit.p95 > max_p95:
            words.append(f"p95 {fit.p95:.1%} > {max_p95:.1%}")
        if min_tau is not None and fit.kendall_tau < min_tau:
            words.append(f"kendall_tau {fit.kendall_tau:.3f} < {min_tau:.3f}")
        if words:
            missed[space] = ", ".join(words)
    return missed


def compare_tables(first: LatencyTable, second: LatencyTable) -> dict[str, Any]:
    """Ratios of two tables on their common operators, and differences of their facts.

    Raises:
        UserError: the tables have no common operator.
    """
    common = [op for op in first.rows if op in second.rows]
    if not common:
        raise UserError(
            "the tables share no operator",
            expected="at least one common operator",
            found=f"{len(first.rows)} and {len(second.rows)} operators, all different",
            fix="compare tables of one space, with equal resolutions",
        )
    a = np.array([first.rows[op].median_ms for op in common])
    b = np.array([second.rows[op].median_ms for op in common])
    ratio = b / a
    most = np.argsort(-np.abs(np.log(ratio / np.median(ratio))), kind="stable")[:N_MOST_CHANGED]
    return {
        "settings": "; ".join(first.differences(second)) or "equal: the tables can be merged",
        "n_common": len(common),
        "n_only_first": len(first.rows) - len(common),
        "n_only_second": len(second.rows) - len(common),
        "median_ratio": float(np.median(ratio)),
        "p5_ratio": float(np.quantile(ratio, 0.05)),
        "p95_ratio": float(np.quantile(ratio, 0.95)),
        "spearman": spearman(a, b),
        "most_changed": [f"{common[i]} x{ratio[i]:.2f}" for i in most],
    }
