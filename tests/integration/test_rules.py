"""Rules that a run rests on, each shown by numbers that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas.latency.samples import Timing
from hwnas.latency.validation import refit_correction
from hwnas.measure.profile import Timings
from hwnas.pipeline import bundle, evaluators
from hwnas.pipeline.stages import search
from hwnas.pipeline.winners import result_on
from hwnas.training import evaluate
from tests.probes import Bench, timed_verify

SMALL = {"devices": ["local"], "search.closing.max_rounds": 0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("pace", [0.9, 1.2])
def test_re_timed_archs_are_compared_at_the_speed_of_the_table(
    bench: Bench, pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(it: Any, device: str, models: Any, table: Any, folder: Any) -> Timings:
        timing = Timing(2.0, 2.0, 2.0, 3.0, 10)
        return Timings(dict.fromkeys(models, timing), {}, 0.0, pace, {})

    monkeypatch.setattr(search, "time_beside_table", timed)
    it = bench.look(bench.config(SMALL))
    codes = it.space.codes([it.space.smallest(), it.space.largest()])
    found = search._measure(it, it.files.main_search, "local", codes, 0)
    np.testing.assert_allclose(found["latency_ms"], [2 / pace] * 2)
    np.testing.assert_allclose(found["latency_p95_ms"], [3 / pace] * 2)


@pytest.mark.parametrize(("pace", "state"), [(1.0, False), (1.06, True), (1.5, None)])
def test_a_verified_winner_is_judged_at_the_speed_of_the_table(
    bench: Bench, pace: float, state: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 6 % longer than estimated: too much, unless the whole machine does."""
    config = bench.config(
        SMALL | {"verify": {"max_forecast_error": 0.03, "repeat_noise_factor": 0}}
    )
    results = timed_verify(bench, config, monkeypatch, slower=1.06, pace=pace)
    (check,) = [check for check in results.checks if check.name == "estimate on local"]
    assert check.passed is state
    row = results.networks[0]
    assert row.measured_ms == pytest.approx(1.06 * row.forecast_ms / pace)


@pytest.mark.parametrize(("share", "is_met"), [(1.0, True), (0.99, False)])
def test_a_manifest_tells_limits_on_macs_and_whether_they_are_met(
    bench: Bench, share: float, is_met: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = bench.look(bench.config(SMALL))
    arch = it.files.read_roles()["winner"]
    winner = bundle.Winner(arch, 1.0, (1.0, 1.0), {"latency_ms": True}, 10, {}, {}, {})
    macs = float(evaluators_cost(it, arch))
    result = result_on(it, "local")
    limits = {**result.limits, "macs": share * macs}
    monkeypatch.setattr(bundle, "result_on", lambda *_: replace(result, limits=limits))
    found = {fact.metric: fact for fact in bundle._constraints(it, "local", winner)}
    assert (found["macs"].max, found["macs"].met) == (share * macs, is_met)
    assert found["latency_ms"].met is True
    assert found["latency_p95_ms"].met is None  # it was not judged


def evaluators_cost(it: Any, arch: Any) -> float:
    from hwnas.spaces.cost import cost

    return float(cost(it.space, it.space.codes([arch]), "macs")[0])


def test_halves_of_the_validation_images_share_none_and_miss_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def losses(network: Any, images: Any) -> Any:
        found = real(network, images)
        seen.append(found)
        return found

    real = evaluate.losses
    monkeypatch.setattr(evaluate, "losses", losses)
    it = bench.look(bench.config(SMALL | {"restrict": {"resolution": [12]}}))
    arch = it.space.smallest()
    pair = np.array(evaluators.half_scores(it, [arch]))[:, 0]
    (each,) = seen
    assert len(each) == it.data.info.n_images["val"]
    np.testing.assert_allclose(pair, [-np.log(each[half::2].mean()) for half in (0, 1)])
    whole = evaluators.evaluator(it).fresh(arch).val_loss
    assert each.mean() == pytest.approx(whole)


def test_a_mutation_redraws_at_least_one_choice(bench: Bench) -> None:
    """Without chance (probability 0) every row has one choice redrawn; half of them differ."""
    space = bench.look(bench.config(SMALL)).space
    before = np.repeat(space.codes([space.largest()]), 400, axis=0)
    after = space.mutate(before, np.random.default_rng(0), 0.0)
    n_changed = (after != before).sum(axis=1)
    assert 0.2 < (n_changed > 0).mean() < 0.9
    deepest = space.view(space.largest())
    for row in after[n_changed > 1]:  # a smaller depth leaves choices out
        view = space.view(space.arch(row))
        assert any(view[name] != deepest[name] for name in deepest if name.endswith("depth"))


@pytest.mark.parametrize("interval", [0.0, 0.5])
def test_a_refit_never_narrows_the_interval(bench: Bench, interval: float) -> None:
    """By measurements that are the estimates: the best that could happen."""
    it = bench.look(bench.config(SMALL))
    table, space = it.files.read_table("local"), it.space
    known = replace(table.corrections[space.id], interval_fraction=interval)
    codes = space.sample(40, rng=np.random.default_rng(0))
    exact = it.estimator("local").latency_ms(codes)
    again = refit_correction(known, table.rows, space, codes, exact)
    assert again.interval_fraction >= interval
    assert (again.interval_fraction == interval) == (interval == 0.5)
    assert again.n_fit == len(known.validation.nets) + 40
