"""One search for many devices, against enumeration; groups of devices; tables that are missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.controller.constraints import price
from hwnas.controller.groups import device_groups
from hwnas.controller.per_device import MOST_BUDGETS
from hwnas.controller.result import Candidate
from hwnas.core.errors import UserError
from hwnas.interfaces import DeviceSpec, SearcherContext
from hwnas.latency.correction import Spill
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.formula import Formula
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.latency.together import LatenciesTogether
from hwnas.pipeline.costs import cost_metrics
from hwnas.searchers.exhaustive import Config, build
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import enumerate_ops, op_sum

WHOLE = hwnas.space("mobilenet_tiny", resolutions=[8, 12], num_classes=10)
FIXED = {one.name: (4,) for one in WHOLE.choices if one.name.endswith("expand")}
FIXED |= {one.name: (3,) for one in WHOLE.choices if one.name.endswith("kernel")}
SPACE = WHOLE.restrict({name: value for name, value in FIXED.items() if name < "stage2.block1.k"})
OPS = enumerate_ops(SPACE)
WEIGHTS = np.random.default_rng(0).uniform(1, 2, len(OPS))
DEVICES = tuple(f"simulated-{number}" for number in range(6))
BUDGET = 400


def table(number: int) -> LatencyTable:
    factors = np.random.default_rng(number).lognormal(0, 0.2, len(OPS))
    rows = {
        op: Timing(ms, ms, ms, ms, 1)
        for op, ms in zip(OPS, (WEIGHTS * factors).tolist(), strict=True)
    }
    device = DeviceSpec(f"simulated-{number}", transport="offline")
    return LatencyTable(device, Protocol("test", "median", 1), "simulated", {}, rows)


TABLES = [table(number) for number in range(len(DEVICES))]
SAMPLE = SPACE.sample(200, rng=np.random.default_rng(1))
LIMITS = {
    f"latency_ms@{one.device.name}": float(
        np.quantile(one.estimate(SPACE, SAMPLE).ms, 0.2 + 0.1 * number)
    )
    for number, one in enumerate(TABLES)
}


def score(codes: np.ndarray) -> np.ndarray:
    """Depends on pairs of choices, so it is no sum over operators."""
    return op_sum(SPACE, codes, WEIGHTS) + 0.1 * (codes[:, 1:] * codes[:, :-1]).sum(axis=1)


def search(**changes: object) -> hwnas.FoundPerDevice:
    given = {"score": score, "limits": LIMITS, "tables": TABLES, "budget": BUDGET} | changes
    found = hwnas.search(SPACE, per_device=True, **given)
    assert isinstance(found, hwnas.FoundPerDevice)
    return found


def test_winners_are_the_best_of_all_archs() -> None:
    every = build(Config(), SearcherContext(SPACE, 0)).ask(SPACE.size())
    scores, found = score(every), search(budget=1000)
    assert tuple(found.winners) == DEVICES
    best = {
        one.device.name: scores[
            one.estimate(SPACE, every).ms <= LIMITS[f"latency_ms@{one.device.name}"]
        ].max()
        for one in TABLES
    }
    lost = [(best[name] - found.winners[name].score) / scores.std() for name in DEVICES]
    assert sum(one < 1e-9 for one in lost) >= len(DEVICES) / 2
    assert min(lost) > -1e-9 and np.mean(lost) < 0.05
    assert found.n_scored < SPACE.size() / 4


def test_every_winner_meets_its_limits_and_is_priced_on_every_device() -> None:
    found = search(limits=LIMITS | {"macs": 300_000})
    for one in TABLES:
        name = one.device.name
        winner = found.winners[name]
        assert winner.latency_ms[name] <= LIMITS[f"latency_ms@{name}"]
        assert winner.costs["macs"] <= 300_000
        assert set(found.limits[name]) == {f"latency_ms@{name}", "macs"}
        archs = [other.arch for other in found.winners.values()]
        priced = [other.latency_ms[name] for other in found.winners.values()]
        assert priced == pytest.approx(one.estimate(SPACE, archs).ms.tolist())
    told = found.to_dict()
    assert set(told) == {"winners", "limits", "groups", "skipped", "n_scored"}
    assert all(name in str(found) for name in DEVICES)


def test_no_arch_is_scored_twice() -> None:
    seen: Counter[bytes] = Counter()

    def counted(codes: np.ndarray) -> np.ndarray:
        seen.update(row.tobytes() for row in codes)
        return score(codes)

    found = search(score=counted)
    n_scale = 256  # uniform archs, which set the scale of rewards, are predicted on their own
    assert found.n_scored <= len(seen) <= found.n_scored + n_scale
    assert sum(seen.values()) <= found.n_scored + n_scale
    assert found.n_scored <= MOST_BUDGETS * BUDGET + len(DEVICES)
    assert search(tables=TABLES[:1], limits={}).n_scored <= BUDGET + 1


def test_a_missing_table_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    found = search(tables=[TABLES[0], tmp_path / "missing.json", TABLES[1], damaged])
    assert tuple(found.winners) == DEVICES[:2]
    files = {str(tmp_path / "missing.json"), str(damaged)}
    assert set(found.skipped) == files | {*DEVICES[2:]}
    assert all(f"{name} is skipped" in caplog.text for name in found.skipped)


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs latency tables[\s\S]*none"):
        search(tables=[])
    with pytest.raises(UserError, match=r"needs latency tables[\s\S]*missing\.json"):
        search(tables=[tmp_path / "missing.json"])
    with pytest.raises(UserError, match="two latency tables of simulated-0"):
        search(tables=[TABLES[0], TABLES[0]])
    with pytest.raises(UserError, match="no limit on device 'simulated-2'"):
        search(limits=dict(list(LIMITS.items())[:2]))
    with pytest.raises(UserError, match="no arch of the space meets the constraints"):
        search(limits=LIMITS | {"latency_ms@simulated-3": 1e-6})
    with pytest.raises(UserError, match=r"a searcher of its own[\s\S]*searcher='evolution'"):
        search(searcher="evolution")


def test_a_stored_search_resumes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.controller.per_device.SAVE_EVERY_S", 0.0)
    calls = 0

    def killed(codes: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise KeyboardInterrupt
        return score(codes)

    with pytest.raises(KeyboardInterrupt):
        search(score=killed, folder=tmp_path)
    assert (tmp_path / "state.json").exists()
    resumed, whole = search(folder=tmp_path), search()
    assert resumed.winners == whole.winners and resumed.n_scored == whole.n_scored
    with pytest.raises(UserError, match="another search"):
        search(folder=tmp_path, seed=1)


# --- prices ---------------------------------------------------------------------------------------


def test_a_table_without_a_correction_can_be_searched_but_has_no_percentiles() -> None:
    given = {"score": score, "tables": TABLES[:1], "budget": 200}
    found = hwnas.search(SPACE, limits=dict([*LIMITS.items()][:1]), **given)
    assert "latency_ms@simulated-0" in found.winner.costs
    with pytest.raises(UserError, match=r"latency_p95_ms@simulated-0, but there is no estimate"):
        hwnas.search(SPACE, limits={"latency_p95_ms@simulated-0": 50.0}, **given)


def test_latencies_of_all_tables_are_those_of_each() -> None:
    estimators = {one.device.name: TableEstimator(one, SPACE) for one in TABLES[:3]}
    spilling = estimators[DEVICES[1]]
    formula = Formula(
        {"scale": 1.1, "spill_scale": 2.0, "overhead_ms": 0.3},
        Spill(params_cached=20_000, params_per_ms=1e4),
    )
    spilling._formula = formula
    spilling.prices = formula.prices(TABLES[1].rows, OPS)
    together = LatenciesTogether([*estimators.values()])(SAMPLE)
    alone = np.stack([one.latency_ms(SAMPLE) for one in estimators.values()], axis=1)
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    costs = price(cost_metrics(SPACE, estimators), SAMPLE)
    for column, name in enumerate(estimators):
        np.testing.assert_allclose(costs[f"latency_ms@{name}"], alone[:, column], rtol=1e-12)


# --- groups ---------------------------------------------------------------------------------------


def candidate(code: int, score: float, std: float = 0.0, **ms: float) -> Candidate:
    costs = {f"latency_ms@{device}": value for device, value in ms.items()}
    return Candidate(Arch("s", (code,)), score, score, std, None, True, costs)


TEN = {device: {f"latency_ms@{device}": 10.0} for device in "abc"}


@pytest.mark.parametrize(
    ("score", "ms", "tolerance", "together"),
    [
        (0.96, 10.0, 0.0, True),  # noise is 0.05
        (0.94, 10.0, 0.0, False),
        (0.94, 10.0, 0.02, True),
        (2.0, 10.1, 1.0, False),
    ],
)
def test_a_network_serves_a_device_within_limits_and_noise(
    score: float, ms: float, tolerance: float, together: bool
) -> None:
    winners = {"a": candidate(0, score, 0.04, a=9, b=ms), "b": candidate(1, 1.0, 0.03, a=11, b=9)}
    assert (len(device_groups(winners, TEN, tolerance=tolerance)) == 1) == together


def test_groups_are_few_and_every_device_is_in_one() -> None:
    winners = {
        "a": candidate(0, 1.00, 0.05, a=9, b=9, c=11),
        "b": candidate(1, 1.02, 0.05, a=11, b=9, c=11),
        "c": candidate(2, 0.90, 0.01, a=5, b=5, c=9),
    }
    groups = device_groups(winners, TEN)
    assert [group.devices for group in groups] == [("a", "b"), ("c",)]
    assert groups[0].summary() == {"devices": ["a", "b"], "arch": winners["a"].arch.key}
    same = {"a": winners["a"], "b": winners["a"]}
    assert [group.devices for group in device_groups(same, TEN)] == [("a", "b")]


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_below_zero_is_refused(tolerance: float) -> None:
    with pytest.raises(UserError, match="not a tolerance of scores"):
        search().groups(tolerance)


def test_a_tolerance_makes_groups_larger() -> None:
    found = search()
    spread = float(np.std(score(SAMPLE)))
    sizes = [len(found.groups(share * spread)) for share in (0, 0.5, 100)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] <= len(DEVICES)
