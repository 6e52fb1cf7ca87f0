"""The measured speed of passes through networks."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from hwnas.nets.supernet import Supernet
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.training import speed


def test_a_short_pass_takes_its_share_of_a_busy_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that had the processor for itself says nothing of those that will not."""
    space = build(Config(resolutions=(8,)), num_classes=2)
    wall, used, net = count(), count(), Supernet(space, seed=0)

    def seconds(busy: float) -> float:
        clock = SimpleNamespace(
            perf_counter=lambda: 0.010 * next(wall),
            process_time=lambda: 0.004 * torch.get_num_threads() * next(used),
        )
        monkeypatch.setattr(speed, "time", clock)
        monkeypatch.setattr(speed, "busyness", lambda: busy)
        return speed.measure_speed(net, torch.device("cpu")).train(1e6, 8)

    assert seconds(5.0) == pytest.approx(2 * seconds(1.0)), "20 ms of 4 ms times 5, else 10 ms"


def test_networks_of_texts_have_a_speed() -> None:
    net = Supernet(build_space("darts_ptb", {"width": 8}, num_classes=20), seed=0)
    found = speed.measure_speed(net, torch.device("cpu"), (2, 6))
    (macs,) = cost(net.space, net.space.codes([net.space.largest()]), "macs").astype(float)
    assert 30 > found.train(macs, 8) > 0 and 10 > found.infer(macs, 8) > 0
    assert all(parameter.grad is None for parameter in net.parameters())
