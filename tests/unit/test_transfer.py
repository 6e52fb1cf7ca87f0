"""`table transfer` with a fake device: which networks are timed, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.stats import Z90
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.samples import Timing
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable, Protocol
from hwnas.latency.transfer import DeviceEstimate
from hwnas.measure import transfer as transferring
from hwnas.measure.profile import NetworkTimings
from hwnas.measure.transfer import networks_to_time, transfer_table
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.space import Codes, SearchSpace

NEW = DeviceSpec("simulated-new")


def table(space: SearchSpace, name: str, prices: Sequence[float]) -> LatencyTable:
    rows = {
        op: Timing(ms, ms, ms, ms, 1)
        for op, ms in zip(enumerate_ops(space), map(float, prices), strict=True)
    }
    device = DeviceSpec(f"simulated-{name}")
    return LatencyTable(device, Protocol("test", "exact", 1), "simulated", {}, rows)


@pytest.fixture
def known(tiny_space: SearchSpace) -> list[LatencyTable]:
    ops = enumerate_ops(tiny_space)
    macs = np.array([0.001 + 1e-6 * op_macs(op) for op in ops])
    flat = np.array([0.02 + 1e-7 * op_macs(op) for op in ops])
    return [table(tiny_space, "macs", macs), table(tiny_space, "flat", flat)]


class Device:
    """Times networks by a hidden table; remembers which it was asked."""

    def __init__(self, space: SearchSpace, prices: np.ndarray) -> None:
        self.space, self.prices, self.asked = space, prices, []

    def time_networks(self, space: SearchSpace, nets: Codes, *_: Any, **__: Any) -> NetworkTimings:
        self.asked.append(nets)
        truth = op_counts(space, nets) @ self.prices
        timings = tuple(Timing(ms, ms, ms, 1.1 * ms, 9) for ms in map(float, truth))
        return NetworkTimings(timings, (truth * 1.01, truth), {"cpu": "fake"})


@pytest.fixture
def device(
    tiny_space: SearchSpace, known: list[LatencyTable], monkeypatch: pytest.MonkeyPatch
) -> Device:
    rows = [[t.rows[op].median_ms for op in enumerate_ops(tiny_space)] for t in known]
    device = Device(tiny_space, np.array([2.0, 1.0]) @ np.array(rows))
    monkeypatch.setattr(transferring, "time_networks", device.time_networks)
    return device


def test_a_mixture_of_known_devices_is_found(
    tiny_space: SearchSpace, known: list[LatencyTable], device: Device, tmp_path: Path
):
    with pytest.raises(UserError, match="simulated"):  # made-up rows keep their name
        transfer_table(known, tiny_space, NEW, tmp_path, ProfileConfig())
    made = transfer_table(known, tiny_space, DeviceSpec("new"), tmp_path, ProfileConfig())
    assert made.source == "transferred" and set(made.rows) == set(enumerate_ops(tiny_space))
    assert made.facts["transferred_from"] == "simulated-flat, simulated-macs"
    assert made.facts["n_networks_timed"] == 10 == len(device.asked[-1])
    assert "not timed" in made.warnings[0]
    fresh = tiny_space.sample(300, rng=np.random.default_rng(5))
    truth = op_counts(tiny_space, fresh) @ device.prices
    estimator = TableEstimator(made, tiny_space)
    errors = np.abs(estimator.latency_ms(fresh) / truth - 1)
    assert errors.mean() < 0.03
    low, high = estimator.interval_ms(fresh).T
    assert ((low <= truth) & (truth <= high)).mean() > 0.9
    assert estimator.latency_p95_ms(fresh) == pytest.approx(1.1 * estimator.latency_ms(fresh))
    validation = made.corrections[tiny_space.id].validation
    assert validation.forecast.mape < validation.raw_sum.mape
    made.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == made


def test_the_interval_is_that_of_the_candidates(
    tiny_space: SearchSpace, known: list[LatencyTable], device: Device, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """The root mean square of their deviations, half of which are 10 % and half 30 % here."""
    real = transferring.fit_device

    def fitted(*args: Any) -> DeviceEstimate:
        found = real(*args)
        shares = np.where(np.arange(len(found.latency_ms)) % 2, 0.1, 0.3)
        return replace(found, std_ms=shares * found.latency_ms)

    monkeypatch.setattr(transferring, "fit_device", fitted)
    made = transfer_table(known, tiny_space, DeviceSpec("new"), tmp_path, ProfileConfig())
    found = made.corrections[tiny_space.id].interval_fraction
    assert found == pytest.approx(Z90 * np.sqrt((0.01 + 0.09) / 2), rel=1e-3)


def test_the_choice_knows_nothing_of_the_new_device(
    tiny_space: SearchSpace, known: list[LatencyTable], device: Device, tmp_path: Path
):
    transfer_table(known, tiny_space, DeviceSpec("new"), tmp_path, ProfileConfig(), n=7)
    device.prices = device.prices[::-1] * 50
    transfer_table(known, tiny_space, DeviceSpec("other"), tmp_path, ProfileConfig(), n=7)
    planned = networks_to_time(known, tiny_space, n=7)
    assert all((asked == planned).all() for asked in device.asked)
    assert len(np.unique(planned, axis=0)) == 7 and tiny_space.validate(planned).all()


def test_known_tables_may_be_of_another_number_of_classes(
    tiny_space: SearchSpace, known: list[LatencyTable]
):
    other = replace(tiny_space, macro=replace(tiny_space.macro, num_classes=77))
    planned = networks_to_time(known, other, n=7)
    assert len(planned) == 7 and other.validate(planned).all()


def test_one_known_device_is_enough(
    tiny_space: SearchSpace, known: list[LatencyTable], device: Device, tmp_path: Path
):
    made = transfer_table(known[:1], tiny_space, DeviceSpec("new"), tmp_path, ProfileConfig())
    validation = made.corrections[tiny_space.id].validation
    assert validation.forecast.mape < validation.raw_sum.mape


def test_what_cannot_be_transferred_is_refused_before_anything_is_timed(
    tiny_space: SearchSpace, known: list[LatencyTable], device: Device, tmp_path: Path
):
    few = dict(list(known[1].rows.items())[4:])
    incomplete = LatencyTable(known[1].device, known[1].protocol, "simulated", {}, few)
    for tables, n, word in (
        ([known[0], incomplete], 10, "4 operators missing"),
        ([], 10, "no table"),
        (known, 4, "too few networks"),
    ):
        with pytest.raises(UserError, match=word):
            transfer_table(tables, tiny_space, NEW, tmp_path, ProfileConfig(), n=n)
    assert not device.asked


def test_the_command_line_shows_what_it_would_time(tmp_path: Path):
    command = [sys.executable, "-m", "hwnas", "table", "transfer", "local"]
    command += ["--from", "pixel1-proxyless", "--space", "proxyless", "--n", "6"]
    command += ["--out", str(tmp_path / "t.json"), "--dry-run", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["table"]) == 6
    assert 3 < json.loads(done.stdout)["left_s"] < 900
    assert "about " in done.stderr and " in all on this machine" in done.stderr
    assert not list(tmp_path.iterdir())
