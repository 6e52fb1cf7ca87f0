"""What a winner is compared with: a random subnet, the published network on smaller images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from hwnas.core.rng import rng
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import finetune
from hwnas.pipeline.stages.finetune import SAME_LATENCY, on_smaller_images, random_subnet
from hwnas.spaces import timm
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


def test_it_is_the_first_that_is_as_fast() -> None:
    winner = SPACE.arch(middle())
    drawn = map(SPACE.arch, SPACE.sample(finetune.N_DRAWN, rng=rng(0, "finetune/random-subnet")))
    fitting = (one for one in drawn if SAME_LATENCY <= macs(one) / macs(winner) <= 1)
    assert random_subnet(project(SPACE), winner) == next(one for one in fitting if one != winner)


def test_where_none_is_as_fast_the_nearest_serves() -> None:
    largest = SPACE.largest()
    found = random_subnet(project(SPACE), largest)
    assert found != largest
    assert macs(found) / macs(largest) < SAME_LATENCY


def test_where_all_are_slower_the_fastest_serves() -> None:
    smallest = SPACE.smallest()
    drawn = SPACE.sample(finetune.N_DRAWN, rng=rng(0, "finetune/random-subnet"))
    others = [SPACE.arch(row) for row in drawn if SPACE.arch(row) != smallest]
    assert random_subnet(project(SPACE), smallest) == min(others, key=macs)


def test_it_depends_on_the_seed_alone() -> None:
    winner = SPACE.arch(middle())
    assert random_subnet(project(SPACE, 1), winner) == random_subnet(project(SPACE, 1), winner)


def middle() -> list[int]:
    return [codes[len(codes) // 2] for codes in SPACE.allowed]


PUBLISHED = timm.build(
    timm.Config(model="mobilenetv2_035", resolutions=(32, 40, 48, 64)), num_classes=10
)


@pytest.mark.parametrize(
    ("share", "px"), [(1.0, 48), (0.68, 48), (0.67, 40), (0.58, 32), (0.1, 32)]
)
def test_the_published_network_is_run_on_images_as_large_as_the_limit_allows(
    share: float, px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = PUBLISHED.largest()
    limit = share * float(cost(PUBLISHED, PUBLISHED.codes([largest]), "macs")[0])
    found = SimpleNamespace(limits={"macs": limit})
    monkeypatch.setattr(finetune, "result_on", lambda project, device: found)
    prices = {"macs": lambda codes: cost(PUBLISHED, codes, "macs")}
    monkeypatch.setattr(finetune, "prices", lambda project: prices)
    arch = on_smaller_images(project(PUBLISHED))
    assert PUBLISHED.view(arch) == {**PUBLISHED.view(largest), "resolution": px}
