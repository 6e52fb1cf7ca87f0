"""How long a timing session is estimated to take."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from hwnas.core import speed
from hwnas.latency import session_time
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.session_time import LAUNCH_S, LOAD_S, RUNTIME_SHARE, START_S, session_s


@pytest.mark.parametrize("busy", [1.0, 8.0])
def test_a_session_loads_models_and_takes_turns_within_the_budget(
    busy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_time, "busyness", lambda: busy)
    config = ProfileConfig(rounds=10, min_rounds=5, hot_samples=9, turn_budget_s=1e3)
    macs, started = np.full(20, 1e6), busy * (START_S + 25 * LOAD_S)

    def seconds(budget_s: float, **changes: float) -> float:
        changed = config.model_copy(update={"time_budget_s": budget_s, **changes})
        return session_s(macs, changed, n_more=5, per_mac_s=1e-9) - started

    run = 1e6 * 1e-9 * RUNTIME_SHARE + LAUNCH_S * busy
    a_round = 25 * 10 * run
    assert seconds(1e6) == pytest.approx(10 * a_round)
    assert seconds(7 * a_round) == pytest.approx(7 * a_round)
    assert seconds(0.0) == pytest.approx(5 * a_round), "min_rounds exceed the budget"
    assert seconds(1e6, turn_budget_s=0.0) == pytest.approx(a_round)
    unknown = session_s(macs, config, n_more=5) - started
    assert unknown == pytest.approx(
        10 * 250 * busy * (1e6 * session_time.PER_MAC_S * RUNTIME_SHARE + LAUNCH_S)
    )


def test_a_guess_without_torch_counts_with_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = count()  # a product takes a second
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(speed, "busyness", lambda: 6.0)
    guessed = speed.guessed_speed(10)
    assert guessed.train(1e6, 4) == pytest.approx(6 * (10 * speed.TRAIN_OP + speed.TRAIN_MAC * 4e6))
