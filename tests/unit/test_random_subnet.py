"""The random subnet of equal latency that a winner is compared with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.finetune import SAME_LATENCY, random_subnet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace

SPACE = build(Config(resolutions=(16, 24)), num_classes=10, in_channels=1)


def project(space: SearchSpace, seed: int = 0) -> Project:
    estimator = SimpleNamespace(latency_ms=lambda codes: cost(space, codes, "macs") / 1e6)
    return cast(
        Project,
        SimpleNamespace(
            space=space,
            devices={"board": None},
            first_device="board",
            config=SimpleNamespace(seed=seed),
            estimator=lambda name: estimator,
        ),
    )


def macs(arch: Arch) -> float:
    return float(cost(SPACE, SPACE.codes([arch]), "macs")[0])


def test_it_is_as_fast_as_the_winner_and_another_arch() -> None:
    winner = SPACE.arch(middle())
    drawn = {random_subnet(project(SPACE, seed), winner) for seed in range(6)}
    assert winner not in drawn
    assert len(drawn) > 3  # drawn blindly, not the best by any measure
    for arch in drawn:
        assert SAME_LATENCY <= macs(arch) / macs(winner) <= 1


def test_where_none_is_as_fast_the_nearest_serves() -> None:
    largest = SPACE.largest()
    found = random_subnet(project(SPACE), largest)
    assert found != largest
    assert macs(found) / macs(largest) < SAME_LATENCY


def test_it_depends_on_the_seed_alone() -> None:
    winner = SPACE.arch(middle())
    assert random_subnet(project(SPACE, 1), winner) == random_subnet(project(SPACE, 1), winner)


def middle() -> list[int]:
    return [codes[len(codes) // 2] for codes in SPACE.allowed]
